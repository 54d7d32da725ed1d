//! AVX-VNNI: 256-bit dot products of bytes, on processors without AVX-512.

use std::ops::Range;

use super::conv::Conv;
use super::depthwise::Depthwise;
use super::elementwise::{Add, Multiply};
use super::linear::Linear;
use super::max_pool::MaxPool;
use super::{common_kernels, set};
use crate::dispatch::InstructionSet;
use crate::operator::Kernel;
use crate::operators;

set! {
    /// 12 registers of sums, two of weights, one of input.
    Vnni: AvxVnni256, AvxVnni128, AvxVnni128, 16 registers, 6 rows, "avxvnni,avx2,fma"
}

/// AVX2 with FMA and AVX-VNNI.
#[derive(Debug)]
pub(crate) struct AvxVnni;

impl InstructionSet for AvxVnni {
    fn name(&self) -> &'static str {
        "avx-vnni"
    }

    fn available(&self) -> bool {
        is_x86_feature_detected!("avxvnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
    }

    fn conv(&self, conv: operators::Conv) -> Box<dyn Kernel> {
        Box::new(Conv::<Vnni>::new(&conv))
    }

    fn depthwise(&self, depthwise: operators::Depthwise) -> Box<dyn Kernel> {
        Box::new(Depthwise::<Vnni>::new(&depthwise))
    }

    common_kernels!(Vnni);
}
