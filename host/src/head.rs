//! The head: a linear classifier on cached bottlenecks, trained to convergence.
//!
//! Multinomial logistic regression on standardised bottlenecks with an L2 penalty on the weights, solved by L-BFGS. The
//! penalty is picked on the validation rows from a ladder that starts strong (each rung starts from the last one's
//! solution, and is climbed to a coarse tolerance) and ends when validation has got worse twice. Where classes are unequal, the best rung is tried again with
//! each class weighted by the inverse square root of its share, and kept if validation, overall and per class, is better.

use std::fmt;

use candle_core::{Device, Result as TensorResult, Tensor};
use graft_shared::error::{Context, Error, Result};
use rayon::prelude::*;

use crate::features::{Bottlenecks, TILE};
use crate::lbfgs::{Tolerance, minimize};
use crate::metrics::{macro_recall, temperature, top1};
use crate::settings::{ChosenBy, Settings};

/// Inverse penalties: the weight of the summed loss against half the squared weights.
const LADDER: [f64; 7] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1];
/// The rung where no validation row can choose.
const DEFAULT_RUNG: f64 = 1e-3;
/// How many times larger the largest class must be than the smallest for a weighted head to be tried.
const IMBALANCE: f64 = 1.5;
/// Rows whose loss one thread sums.
const ROWS_PER_TASK: usize = 256;
/// Near enough to tell the rungs apart.
const COARSE: Tolerance = Tolerance {
    gradient: 1e-3,
    decrease: 1e-3,
    max_iterations: 400,
};
/// Where the head that is kept ends.
const FINE: Tolerance = Tolerance {
    gradient: 1e-4,
    decrease: 1e-5,
    max_iterations: 400,
};

/// Bottlenecks of some photos with their classes.
#[derive(Debug)]
pub struct Rows {
    /// A row for each photo.
    pub bottlenecks: Bottlenecks,
    /// The class of each row.
    pub classes: Vec<usize>,
}

/// A head in the space of the raw bottlenecks.
#[derive(Clone, Debug)]
pub struct Head {
    /// `[classes, dimension]`, f32.
    pub weight: Tensor,
    /// `[classes]`, f32.
    pub bias: Tensor,
}

/// How a head was picked.
#[derive(Debug)]
pub struct Choice {
    /// The inverse penalty picked.
    pub inverse_penalty: f64,
    /// Whether rare classes were weighted up.
    pub balanced: bool,
    /// Top-1 accuracy on the validation rows, if there are any.
    pub validation_top1: Option<f64>,
    /// Iterations of the picked solution.
    pub iterations: usize,
    /// Whether the picked solution reached its tolerance.
    pub converged: bool,
}

impl Head {
    /// Logits `[photos, classes]` of bottlenecks, row by row.
    ///
    /// # Errors
    /// When the dimensions differ, or the bottlenecks can't be read.
    pub fn logits(&self, bottlenecks: &Bottlenecks) -> Result<Vec<Vec<f32>>> {
        let weight = self.weight.t().context("the head's weight")?;
        logits(bottlenecks.tiles(|_| ()), &weight, &self.bias).context("the head's logits")
    }

    /// The head after its logits were moved against the classes' frequencies: what [`class_offsets`] says is taken off.
    ///
    /// # Errors
    /// When there is not one for each class.
    pub fn adjusted(&self, offsets: &[f32]) -> Result<Self> {
        let offsets = Tensor::from_slice(offsets, offsets.len(), &Device::Cpu);
        let bias = offsets.and_then(|offsets| &self.bias - offsets);
        Ok(Self {
            weight: self.weight.clone(),
            bias: bias.context("adjusting the head")?,
        })
    }

    /// Weight and bias as the bytes of a safetensors file.
    ///
    /// # Errors
    /// When the tensors can't be read.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let tensors = [("weight", &self.weight), ("bias", &self.bias)];
        safetensors::serialize(tensors, None).context("writing the head")
    }

    /// A head that [`Head::to_safetensors`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such file.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        let mut tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .context("reading the head")?;
        let mut take = |name| {
            tensors
                .remove(name)
                .with_context(|| format!("the head's file has no `{name}`"))
        };
        Ok(Self {
            weight: take("weight")?,
            bias: take("bias")?,
        })
    }
}

