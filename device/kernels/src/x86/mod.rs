//! Kernels for x86-64: written once over the width of a vector and its dot product, and enabled for each instruction set
//! in a file of its own.

mod avx2;
mod avx512_vnni;
mod avx_vnni;
mod conv;
mod depthwise;
mod elementwise;
mod linear;
mod max_pool;
mod table;
mod vector;

use std::fmt::Debug;
use std::ops::Range;

pub(crate) use avx_vnni::AvxVnni;
pub(crate) use avx2::Avx2;
pub(crate) use avx512_vnni::Avx512Vnni;
use conv::Conv;
use depthwise::Depthwise;
use elementwise::{Add, Multiply};
use linear::Linear;
use max_pool::MaxPool;
use vector::Dot;

/// What an instruction set computes with, and its kernels compiled for it.
///
/// # Safety
/// The functions need a processor that has the instruction set; beyond that, their contract is that of the functions of
/// the same name in the file of the operator.
trait Set: Debug + Send + Sync + Sized + 'static {
    /// The widest vectors.
    type Wide: Dot;
    /// Vectors of half that width, or a quarter, or of 128 bits where there are none.
    type Half: Dot;
    type Quarter: Dot;
    /// Output positions in a tile of two wide vectors: as many as leave the sums in registers.
    const ROWS: usize;
    /// Vector registers.
    const REGISTERS: usize;

    unsafe fn conv(
        conv: &Conv<Self>,
        positions: Range<usize>,
        input: &[u8],
        output: &mut [u8],
        scratch: &mut [u8],
    );
    unsafe fn depthwise(
        depthwise: &Depthwise<Self>,
        rows: Range<usize>,
        input: &[u8],
        output: &mut [u8],
        scratch: &mut [u8],
    );
    unsafe fn linear(
        linear: &Linear<Self>,
        units: Range<usize>,
        input: &[u8],
        logits: &mut [f32],
        scratch: &mut [u8],
    );
    unsafe fn max_pool(pool: &MaxPool<Self>, rows: Range<usize>, input: &[u8], output: &mut [u8]);
    unsafe fn add(add: &Add<Self>, a: &[u8], b: &[u8], output: &mut [u8]);
    unsafe fn multiply(multiply: &Multiply<Self>, a: &[u8], b: &[u8], output: &mut [u8]);
}

/// A [`Set`]: its vectors, tile and features.
macro_rules! set {
    ($(#[$doc:meta])* $name:ident: $wide:ident, $half:ident, $quarter:ident, $registers:literal registers, $rows:literal rows, $features:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        struct $name;

        impl $crate::x86::Set for $name {
            type Wide = $crate::x86::vector::$wide;
            type Half = $crate::x86::vector::$half;
            type Quarter = $crate::x86::vector::$quarter;
            const ROWS: usize = $rows;
            const REGISTERS: usize = $registers;

            $crate::x86::enabled! {
                $features
                conv = conv::run(conv: &Conv<Self>, positions: Range<usize>, input: &[u8], output: &mut [u8], scratch: &mut [u8]);
                depthwise = depthwise::run(depthwise: &Depthwise<Self>, rows: Range<usize>, input: &[u8], output: &mut [u8], scratch: &mut [u8]);
                linear = linear::run(linear: &Linear<Self>, units: Range<usize>, input: &[u8], logits: &mut [f32], scratch: &mut [u8]);
                max_pool = max_pool::run(pool: &MaxPool<Self>, rows: Range<usize>, input: &[u8], output: &mut [u8]);
                add = elementwise::add(add: &Add<Self>, a: &[u8], b: &[u8], output: &mut [u8]);
                multiply = elementwise::multiply(multiply: &Multiply<Self>, a: &[u8], b: &[u8], output: &mut [u8]);
            }
        }
    };
}
use set;

/// Functions of a [`Set`], each the one of the operator's file with the set's features.
macro_rules! enabled {
    ($features:literal $($name:ident = $file:ident::$run:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            #[target_feature(enable = $features)]
            unsafe fn $name($($argument: $type),*) {
                // SAFETY: as for the caller.
                unsafe { $crate::x86::$file::$run($($argument),*) }
            }
        )*
    };
}
use enabled;

/// The kernels of a [`Set`] whose weights need no choice.
macro_rules! common_kernels {
    ($set:ident) => {
        fn linear(&self, linear: operators::Linear) -> Box<dyn Kernel<f32>> {
            Box::new(Linear::<$set>::new(&linear))
        }

        fn max_pool(&self, pool: operators::MaxPool) -> Box<dyn Kernel> {
            Box::new(MaxPool::<$set>::new(pool))
        }

        fn add(&self, add: operators::Add) -> Box<dyn Kernel> {
            Box::new(Add::<$set>::new(add))
        }

        fn multiply(&self, multiply: operators::Multiply) -> Box<dyn Kernel> {
            Box::new(Multiply::<$set>::new(multiply))
        }
    };
}
use common_kernels;
