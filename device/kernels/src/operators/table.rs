//! A function of one byte per channel: activations such as hard-swish, and the normalisation of pixels.

use super::elements;
use crate::operator::{Operator, Shape};
use crate::{Invalid, Isa, ensure};

/// 256 bytes per channel; one row where all channels have the same.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) rows: Vec<[u8; 256]>,
    pub(crate) channels: usize,
}

impl Operator {
    /// Looks every byte of `positions` x channels up; `rows` has one row per channel. Units: positions.
    ///
    /// # Errors
    /// No rows.
    pub fn table(isa: Isa, positions: usize, rows: &[[u8; 256]]) -> Result<Operator, Invalid> {
        let (first, rest) = rows.split_first().ok_or(Invalid("a table has no rows"))?;
        ensure(positions > 0, "a table has no positions")?;
        let channels = rows.len();
        let len = elements(&[positions, channels])?;
        let same = rest.iter().all(|row| row == first);
        let table = Table {
            rows: if same { vec![*first] } else { rows.to_vec() },
            channels,
        };
        let shape = Shape {
            inputs: vec![len],
            output: len,
            unit: channels,
            macs: 0,
        };
        Ok(Operator::new(shape, isa.kernels().table(table)))
    }
}
