//! Which instruction set runs the kernels: found at run time, and the same code compiled for each.

use crate::pack::{Conv, Depthwise, Linear};
use crate::{Add, GlobalAveragePool, MaxPool, plain};

/// An instruction set that this processor has been found to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

/// Rows of one tile: as many as leave the sums in registers.
#[cfg(target_arch = "aarch64")]
const PLAIN_ROWS: usize = 4;
#[cfg(not(target_arch = "aarch64"))]
const PLAIN_ROWS: usize = 2;
/// Whether the target's baseline has a fused multiply-add.
const PLAIN_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

impl Isa {
    /// Code for the baseline of the target: runs on every processor that runs this program.
    pub const PLAIN: Isa = Isa(Kind::Plain);

    /// The fastest of [`Isa::available`].
    pub fn detect() -> Isa {
        Isa::available().pop().unwrap_or(Isa::PLAIN)
    }

    /// All instruction sets of this processor that there is code for, slowest first. All give the same bits.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut found = vec![Isa::PLAIN];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(Isa(Kind::Avx2));
        }
        found
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Plain => {
                if cfg!(target_arch = "aarch64") {
                    "neon"
                } else {
                    "plain"
                }
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
        }
    }
}

/// One method of [`Isa`] per operator, and per instruction set a function that enables it around the plain body.
macro_rules! operators {
    ($($name:ident($($arg:ident: $type:ty),*) = $plain:expr, $avx2:expr;)*) => {
        impl Isa {
            $(
                #[inline]
                pub(crate) fn $name(self, $($arg: $type),*) {
                    match self.0 {
                        Kind::Plain => $plain($($arg),*),
                        // SAFETY: a value of this kind exists only after its instruction set was detected.
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx2 => unsafe { avx2::$name($($arg),*) },
                    }
                }
            )*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx2 {
            use super::*;
            $(
                #[target_feature(enable = "avx2,fma")]
                pub(super) fn $name($($arg: $type),*) {
                    $avx2($($arg),*)
                }
            )*
        }
    };
}

operators! {
    conv(conv: &Conv, input: &[u8], output: &mut [u8]) =
        plain::conv::<PLAIN_ROWS, PLAIN_FMA>, plain::conv::<6, true>;
    depthwise(conv: &Depthwise, input: &[u8], output: &mut [u8]) =
        plain::depthwise, plain::depthwise;
    linear(linear: &Linear, input: &[u8], logits: &mut [f32]) =
        plain::linear::<PLAIN_FMA>, plain::linear::<true>;
    add(add: &Add, a: &[u8], b: &[u8], output: &mut [u8]) = plain::add, plain::add;
    global_average_pool(pool: &GlobalAveragePool, input: &[u8], output: &mut [u8]) =
        plain::global_average_pool, plain::global_average_pool;
    max_pool(pool: &MaxPool, input: &[u8], output: &mut [u8]) =
        plain::max_pool, plain::max_pool;
}
