//! SHA-256 (FIPS 180-4) of bytes, and its hexadecimal form.

use sha2::{Digest, Sha256};

/// The SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The SHA-256 of the first `at` bytes, and of all.
#[must_use]
pub fn sha256_part_and_whole(bytes: &[u8], at: usize) -> ([u8; 32], [u8; 32]) {
    let (part, rest) = bytes.split_at(at.min(bytes.len()));
    let hasher = Sha256::new_with_prefix(part);
    let whole = hasher.clone().chain_update(rest);
    (hasher.finalize().into(), whole.finalize().into())
}

/// `bytes` as lowercase hexadecimal, two digits a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_and_whole_are_those_of_each() {
        for at in [0, 1, 3, 9] {
            let part = &b"abc"[..at.min(3)];
            assert_eq!(
                sha256_part_and_whole(b"abc", at),
                (sha256(part), sha256(b"abc"))
            );
        }
    }

    #[test]
    fn matches_the_standards_example() {
        assert_eq!(
            hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
