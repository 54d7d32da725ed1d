//! Seconds of a training step on the CPU, one a line: `training_step BACKBONE SIZE BATCH STEPS`.
//!
//! `training_step.sh` runs it in turns with PyTorch.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use graft::backbone::{self, FetchOptions};
use graft::fine_tune;
use graft::head::Head;

const CLASSES: usize = 10;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"));
    let Some(name) = arguments.next() else {
        return;
    };
    let mut number = || arguments.next().and_then(|text| text.parse().ok()).unwrap();
    let (size, batch, steps): (usize, usize, usize) = (number(), number(), number());
    let options = FetchOptions {
        model_dir: None,
        offline: false,
        own: std::env::var("WEIGHTS")
            .ok()
            .map(|source| source.parse().unwrap()),
    };
    let backbone = backbone::load(&name, Some(size), &options).unwrap();
    let head = Head {
        weight: Tensor::zeros((CLASSES, backbone.bottleneck_len), DType::F32, &Device::Cpu)
            .unwrap(),
        bias: Tensor::zeros(CLASSES, DType::F32, &Device::Cpu).unwrap(),
    };
    for seconds in
        fine_tune::time_steps(&backbone.with_head(&head), CLASSES, size, batch, steps).unwrap()
    {
        println!("{seconds}");
    }
}
