//! Training photos as batches: decoded once, then cropped, changed and mixed anew for every step.
//!
//! | module | duty |
//! |---|---|
//! | [`store`] | the photos' pixels, decoded once, in memory or in a file |
//! | [`order`] | which photo comes when: epochs, balance of the classes |
//! | [`augmentation`] | the settings |
//! | `change` | what happens to one photo, drawn by the settings |
//! | `geometry` | crops, and small turns and shifts |
//! | `colour` | tone and colour of a picture |
//! | `render` | one photo and its change -> normalised planes |
//! | `mixing` | mixup and cutmix |
//! | [`loader`] | a step's number -> its batch |
//! | [`prefetch`] | batches made ahead of the step |
//! | [`sheet`] | a batch as one picture, for people |
//!
//! A batch depends on the seed, its settings and the number of its step alone: not on the threads, nor on what was made
//! before it.

pub mod augmentation;
mod change;
mod colour;
mod geometry;
pub mod loader;
mod mixing;
pub mod order;
pub mod prefetch;
mod render;
pub mod sheet;
pub mod store;

pub use augmentation::{Augmentation, Operation};
pub use loader::{Batch, Loader, Settings};
pub use order::Order;
pub use prefetch::Prefetch;
pub use render::Normalisation;
pub use store::{Loaded, Pictures, Room};
