//! The two passes for 64-bit ARM, which always has NEON: bit for bit what `plain` computes.
#![allow(unsafe_code, reason = "loads")]

use std::arch::aarch64::{
    uint8x16_t, vaddq_s32, vcombine_s16, vdupq_n_s32, vget_lane_u32, vld1q_s32, vld1q_u8,
    vmlaq_laneq_s32, vqmovn_s32, vqmovun_s16, vqtbl1q_u8, vreinterpret_u32_u8,
    vreinterpretq_s32_u8, vshrq_n_s32,
};

use super::{HALF, PRECISION_BITS, Passes, Taps, plain};

/// The passes. Compilers make of the plain vertical one what could be written by hand.
pub(super) fn passes() -> Option<Passes> {
    Some(Passes {
        horizontal,
        vertical: plain::vertical,
    })
}

/// Where in sixteen bytes the channels of the first pixel are, as 32 bits each; from 16 on there are zeros.
const FIRST: [u8; 16] = [
    0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 255, 255, 255, 255,
];

/// The same for pixels 1, 2 and 3.
const fn places(pixel: u8) -> [u8; 16] {
    let mut places = FIRST;
    places[0] += 3 * pixel;
    places[4] += 3 * pixel;
    places[8] += 3 * pixel;
    places
}

/// Four pixels at a time: in a register the three channels of one and a zero, as 32 bits each.
fn horizontal(row: &[u8], taps: &Taps, output: &mut [u8]) {
    let places = const { [places(0), places(1), places(2), places(3)] };
    let places = places.map(|places| load(&places));
    for (pixel, (start, quads)) in output.as_chunks_mut::<3>().0.iter_mut().zip(taps.quads()) {
        // SAFETY: every 64-bit ARM processor has NEON.
        let mut sums = unsafe { [vdupq_n_s32(HALF), vdupq_n_s32(0)] };
        for (index, weights) in quads.iter().enumerate() {
            let bytes = load(&row[start * 3 + index * 12..][..16]);
            // SAFETY: every 64-bit ARM processor has NEON; four i32 are 16 bytes.
            unsafe {
                let weights = vld1q_s32(weights.as_ptr());
                let pixel = |index: usize| vreinterpretq_s32_u8(vqtbl1q_u8(bytes, places[index]));
                sums[0] = vmlaq_laneq_s32::<0>(sums[0], pixel(0), weights);
                sums[1] = vmlaq_laneq_s32::<1>(sums[1], pixel(1), weights);
                sums[0] = vmlaq_laneq_s32::<2>(sums[0], pixel(2), weights);
                sums[1] = vmlaq_laneq_s32::<3>(sums[1], pixel(3), weights);
            }
        }
        // SAFETY: every 64-bit ARM processor has NEON.
        let rounded = unsafe {
            let sums = vshrq_n_s32::<{ PRECISION_BITS as i32 }>(vaddq_s32(sums[0], sums[1]));
            let sums = vqmovn_s32(sums);
            vget_lane_u32::<0>(vreinterpret_u32_u8(vqmovun_s16(vcombine_s16(sums, sums))))
        };
        let [red, green, blue, _] = rounded.to_le_bytes();
        *pixel = [red, green, blue];
    }
}

fn load(bytes: &[u8]) -> uint8x16_t {
    assert_eq!(bytes.len(), 16);
    // SAFETY: there are 16 bytes, and every 64-bit ARM processor has NEON.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}
