//! The operators without weights: residual add, global average pool, max pool, table.

use crate::dispatch::Isa;
use crate::{Invalid, Window, ensure};

/// Residual add of two activations: `clamp(rne(fma(a, ra, fma(b, rb, fix))), 0, 255)`.
#[derive(Debug, Clone, Copy)]
pub struct Add {
    pub(crate) ra: f32,
    pub(crate) rb: f32,
    pub(crate) fix: f32,
}

impl Add {
    /// Scale and zero point of both inputs and of the output.
    ///
    /// # Errors
    /// Scales that are not finite and positive, or whose quotients are not finite.
    pub fn new(a: (f32, u8), b: (f32, u8), output: (f32, u8)) -> Result<Add, Invalid> {
        ensure(
            [a.0, b.0, output.0]
                .iter()
                .all(|s| s.is_finite() && *s > 0.0),
            "a scale is not finite and positive",
        )?;
        let (ra, rb) = (a.0 / output.0, b.0 / output.0);
        let fix = f32::from(output.1) - ra.mul_add(f32::from(a.1), rb * f32::from(b.1));
        // Below this bound no intermediate can become infinite.
        let bounded = |v: f32| v.abs() < f32::MAX / 1024.0;
        ensure(
            bounded(ra) && bounded(rb) && bounded(fix),
            "the scales of a residual add differ too much",
        )?;
        Ok(Add { ra, rb, fix })
    }

    /// Adds `a` and `b` into `output`.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn run(&self, isa: Isa, a: &[u8], b: &[u8], output: &mut [u8]) -> Result<(), Invalid> {
        ensure(
            a.len() == b.len() && a.len() == output.len(),
            "the two sides of a residual add differ in length",
        )?;
        isa.add(self, a, b, output);
        Ok(())
    }
}

/// Mean over all positions, per channel: `clamp(rne(f32(sum - n * zx) * s) + zy, 0, 255)` with `s = (sx / sy) / n`.
#[derive(Debug, Clone, Copy)]
pub struct GlobalAveragePool {
    pub(crate) channels: usize,
    pub(crate) positions: usize,
    /// `n * zx`, taken off the sum.
    pub(crate) offset: i32,
    pub(crate) scale: f32,
    pub(crate) zero_point: u8,
}

impl GlobalAveragePool {
    /// `positions` is height x width; `input` and `output` are scale and zero point.
    ///
    /// # Errors
    /// A dimension of zero, more than 2^22 positions, scales that are not finite and positive.
    pub fn new(
        positions: usize,
        channels: usize,
        input: (f32, u8),
        output: (f32, u8),
    ) -> Result<GlobalAveragePool, Invalid> {
        ensure(
            positions > 0 && positions <= 1 << 22 && channels > 0,
            "a pool has no positions, no channels, or more than 2^22 positions",
        )?;
        ensure(
            [input.0, output.0]
                .iter()
                .all(|s| s.is_finite() && *s > 0.0),
            "a scale is not finite and positive",
        )?;
        let scale = (input.0 / output.0) / positions as f32;
        ensure(scale.is_finite(), "a scale is not finite and positive")?;
        let offset = positions as i32 * i32::from(input.1);
        Ok(GlobalAveragePool {
            channels,
            positions,
            offset,
            scale,
            zero_point: output.1,
        })
    }

    /// Pools `input` (positions x channels) into `output` (channels).
    ///
    /// # Errors
    /// A slice of another length.
    pub fn run(&self, isa: Isa, input: &[u8], output: &mut [u8]) -> Result<(), Invalid> {
        ensure(
            Some(input.len()) == self.positions.checked_mul(self.channels)
                && output.len() == self.channels,
            "an activation has another length than the pool's",
        )?;
        isa.global_average_pool(self, input, output);
        Ok(())
    }
}

/// Largest byte in each window; padding is never the largest.
#[derive(Debug, Clone, Copy)]
pub struct MaxPool {
    pub(crate) window: Window,
}

impl MaxPool {
    /// Pools over `window`.
    pub fn new(window: Window) -> MaxPool {
        MaxPool { window }
    }

    /// Pools `input` (height x width x channels) into `output` (out height x out width x channels).
    ///
    /// # Errors
    /// A slice of another length.
    pub fn run(&self, isa: Isa, input: &[u8], output: &mut [u8]) -> Result<(), Invalid> {
        ensure(
            input.len() == self.window.input_len()
                && output.len() == self.window.positions() * self.window.channels,
            "an activation has another length than the pool's",
        )?;
        isa.max_pool(self, input, output);
        Ok(())
    }
}

/// A function of one byte per channel, as 256 bytes each.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) rows: Vec<[u8; 256]>,
}

impl Table {
    /// One row per channel.
    ///
    /// # Errors
    /// No rows.
    pub fn new(rows: Vec<[u8; 256]>) -> Result<Table, Invalid> {
        ensure(!rows.is_empty(), "a table has no rows")?;
        Ok(Table { rows })
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.rows.len()
    }

    /// Looks every byte of `input` (positions x channels) up.
    ///
    /// # Errors
    /// Slices of different lengths, or no whole number of positions.
    pub fn run(&self, input: &[u8], output: &mut [u8]) -> Result<(), Invalid> {
        ensure(
            input.len() == output.len() && input.len().is_multiple_of(self.rows.len()),
            "an activation has another length than the table's",
        )?;
        crate::plain::table(self, input, output);
        Ok(())
    }
}