impl Choice {
    /// Records what was picked and why.
    pub fn record(&self, settings: &mut Settings) {
        let why = if self.validation_top1.is_some() {
            "best on the validation photos"
        } else {
            "no photos to validate on"
        };
        settings.set(
            "inverse_penalty",
            self.inverse_penalty,
            ChosenBy::Graft,
            why,
        );
        settings.set("balanced", self.balanced, ChosenBy::Graft, why);
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.converged {
            "converged"
        } else {
            "NOT converged"
        };
        write!(
            f,
            "head: {end} after {} iterations, inverse penalty {}",
            self.iterations, self.inverse_penalty
        )?;
        if self.balanced {
            write!(f, ", rare classes weighted up")?;
        }
        self.validation_top1.map_or(Ok(()), |top1| {
            write!(f, ", {:.2} % on validation", 100.0 * top1)
        })
    }
}

/// What to take off each class's logits, so that they are those of classes that are equally frequent where `strength` is 1:
/// the logarithm of its share in `classes`, less the mean of these, in the scale of the logits (Menon et al. 2021,
/// "Long-tail learning via logit adjustment", section 4.1).
///
/// That scale is the temperature at which the logits of photos of known classes, the `validation`, are probabilities;
/// without such photos it is unknown and nothing is taken off.
#[must_use]
pub fn class_offsets(
    classes: &[usize],
    count: usize,
    strength: f64,
    validation: (&[Vec<f32>], &[usize]),
) -> Vec<f32> {
    let (logits, truths) = validation;
    if truths.is_empty() {
        return vec![0.0; count];
    }
    // Few photos may ask for any temperature; logits seldom promise too much.
    let scale = strength * f64::from(temperature(logits, truths).min(1.0));
    let mut counts = vec![0usize; count];
    classes.iter().for_each(|&class| counts[class] += 1);
    let logarithms = counts.iter().map(|&count| (count.max(1) as f64).ln());
    let mean = logarithms.clone().sum::<f64>() / count.max(1) as f64;
    logarithms
        .map(|logarithm| (scale * (logarithm - mean)) as f32)
        .collect()
}

/// Trains a head on `train`, its penalty picked on `validation` (which may be empty).
///
/// # Errors
/// When `train` is empty or the dimensions differ.
pub fn train(train: &Rows, validation: &Rows, classes: usize) -> Result<(Head, Choice)> {
    if train.classes.is_empty() {
        return Err(Error::new("no photo is left to train on")
            .hint("add photos, or lower the validation and testing percentages"));
    }
    climb(train, validation, classes).context("training the head")
}

