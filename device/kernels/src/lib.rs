//! Int8 arithmetic on slices: every quantized operator of an image classifier, on NHWC bytes.
//!
//! [`plain`] is the specification: what it computes is the result, to the bit, on every processor. [`dispatch`] compiles
//! the same code for the instruction sets of the processor at hand and chooses among them at run time ([`Isa`]).
//! [`pack`] lays weights out once, at load, and checks there that no sum can leave an `i32`.
//!
//! | | |
//! |---|---|
//! | activations | `u8` with a zero point, height x width x channels ("NHWC" without its N, which is 1) |
//! | weights | `i8` with zero point 0 and one scale per output channel |
//! | biases | `i32` at scale input scale x weight scale |
//! | sums | exact in `i32`, without intermediate saturation |
//! | requantization | `clamp(round_ties_even(f32(sum) * scale) + zero_point, 0, 255)`, each f32 operation rounded on its own |
//!
//! An operator is built from its parameters (`new`, which refuses what cannot be computed exactly) and then run on
//! slices of the length that its shape says; another length is an error. This crate depends on nothing.

#[allow(unsafe_code)]
mod dispatch;
mod operators;
mod pack;
#[allow(unsafe_code)]
mod plain;
mod window;

pub use dispatch::Isa;
pub use operators::{Add, GlobalAveragePool, MaxPool, Table};
pub use pack::{Conv, ConvParameters, Depthwise, Linear};
pub use window::Window;

/// Why an operator cannot be built or run: a shape, a scale or a length that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Invalid {}

pub(crate) fn ensure(holds: bool, otherwise: &'static str) -> Result<(), Invalid> {
    if holds {
        Ok(())
    } else {
        Err(Invalid(otherwise))
    }
}
