//! BatchNorm in a training step: from sums over a batch to what readers apply, forward and backward.
//!
//! Ioffe and Szegedy 2015, algorithm 1 and the gradients of section 3. Running statistics follow PyTorch: a tenth of the
//! new value, the variance unbiased.

use super::cpu::training::Sums;
use super::weights::Statistics;

/// Part of a batch's statistics in the running ones.
const MOMENTUM: f64 = 0.1;

/// What belongs to one convolution's output in a step, per channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Channels {
    /// Readers take `value * scale + shift`.
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
    /// Of the batch, or the running one where BatchNorm is frozen.
    pub(super) mean: Vec<f32>,
    pub(super) inverse_deviation: Vec<f32>,
    /// Of the forward pass.
    pub(super) forward: Vec<Sums>,
    /// Of the backward pass.
    pub(super) backward: Vec<Sums>,
    /// The three factors of an `OutputGradient`.
    pub(super) by_gradient: Vec<f32>,
    pub(super) by_value: Vec<f32>,
    pub(super) constant: Vec<f32>,
}

impl Channels {
    /// Values that are read as they are.
    pub(super) fn plain(channels: usize) -> Channels {
        Channels {
            scale: vec![1.0; channels],
            shift: vec![0.0; channels],
            mean: vec![0.0; channels],
            inverse_deviation: vec![1.0; channels],
            forward: vec![Sums::default(); channels],
            backward: vec![Sums::default(); channels],
            by_gradient: vec![1.0; channels],
            by_value: vec![0.0; channels],
            constant: vec![0.0; channels],
        }
    }

    /// Scale and shift from the sums of `count` values a channel, made with the running mean as pivot; the running
    /// statistics follow.
    pub(super) fn batch_statistics(
        &mut self,
        gamma: &[f32],
        beta: &[f32],
        epsilon: f64,
        count: usize,
        running: &mut Statistics,
    ) {
        let count = count as f64;
        for channel in 0..self.forward.len() {
            let sums = self.forward[channel];
            let offset = sums.first / count;
            let mean = f64::from(running.mean[channel]) + offset;
            let variance = (sums.second / count - offset * offset).max(0.0);
            self.set(
                channel,
                gamma[channel],
                beta[channel],
                mean,
                variance + epsilon,
            );
            let unbiased = variance * count / (count - 1.0).max(1.0);
            follow(&mut running.mean[channel], mean);
            follow(&mut running.variance[channel], unbiased);
        }
    }

    /// Scale and shift from the running statistics.
    pub(super) fn running_statistics(
        &mut self,
        gamma: &[f32],
        beta: &[f32],
        epsilon: f64,
        running: &Statistics,
    ) {
        for (channel, (&mean, &variance)) in running.mean.iter().zip(&running.variance).enumerate()
        {
            self.set(
                channel,
                gamma[channel],
                beta[channel],
                f64::from(mean),
                f64::from(variance) + epsilon,
            );
        }
    }

    fn set(&mut self, channel: usize, gamma: f32, beta: f32, mean: f64, variance: f64) {
        let inverse = 1.0 / variance.sqrt();
        let scale = f64::from(gamma) * inverse;
        self.mean[channel] = mean as f32;
        self.inverse_deviation[channel] = inverse as f32;
        self.scale[channel] = scale as f32;
        self.shift[channel] = (f64::from(beta) - mean * scale) as f32;
    }

    /// Gradients of gamma and beta from the backward sums, and the factors that bring a gradient before BatchNorm.
    /// `count` is the number of values a channel whose statistics were taken, `None` where BatchNorm is frozen.
    pub(super) fn backward(
        &mut self,
        count: Option<usize>,
        gamma_gradient: &mut [f32],
        beta_gradient: &mut [f32],
    ) {
        for channel in 0..self.backward.len() {
            let sums = self.backward[channel];
            let inverse = f64::from(self.inverse_deviation[channel]);
            let scale = f64::from(self.scale[channel]);
            let (beta, gamma) = (sums.first, sums.second * inverse);
            beta_gradient[channel] = beta as f32;
            gamma_gradient[channel] = gamma as f32;
            let per_value = count.map_or(0.0, |count| 1.0 / count as f64);
            let by_value = -scale * inverse * gamma * per_value;
            self.by_gradient[channel] = scale as f32;
            self.by_value[channel] = by_value as f32;
            self.constant[channel] =
                (-scale * beta * per_value - by_value * f64::from(self.mean[channel])) as f32;
        }
    }
}

fn follow(running: &mut f32, new: f64) {
    *running = (f64::from(*running) * (1.0 - MOMENTUM) + new * MOMENTUM) as f32;
}
