//! Graft's trainer: from a folder of photos to an int8 ONNX file that a small board labels photos with.
//!
//! The chain of `graft train`, in order: [`dataset`] finds and splits the photos, [`backbone`] brings the pretrained
//! network as a [`nn`] graph, [`features`] caches its bottlenecks, [`head`] trains a classifier on them, [`quantize`] and
//! [`export`] make the files, and [`evaluate`] measures them in the device's engine. [`train`] strings them together.
//! [`pictures`] makes the batches of a training of the whole network.

pub mod advice;
pub mod backbone;
pub mod classifier;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod dataset;
pub mod demo;
pub mod deploy;
pub mod devices;
pub mod evaluate;
pub mod export;
pub mod features;
pub mod fine_tune;
pub mod head;
pub mod interrupt;
pub mod lbfgs;
mod memory;
pub mod metrics;
pub mod nn;
pub mod paired;
pub mod pictures;
pub mod progress;
pub mod quantization;
pub mod quantize;
mod random;
pub mod report;
pub mod retrain;
pub mod run;
pub mod settings;
pub mod summaries;
pub mod train;
pub mod weight_bits;
