//! The kinds of operators: what each is made of, and the checks that its result can be exact.

mod add;
mod concat;
mod conv;
mod linear;
mod multiply;
mod pools;
mod table;

pub(crate) use add::Add;
pub(crate) use concat::Concat;
pub use concat::ConcatInput;
pub use conv::ConvParameters;
pub(crate) use conv::{Conv, Depthwise};
pub(crate) use linear::Linear;
pub(crate) use multiply::Multiply;
pub use pools::Padding;
pub(crate) use pools::{AveragePool, MaxPool};
pub(crate) use table::Table;

use crate::{Invalid, ensure};

/// How bytes stand for numbers: `(byte - zero_point) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// The step between neighbours; finite and positive.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero_point: u8,
}

impl Quantization {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        ensure(
            self.scale.is_finite() && self.scale > 0.0,
            "a scale is not finite and positive",
        )
    }
}

/// Largest `|sum| * scale` of a requantization: far beyond any byte, and safe to convert to an i32.
const LARGEST_REQUANTIZED: f32 = (1u32 << 30) as f32;

/// Scales and zero point of an output.
#[derive(Debug, Clone)]
pub(crate) struct Requantize {
    /// One per output channel.
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_point: u8,
}

/// The product of `dimensions`.
///
/// # Errors
/// More than 2^28: every index and byte count has to fit 32 bits.
pub(crate) fn elements(dimensions: &[usize]) -> Result<usize, Invalid> {
    const MAX_ELEMENTS: usize = 1 << 28;
    dimensions
        .iter()
        .try_fold(1usize, |product, &d| product.checked_mul(d))
        .filter(|&product| product <= MAX_ELEMENTS)
        .ok_or(Invalid(
            "an activation or a weight tensor has more than 2^28 elements",
        ))
}

/// One scale for all of `channels`, or one for each.
fn per_channel(scales: &[f32], channels: usize) -> Result<Vec<f32>, Invalid> {
    match scales {
        [one] => Ok(vec![*one; channels]),
        _ if scales.len() == channels => Ok(scales.to_vec()),
        _ => Err(Invalid(
            "there is neither one scale nor one per output channel",
        )),
    }
}

/// The sums of one output channel.
struct Sums {
    /// `bias - zero_point * sum(w)`: what is added to `sum(x * w)`.
    folded_bias: i32,
    /// Largest magnitude of `bias + sum((x - zero_point) * w)`.
    largest: i64,
}

/// The sums of an output channel with these `weights`.
///
/// # Errors
/// A sum that may leave an i32.
fn sums(weights: &[i8], bias: i32, zero_point: u8) -> Result<Sums, Invalid> {
    let (mut sum, mut magnitude) = (0i64, 0i64);
    // Sums of so few bytes fit 16 bits, of which a vector holds many.
    for weights in weights.chunks(128) {
        let (mut near, mut near_magnitude) = (0i16, 0u16);
        for w in weights {
            near = near.wrapping_add(i16::from(*w));
            near_magnitude = near_magnitude.wrapping_add(u16::from(w.unsigned_abs()));
        }
        sum += i64::from(near);
        magnitude += i64::from(near_magnitude);
    }
    let largest = i64::from(bias).abs() + 255 * magnitude;
    ensure(
        largest <= i64::from(i32::MAX),
        "the sum of products of an output channel may leave an i32",
    )?;
    let folded_bias = i32::try_from(i64::from(bias) - i64::from(zero_point) * sum)
        .map_err(|_| Invalid("the bias of an output channel leaves an i32"))?;
    Ok(Sums {
        folded_bias,
        largest,
    })
}
