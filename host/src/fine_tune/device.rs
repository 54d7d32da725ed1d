//! What fine-tuning computes on: as the user said, else a GPU where one is usable, else the processor.

use std::fmt;
use std::str::FromStr;

#[cfg(not(feature = "cuda"))]
use graft_shared::error::Error;
use graft_shared::error::Result;

use crate::devices::{Devices, TRAINS_ON_CUDA};
use crate::settings::{ChosenBy, Settings};

/// `--device`, as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceName {
    /// A GPU where one is usable, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of that index.
    Cuda(usize),
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceName, String> {
        match text {
            "auto" => return Ok(DeviceName::Auto),
            "cpu" => return Ok(DeviceName::Cpu),
            "cuda" => return Ok(DeviceName::Cuda(0)),
            _ => {}
        }
        let index = text
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok());
        index
            .map(DeviceName::Cuda)
            .ok_or_else(|| "auto, cpu, cuda or cuda:N is wanted".to_owned())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Auto => f.write_str("auto"),
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// A device that can be trained on.
#[derive(Clone, Debug)]
pub enum Device {
    /// The processor, all threads.
    Cpu,
    /// A GPU.
    #[cfg(any(test, feature = "cuda"))]
    Cuda(Gpu),
}

/// A GPU with our kernels on it.
#[cfg(any(test, feature = "cuda"))]
#[derive(Clone, Debug)]
pub struct Gpu(pub(super) std::sync::Arc<dyn crate::nn::cuda::Machine>);

impl Device {
    /// The device of that name; `settings` get it, with the reason.
    ///
    /// # Errors
    /// A GPU that can't be used, if it was asked for.
    pub fn choose(name: DeviceName, settings: &mut Settings) -> Result<Device> {
        let mut record = |name: DeviceName, by, why: &str| settings.set("device", name, by, why);
        match name {
            DeviceName::Auto if !TRAINS_ON_CUDA => {
                record(
                    DeviceName::Cpu,
                    ChosenBy::Default,
                    "this version trains on the CPU only",
                );
                Ok(Device::Cpu)
            }
            DeviceName::Auto => {
                let (name, device, why) = usable();
                record(name, ChosenBy::Graft, &why);
                Ok(device)
            }
            DeviceName::Cpu => {
                record(name, ChosenBy::User, "given on the command line");
                Ok(Device::Cpu)
            }
            DeviceName::Cuda(index) => {
                let device = open(index)?;
                record(name, ChosenBy::User, "given on the command line");
                Ok(device)
            }
        }
    }
}

/// The first GPU that works, else the processor, and why.
fn usable() -> (DeviceName, Device, String) {
    let cuda = Devices::of_this_machine().cuda;
    let mut why = cuda.reason.unwrap_or_default();
    for gpu in cuda.gpus.iter().filter(|gpu| gpu.reason.is_none()) {
        match open(gpu.index) {
            Ok(device) => return (DeviceName::Cuda(gpu.index), device, gpu.name.clone()),
            Err(error) => why = error.report(),
        }
    }
    (DeviceName::Cpu, Device::Cpu, why)
}

#[cfg(feature = "cuda")]
fn open(index: usize) -> Result<Device> {
    use graft_shared::error::Context;

    let opened = crate::nn::cuda::open(index);
    let gpu = opened.with_context(|| format!("the device cuda:{index} can't be used"))?;
    Ok(Device::Cuda(Gpu(gpu)))
}

#[cfg(not(feature = "cuda"))]
fn open(index: usize) -> Result<Device> {
    Err(Error::new(format!(
        "the device cuda:{index} can't be used: this version trains on the CPU only"
    ))
    .hint("leave `--device` out, or build it with CUDA: `cargo build --release --bin graft --features graft/cuda`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceName::Cuda(0)));
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }

    #[test]
    fn the_processor_is_recorded_with_the_reason() {
        let mut settings = Settings::default();
        let device = Device::choose(DeviceName::Cpu, &mut settings).unwrap();
        assert!(matches!(device, Device::Cpu));
        assert_eq!(settings.value("device"), Some("cpu"));
    }
}
