//! Watches the float graph on calibration images and picks the range of every activation.
//!
//! Two passes over the images: extremes first, then a histogram between them. Ranges by three methods (the extremes, a
//! percentile, least squared error over the histogram) are kept beside each other: the caller measures which loses less.

use candle_core::Tensor;
use graft_shared::error::{Context, Error, Result};

use rayon::prelude::*;

use super::Affine;
use crate::nn::{Graph, Op};

/// Bins of a histogram; a range is picked between bin edges.
const BINS: usize = 2048;
/// Values that one thread counts at a time.
const VALUES_PER_TASK: usize = 1 << 17;
/// Share of the values that the percentile method keeps on each side.
const PERCENTILE: f64 = 0.99995;
/// Ranges that the squared-error method tries at each end.
const CUTS: usize = 24;
/// Bytes: 256 levels, 255 steps.
const STEPS: f64 = 255.0;

/// How the range of an activation is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// All that was seen.
    Extremes,
    /// All but the 0.005 % at each end.
    Percentile,
    /// What loses least squared error to rounding and clipping.
    SquaredError,
}

impl Method {
    /// All of them, in the order they are tried.
    pub const ALL: [Self; 3] = [Self::Extremes, Self::Percentile, Self::SquaredError];

    /// The name in settings and card.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Extremes => "extremes",
            Self::Percentile => "percentile 99.995",
            Self::SquaredError => "squared error",
        }
    }
}

/// What was seen of every activation.
#[derive(Debug)]
pub struct Calibration {
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    low: f32,
    high: f32,
    counts: Vec<u64>,
    channel_sums: Vec<f64>,
    values_per_channel: u64,
}

impl Calibration {
    /// The scale and zero point of activation `node` by `method`, nothing beyond `least` and `most` being told apart. The
    /// range always holds 0, so that padding and ReLU are exact.
    #[must_use]
    pub fn range(&self, node: usize, method: Method, (least, most): (f32, f32)) -> Affine {
        let seen = &self.seen[node];
        let (low, high) = match method {
            Method::Extremes => (f64::from(seen.low), f64::from(seen.high)),
            Method::Percentile => seen.percentile(),
            Method::SquaredError => seen.least_squared_error(),
        };
        affine(low.max(f64::from(least)), high.min(f64::from(most)))
    }

    /// The mean of each channel of activation `node`.
    #[must_use]
    pub fn channel_means(&self, node: usize) -> Vec<f64> {
        let seen = &self.seen[node];
        seen.channel_sums
            .iter()
            .map(|sum| sum / seen.values_per_channel.max(1) as f64)
            .collect()
    }
}

/// The affine code of the range [low, high], widened to hold 0.
fn affine(low: f64, high: f64) -> Affine {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let scale = ((high - low) / STEPS).max(1e-8);
    let zero_point = (-low / scale).round_ties_even().clamp(0.0, STEPS) as u8;
    Affine {
        scale: scale as f32,
        zero_point,
    }
}

/// Runs the folded `graph` twice over batches of normalised images `[n, 3, H, W]`, calling `advance` after each.
///
/// # Errors
/// When there is no batch, or an activation is not finite.
pub fn calibrate(
    graph: &Graph,
    batches: &[Tensor],
    advance: &dyn Fn(usize),
) -> Result<Calibration> {
    if batches.is_empty() {
        return Err(Error::new("no image to calibrate on"));
    }
    let mut seen: Vec<Seen> = graph
        .nodes
        .iter()
        .map(|_| Seen {
            low: 0.0,
            high: 0.0,
            counts: vec![0; BINS],
            channel_sums: Vec::new(),
            values_per_channel: 0,
        })
        .collect();
    for batch in batches {
        graph.forward(batch, &mut |node, activation| {
            seen[node].widen(&graph.nodes[node].name, activation)
        })?;
        advance(batch.dims().first().copied().unwrap_or(0));
    }
    for batch in batches {
        graph.forward(batch, &mut |node, activation| {
            // The input's code is given by the pixels, the logits stay f32.
            if matches!(graph.nodes[node].op, Op::Input | Op::Linear(_)) {
                Ok(())
            } else {
                seen[node].count(activation)
            }
        })?;
        advance(batch.dims().first().copied().unwrap_or(0));
    }
    Ok(Calibration { seen })
}

fn values(activation: &Tensor) -> Result<Vec<f32>> {
    activation
        .flatten_all()
        .and_then(|flat| flat.to_vec1())
        .context("reading an activation")
}

