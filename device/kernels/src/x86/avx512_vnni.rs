//! AVX-512 with VNNI: 512-bit dot products of bytes.

use std::ops::Range;

use super::conv::Conv;
use super::depthwise::Depthwise;
use super::elementwise::{Add, Multiply};
use super::linear::Linear;
use super::max_pool::MaxPool;
use super::table::Table;
use super::{common_kernels, set};
use crate::dispatch::InstructionSet;
use crate::operator::Kernel;
use crate::operators;

set! {
    /// 28 registers of sums, two of weights, one of input.
    Vnni: Vnni512, Vnni256, Vnni128, 32 registers, 14 rows, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma"
}

/// AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Debug)]
pub(crate) struct Avx512Vnni;

impl InstructionSet for Avx512Vnni {
    fn name(&self) -> &'static str {
        "avx512-vnni"
    }

    fn available(&self) -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma")
    }

    fn conv(&self, conv: operators::Conv) -> Box<dyn Kernel> {
        Box::new(Conv::<Vnni>::new(&conv))
    }

    fn depthwise(&self, depthwise: operators::Depthwise) -> Box<dyn Kernel> {
        Box::new(Depthwise::<Vnni>::new(&depthwise))
    }

    fn table(&self, table: operators::Table) -> Box<dyn Kernel> {
        match Table::new(&table) {
            Some(table) => Box::new(table),
            None => Box::new(table),
        }
    }

    common_kernels!(Vnni);
}
