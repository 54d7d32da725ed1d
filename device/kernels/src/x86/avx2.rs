//! AVX2: 256-bit vectors, no dot product of bytes.

use crate::dispatch::InstructionSet;

/// AVX2 with FMA.
#[derive(Debug)]
pub(crate) struct Avx2;

impl InstructionSet for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn available(&self) -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }
}
