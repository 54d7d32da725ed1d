//! AVX2: 256-bit vectors, no dot product of bytes that is exact for all weights.

use std::ops::Range;

use super::conv::Conv;
use super::depthwise::Depthwise;
use super::elementwise::{Add, Multiply};
use super::linear::Linear;
use super::max_pool::MaxPool;
use super::vector::fits;
use super::{common_kernels, set};
use crate::dispatch::InstructionSet;
use crate::operator::Kernel;
use crate::operators;

set! {
    /// Products of 16-bit integers, for any weights.
    Words: Words256, Words128, Words128, 16 registers, 6 rows, "avx2,fma"
}

set! {
    /// Products of bytes, added in pairs in 16 bits: for weights no pair of which can overflow them.
    Pairs: Pairs256, Pairs128, Pairs128, 16 registers, 5 rows, "avx2,fma"
}

/// AVX2 with FMA.
#[derive(Debug)]
pub(crate) struct Avx2;

impl InstructionSet for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn available(&self) -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    fn conv(&self, conv: operators::Conv) -> Box<dyn Kernel> {
        Box::new(Conv::<Pairs>::new(&conv))
    }

    fn depthwise(&self, depthwise: operators::Depthwise) -> Box<dyn Kernel> {
        // Taps above each other are added in pairs, of which either may be the upper one of a pair.
        let below = depthwise.window.kernel[1] * depthwise.window.channels;
        let lower = depthwise.weights.iter().skip(below);
        let mut pairs = depthwise.weights.iter().zip(lower);
        if pairs.all(|(upper, lower)| fits([upper, lower].into_iter())) {
            Box::new(Depthwise::<Pairs>::new(&depthwise))
        } else {
            Box::new(Depthwise::<Words>::new(&depthwise))
        }
    }

    common_kernels!(Words);
}
