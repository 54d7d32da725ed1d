//! A training step on an NVIDIA GPU: the tape's operators as CUDA kernels of our own, with the contract of [`super::cpu`].
//!
//! The kernels (`*.cu`) are compiled when training begins, for the GPU at hand. The same source is C++ with `shim.h` before
//! it: so tests run all of it, the step included, on a machine without a GPU.

#[cfg(feature = "cuda")]
mod driver;
#[cfg(test)]
pub(crate) mod host;
mod kernels;
mod machine;
mod step;
mod tape;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
pub(crate) use driver::{open, probe};
pub(crate) use machine::Machine;
pub(crate) use step::{Moves, Step};

/// The kernels' source, in the order in which it needs itself.
#[cfg(any(test, feature = "cuda"))]
const SOURCE: &str = concat!(
    include_str!("training.cu"),
    include_str!("depthwise.cu"),
    include_str!("dense.cu"),
    include_str!("pool.cu"),
    include_str!("add.cu"),
    include_str!("normalise.cu"),
    include_str!("step.cu"),
);
