//! The kernels on the processor against the plain loops of [`crate::nn::cpu`].
