//! The inner loops, in assembly, each a function of one structure.
//!
//! NEON of ARMv7 converts to integers by cutting off; so a value is clamped to what matters and added to 1.5 x 2^23, which
//! rounds it to the nearest even integer, found in the lower half of the sum.

use std::arch::global_asm;

/// Four times each: the least and largest value before a zero point is added, and 1.5 x 2^23.
#[repr(C, align(16))]
pub(super) struct Limits([[f32; 4]; 3]);

pub(super) static LIMITS: Limits = Limits([[-512.0; 4], [512.0; 4], [12_582_912.0; 4]]);

/// Tiles of two rows times a panel of four channels, requantized.
#[repr(C)]
pub(super) struct Tiles {
    pub(super) rows: *const i8,
    pub(super) chunks: *const u32,
    pub(super) pairs: usize,
    pub(super) singles: usize,
    /// Where the half chunk of a tile starts, or 0.
    pub(super) half: usize,
    pub(super) weights: *const i8,
    pub(super) bias: *const i32,
    pub(super) scales: *const f32,
    pub(super) zero_point: i32,
    pub(super) output: *mut u8,
    /// Bytes from one row of the output to the next.
    pub(super) stride: usize,
    pub(super) tiles: usize,
    pub(super) tile_len: usize,
    pub(super) limits: *const Limits,
}

/// Taps of a depthwise convolution at one output position, in blocks of eight channels.
#[repr(C)]
pub(super) struct Taps {
    /// Where each tap finds the first channel.
    pub(super) taps: *const *const u8,
    pub(super) count: usize,
    /// Block x tap x channel.
    pub(super) weights: *const i16,
    pub(super) bias: *const i32,
    pub(super) scales: *const f32,
    pub(super) zero_point: i32,
    pub(super) output: *mut u8,
    pub(super) blocks: usize,
    /// First channel.
    pub(super) first: usize,
    pub(super) limits: *const Limits,
}

/// A residual add of blocks of eight bytes.
#[repr(C)]
pub(super) struct Sums {
    pub(super) a: *const u8,
    pub(super) b: *const u8,
    pub(super) output: *mut u8,
    pub(super) blocks: usize,
    pub(super) ra: f32,
    pub(super) rb: f32,
    pub(super) fix: f32,
    pub(super) limits: *const Limits,
}

unsafe extern "C" {
    /// # Safety
    /// The processor has NEON; everything that the structure points to is there.
    pub(super) fn graft_armv7_tiles(tiles: *const Tiles);
    /// # Safety
    /// As for [`graft_armv7_tiles`]; there is a block at least, and a tap.
    pub(super) fn graft_armv7_taps(taps: *const Taps);
    /// # Safety
    /// As for [`graft_armv7_tiles`]; there is a block at least.
    pub(super) fn graft_armv7_sums(sums: *const Sums);
}

/// The products of two rows and one channel of a pair of chunks.
macro_rules! pair {
    ($row0:literal, $row1:literal) => {
        concat!(
            "vld1.8 {{d8-d11}}, [r5]!\n",
            "vmull.s8 q6, d8, d0\n",
            "vmull.s8 q7, d8, d2\n",
            "vmlal.s8 q6, d9, d1\n",
            "vmlal.s8 q7, d9, d3\n",
            "vmlal.s8 q6, d10, d4\n",
            "vmlal.s8 q7, d10, d6\n",
            "vmlal.s8 q6, d11, d5\n",
            "vmlal.s8 q7, d11, d7\n",
            "vpadal.s16 ",
            $row0,
            ", q6\n",
            "vpadal.s16 ",
            $row1,
            ", q7\n",
        )
    };
}

/// The products of two rows and two channels of a single chunk.
macro_rules! single {
    ($row0:literal, $row1:literal, $next0:literal, $next1:literal) => {
        concat!(
            "vld1.8 {{d8-d11}}, [r5]!\n",
            "vmull.s8 q6, d8, d0\n",
            "vmull.s8 q7, d8, d2\n",
            "vmull.s8 q2, d10, d0\n",
            "vmull.s8 q3, d10, d2\n",
            "vmlal.s8 q6, d9, d1\n",
            "vmlal.s8 q7, d9, d3\n",
            "vmlal.s8 q2, d11, d1\n",
            "vmlal.s8 q3, d11, d3\n",
            "vpadal.s16 ",
            $row0,
            ", q6\n",
            "vpadal.s16 ",
            $row1,
            ", q7\n",
            "vpadal.s16 ",
            $next0,
            ", q2\n",
            "vpadal.s16 ",
            $next1,
            ", q3\n",
        )
    };
}

