//! Bytes that start on a cache line, and the slack that kernels may read past an activation.

use std::ops::{Deref, DerefMut};

/// Bytes after an activation that must be readable: kernels load whole vectors. Their content never matters.
pub const SLACK: usize = 64;

/// Bytes of one cache line, and of the widest vector.
pub(crate) const LINE: usize = 64;

/// Bytes as the signed ones that they are.
pub fn signed(bytes: &[u8]) -> &[i8] {
    // SAFETY: both have the same size and alignment, and every bit pattern is a value of both.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A block of bytes, zero at first, that starts on a cache line: for activations, scratch and weights.
#[derive(Debug, Clone, Default)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// `len` bytes of 0.
    pub fn new(len: usize) -> AlignedBytes {
        AlignedBytes {
            lines: vec![Line([0; LINE]); len.div_ceil(LINE)],
            len,
        }
    }

    /// None yet, with room for `len` to be appended.
    pub(crate) fn with_capacity(len: usize) -> AlignedBytes {
        AlignedBytes {
            lines: Vec::with_capacity(len.div_ceil(LINE)),
            len: 0,
        }
    }

    /// Appends `len` bytes of 0.
    pub(crate) fn append(&mut self, len: usize) -> &mut [u8] {
        let start = self.len;
        self.len += len;
        self.lines.resize(self.len.div_ceil(LINE), Line([0; LINE]));
        &mut self[start..]
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the lines are one allocation of at least `len` initialized bytes.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the lines are one allocation of at least `len` initialized bytes, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
