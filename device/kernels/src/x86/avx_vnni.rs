//! AVX-VNNI: 256-bit dot products of bytes, on processors without AVX-512.

use std::ops::Range;

use super::conv::Conv;
use super::depthwise::Depthwise;
use super::elementwise::{Add, Multiply};
use super::linear::Linear;
use super::max_pool::MaxPool;
use super::{common_kernels, set};
use crate::dispatch::InstructionSet;
use crate::operator::Kernel;
use crate::operators;

set! {
    /// 12 registers of sums, two of weights, one of input.
    Vnni: AvxVnni256, AvxVnni128, AvxVnni128, 16 registers, 6 rows, "avxvnni,avx2,fma"
}

/// AVX2 with FMA and AVX-VNNI.
#[derive(Debug)]
pub(crate) struct AvxVnni;

impl InstructionSet for AvxVnni {
    fn name(&self) -> &'static str {
        "avx-vnni"
    }

    fn available(&self) -> bool {
        is_x86_feature_detected!("avxvnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
    }

    fn conv(&self, conv: operators::Conv) -> Box<dyn Kernel> {
        Box::new(Conv::<Vnni>::new(&conv))
    }

    fn depthwise(&self, depthwise: operators::Depthwise) -> Box<dyn Kernel> {
        Box::new(Depthwise::<Vnni>::new(&depthwise))
    }

    common_kernels!(Vnni);
}

/// The 256-bit form of AVX-512 VNNI is the same instruction in another encoding: it stands in for AVX-VNNI where that is
/// missing.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AlignedBytes, ConvParameters, Isa, Operator, Quantization, SLACK, Window};

    set! {
        StandInVnni: Vnni256, Vnni128, Vnni128, 16 registers, 6 rows, "avx512f,avx512vl,avx512vnni,avx2,fma"
    }

    #[derive(Debug)]
    struct StandIn;

    impl InstructionSet for StandIn {
        fn name(&self) -> &'static str {
            "avx512vl-vnni"
        }

        fn available(&self) -> bool {
            is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni")
        }

        fn conv(&self, conv: operators::Conv) -> Box<dyn Kernel> {
            Box::new(Conv::<StandInVnni>::new(&conv))
        }

        fn depthwise(&self, depthwise: operators::Depthwise) -> Box<dyn Kernel> {
            Box::new(Depthwise::<StandInVnni>::new(&depthwise))
        }

        common_kernels!(StandInVnni);
    }

    fn outputs<T: Copy + Default>(
        build: impl Fn(Isa) -> Result<Operator<T>, crate::Invalid>,
        input: &[u8],
    ) -> Result<[Vec<T>; 2], crate::Invalid> {
        let run = |isa| {
            let operator = build(isa)?;
            let mut output = vec![T::default(); operator.output_len()];
            let mut scratch = AlignedBytes::new(operator.scratch_len());
            operator.run(&[input], &mut output, &mut scratch)?;
            Ok(output)
        };
        Ok([run(Isa::PLAIN)?, run(Isa(&StandIn))?])
    }

    #[test]
    fn same_as_plain() -> Result<(), crate::Invalid> {
        if !StandIn.available() {
            return Ok(());
        }
        let bytes = |n: usize| (0..n).map(|i| ((i * i * 31) >> 3) as u8);
        let quantization = |scale, zero_point| Quantization { scale, zero_point };
        for size in 3..20 {
            for channels in [1, 3, 16, 24, 33, 70] {
                for (kernel, stride) in [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)] {
                    let padding = [kernel / 2; 4];
                    let picture = [size + 2, size, channels];
                    let window = Window::new(picture, [kernel; 2], [stride; 2], padding)?;
                    let outputs_of_conv = channels / 2 + 9;
                    let weights = outputs_of_conv * channels * kernel * kernel;
                    let weights: Vec<i8> = bytes(weights).map(|w| w as i8).collect();
                    let input: Vec<u8> = bytes(window.input_len() + SLACK).collect();
                    let parameters = ConvParameters {
                        weights: &weights,
                        bias: &[],
                        weight_scales: &[0.002],
                        input: quantization(0.01, 77),
                        output: quantization(0.1, 100),
                    };
                    let conv = |isa| Operator::conv(isa, window, outputs_of_conv, parameters);
                    let [plain, fast] = outputs(conv, &input)?;
                    assert_eq!(plain, fast);
                    let weights = &weights[..channels * kernel * kernel];
                    let parameters = ConvParameters {
                        weights,
                        ..parameters
                    };
                    let depthwise = |isa| Operator::depthwise(isa, window, parameters);
                    let [plain, fast] = outputs(depthwise, &input)?;
                    assert_eq!(plain, fast);
                    let linear = |isa| Operator::linear(isa, channels, weights, &[], 3, &[0.1]);
                    let [plain, fast] = outputs(linear, &input)?;
                    assert_eq!(plain, fast);
                }
            }
        }
        Ok(())
    }
}
