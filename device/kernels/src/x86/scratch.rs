//! Memory for the kernels: scratch cut into aligned pieces, and packed weights.

use crate::memory::{AlignedBytes, LINE};

/// Bytes of scratch for pieces of these lengths.
pub(super) fn len_of<const N: usize>(pieces: [usize; N]) -> usize {
    LINE + pieces
        .iter()
        .map(|len| len.next_multiple_of(LINE))
        .sum::<usize>()
}

/// Pieces of these lengths, each on a cache line of its own.
pub(super) fn cut<const N: usize>(scratch: &mut [u8], pieces: [usize; N]) -> [&mut [u8]; N] {
    let mut rest = &mut scratch[..];
    let align = rest.as_ptr().align_offset(LINE);
    rest = &mut rest[align..];
    pieces.map(|len| {
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(LINE));
        rest = after;
        piece
    })
}

/// Values that start on a cache line, as the kernels load them.
#[derive(Debug, Clone, Default)]
pub(super) struct Packed(AlignedBytes);

impl Packed {
    pub(super) fn bytes(values: &[i8]) -> Packed {
        Packed::of(values, |v| v.to_ne_bytes())
    }

    /// Bytes as 16-bit integers.
    pub(super) fn words(values: &[i8]) -> Packed {
        Packed::of(values, |v| i16::from(v).to_ne_bytes())
    }

    pub(super) fn integers(values: &[i32]) -> Packed {
        Packed::of(values, |v| v.to_ne_bytes())
    }

    pub(super) fn floats(values: &[f32]) -> Packed {
        Packed::of(values, |v| v.to_ne_bytes())
    }

    fn of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Packed {
        let mut packed = AlignedBytes::new(values.len() * N);
        for (to, value) in packed.chunks_exact_mut(N).zip(values) {
            to.copy_from_slice(&bytes(*value));
        }
        Packed(packed)
    }

    /// From byte `at` on.
    pub(super) fn at(&self, at: usize) -> *const u8 {
        self.0[at..].as_ptr()
    }
}

impl From<AlignedBytes> for Packed {
    fn from(bytes: AlignedBytes) -> Packed {
        Packed(bytes)
    }
}
