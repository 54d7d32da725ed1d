//! Packed weights, and scratch cut into pieces.

use crate::memory::{AlignedBytes, LINE};

/// Values that start on a cache line, as the kernels load them.
#[derive(Debug)]
pub(crate) struct Packed(AlignedBytes);

impl Packed {
    #[cfg(not(target_arch = "arm"))]
    pub(crate) fn bytes(values: &[i8]) -> Packed {
        Packed::of(values, |v| v.to_ne_bytes())
    }

    /// Bytes as 16-bit integers.
    pub(crate) fn words(values: &[i8]) -> Packed {
        Packed::of(values, |v| i16::from(v).to_ne_bytes())
    }

    pub(crate) fn integers(values: &[i32]) -> Packed {
        Packed::of(values, |v| v.to_ne_bytes())
    }

    pub(crate) fn floats(values: &[f32]) -> Packed {
        Packed::of(values, |v| v.to_ne_bytes())
    }

    fn of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Packed {
        let mut packed = AlignedBytes::new(values.len() * N);
        for (to, value) in packed.chunks_exact_mut(N).zip(values) {
            to.copy_from_slice(&bytes(*value));
        }
        Packed(packed)
    }

    /// The value with this index, of the type that was packed.
    pub(crate) fn at<T>(&self, index: usize) -> *const T {
        self.0[index * size_of::<T>()..].as_ptr().cast()
    }
}

impl From<AlignedBytes> for Packed {
    fn from(bytes: AlignedBytes) -> Packed {
        Packed(bytes)
    }
}

/// `values`, one per channel, and as many of 0 as make them a multiple of `lanes`.
pub(crate) fn padded<T: Copy + Default>(values: &[T], lanes: usize) -> Vec<T> {
    let mut padded = values.to_vec();
    padded.resize(values.len().next_multiple_of(lanes), T::default());
    padded
}

/// Pieces of these lengths, each on a cache line of its own.
pub(crate) fn cut<const N: usize>(scratch: &mut [u8], pieces: [usize; N]) -> [&mut [u8]; N] {
    let align = scratch.as_ptr().align_offset(LINE);
    let mut rest = &mut scratch[align..];
    pieces.map(|len| {
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(LINE));
        rest = after;
        piece
    })
}

/// Bytes of scratch for pieces of these lengths.
pub(crate) fn len_of<const N: usize>(pieces: [usize; N]) -> usize {
    let lines = pieces.iter().map(|len| len.next_multiple_of(LINE));
    LINE + lines.sum::<usize>()
}
