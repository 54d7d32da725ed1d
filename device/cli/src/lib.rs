//! What the command lines of `graft` and `graft-device` share, so that a command is the same in both: how pictures are
//! named ([`pictures`]), labelled ([`label`]), and how a program describes itself ([`describe`]).
#![forbid(unsafe_code)]

pub mod describe;
pub mod label;
pub mod pictures;

use std::num::NonZeroUsize;

/// The number of threads that was typed, else one for each core.
#[must_use]
pub fn threads(typed: Option<NonZeroUsize>) -> usize {
    typed
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get)
}

/// Reads a fraction, for clap.
///
/// # Errors
/// When it is not a number from 0 to 1.
pub fn fraction<T: std::str::FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(value) if (T::from(0)..=T::from(1)).contains(&value) => Ok(value),
        _ => Err("not a number from 0 to 1 (90 % is 0.9)".into()),
    }
}