/// Solves every rung and keeps the best.
fn climb(train: &Rows, validation: &Rows, classes: usize) -> TensorResult<(Head, Choice)> {
    let standardise = Standardise::of(&train.bottlenecks)?;
    let problem = Problem {
        rows: standardise.rows(&train.bottlenecks)?,
        targets: &train.classes,
        classes,
        dimension: train.bottlenecks.length(),
    };
    let validation_rows = standardise.rows(&validation.bottlenecks)?;
    let judge = |solution: &Solution| -> TensorResult<Score> {
        Score::of(solution, &validation_rows, &validation.classes, classes)
    };

    let mut class_weights = vec![1.0; classes];
    let mut balanced = false;
    let mut best: Option<(Solution, Score)> = None;
    let mut start = vec![0.0; problem.variables()];
    let mut worse = 0;
    let ladder: &[f64] = if validation.classes.is_empty() {
        &[DEFAULT_RUNG]
    } else {
        &LADDER
    };
    for &inverse_penalty in ladder {
        let solution = problem.solve(start, inverse_penalty, &class_weights, COARSE)?;
        start = solution.variables.clone();
        let score = judge(&solution)?;
        if best.as_ref().is_none_or(|(_, most)| score.beats(most)) {
            best = Some((solution, score));
            worse = 0;
        } else {
            worse += 1;
            if worse == 2 {
                break;
            }
        }
    }
    let (mut solution, score) = best.ok_or_else(|| candle_core::Error::msg("no rung was tried"))?;
    let counts = problem.counts();
    let (most, least) = (
        counts.iter().fold(0.0, |a: f64, b| a.max(*b)),
        counts.iter().fold(f64::MAX, |a, b| a.min(*b)),
    );
    if !validation.classes.is_empty() && most > IMBALANCE * least.max(1.0) {
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let weights: Vec<f64> = counts.iter().map(|n| (mean / n.max(1.0)).sqrt()).collect();
        let weighted = problem.solve(
            solution.variables.clone(),
            solution.inverse_penalty,
            &weights,
            COARSE,
        )?;
        if judge(&weighted)?.overall_and_per_class() > score.overall_and_per_class() {
            class_weights = weights;
            balanced = true;
            solution = weighted;
        }
    }
    let solution = problem.solve(
        solution.variables,
        solution.inverse_penalty,
        &class_weights,
        FINE,
    )?;
    let score = judge(&solution)?;
    let (weight, bias) = standardise.unapply(&solution, classes)?;
    let choice = Choice {
        inverse_penalty: solution.inverse_penalty,
        balanced,
        validation_top1: (!validation.classes.is_empty()).then_some(score.top1),
        iterations: solution.iterations,
        converged: solution.converged,
    };
    Ok((Head { weight, bias }, choice))
}

/// Mean and standard deviation of every bottleneck dimension over the training rows, the latter widened by one step of
/// the bytes that a bottleneck is rounded to on the device: a dimension that hardly changes would else get a weight that
/// magnifies the rounding.
struct Standardise {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

impl Standardise {
    fn of(rows: &Bottlenecks) -> TensorResult<Self> {
        let (length, count) = (rows.length(), rows.photos() as f64);
        let mut mean = vec![0.0; length];
        let mut most: f32 = 0.0;
        each_row(rows, |row| {
            for (sum, &value) in mean.iter_mut().zip(row) {
                *sum += f64::from(value);
                most = most.max(value.abs());
            }
        })?;
        mean.iter_mut().for_each(|sum| *sum /= count);
        let mut variance = vec![0.0; length];
        each_row(rows, |row| {
            for ((sum, &mean), &value) in variance.iter_mut().zip(&mean).zip(row) {
                *sum += (f64::from(value) - mean).powi(2);
            }
        })?;
        let step = f64::from(most) / 255.0;
        let widening = (step * step / 12.0).max(1e-10);
        let deviation = variance
            .iter()
            .map(|sum| (sum / count + widening).sqrt() as f32);
        Ok(Self {
            mean: mean.iter().map(|&mean| mean as f32).collect(),
            deviation: deviation.collect(),
        })
    }

    fn apply(&self, row: &mut [f32]) {
        for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
            *value = (*value - mean) / deviation;
        }
    }

    fn rows<'a>(&'a self, raw: &'a Bottlenecks) -> TensorResult<Standardised<'a>> {
        let mut rows = Standardised {
            standardise: self,
            raw,
            ready: None,
        };
        if raw.is_in_memory() {
            rows.ready = Some(rows.computed().collect::<TensorResult<_>>()?);
        }
        Ok(rows)
    }

    /// Weight `[classes, dimension]` and bias `[classes]` that give raw bottlenecks the solution's logits.
    fn unapply(&self, solution: &Solution, classes: usize) -> TensorResult<(Tensor, Tensor)> {
        let (weight, bias) = solution.tensors(classes)?;
        let line = |values: &[f32]| Tensor::from_slice(values, (1, values.len()), &Device::Cpu);
        let weight = weight.t()?.broadcast_div(&line(&self.deviation)?)?;
        let bias = bias.broadcast_sub(&weight.broadcast_mul(&line(&self.mean)?)?.sum(1)?)?;
        Ok((weight.contiguous()?, bias))
    }
}

