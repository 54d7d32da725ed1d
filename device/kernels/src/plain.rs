//! The specification: every operator in plain Rust. Its results are what each instruction set has to give, to the bit.
//!
//! All bodies are `inline(always)` and generic, so that `dispatch` can compile them anew inside functions that enable an
//! instruction set, and loops run over arrays of fixed length, so that the compiler makes vectors of them.

use crate::pack::{Conv, Depthwise, Linear, Panels};
use crate::window::Window;
use crate::{Add, GlobalAveragePool, MaxPool, Table};

/// Output channels in one panel of weights.
pub(crate) const LANES: usize = 16;

/// Products of an u8 and an i8 whose sum is exact in f32: 512 * 255 * 128 < 2^24.
const EXACT_IN_F32: usize = 512;

/// f32 values of packed input kept at once: they stay in a small second-level cache.
const BLOCK: usize = 48 * 1024;

/// Adding this to a small f32 leaves its nearest integer, ties to even, in the low bits: 1.5 * 2^23.
const ROUNDING: f32 = 12_582_912.0;

/// Scales and zero point of an output.
#[derive(Debug, Clone)]
pub(crate) struct Requantize {
    /// One per output channel, padded with 0 to whole panels.
    scales: Vec<[f32; LANES]>,
    zero_point: u8,
}

impl Requantize {
    pub(crate) fn new(scales: Vec<f32>, zero_point: u8) -> Requantize {
        let mut padded = vec![[0.0; LANES]; scales.len().div_ceil(LANES)];
        for (c, scale) in scales.iter().enumerate() {
            padded[c / LANES][c % LANES] = *scale;
        }
        Requantize {
            scales: padded,
            zero_point,
        }
    }
}

/// `clamp(rne(value) + zero_point, 0, 255)`. Clamping first gives the same: rounding is monotone and keeps integers.
#[inline(always)]
fn to_u8(value: f32, zero_point: u8) -> u8 {
    let (low, high) = (-f32::from(zero_point), 255.0 - f32::from(zero_point));
    let value = if value > low { value } else { low };
    let value = if value < high { value } else { high };
    let integer = (value + ROUNDING)
        .to_bits()
        .wrapping_sub(ROUNDING.to_bits());
    integer.wrapping_add(u32::from(zero_point)) as u8
}

/// `a + x * w`. Only for integers so small that the result is exact: then it is the same with and without fusing.
#[inline(always)]
fn multiply_add<const FMA: bool>(x: f32, w: f32, a: f32) -> f32 {
    if FMA { x.mul_add(w, a) } else { x * w + a }
}

/// Adds the products of `M` rows of input and one panel of weights to `sums`.
/// `x` is k x `M`, `w` is k x `LANES`; both hold integers.
#[inline(always)]
fn tile<const M: usize, const FMA: bool>(
    x: &[[f32; M]],
    w: &[[f32; LANES]],
    sums: &mut [[i32; LANES]; M],
) {
    for (x, w) in x.chunks(EXACT_IN_F32).zip(w.chunks(EXACT_IN_F32)) {
        let mut partial = [[0f32; LANES]; M];
        for (x, w) in x.iter().zip(w) {
            for m in 0..M {
                for lane in 0..LANES {
                    partial[m][lane] = multiply_add::<FMA>(x[m], w[lane], partial[m][lane]);
                }
            }
        }
        for m in 0..M {
            for lane in 0..LANES {
                // SAFETY: the value is an integer below 2^24 in magnitude. (`as` would saturate, which is slow.)
                let partial = unsafe { partial[m][lane].to_int_unchecked::<i32>() };
                sums[m][lane] = sums[m][lane].wrapping_add(partial);
            }
        }
    }
}

/// The weights of one panel as f32, k x `LANES`.
#[inline(always)]
fn widen(panel: &[[i8; LANES]], wide: &mut [[f32; LANES]]) {
    for (wide, narrow) in wide.iter_mut().zip(panel) {
        for lane in 0..LANES {
            wide[lane] = f32::from(narrow[lane]);
        }
    }
}

/// Fills `packed` (k x `M`, as f32) with what the kernel sees at `M` output positions from `first` on; positions beyond
/// the last repeat the last. Padding has the value `zero_point`.
#[inline(always)]
fn pack_rows<const M: usize>(
    window: &Window,
    zero_point: u8,
    input: &[u8],
    first: usize,
    packed: &mut [[f32; M]],
) {
    let last = window.positions() - 1;
    let channels = window.channels;
    for m in 0..M {
        let position = (first + m).min(last);
        if window.is_pointwise() {
            let row = &input[position * channels..][..channels];
            for (packed, x) in packed.iter_mut().zip(row) {
                packed[m] = f32::from(*x);
            }
            continue;
        }
        let (top, left) = (
            position / window.out_width * window.stride[0],
            position % window.out_width * window.stride[1],
        );
        let mut taps = packed.chunks_exact_mut(channels);
        for dy in 0..window.kernel[0] {
            for dx in 0..window.kernel[1] {
                let Some(tap) = taps.next() else { return };
                // Wraps to a huge index where the kernel lies above or left of the picture.
                let (y, x) = (
                    (top + dy).wrapping_sub(window.top),
                    (left + dx).wrapping_sub(window.left),
                );
                if y < window.height && x < window.width {
                    let row = &input[(y * window.width + x) * channels..][..channels];
                    for (packed, x) in tap.iter_mut().zip(row) {
                        packed[m] = f32::from(*x);
                    }
                } else {
                    for packed in tap {
                        packed[m] = f32::from(zero_point);
                    }
                }
            }
        }
    }
}

