//! Vectors of 128, 256 and 512 bits, and the dot products that the instruction sets have.
//!
//! All of it is `inline(always)`, so that it becomes part of the function that enables the instruction set.

use std::arch::asm;
use std::arch::x86_64::*;
use std::fmt::Debug;

/// Declares functions of a trait, or defines them: `inline(always)`, unsafe, each one expression.
macro_rules! inlined {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {
        $(
            #[inline(always)]
            unsafe fn $name($($arg: $type),*) -> $result {
                // SAFETY: the caller keeps the trait's contract, which is that of the intrinsics.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }
        )*
    };
}

/// A vector of `LANES` 32-bit lanes, also seen as bytes and as 16-bit integers. "Within 128 bits" means: in each quarter
/// or half of the vector by itself.
///
/// # Safety
/// Every function needs the processor to have the vector's instruction set, and pointers to whole vectors.
pub(super) trait Vector: Copy {
    /// 32-bit lanes.
    const LANES: usize;
    /// As many f32.
    type Floats: Copy;

    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(to: *mut u8, v: Self);
    /// Stores the first `count` bytes, at most all.
    unsafe fn store_first(to: *mut u8, v: Self, count: usize);
    /// Stores one half after the other.
    unsafe fn store_halves(to: [*mut u8; 2], v: Self);
    /// Stores one quarter after the other.
    unsafe fn store_quarters(to: [*mut u8; 4], v: Self);
    unsafe fn load_floats(from: *const f32) -> Self::Floats;
    unsafe fn store_floats(to: *mut f32, v: Self::Floats);
    unsafe fn splat_8(value: u8) -> Self;
    unsafe fn splat_16(value: i16) -> Self;
    unsafe fn splat_32(value: i32) -> Self;
    unsafe fn splat_float(value: f32) -> Self::Floats;
    /// `2 * LANES` unsigned bytes to 16-bit integers.
    unsafe fn widen_8_to_16(from: *const u8) -> Self;
    /// `2 * LANES` signed bytes to 16-bit integers.
    unsafe fn widen_signed_8_to_16(from: *const u8) -> Self;
    unsafe fn add_32(a: Self, b: Self) -> Self;
    unsafe fn add_saturating_16(a: Self, b: Self) -> Self;
    /// Sums of two neighbouring products of signed 16-bit integers.
    unsafe fn multiply_pairs_16(a: Self, b: Self) -> Self;
    unsafe fn max_8(a: Self, b: Self) -> Self;
    unsafe fn to_floats(v: Self) -> Self::Floats;
    /// To the nearest integer, ties to even.
    unsafe fn from_floats(v: Self::Floats) -> Self;
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    unsafe fn multiply_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Within 128 bits: four lanes of `a`, then four of `b`, saturated to signed 16 bits.
    unsafe fn pack_32(a: Self, b: Self) -> Self;
    /// Within 128 bits: eight 16-bit integers of `a`, then eight of `b`, saturated to unsigned bytes.
    unsafe fn pack_16(a: Self, b: Self) -> Self;
    /// Within 128 bits: bytes of `a` and `b` in turn, of their lower halves.
    unsafe fn interleave_low_8(a: Self, b: Self) -> Self;
    /// As before, of their upper halves.
    unsafe fn interleave_high_8(a: Self, b: Self) -> Self;
    /// Within 128 bits: 16-bit integers of `a` and `b` in turn, of their lower halves.
    unsafe fn interleave_low_16(a: Self, b: Self) -> Self;
    /// As before, of their upper halves.
    unsafe fn interleave_high_16(a: Self, b: Self) -> Self;
    /// The even 64-bit pieces, then the odd ones.
    unsafe fn gather_halves(v: Self) -> Self;
    /// The 32-bit pieces 0, 4, 8, and so on; then 1, 5, 9; 2, 6, 10; 3, 7, 11.
    unsafe fn gather_quarters(v: Self) -> Self;
    /// `value`, but not before `v` has been computed: no instruction, only an order that the compiler must keep.
    unsafe fn after(v: Self, value: usize) -> usize;
}

impl Vector for __m512i {
    const LANES: usize = 16;
    type Floats = __m512;

    inlined! {
        load(from: *const u8) -> Self = _mm512_loadu_si512(from.cast());
        store(to: *mut u8, v: Self) -> () = _mm512_storeu_si512(to.cast(), v);
        store_first(to: *mut u8, v: Self, count: usize) -> () =
            _mm512_mask_storeu_epi8(to.cast(), u64::MAX.unbounded_shr(64 - count as u32), v);
        store_halves(to: [*mut u8; 2], v: Self) -> () = {
            _mm256_storeu_si256(to[0].cast(), _mm512_castsi512_si256(v));
            _mm256_storeu_si256(to[1].cast(), _mm512_extracti64x4_epi64::<1>(v));
        };
        store_quarters(to: [*mut u8; 4], v: Self) -> () = {
            _mm_storeu_si128(to[0].cast(), _mm512_castsi512_si128(v));
            _mm_storeu_si128(to[1].cast(), _mm512_extracti32x4_epi32::<1>(v));
            _mm_storeu_si128(to[2].cast(), _mm512_extracti32x4_epi32::<2>(v));
            _mm_storeu_si128(to[3].cast(), _mm512_extracti32x4_epi32::<3>(v));
        };
        load_floats(from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        store_floats(to: *mut f32, v: __m512) -> () = _mm512_storeu_ps(to, v);
        splat_8(value: u8) -> Self = _mm512_set1_epi8(value as i8);
        splat_16(value: i16) -> Self = _mm512_set1_epi16(value);
        splat_32(value: i32) -> Self = _mm512_set1_epi32(value);
        splat_float(value: f32) -> __m512 = _mm512_set1_ps(value);
        widen_8_to_16(from: *const u8) -> Self = _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast()));
        widen_signed_8_to_16(from: *const u8) -> Self = _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast()));
        add_32(a: Self, b: Self) -> Self = _mm512_add_epi32(a, b);
        add_saturating_16(a: Self, b: Self) -> Self = _mm512_adds_epi16(a, b);
        multiply_pairs_16(a: Self, b: Self) -> Self = _mm512_madd_epi16(a, b);
        max_8(a: Self, b: Self) -> Self = _mm512_max_epu8(a, b);
        to_floats(v: Self) -> __m512 = _mm512_cvtepi32_ps(v);
        from_floats(v: __m512) -> Self = _mm512_cvtps_epi32(v);
        multiply(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        pack_32(a: Self, b: Self) -> Self = _mm512_packs_epi32(a, b);
        pack_16(a: Self, b: Self) -> Self = _mm512_packus_epi16(a, b);
        interleave_low_8(a: Self, b: Self) -> Self = _mm512_unpacklo_epi8(a, b);
        interleave_high_8(a: Self, b: Self) -> Self = _mm512_unpackhi_epi8(a, b);
        interleave_low_16(a: Self, b: Self) -> Self = _mm512_unpacklo_epi16(a, b);
        interleave_high_16(a: Self, b: Self) -> Self = _mm512_unpackhi_epi16(a, b);
        gather_halves(v: Self) -> Self =
            _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), v);
        gather_quarters(v: Self) -> Self = _mm512_permutexvar_epi32(
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn after(v: Self, mut value: usize) -> usize {
        // SAFETY: a comment.
        unsafe {
            asm!("/* {} {} */", in(zmm_reg) v, inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value
    }
}

impl Vector for __m256i {
    const LANES: usize = 8;
    type Floats = __m256;

    inlined! {
        load(from: *const u8) -> Self = _mm256_loadu_si256(from.cast());
        store(to: *mut u8, v: Self) -> () = _mm256_storeu_si256(to.cast(), v);
        store_first(to: *mut u8, v: Self, count: usize) -> () = {
            let mut bytes = [0u8; 32];
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count);
        };
        store_halves(to: [*mut u8; 2], v: Self) -> () = {
            _mm_storeu_si128(to[0].cast(), _mm256_castsi256_si128(v));
            _mm_storeu_si128(to[1].cast(), _mm256_extracti128_si256::<1>(v));
        };
        store_quarters(to: [*mut u8; 4], v: Self) -> () = {
            let (low, high) = (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            __m128i::store_halves([to[0], to[1]], low);
            __m128i::store_halves([to[2], to[3]], high);
        };
        load_floats(from: *const f32) -> __m256 = _mm256_loadu_ps(from);
        store_floats(to: *mut f32, v: __m256) -> () = _mm256_storeu_ps(to, v);
        splat_8(value: u8) -> Self = _mm256_set1_epi8(value as i8);
        splat_16(value: i16) -> Self = _mm256_set1_epi16(value);
        splat_32(value: i32) -> Self = _mm256_set1_epi32(value);
        splat_float(value: f32) -> __m256 = _mm256_set1_ps(value);
        widen_8_to_16(from: *const u8) -> Self = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()));
        widen_signed_8_to_16(from: *const u8) -> Self = _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast()));
        add_32(a: Self, b: Self) -> Self = _mm256_add_epi32(a, b);
        add_saturating_16(a: Self, b: Self) -> Self = _mm256_adds_epi16(a, b);
        multiply_pairs_16(a: Self, b: Self) -> Self = _mm256_madd_epi16(a, b);
        max_8(a: Self, b: Self) -> Self = _mm256_max_epu8(a, b);
        to_floats(v: Self) -> __m256 = _mm256_cvtepi32_ps(v);
        from_floats(v: __m256) -> Self = _mm256_cvtps_epi32(v);
        multiply(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        pack_32(a: Self, b: Self) -> Self = _mm256_packs_epi32(a, b);
        pack_16(a: Self, b: Self) -> Self = _mm256_packus_epi16(a, b);
        interleave_low_8(a: Self, b: Self) -> Self = _mm256_unpacklo_epi8(a, b);
        interleave_high_8(a: Self, b: Self) -> Self = _mm256_unpackhi_epi8(a, b);
        interleave_low_16(a: Self, b: Self) -> Self = _mm256_unpacklo_epi16(a, b);
        interleave_high_16(a: Self, b: Self) -> Self = _mm256_unpackhi_epi16(a, b);
        gather_halves(v: Self) -> Self = _mm256_permute4x64_epi64::<0b11_01_10_00>(v);
        gather_quarters(v: Self) -> Self =
            _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn after(v: Self, mut value: usize) -> usize {
        // SAFETY: a comment.
        unsafe {
            asm!("/* {} {} */", in(ymm_reg) v, inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value
    }
}

impl Vector for __m128i {
    const LANES: usize = 4;
    type Floats = __m128;

    inlined! {
        load(from: *const u8) -> Self = _mm_loadu_si128(from.cast());
        store(to: *mut u8, v: Self) -> () = _mm_storeu_si128(to.cast(), v);
        store_first(to: *mut u8, v: Self, count: usize) -> () = {
            let mut bytes = [0u8; 16];
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), v);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count);
        };
        store_halves(to: [*mut u8; 2], v: Self) -> () = {
            to[0].cast::<i64>().write_unaligned(_mm_cvtsi128_si64(v));
            to[1].cast::<i64>().write_unaligned(_mm_extract_epi64::<1>(v));
        };
        store_quarters(to: [*mut u8; 4], v: Self) -> () = {
            to[0].cast::<i32>().write_unaligned(_mm_cvtsi128_si32(v));
            to[1].cast::<i32>().write_unaligned(_mm_extract_epi32::<1>(v));
            to[2].cast::<i32>().write_unaligned(_mm_extract_epi32::<2>(v));
            to[3].cast::<i32>().write_unaligned(_mm_extract_epi32::<3>(v));
        };
        load_floats(from: *const f32) -> __m128 = _mm_loadu_ps(from);
        store_floats(to: *mut f32, v: __m128) -> () = _mm_storeu_ps(to, v);
        splat_8(value: u8) -> Self = _mm_set1_epi8(value as i8);
        splat_16(value: i16) -> Self = _mm_set1_epi16(value);
        splat_32(value: i32) -> Self = _mm_set1_epi32(value);
        splat_float(value: f32) -> __m128 = _mm_set1_ps(value);
        widen_8_to_16(from: *const u8) -> Self = _mm_cvtepu8_epi16(_mm_loadl_epi64(from.cast()));
        widen_signed_8_to_16(from: *const u8) -> Self = _mm_cvtepi8_epi16(_mm_loadl_epi64(from.cast()));
        add_32(a: Self, b: Self) -> Self = _mm_add_epi32(a, b);
        add_saturating_16(a: Self, b: Self) -> Self = _mm_adds_epi16(a, b);
        multiply_pairs_16(a: Self, b: Self) -> Self = _mm_madd_epi16(a, b);
        max_8(a: Self, b: Self) -> Self = _mm_max_epu8(a, b);
        to_floats(v: Self) -> __m128 = _mm_cvtepi32_ps(v);
        from_floats(v: __m128) -> Self = _mm_cvtps_epi32(v);
        multiply(a: __m128, b: __m128) -> __m128 = _mm_mul_ps(a, b);
        multiply_add(a: __m128, b: __m128, c: __m128) -> __m128 = _mm_fmadd_ps(a, b, c);
        pack_32(a: Self, b: Self) -> Self = _mm_packs_epi32(a, b);
        pack_16(a: Self, b: Self) -> Self = _mm_packus_epi16(a, b);
        interleave_low_8(a: Self, b: Self) -> Self = _mm_unpacklo_epi8(a, b);
        interleave_high_8(a: Self, b: Self) -> Self = _mm_unpackhi_epi8(a, b);
        interleave_low_16(a: Self, b: Self) -> Self = _mm_unpacklo_epi16(a, b);
        interleave_high_16(a: Self, b: Self) -> Self = _mm_unpackhi_epi16(a, b);
        gather_halves(v: Self) -> Self = v;
        gather_quarters(v: Self) -> Self = v;
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn after(v: Self, mut value: usize) -> usize {
        // SAFETY: a comment.
        unsafe {
            asm!("/* {} {} */", in(xmm_reg) v, inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value
    }
}

/// Sums of `TAPS` neighbouring products in each 32-bit lane.
///
/// # Safety
/// As for [`Vector`].
pub(super) trait Dot: Debug + Send + Sync + 'static {
    type V: Vector;
    /// Values of one operand in a lane: 4 bytes, or 2 signed 16-bit integers.
    const TAPS: usize;
    /// Whether it is exact for all weights; else only for pairs that [`fits`].
    const EXACT: bool;

    /// `sums + activations . weights`. Activations are unsigned where they are bytes, weights always signed.
    unsafe fn dot(sums: Self::V, activations: Self::V, weights: Self::V) -> Self::V;

    /// `TAPS * LANES` weights kept as bytes, as `dot` takes them.
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::V {
        // SAFETY: as for the caller.
        unsafe {
            if Self::TAPS == 4 {
                Self::V::load(from)
            } else {
                Self::V::widen_signed_8_to_16(from)
            }
        }
    }
}

macro_rules! dots {
    ($($(#[$doc:meta])* $name:ident: $vector:ty, $taps:literal, $exact:literal, |$sums:ident, $x:ident, $w:ident| $dot:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub(super) struct $name;

            impl Dot for $name {
                type V = $vector;
                const TAPS: usize = $taps;
                const EXACT: bool = $exact;

                inlined! { dot($sums: $vector, $x: $vector, $w: $vector) -> $vector = $dot; }
            }
        )*
    };
}

dots! {
    /// AVX-512 VNNI.
    Vnni512: __m512i, 4, true, |sums, x, w| _mm512_dpbusd_epi32(sums, x, w);
    /// AVX-512 VNNI and VL.
    Vnni256: __m256i, 4, true, |sums, x, w| _mm256_dpbusd_epi32(sums, x, w);
    /// AVX-512 VNNI and VL.
    Vnni128: __m128i, 4, true, |sums, x, w| _mm_dpbusd_epi32(sums, x, w);
    /// AVX-VNNI.
    AvxVnni256: __m256i, 4, true, |sums, x, w| _mm256_dpbusd_avx_epi32(sums, x, w);
    /// AVX-VNNI.
    AvxVnni128: __m128i, 4, true, |sums, x, w| _mm_dpbusd_avx_epi32(sums, x, w);
    /// Of 16-bit integers.
    Words256: __m256i, 2, true, |sums, x, w| _mm256_add_epi32(sums, _mm256_madd_epi16(x, w));
    /// Of 16-bit integers.
    Words128: __m128i, 2, true, |sums, x, w| _mm_add_epi32(sums, _mm_madd_epi16(x, w));
    /// Only weights whose pairs fit 16 bits.
    Pairs256: __m256i, 4, false, |sums, x, w| _mm256_add_epi32(
        sums, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
    /// Only weights whose pairs fit 16 bits.
    Pairs128: __m128i, 4, false, |sums, x, w| _mm_add_epi32(
        sums, _mm_madd_epi16(_mm_maddubs_epi16(x, w), _mm_set1_epi16(1)));
}

/// Sums times scales, to the nearest integers.
///
/// # Safety
/// As for [`Vector`].
#[inline(always)]
pub(super) unsafe fn scale<V: Vector>(sums: V, scales: V::Floats) -> V {
    // SAFETY: as for the caller.
    unsafe { V::from_floats(V::multiply(V::to_floats(sums), scales)) }
}

/// Channels of `TAPS` rows, `4 * LANES` from each pointer on, as operands of a dot product: four vectors, which within
/// each 128 bits hold sixteen neighbours between them.
///
/// # Safety
/// As for [`Vector`].
#[inline(always)]
pub(super) unsafe fn interleave<D: Dot>(rows: [*const u8; 4]) -> [D::V; 4] {
    // SAFETY: as for the caller.
    unsafe {
        let (a, b) = (D::V::load(rows[0]), D::V::load(rows[1]));
        let (low, high) = (D::V::interleave_low_8(a, b), D::V::interleave_high_8(a, b));
        if D::TAPS == 4 {
            let (c, d) = (D::V::load(rows[2]), D::V::load(rows[3]));
            let (low_, high_) = (D::V::interleave_low_8(c, d), D::V::interleave_high_8(c, d));
            [
                D::V::interleave_low_16(low, low_),
                D::V::interleave_high_16(low, low_),
                D::V::interleave_low_16(high, high_),
                D::V::interleave_high_16(high, high_),
            ]
        } else {
            let zero = D::V::splat_8(0);
            [
                D::V::interleave_low_8(low, zero),
                D::V::interleave_high_8(low, zero),
                D::V::interleave_low_8(high, zero),
                D::V::interleave_high_8(high, zero),
            ]
        }
    }
}

/// Bytes as 32-bit lanes: four vectors, which within each 128 bits hold sixteen neighbours between them.
///
/// # Safety
/// As for [`Vector`].
#[inline(always)]
pub(super) unsafe fn spread<V: Vector>(bytes: V) -> [V; 4] {
    // SAFETY: as for the caller.
    unsafe {
        let zero = V::splat_8(0);
        let (low, high) = (
            V::interleave_low_8(bytes, zero),
            V::interleave_high_8(bytes, zero),
        );
        [
            V::interleave_low_16(low, zero),
            V::interleave_high_16(low, zero),
            V::interleave_low_16(high, zero),
            V::interleave_high_16(high, zero),
        ]
    }
}

/// Whether the products of these weights with any bytes add up within 16 bits: 255 * 128 does, 255 * 129 does not.
pub(super) fn fits<'a>(weights: impl Iterator<Item = &'a i8>) -> bool {
    let (mut positive, mut negative) = (0, 0);
    for weight in weights.map(|w| i32::from(*w)) {
        positive += weight.max(0);
        negative += weight.min(0);
    }
    positive <= 128 && negative >= -128
}
