//! The library that labels pictures, on the board and on the host alike: a model file in, labels out.
//!
//! # From a file to a label
//! 1. [`Engine::open`] reads a model file, verifies it down to the last bit ([`model`]) and plans its graph.
//! 2. [`Engine::classify`] takes the bytes of an image file: decoded, preprocessed as the model's card says, run.
//! 3. [`Classification::top`] gives the best labels' indices and scores; [`Engine::card`] has their names.
//!
//! [`Engine::logits`] starts from pixels that are preprocessed already. [`listing`] and [`evaluate`] measure a model on
//! photos whose labels are known, [`bench`](mod@bench) measures its speed.
//!
//! # What runs where
//! The graph runs in [tract](https://docs.rs/tract-onnx). The operators of a quantized model are ours (the crate
//! `graft-kernels`), in place of the standard ONNX nodes that together mean them: their results are exact, the same to
//! the bit on every processor. A node that is not recognised runs in tract's own operators; [`Engine::nodes`] names it.
//! A float model runs in tract's operators altogether, and its logits differ between processors in the last digits.
//!
//! # Threads
//! An [`Engine`] can be used from any number of threads at once; each call runs on the thread that makes it.
//!
//! # Untrusted models and pictures
//! A damaged model file is refused, and so is one whose structure makes no sense. A picture that can't be decoded is an
//! error, and so is a panic inside a decoder or inside tract.
//! - A file's digest finds accidents, not malice: who can write a file can write its digest. Use signatures.
//! - There is **no promise about the time and memory that a hostile model takes** while it is planned and run, other
//!   than the limits on the file itself. Run models of unknown origin in a process with limits of its own.
//! - The memory safety of hostile input rests on tract, zune-jpeg and image, which contain unsafe code.
#![forbid(unsafe_code)]

pub mod bare;
pub mod bench;
mod classify;
mod engine;
pub mod evaluate;
pub mod label;
pub mod listing;
pub mod model;
mod onnx;
mod ops;
mod passes;
mod plan;
mod proto;
mod segment;

pub use classify::Classification;
pub use engine::{Engine, VerifyReport};
pub use plan::{NodeInfo, NodeReport};
