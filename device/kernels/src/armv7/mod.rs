//! Kernels for 32-bit ARM with NEON: the intrinsics are not stable in Rust, so the inner loops are in assembly.

mod add;
mod assembly;
mod conv;
mod depthwise;

use crate::arm::pairs::fit;
use crate::dispatch::InstructionSet;
use crate::operator::Kernel;
use crate::operators::{Add, Conv, Depthwise};
use add::NeonAdd;
use conv::NeonConv;
use depthwise::NeonDepthwise;

/// NEON with fused multiply-add (VFPv4): of the Raspberry Pi, all from 2 on.
#[derive(Debug)]
pub(crate) struct Neon;

impl InstructionSet for Neon {
    fn name(&self) -> &'static str {
        "neon"
    }

    /// As Linux says to each process in its auxiliary vector (`asm/hwcap.h`, `linux/auxvec.h`).
    fn available(&self) -> bool {
        const HARDWARE_CAPABILITIES: u32 = 16;
        const NEON_AND_VFP4: u32 = 1 << 12 | 1 << 16;
        let vector = std::fs::read("/proc/self/auxv").unwrap_or_default();
        let word = |bytes: &[u8]| {
            let bytes = bytes.iter().rev();
            bytes.fold(0u32, |word, byte| word << 8 | u32::from(*byte))
        };
        let mut entries = vector
            .chunks_exact(8)
            .map(|entry| (word(&entry[..4]), word(&entry[4..])));
        entries.any(|(kind, value)| {
            kind == HARDWARE_CAPABILITIES && value & NEON_AND_VFP4 == NEON_AND_VFP4
        })
    }

    fn conv(&self, conv: Conv) -> Box<dyn Kernel> {
        if fit(&conv.weights) {
            Box::new(NeonConv::new(&conv))
        } else {
            Box::new(conv.into_owned())
        }
    }

    fn depthwise(&self, depthwise: Depthwise) -> Box<dyn Kernel> {
        Box::new(NeonDepthwise::new(&depthwise))
    }

    fn add(&self, add: Add) -> Box<dyn Kernel> {
        Box::new(NeonAdd(add))
    }
}