impl Seen {
    fn widen(&mut self, name: &str, activation: &Tensor) -> Result<()> {
        let values = values(activation)?;
        let &[images, channels, ..] = activation.dims() else {
            return Err(Error::new(format!(
                "activation `{name}` has shape {:?}",
                activation.dims()
            )));
        };
        let plane = values.len() / (channels * images).max(1);
        self.channel_sums.resize(channels, 0.0);
        let planes: Vec<(f32, f32, f32)> = values
            .par_chunks_exact(plane.max(1))
            .map(|plane| {
                plane.iter().fold((0.0, 0.0, 0.0), |(low, high, sum), v| {
                    (v.min(low), v.max(high), sum + v)
                })
            })
            .collect();
        for (index, (low, high, sum)) in planes.into_iter().enumerate() {
            if !sum.is_finite() {
                return Err(Error::new(format!("activation `{name}` is not finite"))
                    .hint("the weights are damaged or training diverged"));
            }
            (self.low, self.high) = (self.low.min(low), self.high.max(high));
            self.channel_sums[index % channels] += f64::from(sum);
        }
        self.values_per_channel += (values.len() / channels.max(1)) as u64;
        Ok(())
    }

    fn count(&mut self, activation: &Tensor) -> Result<()> {
        let per_unit = BINS as f32 / (self.high - self.low).max(1e-12);
        let counts = values(activation)?
            .par_chunks(VALUES_PER_TASK)
            .map(|values| {
                let mut counts = vec![0; BINS];
                for value in values {
                    let bin = ((value - self.low) * per_unit) as usize;
                    counts[bin.min(BINS - 1)] += 1;
                }
                counts
            })
            .reduce(
                || vec![0; BINS],
                |a, b| a.iter().zip(b).map(|(a, b)| a + b).collect(),
            );
        self.counts
            .iter_mut()
            .zip(counts)
            .for_each(|(total, count)| *total += count);
        Ok(())
    }

    fn bin_width(&self) -> f64 {
        (f64::from(self.high) - f64::from(self.low)) / BINS as f64
    }

    fn percentile(&self) -> (f64, f64) {
        let total: u64 = self.counts.iter().sum();
        let spare = (total as f64 * (1.0 - PERCENTILE)) as u64;
        let skipped = |counts: &mut dyn Iterator<Item = &u64>| {
            let mut passed = 0;
            counts
                .take_while(|&&n| {
                    passed += n;
                    passed <= spare
                })
                .count()
        };
        let (left, right) = (
            skipped(&mut self.counts.iter()),
            skipped(&mut self.counts.iter().rev()),
        );
        (
            f64::from(self.low) + left as f64 * self.bin_width(),
            f64::from(self.high) - right as f64 * self.bin_width(),
        )
    }

    /// Tries cuts of up to 60 % of each end, the lower end first.
    fn least_squared_error(&self) -> (f64, f64) {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let cut = |i: usize| 1.0 - 0.6 * i as f64 / CUTS as f64;
        let best = |ranges: Vec<(f64, f64)>| {
            ranges
                .into_iter()
                .map(|range| (self.squared_error(range), range))
                .fold((f64::INFINITY, (low, high)), |best, next| {
                    if next.0 < best.0 { next } else { best }
                })
                .1
        };
        let (_, high) = best((0..CUTS).map(|i| (low, high * cut(i))).collect());
        if low < 0.0 {
            best((0..CUTS).map(|i| (low * cut(i), high)).collect())
        } else {
            (low, high)
        }
    }

    /// The mean squared difference of the histogram's values from their codes in the range: within it a step's rounding
    /// error is uniform (scale² / 12), except that a value on a code, 0 above all, loses nothing.
    fn squared_error(&self, (low, high): (f64, f64)) -> f64 {
        let code = affine(low, high);
        let (scale, zero) = (f64::from(code.scale), f64::from(code.zero_point));
        let (least, most) = (-zero * scale, (STEPS - zero) * scale);
        let width = self.bin_width();
        let total = self.counts.iter().enumerate().map(|(bin, &count)| {
            let value = f64::from(self.low) + (bin as f64 + 0.5) * width;
            let beyond = (least - value).max(value - most).max(0.0);
            let holds_zero = value.abs() <= 0.5 * width;
            let rounding = if beyond > 0.0 || holds_zero {
                0.0
            } else {
                scale * scale / 12.0
            };
            count as f64 * (beyond * beyond + rounding)
        });
        total.sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_a_code_of_its_own() {
        for (low, high) in [(0.0, 6.0), (-1.5, 3.0), (1.0, 2.0), (-4.0, -1.0)] {
            let code = affine(low, high);
            let reaches = |byte: f64| f64::from(code.scale) * (byte - f64::from(code.zero_point));
            assert!(
                reaches(0.0) <= low.min(0.0) + f64::from(code.scale),
                "{low} {code:?}"
            );
            assert!(
                reaches(255.0) >= high.max(0.0) - f64::from(code.scale),
                "{high} {code:?}"
            );
        }
    }

    #[test]
    fn a_lone_outlier_is_cut() {
        let mut counts = vec![0; BINS];
        counts[..100].iter_mut().for_each(|n| *n = 100_000);
        counts[BINS - 1] = 1;
        let seen = Seen {
            low: 0.0,
            high: 20.48,
            counts,
            channel_sums: vec![],
            values_per_channel: 0,
        };
        assert!(seen.percentile().1 < 1.1, "{:?}", seen.percentile());
        assert!(
            seen.least_squared_error().1 < 15.0,
            "{:?}",
            seen.least_squared_error()
        );
    }
}
