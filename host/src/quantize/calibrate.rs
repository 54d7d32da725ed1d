//! Watches the float graph on calibration images and picks the range of every activation.
//!
//! Two passes over the images: the extremes of each channel first, then a histogram between them. Ranges by three methods (the extremes, a
//! percentile, least squared error over the histogram) are kept beside each other: the caller measures which loses less.

use std::sync::Arc;

use candle_core::Tensor;
use graft_shared::error::{Context, Error, Result};

use rayon::prelude::*;

use super::Affine;
use super::feedback::Moments;
use crate::nn::{Graph, Op};

/// Bins of an activation's histogram; a range is picked between bin edges.
const BINS: usize = 2048;
/// Bins of one channel's histogram.
const CHANNEL_BINS: usize = 256;
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

/// What was seen of every activation, channel by channel: so that it is known of scaled channels too.
#[derive(Clone, Debug)]
pub struct Calibration {
    seen: Vec<Seen>,
    /// Of what each node's weights are multiplied by, before any scaling.
    pub(super) moments: Arc<Vec<Option<Moments>>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    channels: Vec<Channel>,
    values_per_channel: u64,
}

#[derive(Clone, Debug, Default)]
struct Channel {
    low: f32,
    high: f32,
    sum: f64,
    /// Values that are 0 exactly, as behind a ReLU: they are not in `counts`.
    zeros: u64,
    /// Of [`CHANNEL_BINS`] bins between `low` and `high`.
    counts: Vec<u32>,
}

impl Calibration {
    /// The scale and zero point of activation `node` by `method`, nothing beyond `least` and `most` being told apart. The
    /// range always holds 0, so that padding and ReLU are exact.
    #[must_use]
    pub fn range(&self, node: usize, method: Method, (least, most): (f32, f32)) -> Affine {
        let seen = Histogram::of(&self.seen[node].channels);
        let (low, high) = match method {
            Method::Extremes => (seen.low, seen.high),
            Method::Percentile => seen.percentile(),
            Method::SquaredError => seen.least_squared_error(),
        };
        affine(low.max(f64::from(least)), high.min(f64::from(most)))
    }

    /// The mean of each channel of activation `node`.
    #[must_use]
    pub fn channel_means(&self, node: usize) -> Vec<f64> {
        let seen = &self.seen[node];
        seen.channels
            .iter()
            .map(|channel| channel.sum / seen.values_per_channel.max(1) as f64)
            .collect()
    }

    /// The largest absolute value of each channel of activation `node`.
    #[must_use]
    pub fn channel_reach(&self, node: usize) -> Vec<f32> {
        let channels = self.seen[node].channels.iter();
        channels
            .map(|channel| channel.high.max(-channel.low))
            .collect()
    }

    /// What would have been seen were each channel of each activation multiplied by its factor; `factors` has one list for
    /// every node, an empty one where nothing is scaled.
    #[must_use]
    pub fn scaled(&self, factors: &[Vec<f32>]) -> Self {
        let mut scaled = self.clone();
        for (seen, factors) in scaled.seen.iter_mut().zip(factors) {
            for (channel, factor) in seen.channels.iter_mut().zip(factors) {
                channel.low *= factor;
                channel.high *= factor;
                channel.sum *= f64::from(*factor);
            }
        }
        scaled
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
    let mut seen = vec![Seen::default(); graph.nodes.len()];
    for batch in batches {
        graph.forward(batch, &mut |node, activation| {
            seen[node].widen(&graph.nodes[node].name, activation)
        })?;
        advance(batch.dims().first().copied().unwrap_or(0));
    }
    let mut moments: Vec<_> = graph
        .nodes
        .iter()
        .map(|node| Moments::new(&node.op))
        .collect();
    for batch in batches {
        graph.forward(batch, &mut |node, activation| {
            let readers = graph.nodes.iter().zip(&mut moments);
            for (reader, moments) in
                readers.filter(|(reader, _)| reader.inputs.first() == Some(&node))
            {
                if let Some(moments) = moments {
                    moments.add(&reader.op, activation)?;
                }
            }
            // The input's code is given by the pixels, the logits stay f32.
            if matches!(graph.nodes[node].op, Op::Input | Op::Linear(_)) {
                Ok(())
            } else {
                seen[node].count(activation)
            }
        })?;
        advance(batch.dims().first().copied().unwrap_or(0));
    }
    Ok(Calibration {
        seen,
        moments: Arc::new(moments),
    })
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
        self.channels.resize_with(channels, Channel::default);
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
            let channel = &mut self.channels[index % channels];
            (channel.low, channel.high) = (channel.low.min(low), channel.high.max(high));
            channel.sum += f64::from(sum);
        }
        self.values_per_channel += (values.len() / channels.max(1)) as u64;
        Ok(())
    }

    fn count(&mut self, activation: &Tensor) -> Result<()> {
        let values = values(activation)?;
        let channels = self.channels.len().max(1);
        let images = activation.dims().first().copied().unwrap_or(1);
        let plane = values.len() / (channels * images).max(1);
        let counted = self.channels.par_iter_mut().enumerate();
        counted.for_each(|(index, channel)| {
            for image in 0..images {
                let start = (image * channels + index) * plane;
                channel.count(&values[start..start + plane]);
            }
        });
        Ok(())
    }
}

