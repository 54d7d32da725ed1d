//! Samples of each component -> RGB8.

/// Bits after the point of a factor.
const BITS: u32 = 16;

/// Half of the last bit, so that the shift rounds.
const HALF: i32 = 1 << (BITS - 1);

/// Grey as three equal channels.
pub(super) fn from_grey(grey: &[u8], output: &mut [u8]) {
    for (output, &grey) in output.as_chunks_mut().0.iter_mut().zip(grey) {
        *output = [grey; 3];
    }
}

/// Red, green and blue side by side.
pub(super) fn from_rgb([red, green, blue]: [&[u8]; 3], output: &mut [u8]) {
    let samples = red.iter().zip(green).zip(blue);
    for (output, ((&red, &green), &blue)) in output.as_chunks_mut().0.iter_mut().zip(samples) {
        *output = [red, green, blue];
    }
}

/// Luma and chroma to RGB as JFIF has it (ITU-T T.871, section 7), to the nearest integer:
///
/// ```text
/// red   = Y + 1.402 (Cr - 128)
/// green = Y - 0.344136 (Cb - 128) - 0.714136 (Cr - 128)
/// blue  = Y + 1.772 (Cb - 128)
/// ```
pub(super) fn from_ycbcr([luma, blue, red]: [&[u8]; 3], output: &mut [u8]) {
    let samples = luma.iter().zip(blue).zip(red);
    for (output, ((&luma, &blue), &red)) in output.as_chunks_mut().0.iter_mut().zip(samples) {
        let luma = (i32::from(luma) << BITS) + HALF;
        let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
        *output = [
            luma + 91_881 * red,
            luma - 22_554 * blue - 46_802 * red,
            luma + 116_130 * blue,
        ]
        .map(|sum| (sum >> BITS).clamp(0, 255) as u8);
    }
}
