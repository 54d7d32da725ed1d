//! Bottlenecks.