/// Dense convolution as a matrix product: output positions x output channels, `M` x `LANES` at a time.
#[inline(always)]
pub(crate) fn conv<const M: usize, const FMA: bool>(conv: &Conv, input: &[u8], output: &mut [u8]) {
    let Panels {
        k,
        n,
        weights,
        bias,
    } = &conv.panels;
    let (k, n) = (*k, *n);
    let positions = conv.window.positions();
    let tiles_at_once = (BLOCK / (k * M)).clamp(1, positions.div_ceil(M));
    let mut packed = vec![[0f32; M]; tiles_at_once * k];
    let mut wide = vec![[0f32; LANES]; k];
    for first in (0..positions).step_by(tiles_at_once * M) {
        let rows = (positions - first).min(tiles_at_once * M);
        for (t, packed) in packed
            .chunks_exact_mut(k)
            .enumerate()
            .take(rows.div_ceil(M))
        {
            pack_rows::<M>(
                &conv.window,
                conv.input_zero_point,
                input,
                first + t * M,
                packed,
            );
        }
        for (p, panel) in weights.chunks_exact(k).enumerate() {
            widen(panel, &mut wide);
            let lanes = (n - p * LANES).min(LANES);
            let (bias, scales) = (&bias[p], &conv.requantize.scales[p]);
            for (t, packed) in packed.chunks_exact(k).enumerate().take(rows.div_ceil(M)) {
                let mut sums = [*bias; M];
                tile::<M, FMA>(packed, &wide, &mut sums);
                for (m, sums) in sums.iter().enumerate().take(rows - t * M) {
                    let mut bytes = [0; LANES];
                    for lane in 0..LANES {
                        bytes[lane] =
                            to_u8(sums[lane] as f32 * scales[lane], conv.requantize.zero_point);
                    }
                    let at = (first + t * M + m) * n + p * LANES;
                    match output[at..at + lanes].as_mut_array::<LANES>() {
                        Some(output) => *output = bytes,
                        None => output[at..at + lanes].copy_from_slice(&bytes[..lanes]),
                    }
                }
            }
        }
    }
}

/// Linear layer on one row, to f32.
#[inline(always)]
pub(crate) fn linear<const FMA: bool>(linear: &Linear, input: &[u8], logits: &mut [f32]) {
    let Panels {
        k, weights, bias, ..
    } = &linear.panels;
    let mut packed = vec![[0f32; 1]; *k];
    for (packed, x) in packed.iter_mut().zip(input) {
        packed[0] = f32::from(*x);
    }
    let mut wide = vec![[0f32; LANES]; *k];
    let outputs = logits.chunks_mut(LANES).zip(linear.scales.chunks(LANES));
    for ((panel, bias), (logits, scales)) in weights.chunks_exact(*k).zip(bias).zip(outputs) {
        widen(panel, &mut wide);
        let mut sums = [*bias; 1];
        tile::<1, FMA>(&packed, &wide, &mut sums);
        for ((logit, sum), scale) in logits.iter_mut().zip(&sums[0]).zip(scales) {
            *logit = *sum as f32 * scale;
        }
    }
}

/// `input` with its padding around it, filled with `zero_point`: all that the kernel can reach.
fn pad(window: &Window, zero_point: u8, input: &[u8]) -> Vec<u8> {
    let [height, width] = window.padded();
    let channels = window.channels;
    let mut padded = vec![zero_point; height * width * channels];
    let rows = padded.chunks_exact_mut(width * channels).skip(window.top);
    for (padded, row) in rows.zip(input.chunks_exact(window.width * channels)) {
        padded[window.left * channels..][..row.len()].copy_from_slice(row);
    }
    padded
}

/// Depthwise convolution, channel after channel in vectors of 16, 8 or 1.
#[inline(always)]
pub(crate) fn depthwise(depthwise: &Depthwise, input: &[u8], output: &mut [u8]) {
    let window = &depthwise.window;
    let [height, width] = window.padded();
    let padded;
    let input = if [height, width] == [window.height, window.width] {
        input
    } else {
        padded = pad(window, depthwise.input_zero_point, input);
        &padded
    };
    let channels = window.channels;
    let mut first = 0;
    while first + LANES <= channels {
        depthwise_lanes::<LANES>(depthwise, width, first, input, output);
        first += LANES;
    }
    while first + 8 <= channels {
        depthwise_lanes::<8>(depthwise, width, first, input, output);
        first += 8;
    }
    while first < channels {
        depthwise_lanes::<1>(depthwise, width, first, input, output);
        first += 1;
    }
}