/// Calls `action` with each row in turn.
fn each_row(rows: &Bottlenecks, mut action: impl FnMut(&[f32])) -> TensorResult<()> {
    for tile in rows.tiles(|_| ()) {
        let values = tile?.flatten_all()?.to_vec1::<f32>()?;
        values.chunks(rows.length().max(1)).for_each(&mut action);
    }
    Ok(())
}

/// Standardised bottlenecks: kept where the raw ones are in memory, else computed whenever they are used.
struct Standardised<'a> {
    standardise: &'a Standardise,
    raw: &'a Bottlenecks,
    ready: Option<Vec<Tensor>>,
}

impl Standardised<'_> {
    /// `[rows, dimension]` each.
    fn tiles(&self) -> Box<dyn Iterator<Item = TensorResult<Tensor>> + '_> {
        match &self.ready {
            Some(tiles) => Box::new(tiles.iter().cloned().map(Ok)),
            None => Box::new(self.computed()),
        }
    }

    fn computed(&self) -> impl Iterator<Item = TensorResult<Tensor>> {
        self.raw.tiles(|row| self.standardise.apply(row))
    }
}

/// Rows times `weight`, `[dimension, classes]`, plus `bias`.
fn logits(
    tiles: impl Iterator<Item = TensorResult<Tensor>>,
    weight: &Tensor,
    bias: &Tensor,
) -> TensorResult<Vec<Vec<f32>>> {
    let mut logits = Vec::new();
    for tile in tiles {
        let tile = tile?.matmul(weight)?.broadcast_add(bias)?;
        logits.extend(tile.to_vec2::<f32>()?);
    }
    Ok(logits)
}

/// Variables are the weights `[dimension, classes]` followed by the biases `[classes]`.
struct Problem<'a> {
    rows: Standardised<'a>,
    targets: &'a [usize],
    classes: usize,
    dimension: usize,
}

struct Solution {
    variables: Vec<f32>,
    inverse_penalty: f64,
    iterations: usize,
    converged: bool,
}

impl Solution {
    /// Weight `[dimension, classes]` and bias `[classes]`.
    fn tensors(&self, classes: usize) -> TensorResult<(Tensor, Tensor)> {
        let dimension = self.variables.len() / classes - 1;
        let (weight, bias) = self.variables.split_at(dimension * classes);
        Ok((
            Tensor::from_slice(weight, (dimension, classes), &Device::Cpu)?,
            Tensor::from_slice(bias, classes, &Device::Cpu)?,
        ))
    }
}

