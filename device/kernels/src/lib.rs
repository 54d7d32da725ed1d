//! Int8 arithmetic on slices: every quantized operator of an image classifier, on NHWC bytes.
//!
//! An [`Operator`] is built once, at load, for an instruction set ([`Isa`]): its constructor checks that the result can
//! be exact and lays the weights out. It is then run any number of times, without allocating, on slices of the lengths
//! that it names; another length is an error. A part of it can be run by itself, which is how threads share one
//! operator; all parts together give the same bytes as the whole.
//!
//! | | |
//! |---|---|
//! | activations | `u8` with a zero point, height x width x channels ("NHWC" without its N, which is 1) |
//! | weights | `i8` with zero point 0 and one scale per output channel |
//! | biases | `i32` at scale input scale x weight scale |
//! | sums | exact in `i32`, without intermediate saturation |
//! | requantization | `clamp(round_ties_even(f32(sum) * scale) + zero_point, 0, 255)`, each f32 operation rounded on its own |
//!
//! | file | duty |
//! |---|---|
//! | `operator.rs` | what all operators have in common: lengths, parts, running |
//! | `operators/` | one file per kind: its constructor, its checks, its description for the instruction sets |
//! | `plain.rs` | the specification: what it computes is the result, to the bit, on every processor |
//! | `dispatch.rs` | the list of instruction sets, and what one has to offer |
//! | `groups.rs` | weights in groups of neighbours, as dot products of bytes take them |
//! | `threads.rs` | a pool whose threads run the parts of one operator |
//! | `packed.rs` | what the twins of `plain.rs` load: packed weights, and scratch in pieces |
//! | `arm/` | what both kinds of ARM have in common |
//! | `arm64/`, `armv7/`, `x86/` | faster twins of `plain.rs`: one file per operator, and one per instruction set that it is enabled for |
//!
//! This crate depends on nothing.

#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
#[allow(unsafe_code)]
mod arm;
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
mod arm64;
#[cfg(target_arch = "arm")]
#[allow(unsafe_code)]
mod armv7;
#[allow(unsafe_code)]
mod dispatch;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod groups;
#[allow(unsafe_code)]
mod memory;
mod operator;
mod operators;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
mod packed;
mod plain;
#[allow(unsafe_code)]
mod threads;
mod window;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86;

pub use dispatch::Isa;
pub use memory::{AlignedBytes, SLACK, signed};
pub use operator::Operator;
pub use operators::{ConcatInput, ConvParameters, Padding, Quantization};
pub use threads::Threads;
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
