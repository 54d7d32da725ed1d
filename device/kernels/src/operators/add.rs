//! The residual add of two activations.

use super::Quantization;
use crate::operator::{Operator, Shape};
use crate::{Invalid, Isa, ensure};

/// `clamp(rne(fma(a, ra, fma(b, rb, fix))), 0, 255)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Add {
    pub(crate) ra: f32,
    pub(crate) rb: f32,
    pub(crate) fix: f32,
}

impl Operator {
    /// Adds two activations of `len` bytes: `ra = f32(sa / sy)`, `rb = f32(sb / sy)`,
    /// `fix = f32(f32(zy) - fma(ra, f32(za), f32(rb * f32(zb))))`, `y = clamp(rne(fma(a, ra, fma(b, rb, fix))), 0, 255)`.
    /// Units: bytes.
    ///
    /// # Errors
    /// Scales that are not finite and positive, or whose quotients are not.
    pub fn add(
        isa: Isa,
        len: usize,
        a: Quantization,
        b: Quantization,
        output: Quantization,
    ) -> Result<Operator, Invalid> {
        a.check()?;
        b.check()?;
        output.check()?;
        let (ra, rb) = (a.scale / output.scale, b.scale / output.scale);
        let fix = f32::from(output.zero_point)
            - ra.mul_add(f32::from(a.zero_point), rb * f32::from(b.zero_point));
        // Below this bound every intermediate converts to an i32.
        let bounded = |v: f32| v.abs() < (1 << 20) as f32;
        ensure(
            bounded(ra) && bounded(rb) && bounded(fix),
            "the scales of a residual add differ too much",
        )?;
        let shape = Shape {
            inputs: vec![len, len],
            output: len,
            unit: 1,
            macs: 0,
        };
        let add = Add { ra, rb, fix };
        Ok(Operator::new(shape, isa.kernels().add(add)))
    }
}
