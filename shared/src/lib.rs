//! What the host and the device must agree on: labels, preprocessing, the model card, limits.

pub mod card;
pub mod decode;
pub mod digest;
pub mod error;
pub mod files;
pub mod labels;
pub mod limits;
pub mod preprocess;
pub mod resize;