/// `L` channels from `first` on, at all positions; `input` is padded, `width` wide. `first` and `L` stay in one panel.
#[inline(always)]
fn depthwise_lanes<const L: usize>(
    depthwise: &Depthwise,
    width: usize,
    first: usize,
    input: &[u8],
    output: &mut [u8],
) {
    let Depthwise {
        window,
        weights,
        bias,
        requantize,
        ..
    } = depthwise;
    let channels = window.channels;
    let mut start = [0i32; L];
    start.copy_from_slice(&bias[first..first + L]);
    let mut scales = [0f32; L];
    scales.copy_from_slice(&requantize.scales[first / LANES][first % LANES..][..L]);
    let taps: Vec<[i16; L]> = weights
        .chunks_exact(channels)
        .map(|row| {
            let mut tap = [0; L];
            for lane in 0..L {
                tap[lane] = i16::from(row[first + lane]);
            }
            tap
        })
        .collect();
    let row_len = (window.kernel[1] - 1) * channels + L;
    for (y, output) in output
        .chunks_exact_mut(window.out_width * channels)
        .enumerate()
    {
        for (x, output) in output.chunks_exact_mut(channels).enumerate() {
            let corner = (y * window.stride[0] * width + x * window.stride[1]) * channels + first;
            let mut sums = start;
            for (dy, taps) in taps.chunks_exact(window.kernel[1]).enumerate() {
                let row = &input[corner + dy * width * channels..][..row_len];
                for (pixel, tap) in row.chunks(channels).zip(taps) {
                    let Some(pixel) = pixel.first_chunk::<L>() else {
                        continue;
                    };
                    for lane in 0..L {
                        // |255 * -128| fits an i16: the product is exact.
                        let product = i16::from(pixel[lane]).wrapping_mul(tap[lane]);
                        sums[lane] = sums[lane].wrapping_add(i32::from(product));
                    }
                }
            }
            let Some(output) = output[first..].first_chunk_mut::<L>() else {
                continue;
            };
            for lane in 0..L {
                output[lane] = to_u8(sums[lane] as f32 * scales[lane], requantize.zero_point);
            }
        }
    }
}

/// Residual add; the inner product is that of `b`.
#[inline(always)]
pub(crate) fn add(add: &Add, a: &[u8], b: &[u8], output: &mut [u8]) {
    let Add { ra, rb, fix } = *add;
    for ((y, a), b) in output.iter_mut().zip(a).zip(b) {
        *y = to_u8(f32::from(*a).mul_add(ra, f32::from(*b).mul_add(rb, fix)), 0);
    }
}

/// Mean over all positions of each channel.
#[inline(always)]
pub(crate) fn global_average_pool(pool: &GlobalAveragePool, input: &[u8], output: &mut [u8]) {
    let mut sums = vec![0i32; pool.channels];
    for row in input.chunks_exact(pool.channels) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(i32::from(*x));
        }
    }
    for (y, sum) in output.iter_mut().zip(&sums) {
        *y = to_u8(
            sum.wrapping_sub(pool.offset) as f32 * pool.scale,
            pool.zero_point,
        );
    }
}

/// Largest byte of each window and channel.
#[inline(always)]
pub(crate) fn max_pool(pool: &MaxPool, input: &[u8], output: &mut [u8]) {
    let window = &pool.window;
    let channels = window.channels;
    for (y, output) in output
        .chunks_exact_mut(window.out_width * channels)
        .enumerate()
    {
        for (x, output) in output.chunks_exact_mut(channels).enumerate() {
            output.fill(0);
            for dy in 0..window.kernel[0] {
                for dx in 0..window.kernel[1] {
                    let y = (y * window.stride[0] + dy).wrapping_sub(window.top);
                    let x = (x * window.stride[1] + dx).wrapping_sub(window.left);
                    if y < window.height && x < window.width {
                        let pixel = &input[(y * window.width + x) * channels..][..channels];
                        for (largest, byte) in output.iter_mut().zip(pixel) {
                            *largest = (*largest).max(*byte);
                        }
                    }
                }
            }
        }
    }
}

/// One lookup per byte, in the table of its channel.
pub(crate) fn table(table: &Table, input: &[u8], output: &mut [u8]) {
    let channels = table.rows.len();
    for (x, y) in input
        .chunks_exact(channels)
        .zip(output.chunks_exact_mut(channels))
    {
        for ((y, x), row) in y.iter_mut().zip(x).zip(&table.rows) {
            *y = row[usize::from(*x)];
        }
    }
}