/// The products of two rows and one channel of half a chunk.
macro_rules! half {
    ($weights:literal, $row0:literal, $row1:literal) => {
        concat!(
            "vmull.s8 q6, ",
            $weights,
            ", d0\n",
            "vmull.s8 q7, ",
            $weights,
            ", d2\n",
            "vpadal.s16 ",
            $row0,
            ", q6\n",
            "vpadal.s16 ",
            $row1,
            ", q7\n",
        )
    };
}

global_asm!(
    ".syntax unified",
    ".arm",
    ".fpu neon-vfpv4",
    // Sums of the first row in q8 to q11, of the second in q12 to q15, a register for each channel.
    ".global graft_armv7_tiles",
    ".type graft_armv7_tiles, %function",
    ".p2align 4",
    "graft_armv7_tiles:",
    "push {{r4-r11, lr}}",
    "vpush {{d8-d15}}",
    "ldr r1, [r0]",
    "ldr r9, [r0, #36]",
    "ldr r10, [r0, #40]",
    "ldr r11, [r0, #44]",
    "ldr r12, [r0, #48]",
    "1:",
    "ldr r2, [r0, #4]",
    "ldr r3, [r0, #8]",
    "ldr r4, [r0, #12]",
    "ldr r5, [r0, #20]",
    "vmov.i32 q8, #0",
    "vmov.i32 q9, #0",
    "vmov.i32 q10, #0",
    "vmov.i32 q11, #0",
    "vmov.i32 q12, #0",
    "vmov.i32 q13, #0",
    "vmov.i32 q14, #0",
    "vmov.i32 q15, #0",
    "cmp r3, #0",
    "beq 3f",
    "2:",
    "ldr r6, [r2], #4",
    "add r6, r1, r6, lsl #5",
    "vld1.8 {{d0-d3}}, [r6]!",
    "vld1.8 {{d4-d7}}, [r6]",
    pair!("q8", "q12"),
    pair!("q9", "q13"),
    pair!("q10", "q14"),
    pair!("q11", "q15"),
    "subs r3, r3, #1",
    "bne 2b",
    "3:",
    "cmp r4, #0",
    "beq 5f",
    "4:",
    "ldr r6, [r2], #4",
    "add r6, r1, r6, lsl #5",
    "vld1.8 {{d0-d3}}, [r6]",
    single!("q8", "q12", "q9", "q13"),
    single!("q10", "q14", "q11", "q15"),
    "subs r4, r4, #1",
    "bne 4b",
    "5:",
    "ldr r7, [r0, #16]",
    "cmp r7, #0",
    "beq 6f",
    "add r6, r1, r7",
    "vld1.8 {{d0-d3}}, [r6]",
    "vld1.8 {{d8-d11}}, [r5]",
    half!("d8", "q8", "q12"),
    half!("d9", "q9", "q13"),
    half!("d10", "q10", "q14"),
    half!("d11", "q11", "q15"),
    "6:",
    "ldr r6, [r0, #24]",
    "ldr r7, [r0, #28]",
    "ldr r8, [r0, #52]",
    "vpadd.i32 d16, d16, d17",
    "vpadd.i32 d18, d18, d19",
    "vpadd.i32 d20, d20, d21",
    "vpadd.i32 d22, d22, d23",
    "vpadd.i32 d24, d24, d25",
    "vpadd.i32 d26, d26, d27",
    "vpadd.i32 d28, d28, d29",
    "vpadd.i32 d30, d30, d31",
    "vld1.32 {{d4-d5}}, [r6]",
    "vld1.32 {{d6-d7}}, [r7]",
    "vpadd.i32 d0, d16, d18",
    "vpadd.i32 d1, d20, d22",
    "vpadd.i32 d2, d24, d26",
    "vpadd.i32 d3, d28, d30",
    "vld1.32 {{d8-d11}}, [r8]!",
    "vld1.32 {{d12-d13}}, [r8]",
    "vadd.i32 q0, q0, q2",
    "vadd.i32 q1, q1, q2",
    "ldr r6, [r0, #32]",
    "vcvt.f32.s32 q0, q0",
    "vcvt.f32.s32 q1, q1",
    "vdup.16 q7, r6",
    "vmul.f32 q0, q0, q3",
    "vmul.f32 q1, q1, q3",
    "add r1, r1, r12",
    "vmax.f32 q0, q0, q4",
    "vmax.f32 q1, q1, q4",
    "vmin.f32 q0, q0, q5",
    "vmin.f32 q1, q1, q5",
    "vadd.f32 q0, q0, q6",
    "vadd.f32 q1, q1, q6",
    "vmovn.i32 d0, q0",
    "vmovn.i32 d1, q1",
    "vqadd.s16 q0, q0, q7",
    "vqmovun.s16 d0, q0",
    "subs r11, r11, #1",
    "vst1.32 {{d0[0]}}, [r9], r10",
    "vst1.32 {{d0[1]}}, [r9], r10",
    "bne 1b",
    "vpop {{d8-d15}}",
    "pop {{r4-r11, pc}}",
    ".size graft_armv7_tiles, . - graft_armv7_tiles",
    ".global graft_armv7_taps",
    ".type graft_armv7_taps, %function",
    ".p2align 4",
    "graft_armv7_taps:",
    "push {{r4-r8, lr}}",
    "ldr r2, [r0, #8]",
    "ldr r3, [r0, #12]",
    "ldr r4, [r0, #16]",
    "ldr r12, [r0, #20]",
    "ldr r5, [r0, #24]",
    "ldr r6, [r0, #28]",
    "ldr r7, [r0, #32]",
    "ldr r1, [r0, #36]",
    "vld1.32 {{d24-d27}}, [r1]!",
    "vld1.32 {{d28-d29}}, [r1]",
    "vdup.16 q15, r12",
    "1:",
    "ldr r12, [r0]",
    "ldr r1, [r0, #4]",
    "vld1.32 {{d16-d19}}, [r3]!",
    "vld1.32 {{d20-d23}}, [r4]!",
    "2:",
    "ldr r8, [r12], #4",
    "add r8, r8, r7",
    "vld1.8 {{d0}}, [r8]",
    "vld1.16 {{d4-d5}}, [r2]!",
    "vmovl.u8 q0, d0",
    "subs r1, r1, #1",
    "vmlal.s16 q8, d0, d4",
    "vmlal.s16 q9, d1, d5",
    "bne 2b",
    "vcvt.f32.s32 q8, q8",
    "vcvt.f32.s32 q9, q9",
    "vmul.f32 q8, q8, q10",
    "vmul.f32 q9, q9, q11",
    "vmax.f32 q8, q8, q12",
    "vmax.f32 q9, q9, q12",
    "vmin.f32 q8, q8, q13",
    "vmin.f32 q9, q9, q13",
    "vadd.f32 q8, q8, q14",
    "vadd.f32 q9, q9, q14",
    "vmovn.i32 d0, q8",
    "vmovn.i32 d1, q9",
    "vqadd.s16 q0, q0, q15",
    "vqmovun.s16 d0, q0",
    "add r7, r7, #8",
    "subs r6, r6, #1",
    "vst1.8 {{d0}}, [r5]!",
    "bne 1b",
    "pop {{r4-r8, pc}}",
    ".size graft_armv7_taps, . - graft_armv7_taps",
    ".global graft_armv7_sums",
    ".type graft_armv7_sums, %function",
    ".p2align 4",
    "graft_armv7_sums:",
    "push {{r4, lr}}",
    "ldr r1, [r0]",
    "ldr r2, [r0, #4]",
    "ldr r3, [r0, #8]",
    "ldr r4, [r0, #12]",
    "add r12, r0, #16",
    "vld1.32 {{d20[], d21[]}}, [r12]!",
    "vld1.32 {{d22[], d23[]}}, [r12]!",
    "vld1.32 {{d24[], d25[]}}, [r12]!",
    "ldr r12, [r12]",
    "add r12, r12, #16",
    "vld1.32 {{d26-d29}}, [r12]",
    "vmov.i32 q15, #0",
    "1:",
    "vld1.8 {{d0}}, [r1]!",
    "vld1.8 {{d2}}, [r2]!",
    "vmovl.u8 q0, d0",
    "vmovl.u8 q1, d2",
    "vmovl.u16 q2, d0",
    "vmovl.u16 q3, d1",
    "vmovl.u16 q8, d2",
    "vmovl.u16 q9, d3",
    "vcvt.f32.u32 q2, q2",
    "vcvt.f32.u32 q3, q3",
    "vcvt.f32.u32 q8, q8",
    "vcvt.f32.u32 q9, q9",
    "vmov q0, q12",
    "vmov q1, q12",
    "vfma.f32 q0, q8, q11",
    "vfma.f32 q1, q9, q11",
    "vfma.f32 q0, q2, q10",
    "vfma.f32 q1, q3, q10",
    "vmax.f32 q0, q0, q15",
    "vmax.f32 q1, q1, q15",
    "vmin.f32 q0, q0, q13",
    "vmin.f32 q1, q1, q13",
    "vadd.f32 q0, q0, q14",
    "vadd.f32 q1, q1, q14",
    "vmovn.i32 d0, q0",
    "vmovn.i32 d1, q1",
    "vqmovun.s16 d0, q0",
    "subs r4, r4, #1",
    "vst1.8 {{d0}}, [r3]!",
    "bne 1b",
    "pop {{r4, pc}}",
    ".size graft_armv7_sums, . - graft_armv7_sums",
);
