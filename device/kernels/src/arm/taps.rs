//! Weights of a depthwise convolution as 16-bit integers.

use crate::operators::Depthwise;
use crate::packed::{Packed, padded};

/// Block of so many channels x tap x channel; 0 beyond the last channel.
pub(crate) fn pack(depthwise: &Depthwise, block: usize) -> Packed {
    let channels = depthwise.window.channels;
    let mut weights = vec![];
    for first in (0..channels).step_by(block) {
        let block_channels = first..channels.min(first + block);
        for tap in depthwise.weights.chunks_exact(channels) {
            weights.extend(padded(&tap[block_channels.clone()], block));
        }
    }
    Packed::words(&weights)
}
