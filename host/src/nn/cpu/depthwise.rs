//! Depthwise convolution: each channel with its own square kernel.
//!
//! A plane is copied to a padded one, split by stride into phases (row and column modulo stride), so that what a tap of
//! the kernel reads for neighbouring outputs lies side by side. Outputs are then computed in one run over the padded
//! plane, a few columns too many per row, and the real ones are copied out.

use candle_core::{Result, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Epilogue, Geometry, Size};

/// Vectors of neighbouring outputs that are summed at once.
const VECTORS: usize = 2;
/// Room behind a plane, in values, for the vectors that reach beyond it: at least `VECTORS` of the widest.
const SLACK: usize = 64;
/// Outputs of one unit of parallel work, at least.
const TASK_OUTPUTS: usize = 16 * 1024;

/// Weight `[channels, 1, k, k]`, input `[n, channels, h, w]`; returns `[n, channels, h', w']`.
///
/// # Errors
/// Kernels other than 3, 5, 7, strides other than 1, 2.
pub(in crate::nn) fn forward(
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
) -> Result<Vec<f32>> {
    Ok(match (geometry.kernel.height, geometry.stride) {
        (3, 1) => run::<3, 1>(geometry, input, weight, epilogue),
        (3, 2) => run::<3, 2>(geometry, input, weight, epilogue),
        (5, 1) => run::<5, 1>(geometry, input, weight, epilogue),
        (5, 2) => run::<5, 2>(geometry, input, weight, epilogue),
        (7, 1) => run::<7, 1>(geometry, input, weight, epilogue),
        (7, 2) => run::<7, 2>(geometry, input, weight, epilogue),
        (kernel, stride) => {
            bail!(
                "no depthwise convolution with a kernel of {kernel} and a stride of {stride}: 3, 5, 7 and 1, 2 can be had"
            )
        }
    })
}

fn run<const KERNEL: usize, const STRIDE: usize>(
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
) -> Vec<f32> {
    let channels = geometry.input_channels;
    let area = geometry.output.area();
    let phase = Phase::new(geometry);
    let mut output = vec![0.0; geometry.images * channels * area];
    if output.is_empty() || geometry.input.area() == 0 {
        return output;
    }
    output
        .par_chunks_mut(area)
        .with_min_len(TASK_OUTPUTS.div_ceil(area))
        .zip(input.par_chunks(geometry.input.area()))
        .enumerate()
        .for_each_init(
            || Scratch {
                padded: vec![0.0; STRIDE * STRIDE * phase.len() + SLACK],
                sums: vec![0.0; phase.run(geometry.output) + SLACK],
            },
            |scratch, (plane, (output, input))| {
                Arch::new().dispatch(Plane::<KERNEL, STRIDE> {
                    geometry,
                    phase,
                    input,
                    weight: &weight[plane % channels * KERNEL * KERNEL..][..KERNEL * KERNEL],
                    channel: plane % channels,
                    epilogue,
                    scratch,
                    output,
                });
            },
        );
    output
}

/// Size of one phase of the padded plane.
#[derive(Clone, Copy)]
struct Phase {
    width: usize,
    height: usize,
}

impl Phase {
    fn new(geometry: &Geometry) -> Phase {
        let reach = (geometry.kernel.height - 1) / geometry.stride;
        Phase {
            width: geometry.output.width + reach,
            height: geometry.output.height + reach,
        }
    }

    fn len(self) -> usize {
        self.width * self.height
    }

    /// Values from the first output to the last, at a phase's row pitch.
    fn run(self, output: Size) -> usize {
        (output.height - 1) * self.width + output.width
    }
}

/// Buffers of one thread. The padding of `padded` stays zero: only the inside is ever written.
struct Scratch {
    padded: Vec<f32>,
    sums: Vec<f32>,
}

/// One channel of one image.
struct Plane<'a, const KERNEL: usize, const STRIDE: usize> {
    geometry: &'a Geometry,
    phase: Phase,
    input: &'a [f32],
    weight: &'a [f32],
    channel: usize,
    epilogue: &'a Epilogue<'a>,
    scratch: &'a mut Scratch,
    output: &'a mut [f32],
}

impl<const KERNEL: usize, const STRIDE: usize> WithSimd for Plane<'_, KERNEL, STRIDE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Plane {
            geometry,
            phase,
            input,
            weight,
            channel,
            epilogue,
            scratch,
            output,
        } = self;
        split_phases::<STRIDE>(geometry, phase, input, &mut scratch.padded);

        let finish = epilogue.channel(simd, channel);
        let mut weights = [[simd.splat_f32s(0.0); KERNEL]; KERNEL];
        for (splat, &tap) in weights.as_flattened_mut().iter_mut().zip(weight) {
            *splat = simd.splat_f32s(tap);
        }
        let run = phase.run(geometry.output);
        let padded = &scratch.padded;
        let block = VECTORS * S::F32_LANES;
        let (blocks, _) = S::as_mut_simd_f32s(&mut scratch.sums);
        let (blocks, _) = blocks.as_chunks_mut::<VECTORS>();
        for (index, sums) in blocks.iter_mut().take(run.div_ceil(block)).enumerate() {
            let mut totals = [simd.splat_f32s(0.0); VECTORS];
            for (tap_y, weights) in weights.iter().enumerate() {
                for (tap_x, &weight) in weights.iter().enumerate() {
                    let plane = tap_y % STRIDE * STRIDE + tap_x % STRIDE;
                    let offset =
                        plane * phase.len() + tap_y / STRIDE * phase.width + tap_x / STRIDE;
                    let (values, _) = S::as_simd_f32s(&padded[offset + index * block..][..block]);
                    for (total, &value) in totals.iter_mut().zip(values) {
                        *total = simd.mul_add_f32s(weight, value, *total);
                    }
                }
            }
            for (sum, &total) in sums.iter_mut().zip(&totals) {
                *sum = finish.apply(total);
            }
        }
        for (output, sums) in output
            .chunks_exact_mut(geometry.output.width)
            .zip(scratch.sums.chunks(phase.width))
        {
            output.copy_from_slice(&sums[..output.len()]);
        }
    }
}

/// Copies a plane to the inside of its padded phases.
#[inline(always)]
fn split_phases<const STRIDE: usize>(
    geometry: &Geometry,
    phase: Phase,
    input: &[f32],
    padded: &mut [f32],
) {
    for (y, line) in input.chunks_exact(geometry.input.width).enumerate() {
        let y = y + geometry.padding.top;
        if y / STRIDE >= phase.height {
            break;
        }
        for column_phase in 0..STRIDE {
            // The first input column of this phase, and where it goes.
            let skipped =
                (STRIDE * geometry.padding.left + column_phase - geometry.padding.left) % STRIDE;
            let first = (skipped + geometry.padding.left) / STRIDE;
            let plane = y % STRIDE * STRIDE + column_phase;
            let row = &mut padded[plane * phase.len() + y / STRIDE * phase.width..][..phase.width];
            let (Some(row), Some(line)) = (row.get_mut(first..), line.get(skipped..)) else {
                continue;
            };
            let (strides, rest) = line.as_chunks::<STRIDE>();
            let last = rest.first().copied();
            for (value, source) in row.iter_mut().zip(strides) {
                *value = source[0];
            }
            if let (Some(value), Some(last)) = (row.get_mut(strides.len()), last) {
                *value = last;
            }
        }
    }
}
