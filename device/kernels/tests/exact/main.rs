//! All instruction sets of this processor give the same bits: operators and graphs of them, on random shapes, strides,
//! paddings, scales and zero points.
//!
//! `GRAFT_FUZZ_CASES` sets the number of cases of each test, `GRAFT_FUZZ_SEED` where they start.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod graphs;
mod operators;
mod random;
