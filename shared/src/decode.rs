//! Image file -> RGB8.

use crate::error::{Error, Result};
use crate::preprocess::Pixels;

/// Decodes a JPEG or PNG file.
///
/// # Errors
/// When the file is not one.
pub fn decode(_image_file: &[u8]) -> Result<Pixels> {
    Err(Error::new("not yet"))
}
