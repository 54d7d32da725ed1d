//! Training units: convolution + BatchNorm + activation, add, multiply, pools, linear, strung together by one small graph.
//!
//! Tensors are f32, NCHW. The heavy units are operators of our own on candle tensors, because candle runs a depthwise
//! convolution as a loop over its channels; [`cpu`] holds their kernels.

mod add;
mod batch_norm;
mod conv;
pub(crate) mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cuda;
mod drop;
mod function;
mod graph;
mod linear;
mod multiply;
mod normalise;
mod pool;
mod shapes;
mod tape;
#[cfg(test)]
pub(crate) mod testing;
mod weights;

pub use batch_norm::BatchNorm;
pub use conv::{Activation, Conv, Padding};
pub use drop::Dropping;
pub use function::Function;
pub use graph::{Graph, Node, Op};
pub use linear::Linear;
pub use pool::{Pool, PoolKind};
pub use tape::{BatchStatistics, Gradients, Tape};
pub use weights::{Parameter, Role, Statistics, Weights, read_lists, write_lists};