impl Problem<'_> {
    fn variables(&self) -> usize {
        (self.dimension + 1) * self.classes
    }

    fn counts(&self) -> Vec<f64> {
        let mut counts = vec![0.0; self.classes];
        self.targets.iter().for_each(|&class| counts[class] += 1.0);
        counts
    }

    fn solve(
        &self,
        start: Vec<f32>,
        inverse_penalty: f64,
        class_weights: &[f64],
        tolerance: Tolerance,
    ) -> TensorResult<Solution> {
        let minimum = minimize(start, tolerance, |variables| {
            self.loss(variables, inverse_penalty, class_weights)
        })?;
        Ok(Solution {
            variables: minimum.variables,
            inverse_penalty,
            iterations: minimum.iterations,
            converged: minimum.converged,
        })
    }

    /// Mean weighted cross-entropy plus the penalty, and its gradient.
    fn loss(
        &self,
        variables: &[f32],
        inverse_penalty: f64,
        class_weights: &[f64],
    ) -> TensorResult<(f64, Vec<f32>)> {
        let (classes, count) = (self.classes, self.targets.len() as f64);
        let (weight, bias) = variables.split_at(self.dimension * classes);
        let weight_tensor = Tensor::from_slice(weight, (self.dimension, classes), &Device::Cpu)?;
        let mut gradient = vec![0.0; weight.len()];
        let mut bias_gradient = vec![0.0_f64; classes];
        let mut loss = 0.0;
        for (tile, targets) in self.rows.tiles().zip(self.targets.chunks(TILE)) {
            let tile = tile?;
            let mut residuals = tile
                .matmul(&weight_tensor)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            let tasks: Vec<(f64, Vec<f64>)> = residuals
                .par_chunks_mut(ROWS_PER_TASK * classes)
                .zip(targets.par_chunks(ROWS_PER_TASK))
                .map(|(rows, targets)| {
                    let mut loss = 0.0;
                    let mut bias_gradient = vec![0.0f64; classes];
                    for (row, &target) in rows.chunks_exact_mut(classes).zip(targets) {
                        let share = class_weights[target] / count;
                        loss += share * cross_entropy(row, bias, target, share as f32);
                        add(&mut bias_gradient, row.iter().map(|r| f64::from(*r)));
                    }
                    (loss, bias_gradient)
                })
                .collect();
            // Summed in a fixed order: the same head for every number of threads.
            for (task_loss, task_gradient) in tasks {
                loss += task_loss;
                add(&mut bias_gradient, task_gradient);
            }
            let residuals = Tensor::from_vec(residuals, (targets.len(), classes), &Device::Cpu)?;
            let product = tile.t()?.matmul(&residuals)?.flatten_all()?;
            add(&mut gradient, product.to_vec1::<f32>()?);
        }
        let penalty = 1.0 / (inverse_penalty * count);
        add(&mut gradient, weight.iter().map(|w| penalty as f32 * w));
        gradient.extend(bias_gradient.iter().map(|sum| *sum as f32));
        loss += 0.5
            * penalty
            * weight
                .iter()
                .map(|w| f64::from(*w) * f64::from(*w))
                .sum::<f64>();
        Ok((loss, gradient))
    }
}

/// `sums += values`.
fn add<T: std::ops::AddAssign>(sums: &mut [T], values: impl IntoIterator<Item = T>) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

/// The cross-entropy of one row of logits before their `bias`; the row becomes its gradient times `share`.
fn cross_entropy(row: &mut [f32], bias: &[f32], target: usize, share: f32) -> f64 {
    row.iter_mut().zip(bias).for_each(|(logit, b)| *logit += b);
    let most = row.iter().fold(f32::MIN, |a, b| a.max(*b));
    let target_logit = row[target] - most;
    row.iter_mut()
        .for_each(|logit| *logit = (*logit - most).exp());
    let total: f32 = row.iter().sum();
    row.iter_mut().for_each(|p| *p *= share / total);
    row[target] -= share;
    f64::from(total.ln() - target_logit)
}

/// How a solution does on the validation rows.
struct Score {
    top1: f64,
    macro_recall: f64,
    loss: f64,
}

impl Score {
    fn of(
        solution: &Solution,
        rows: &Standardised<'_>,
        targets: &[usize],
        classes: usize,
    ) -> TensorResult<Self> {
        if targets.is_empty() {
            return Ok(Self {
                top1: 0.0,
                macro_recall: 0.0,
                loss: 0.0,
            });
        }
        let (weight, bias) = solution.tensors(classes)?;
        let logits = logits(rows.tiles(), &weight, &bias)?;
        Ok(Self {
            top1: top1(&logits, targets),
            macro_recall: macro_recall(&logits, targets, classes),
            loss: crate::metrics::cross_entropy(&logits, targets, 1.0),
        })
    }

    fn beats(&self, other: &Self) -> bool {
        self.top1 > other.top1 || (self.top1 == other.top1 && self.loss < other.loss)
    }

