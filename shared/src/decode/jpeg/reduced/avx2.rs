//! The reduced decoder compiled for x86-64 with AVX2 and BMI2: whole numbers only, so the same bits.
#![allow(unsafe_code, reason = "calls of a function compiled for AVX2 and BMI2")]

use super::{Header, Result, decode_plain};

/// Decodes, where the processor has AVX2 and BMI2.
pub(super) fn decode(header: &Header<'_>, scale: usize) -> Option<Result<Vec<u8>>> {
    if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("bmi2") {
        return None;
    }
    // SAFETY: the processor has AVX2 and BMI2.
    Some(unsafe { decode_here(header, scale) })
}

#[target_feature(enable = "avx2,bmi2")]
fn decode_here(header: &Header<'_>, scale: usize) -> Result<Vec<u8>> {
    decode_plain(header, scale)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn equals_plain_code() {
        for file in [
            &include_bytes!("../../../../tests/pictures/baseline.jpg")[..],
            include_bytes!("../../../../tests/pictures/restart.jpg"),
            include_bytes!("../../../../tests/pictures/grey.jpg"),
        ] {
            let mut file = file.to_vec();
            // Behind the header, so that damage gives other coefficients, or errors that must be the same.
            let start = file.len() - Header::read(&file).unwrap().coded.len();
            for round in 0..400 {
                for scale in [2, 4, 8] {
                    let header = Header::read(&file).unwrap();
                    let plain = decode_plain(&header, scale).map_err(|error| error.line());
                    if let Some(decoded) = decode(&header, scale) {
                        assert_eq!(decoded.map_err(|error| error.line()), plain);
                    }
                }
                let at = start + round * 7 % (file.len() - start);
                file[at] ^= 1 << (round % 8);
            }
        }
    }
}
