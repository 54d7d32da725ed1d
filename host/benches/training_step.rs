//! Seconds of a training step, one a line: `training_step BACKBONE SIZE BATCH STEPS [DEVICE]`; the device is cpu or cuda.
//!
//! `training_step.sh` runs it in turns with PyTorch.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use candle_core::{DType, Tensor};
use graft::backbone::{self, FetchOptions};
use graft::fine_tune::{self, Device, DeviceName};
use graft::head::Head;
use graft::settings::Settings;

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
    let device = arguments
        .next()
        .map_or(Ok(DeviceName::Cpu), |name| name.parse());
    let device = Device::choose(device.unwrap(), &mut Settings::default()).unwrap();
    let options = FetchOptions {
        model_dir: None,
        offline: false,
        own: std::env::var("WEIGHTS")
            .ok()
            .map(|source| source.parse().unwrap()),
    };
    let backbone = backbone::load(&name, Some(size), &options).unwrap();
    let head = Head {
        weight: Tensor::zeros(
            (CLASSES, backbone.bottleneck_len),
            DType::F32,
            &candle_core::Device::Cpu,
        )
        .unwrap(),
        bias: Tensor::zeros(CLASSES, DType::F32, &candle_core::Device::Cpu).unwrap(),
    };
    for seconds in fine_tune::time_steps(
        &backbone.with_head(&head),
        CLASSES,
        size,
        batch,
        steps,
        &device,
    )
    .unwrap()
    {
        println!("{seconds}");
    }
}