impl Channel {
    fn count(&mut self, values: &[f32]) {
        self.counts.resize(CHANNEL_BINS, 0);
        let per_unit = CHANNEL_BINS as f32 / (self.high - self.low).max(1e-12);
        for value in values {
            if *value == 0.0 {
                self.zeros += 1;
            } else {
                let bin = ((value - self.low) * per_unit) as usize;
                self.counts[bin.min(CHANNEL_BINS - 1)] += 1;
            }
        }
    }
}

/// The values of an activation, all channels together.
struct Histogram {
    low: f64,
    high: f64,
    /// Of [`BINS`] bins between `low` and `high`.
    counts: Vec<u64>,
    /// Values that are 0 exactly, which are in `counts` too.
    zeros: u64,
}

impl Histogram {
    fn of(channels: &[Channel]) -> Self {
        let low = channels.iter().fold(0.0f32, |low, of| low.min(of.low));
        let high = channels.iter().fold(0.0f32, |high, of| high.max(of.high));
        let mut all = Histogram {
            low: f64::from(low),
            high: f64::from(high),
            counts: vec![0; BINS],
            zeros: channels.iter().map(|channel| channel.zeros).sum(),
        };
        let width = all.bin_width().max(1e-12);
        let bin = |value: f64| (((value - all.low) / width) as usize).min(BINS - 1);
        let mut counts = vec![0; BINS];
        for channel in channels {
            let (low, high) = (f64::from(channel.low), f64::from(channel.high));
            let step = (high - low) / CHANNEL_BINS as f64;
            for (index, &count) in channel.counts.iter().enumerate() {
                counts[bin(low + (index as f64 + 0.5) * step)] += u64::from(count);
            }
        }
        counts[bin(0.0)] += all.zeros;
        all.counts = counts;
        all
    }

    fn zero_bin(&self) -> usize {
        ((-self.low / self.bin_width().max(1e-12)) as usize).min(BINS - 1)
    }

    fn bin_width(&self) -> f64 {
        (self.high - self.low) / BINS as f64
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
            self.low + left as f64 * self.bin_width(),
            self.high - right as f64 * self.bin_width(),
        )
    }

    /// Tries cuts of up to 60 % of each end, the lower end first.
    fn least_squared_error(&self) -> (f64, f64) {
        let (low, high) = (self.low, self.high);
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
        let zero_bin = self.zero_bin();
        let total = self.counts.iter().enumerate().map(|(bin, &count)| {
            let value = self.low + (bin as f64 + 0.5) * width;
            let beyond = (least - value).max(value - most).max(0.0);
            let rounding = if beyond > 0.0 {
                0.0
            } else {
                scale * scale / 12.0
            };
            let zeros = if bin == zero_bin { self.zeros } else { 0 };
            (count - zeros) as f64 * (beyond * beyond + rounding)
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
        let seen = Histogram {
            low: 0.0,
            high: 20.48,
            counts,
            zeros: 0,
        };
        assert!(seen.percentile().1 < 1.1, "{:?}", seen.percentile());
        assert!(
            seen.least_squared_error().1 < 15.0,
            "{:?}",
            seen.least_squared_error()
        );
    }
}
