//! Kernels for 64-bit ARM: without and with the dot product of bytes.

mod concat;
mod depthwise;
mod depthwise_dot;
mod depthwise_neon;
mod elementwise;
mod matrix;
mod matrix_dot;
mod matrix_neon;
mod pools;
mod rows;
mod table;
mod vector;

use std::arch::is_aarch64_feature_detected;

use crate::arm::pairs::fit;
use crate::dispatch::InstructionSet;
use crate::operator::Kernel;
use crate::operators::{
    Add, AveragePool, Concat, Conv, Depthwise, Linear, MaxPool, Multiply, Table,
};
use concat::NeonConcat;
use depthwise::PackedDepthwise;
use depthwise_dot::Groups;
use depthwise_neon::Words;
use elementwise::{NeonAdd, NeonMultiply};
use matrix::{PackedConv, PackedLinear};
use matrix_dot::DotWeights;
use matrix_neon::NeonWeights;
use pools::{NeonAveragePool, NeonMaxPool};
use table::NeonTable;

/// The kernels that are the same with and without a dot product, beside that of `$taps`.
macro_rules! common_kernels {
    ($taps:ty) => {
        fn add(&self, add: Add) -> Box<dyn Kernel> {
            Box::new(NeonAdd(add))
        }

        fn multiply(&self, multiply: Multiply) -> Box<dyn Kernel> {
            Box::new(NeonMultiply(multiply))
        }

        fn average_pool(&self, pool: AveragePool) -> Box<dyn Kernel> {
            let depthwise = pool.as_depthwise();
            match depthwise.and_then(|pool| PackedDepthwise::<$taps>::new(&pool)) {
                Some(packed) => Box::new(packed),
                None => Box::new(NeonAveragePool(pool)),
            }
        }

        fn max_pool(&self, pool: MaxPool) -> Box<dyn Kernel> {
            Box::new(NeonMaxPool(pool))
        }

        fn concat(&self, concat: Concat) -> Box<dyn Kernel> {
            Box::new(NeonConcat(concat))
        }

        fn table(&self, table: Table) -> Box<dyn Kernel> {
            Box::new(NeonTable(table))
        }
    };
}

/// What every 64-bit ARM processor has: of the Raspberry Pi, 3, 4 and Zero 2.
#[derive(Debug)]
pub(crate) struct Neon;

impl InstructionSet for Neon {
    fn name(&self) -> &'static str {
        "neon"
    }

    fn available(&self) -> bool {
        true
    }

    common_kernels!(Words);

    fn conv(&self, conv: Conv) -> Box<dyn Kernel> {
        if fit(&conv.weights) {
            Box::new(PackedConv::<NeonWeights>::new(&conv))
        } else {
            Box::new(conv.into_owned())
        }
    }

    fn depthwise(&self, depthwise: Depthwise) -> Box<dyn Kernel> {
        match PackedDepthwise::<Words>::new(&depthwise) {
            Some(packed) => Box::new(packed),
            None => Box::new(depthwise),
        }
    }

    fn linear(&self, linear: Linear) -> Box<dyn Kernel<f32>> {
        if fit(&linear.weights) {
            Box::new(PackedLinear::<NeonWeights>::new(&linear))
        } else {
            Box::new(linear)
        }
    }
}

/// With the dot product of bytes: of the Raspberry Pi, 5.
#[derive(Debug)]
pub(crate) struct DotProduct;

impl InstructionSet for DotProduct {
    fn name(&self) -> &'static str {
        "neon-dotprod"
    }

    fn available(&self) -> bool {
        is_aarch64_feature_detected!("dotprod")
    }

    common_kernels!(Groups);

    fn conv(&self, conv: Conv) -> Box<dyn Kernel> {
        Box::new(PackedConv::<DotWeights>::new(&conv))
    }

    fn depthwise(&self, depthwise: Depthwise) -> Box<dyn Kernel> {
        match PackedDepthwise::<Groups>::new(&depthwise) {
            Some(packed) => Box::new(packed),
            None => Box::new(depthwise),
        }
    }

    fn linear(&self, linear: Linear) -> Box<dyn Kernel<f32>> {
        Box::new(PackedLinear::<DotWeights>::new(&linear))
    }
}
