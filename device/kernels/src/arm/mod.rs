//! What kernels for 64-bit and 32-bit ARM have in common.

pub(crate) mod pairs;
pub(crate) mod taps;
