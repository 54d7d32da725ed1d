//! The learning rate by a short range test: it rises from step to step until the loss does.
//!
//! Smith 2017 (arXiv:1506.01186), section 3.3. The rate that is kept lies well below the one of the least loss.

use graft_shared::error::Result;

use super::state::State;
use super::{Job, Trainer};
use crate::nn::Weights;

/// Rates tried, from the first to the last, geometrically.
const RATES: (f64, f64) = (3e-5, 1e-2);
/// Steps of a test.
pub(super) const STEPS: usize = 32;
/// Weight of the past in the smoothed loss.
const SMOOTHING: f64 = 0.8;
/// How far below the rate of the least loss the chosen one lies.
const SAFETY: f64 = 4.0;
/// What is ever chosen.
const ALLOWED: (f64, f64) = (1e-4, 1e-3);

/// The highest learning rate for the plan of `job`, from its first small batches; nothing of the test is kept.
pub(super) fn learning_rate(job: &Job<'_>) -> Result<f64> {
    let size = job.plan.small_size;
    let mut state = State::start(Weights::of(job.small)?, job.plan);
    let sizes = (job.plan.train_batch_size, size, job.classes);
    let mut trainer = Trainer::new(job.small, sizes, (job.plan, job.seed), &state, job.device)?;
    let mut losses = Vec::with_capacity(STEPS);
    for (step, batch) in job.batches(0..STEPS, size)?.enumerate() {
        let batch = batch?;
        let factor = rate(step) / job.plan.learning_rate;
        losses.push(trainer.step(&mut state, &batch.input, &batch.targets, factor)?);
        if !losses.last().is_some_and(|loss| loss.is_finite()) {
            break;
        }
    }
    Ok(choose(&losses))
}

fn rate(step: usize) -> f64 {
    RATES.0 * (RATES.1 / RATES.0).powf(step as f64 / (STEPS - 1) as f64)
}

/// The rate for the losses of a test, with two digits.
fn choose(losses: &[f64]) -> f64 {
    let mut smooth = 0.0;
    let mut best = (f64::INFINITY, 0);
    for (step, &loss) in losses.iter().enumerate() {
        smooth = SMOOTHING * smooth + (1.0 - SMOOTHING) * loss;
        let unbiased = smooth / (1.0 - SMOOTHING.powi(step as i32 + 1));
        // The first few are noise.
        if step >= STEPS / 4 && unbiased < best.0 {
            best = (unbiased, step);
        }
    }
    let chosen = (rate(best.1) / SAFETY).clamp(ALLOWED.0, ALLOWED.1);
    let digits = 10_f64.powi(1 - chosen.log10().floor() as i32);
    (chosen * digits).round() / digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_well_below_the_one_where_the_loss_rises_is_chosen() {
        // Falls until the rate is 2e-3, then rises.
        let losses: Vec<f64> = (0..STEPS)
            .map(|step| (rate(step) / 2e-3).ln().abs())
            .collect();
        let chosen = choose(&losses);
        assert!((2e-4..1e-3).contains(&chosen), "{chosen}");
        assert_eq!(choose(&[f64::NAN]), ALLOWED.0);
    }
}