    fn overall_and_per_class(&self) -> f64 {
        self.top1 + self.macro_recall
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Points around as many corners as there are classes.
    fn corners(count: usize, classes: usize, shift: usize) -> Rows {
        let mut values = Vec::new();
        let mut targets = Vec::new();
        for i in 0..count {
            let class = i % classes;
            for d in 0..classes {
                let noise = ((i * 7919 + d * 104_729 + shift) % 97) as f32 / 97.0 - 0.5;
                values.push(if d == class { 3.0 } else { 0.0 } + noise);
            }
            targets.push(class);
        }
        Rows {
            bottlenecks: Bottlenecks::from_rows(values, classes),
            classes: targets,
        }
    }

    #[test]
    fn separable_classes_are_learned() {
        let (rows, validation) = (corners(90, 3, 0), corners(30, 3, 5));
        let (head, choice) = train(&rows, &validation, 3).unwrap();
        assert_eq!(
            top1(
                &head.logits(&validation.bottlenecks).unwrap(),
                &validation.classes
            ),
            1.0
        );
        assert!(choice.converged);
    }

    #[test]
    fn a_rare_class_is_named_after_adjustment() {
        // Two classes, 1 to 99, whose photos do not differ: the odds are the frequencies, and even without them, in
        // whatever scale the logits are.
        let classes: Vec<usize> = (0..100).map(|i| usize::from(i > 0)).collect();
        for scale in [0.25, 0.5, 1.0] {
            let logits = vec![vec![0.0, scale * 99f32.ln()]; 100];
            let odds = |strength| {
                let offsets = class_offsets(&classes, 2, strength, (&logits, &classes));
                assert!(offsets.iter().sum::<f32>().abs() < 1e-5, "{offsets:?}");
                99f32.ln() - (offsets[1] - offsets[0]) / scale
            };
            assert!(odds(1.0).abs() < 0.05, "{}", odds(1.0));
            let half = 99f32.ln() / 2.0;
            assert!((odds(0.5) - half).abs() < 0.05, "{}", odds(0.5));
        }
        assert_eq!(class_offsets(&classes, 2, 1.0, (&[], &[])), [0.0, 0.0]);
    }

    #[test]
    fn no_weight_magnifies_the_rounding_of_the_bottleneck() {
        // Two dimensions tell the classes apart: one by 2, one by a hundredth of the step of its byte.
        let (count, step) = (60, 4.0 / 255.0);
        let values = (0..count).flat_map(|i| {
            let side = if i % 2 == 0 { 1.0 } else { -1.0 };
            let noise = (i * 7919 % 97) as f32 / 97.0;
            [2.0 + side * (1.0 + noise), 1.0 + side * step / 200.0]
        });
        let rows = Rows {
            bottlenecks: Bottlenecks::from_rows(values.collect(), 2),
            classes: (0..count).map(|i| i % 2).collect(),
        };
        let (head, _) = train(&rows, &rows, 2).unwrap();
        let weights: Vec<Vec<f32>> = head.weight.to_vec2().unwrap();
        let logits = head.logits(&rows.bottlenecks).unwrap();
        let span = (logits[0][0] - logits[1][0]).abs();
        for row in weights {
            assert!((row[1] * step).abs() < 0.05 * span, "{row:?} {span}");
        }
    }

    #[test]
    fn the_gradient_is_the_losses_slope() {
        let rows = corners(24, 3, 1);
        let standardise = Standardise::of(&rows.bottlenecks).unwrap();
        let problem = Problem {
            rows: standardise.rows(&rows.bottlenecks).unwrap(),
            targets: &rows.classes,
            classes: 3,
            dimension: 3,
        };
        let variables: Vec<f32> = (0..problem.variables())
            .map(|i| (i as f32 * 0.37).sin() * 0.2)
            .collect();
        let weights = [0.5, 1.0, 2.0];
        let (_, gradient) = problem.loss(&variables, 0.01, &weights).unwrap();
        for i in 0..variables.len() {
            let at = |step: f32| {
                let mut moved = variables.clone();
                moved[i] += step;
                problem.loss(&moved, 0.01, &weights).unwrap().0
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!(
                (slope - f64::from(gradient[i])).abs() < 2e-3 * (1.0 + slope.abs()),
                "{i}: {slope} {}",
                gradient[i]
            );
        }
    }
}
