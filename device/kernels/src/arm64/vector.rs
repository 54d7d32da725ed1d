//! What the kernels do with vectors: loads and stores at the ends of slices, and the way from sums to bytes.

use std::arch::aarch64::*;

/// Channels, or bytes, of one vector.
pub(super) const LANES: usize = 16;

/// What turns an unsigned byte into a signed one that is 128 less, and back.
pub(super) const FLIP: u8 = 0x80;

/// Bytes `at..at + 16` from `bytes` on, 128 less and signed.
///
/// # Safety
/// They are readable.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn load_signed(bytes: *const u8, at: usize) -> int8x16_t {
    // SAFETY: the caller vouches for the bytes.
    let bytes = unsafe { vld1q_u8(bytes.add(at)) };
    vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(FLIP)))
}

/// Writes the first `count` bytes of `vector`, at most all of them.
///
/// # Safety
/// `count` bytes from `to` on are writable.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store_first(to: *mut u8, vector: uint8x16_t, count: usize) {
    if count >= LANES {
        // SAFETY: the caller vouches for the bytes.
        unsafe { vst1q_u8(to, vector) };
    } else {
        let mut bytes = [0; LANES];
        // SAFETY: both have as many bytes, and do not overlap.
        unsafe {
            vst1q_u8(bytes.as_mut_ptr(), vector);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count);
        }
    }
}

/// The zero point of an output, in all lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn zero_point(zero_point: u8) -> int16x8_t {
    vdupq_n_s16(i16::from(zero_point))
}

/// `clamp(rne(f32(sum) * scale) + zero_point, 0, 255)`; no product may leave an i32.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn requantize(
    sums: [int32x4_t; 4],
    scales: [float32x4_t; 4],
    zero_point: int16x8_t,
) -> uint8x16_t {
    let scaled = |i: usize| vmulq_f32(vcvtq_f32_s32(sums[i]), scales[i]);
    to_bytes([scaled(0), scaled(1), scaled(2), scaled(3)], zero_point)
}

/// `clamp(rne(value) + zero_point, 0, 255)`; no value may leave an i32.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn to_bytes(values: [float32x4_t; 4], zero_point: int16x8_t) -> uint8x16_t {
    let rounded = |i: usize| vcvtnq_s32_f32(values[i]);
    // Saturation keeps what is out of range out of range: a zero point does not bring it back.
    let half = |i: usize| {
        let half = vqmovn_high_s32(vqmovn_s32(rounded(i)), rounded(i + 1));
        vqaddq_s16(half, zero_point)
    };
    vqmovun_high_s16(vqmovun_s16(half(0)), half(2))
}

/// The sum of each vector's lanes, side by side.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn lane_sums(vectors: [int32x4_t; 4]) -> int32x4_t {
    let [a, b, c, d] = vectors;
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}
