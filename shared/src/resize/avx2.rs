//! The two passes for x86-64 with AVX2: bit for bit what `plain` computes.
#![allow(
    unsafe_code,
    reason = "calls of functions compiled for AVX2, and loads"
)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_packs_epi32, _mm_packus_epi16,
    _mm_set1_epi32, _mm_srai_epi32, _mm256_add_epi32, _mm256_broadcastsi128_si256,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_mullo_epi32, _mm256_set_epi8,
    _mm256_setzero_si256, _mm256_shuffle_epi8,
};

use super::{HALF, PRECISION_BITS, Passes, Taps, plain};

/// The passes, where the processor has AVX2.
pub(super) fn passes() -> Option<Passes> {
    is_x86_feature_detected!("avx2").then_some(Passes {
        // SAFETY: the processor has AVX2.
        horizontal: |row, taps, output| unsafe { horizontal(row, taps, output) },
        // SAFETY: the processor has AVX2.
        vertical: |rows, weights, output| unsafe { vertical(rows, weights, output) },
    })
}

/// Four pixels at a time, two beside each other: in each half of a register the three channels of a pixel and a zero, as
/// 32 bits each.
#[target_feature(enable = "avx2")]
fn horizontal(row: &[u8], taps: &Taps, output: &mut [u8]) {
    // Pixels 0 and 1, 2 and 3 of sixteen bytes.
    #[rustfmt::skip]
    let pixels_01 = _mm256_set_epi8(
        -1, -1, -1, -1, -1, -1, -1, 5, -1, -1, -1, 4, -1, -1, -1, 3,
        -1, -1, -1, -1, -1, -1, -1, 2, -1, -1, -1, 1, -1, -1, -1, 0,
    );
    #[rustfmt::skip]
    let pixels_23 = _mm256_set_epi8(
        -1, -1, -1, -1, -1, -1, -1, 11, -1, -1, -1, 10, -1, -1, -1, 9,
        -1, -1, -1, -1, -1, -1, -1, 8, -1, -1, -1, 7, -1, -1, -1, 6,
    );
    // Their weights, in every channel.
    #[rustfmt::skip]
    let weights_01 = _mm256_set_epi8(
        7, 6, 5, 4, 7, 6, 5, 4, 7, 6, 5, 4, 7, 6, 5, 4,
        3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0,
    );
    #[rustfmt::skip]
    let weights_23 = _mm256_set_epi8(
        15, 14, 13, 12, 15, 14, 13, 12, 15, 14, 13, 12, 15, 14, 13, 12,
        11, 10, 9, 8, 11, 10, 9, 8, 11, 10, 9, 8, 11, 10, 9, 8,
    );
    for (pixel, (start, quads)) in output.as_chunks_mut::<3>().0.iter_mut().zip(taps.quads()) {
        let mut sums = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (index, weights) in quads.iter().enumerate() {
            let bytes = load(&row[start * 3 + index * 12..][..16]);
            let bytes = _mm256_broadcastsi128_si256(bytes);
            // SAFETY: four i32 are 16 bytes.
            let weights = unsafe { _mm_loadu_si128(weights.as_ptr().cast()) };
            let weights = _mm256_broadcastsi128_si256(weights);
            let products = (
                _mm256_mullo_epi32(
                    _mm256_shuffle_epi8(bytes, pixels_01),
                    _mm256_shuffle_epi8(weights, weights_01),
                ),
                _mm256_mullo_epi32(
                    _mm256_shuffle_epi8(bytes, pixels_23),
                    _mm256_shuffle_epi8(weights, weights_23),
                ),
            );
            sums.0 = _mm256_add_epi32(sums.0, products.0);
            sums.1 = _mm256_add_epi32(sums.1, products.1);
        }
        let sums = _mm256_add_epi32(sums.0, sums.1);
        let sums = _mm_add_epi32(
            _mm256_castsi256_si128(sums),
            _mm256_extracti128_si256::<1>(sums),
        );
        let sums = _mm_add_epi32(sums, _mm_set1_epi32(HALF));
        let sums = _mm_srai_epi32::<{ PRECISION_BITS as i32 }>(sums);
        let sums = _mm_packs_epi32(sums, sums);
        let sums = _mm_packus_epi16(sums, sums);
        let [red, green, blue, _] = _mm_cvtsi128_si32(sums).to_le_bytes();
        *pixel = [red, green, blue];
    }
}

#[target_feature(enable = "avx2")]
fn load(bytes: &[u8]) -> __m128i {
    assert_eq!(bytes.len(), 16);
    // SAFETY: there are 16 bytes.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn vertical(rows: &[u8], weights: &[i32], output: &mut [u8]) {
    plain::vertical(rows, weights, output);
}
