//! Fine-tuning: the whole network on the user's photos, from a backbone with a trained head.

mod continued;
mod loss;
#[cfg(test)]
mod loss_curve;
mod optimizer;
pub mod plan;
mod range_test;
mod stage;
mod state;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use graft_shared::error::{Context, Error, Result};
use rayon::prelude::*;

use crate::metrics;
use crate::nn::{BatchStatistics, Dropping, Gradients, Graph, Tape, Weights};
use crate::pictures::{Loader, Normalisation, Pictures, Prefetch};
use crate::progress::Progress;
pub use continued::continued;
use plan::Plan;
pub use stage::{Request, Stage};
use state::State;

/// Between two checkpoints within an epoch.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(120);
/// Photos that pass through the network together outside of training.
const EVALUATION_BATCH: usize = 16;

/// What is to be fine-tuned, and on what.
pub struct Job<'a> {
    /// Backbone and head as one graph, at the model's input size.
    pub full: &'a Graph,
    /// The same for small pictures: TensorFlow's padding depends on the size.
    pub small: &'a Graph,
    /// Side of the model's input in pixels.
    pub input_size: usize,
    /// Augmented batches of the training photos.
    pub loader: Arc<Loader>,
    /// What the model expects of its input.
    pub normalisation: Normalisation,
    /// Photos to validate on, as the model will see them.
    pub validation: &'a Pictures,
    /// Their classes.
    pub validation_classes: &'a [usize],
    /// Number of labels.
    pub classes: usize,
    /// How.
    pub plan: &'a Plan,
    /// Of what is left out at random.
    pub seed: u64,
    /// The file of the checkpoint.
    pub checkpoint: &'a Path,
    /// Set from outside when the user wants an end.
    pub stop: &'a AtomicBool,
}

/// An epoch that is over.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Side of the pictures in pixels.
    pub size: usize,
    /// Steps taken in all.
    pub steps: usize,
    /// Mean loss of its steps.
    pub loss: f64,
    /// Top-1 accuracy on the validation photos, a fraction.
    pub validation_top1: Option<f64>,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Photos a second in its steps.
    pub images_per_second: f64,
}

/// How a fine-tuning ended.
#[derive(Debug)]
pub enum Outcome {
    /// With the best weights.
    Finished(Tuned),
    /// It was asked to stop, and wrote a checkpoint after so many of so many steps.
    Stopped(usize, usize),
}

/// A fine-tuned network.
#[derive(Debug)]
pub struct Tuned {
    /// Backbone and head.
    pub graph: Graph,
    /// The best validation accuracy and its epoch.
    pub best: Option<(f64, usize)>,
    /// Epochs trained.
    pub epochs: usize,
    /// Photos a second in the training steps.
    pub images_per_second: f64,
}

/// Trains by the plan, from the checkpoint if `resume` is wanted and there is one, and keeps the weights of the epoch
/// that validates best.
///
/// `tell` is called after each epoch, with the running mean of the weights.
///
/// # Errors
/// A loss that is not finite even at half the learning rate, a checkpoint that can't be read or written, and what `tell`
/// returns.
pub fn run(
    job: &Job<'_>,
    resume: bool,
    progress: &Progress,
    tell: &mut dyn FnMut(&Epoch, &Weights) -> Result<()>,
) -> Result<Outcome> {
    let plan = job.plan;
    let epoch_steps = job.loader.epoch_steps() as usize;
    let total = plan.epochs * epoch_steps;
    let mut state = if resume && job.checkpoint.is_file() {
        let state = State::load(job.checkpoint, job.full, plan)?;
        progress.say(&format!(
            "goes on after step {} of {total}",
            state.position.steps
        ));
        state
    } else {
        State::start(Weights::of(job.full)?, plan)
    };
    let stage = progress.stage("fine-tuning", total * plan.train_batch_size);
    stage.advance(state.position.steps * plan.train_batch_size);

    let (mut all_seconds, mut all_steps) = (0.0, 0);
    while state.position.epochs < plan.epochs {
        let before = state.clone();
        let size = plan.size(state.position.epochs, job.input_size);
        let last = (state.position.epochs + 1) * epoch_steps;
        let mut trainer = Trainer::new(
            job.graph(size),
            (plan.train_batch_size, size),
            job.classes,
            plan,
            job.seed,
        )?;
        let mut saved = Instant::now();
        let (mut seconds, mut rate) = (0.0, 0.0);
        let steps = state.position.steps..last;
        let mut batches = job.batches(steps.clone(), size)?;
        while let Some(batch) = batches.next() {
            let batch = batch?;
            let clock = Instant::now();
            rate = state.position.rate_factor
                * plan.rate((state.position.steps as f64 + 0.5) / total as f64);
            state.position.loss += trainer.step(&mut state, &batch.input, &batch.targets, rate)?;
            seconds += clock.elapsed().as_secs_f64();
            batches.recycle(batch);
            state.position.steps += 1;
            stage.advance(plan.train_batch_size);
            if !state.position.loss.is_finite() {
                break;
            }
            let stop = job.stop.load(Ordering::Relaxed);
            if stop || saved.elapsed() > CHECKPOINT_INTERVAL {
                state.save(job.checkpoint)?;
                saved = Instant::now();
            }
            if stop {
                return Ok(Outcome::Stopped(state.position.steps, total));
            }
        }
        drop((batches, trainer));
        if !state.position.loss.is_finite() {
            if before.position.rate_factor < 1.0 {
                return Err(Error::new(
                    "the loss is not a finite number, at half the learning rate too",
                )
                .hint("try `--set learning_rate=0.0001`, or `--recipe head`"));
            }
            progress.say(
                "the loss is not a finite number: the epoch begins again at half the learning rate",
            );
            state = before;
            state.position.rate_factor = 0.5;
            continue;
        }
        state.position.epochs += 1;
        let top1 = job.validate(&state.mean)?;
        let epoch = Epoch {
            epoch: state.position.epochs,
            size,
            steps: state.position.steps,
            loss: state.position.loss / epoch_steps as f64,
            validation_top1: top1,
            learning_rate: rate * plan.learning_rate,
            images_per_second: (steps.len() * plan.train_batch_size) as f64
                / f64::max(seconds, 1e-9),
        };
        (all_seconds, all_steps) = (all_seconds + seconds, all_steps + steps.len());
        state.position.loss = 0.0;
        // Without photos to validate on the last epoch is the best. The head before fine-tuning is no candidate: a
        // validation that is near the training photos would choose it where it is worse.
        if top1.is_none_or(|top1| state.position.best.is_none_or(|best| top1 >= best.0)) {
            state.position.best = top1.map(|top1| (top1, epoch.epoch));
            state.best = state.mean.clone();
        }
        state.save(job.checkpoint)?;
        tell(&epoch, &state.mean)?;
        progress.say(&format!("{epoch} of {}", plan.epochs));
        let best_at = state.position.best.map_or(epoch.epoch, |best| best.1);
        if epoch.epoch - best_at >= plan.patience && epoch.epoch > plan.small_epochs() {
            progress.say(&format!(
                "ends early: no better validation since epoch {best_at}"
            ));
            break;
        }
    }
    stage.finish();
    Ok(Outcome::Finished(Tuned {
        graph: state.best.fill(job.full)?,
        best: state.position.best,
        epochs: state.position.epochs,
        images_per_second: (all_steps * plan.train_batch_size) as f64 / f64::max(all_seconds, 1e-9),
    }))
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "loss {:.4}, {}{:.1} photos/s at {} px, epoch {}",
            self.loss,
            self.validation_top1
                .map_or_else(String::new, |top1| format!(
                    "validation {:.2} %, ",
                    100.0 * top1
                )),
            self.images_per_second,
            self.size,
            self.epoch
        )
    }
}

impl Job<'_> {
    fn graph(&self, size: usize) -> &Graph {
        if size == self.input_size {
            self.full
        } else {
            self.small
        }
    }

    /// The batches of some steps, made ahead on a thread beside the step.
    fn batches(&self, steps: Range<usize>, size: usize) -> Result<Prefetch> {
        let steps = steps.start as u64..steps.end as u64;
        Prefetch::start(&self.loader, &(Arc::new(move |_| size) as _), steps, 1)
    }

    /// Top-1 accuracy of `weights` on the validation photos, a fraction; `None` without any.
    fn validate(&self, weights: &Weights) -> Result<Option<f64>> {
        let logits = logits(
            &weights.fill(self.full)?,
            self.validation,
            &self.normalisation,
            self.input_size,
        )?;
        Ok((!logits.is_empty()).then(|| metrics::top1(&logits, self.validation_classes)))
    }
}

/// What `graph` says of pictures that have its input size: a row of logits for each.
///
/// # Errors
/// Pictures of another size, or that can't be read.
pub fn logits(
    graph: &Graph,
    pictures: &Pictures,
    normalisation: &Normalisation,
    input_size: usize,
) -> Result<Vec<Vec<f32>>> {
    let mut logits = Vec::with_capacity(pictures.len());
    let mut input = Vec::new();
    for first in (0..pictures.len()).step_by(EVALUATION_BATCH) {
        let range = first..pictures.len().min(first + EVALUATION_BATCH);
        let shape = (range.len(), 3, input_size, input_size);
        pictures.normalised(range, normalisation, &mut input)?;
        let batch =
            Tensor::from_slice(&input, shape, &Device::Cpu).context("a batch of pictures")?;
        let output = graph.forward(&batch, &mut |_, _| Ok(()))?;
        logits.extend(output.to_vec2::<f32>().context("reading logits")?);
    }
    Ok(logits)
}

/// Seconds of each of `steps` training steps of `graph` on pictures of noise: for benchmarks.
///
/// # Errors
/// A graph that can't be trained.
pub fn time_steps(
    graph: &Graph,
    classes: usize,
    size: usize,
    batch: usize,
    steps: usize,
) -> Result<Vec<f64>> {
    let circumstances = plan::Circumstances {
        photos: usize::MAX,
        smallest_class: 1,
        largest_class: 1,
        input_size: size,
    };
    let (plan, _) = Plan::choose(crate::cli::Recipe::Balanced, circumstances);
    let mut state = State::start(Weights::of(graph)?, &plan);
    let mut trainer = Trainer::new(graph, (batch, size), classes, &plan, 0)?;
    let input: Vec<f32> = (0..batch * 3 * size * size)
        .map(|index| (index.wrapping_mul(2_654_435_761) % 1024) as f32 / 512.0 - 1.0)
        .collect();
    let mut targets = vec![0.0; batch * classes];
    for image in 0..batch {
        targets[image * classes + image % classes] = 1.0;
    }
    (0..steps)
        .map(|_| {
            let start = Instant::now();
            trainer.step(&mut state, &input, &targets, 0.1)?;
            Ok(start.elapsed().as_secs_f64())
        })
        .collect()
}

/// One step after another at one input size.
struct Trainer<'a> {
    tape: Tape<'a>,
    gradients: Gradients,
    logit_gradient: Vec<f32>,
    classes: usize,
    /// Highest learning rate of each parameter.
    rates: Vec<f64>,
    statistics: BatchStatistics,
    /// Nodes before this one stay as they are.
    first: usize,
    dropping: Dropping,
    label_smoothing: f64,
    ema: f64,
}

impl<'a> Trainer<'a> {
    /// For batches of so many pictures of that side in pixels.
    fn new(
        graph: &'a Graph,
        (batch, size): (usize, usize),
        classes: usize,
        plan: &Plan,
        seed: u64,
    ) -> Result<Trainer<'a>> {
        let weights = Weights::of(graph)?;
        let first = (plan.frozen * graph.nodes.len() as f64) as usize;
        Ok(Trainer {
            tape: Tape::new(graph, batch, 3, size, size)?,
            gradients: weights
                .parameters
                .iter()
                .map(|parameter| vec![0.0; parameter.values.len()])
                .collect(),
            logit_gradient: vec![0.0; batch * classes],
            classes,
            rates: rates(&weights, first, plan),
            statistics: plan.batch_norm,
            first,
            dropping: Dropping {
                path: plan.drop_path,
                bottleneck: plan.dropout,
                seed,
                step: 0,
            },
            label_smoothing: plan.label_smoothing,
            ema: plan.ema,
        })
    }

    /// One step with all learning rates times `rate`; returns the loss before it.
    ///
    /// `targets` are `[n, classes]`, each row summing to 1, before smoothing.
    fn step(
        &mut self,
        state: &mut State,
        input: &[f32],
        targets: &[f32],
        rate: f64,
    ) -> Result<f64> {
        let spread = (self.label_smoothing / self.classes as f64) as f32;
        let keep = (1.0 - self.label_smoothing) as f32;
        let targets: Vec<f32> = targets
            .iter()
            .map(|target| keep * target + spread)
            .collect();

        self.tape.input().copy_from_slice(input);
        self.dropping.step = state.optimizer.steps;
        self.tape.leave_out(&self.dropping, self.first);
        let logits = self
            .tape
            .forward(&mut state.weights, self.statistics, self.first)?;
        let loss = loss::cross_entropy(logits, &targets, self.classes, &mut self.logit_gradient);
        self.tape.backward(
            &state.weights,
            self.statistics,
            &self.logit_gradient,
            self.first,
            &mut self.gradients,
        )?;

        let rates: Vec<f64> = self.rates.iter().map(|highest| highest * rate).collect();
        state
            .optimizer
            .step(&mut state.weights.parameters, &self.gradients, &rates);
        let steps = state.optimizer.steps as f64;
        let new = 1.0 - self.ema.min((1.0 + steps) / (10.0 + steps));
        let lists: Vec<_> = state.mean.lists_mut().zip(state.weights.lists()).collect();
        lists.into_par_iter().for_each(|((_, mean), (_, values))| {
            for (mean, &value) in mean.iter_mut().zip(values) {
                *mean += new as f32 * (value - *mean);
            }
        });
        Ok(loss)
    }
}

/// The highest learning rate of each parameter: that of the plan at the backbone's last layer, falling geometrically to
/// the first layer's; the head's own; 0 for the nodes before `first`.
fn rates(weights: &Weights, first: usize, plan: &Plan) -> Vec<f64> {
    let layers = weights.parameters.len().saturating_sub(3).max(1) as f64;
    let mut rates: Vec<f64> = (0..weights.parameters.len())
        .map(|layer| {
            plan.learning_rate
                * plan
                    .first_layer_rate
                    .powf(1.0 - (layer as f64 / layers).min(1.0))
        })
        .collect();
    let head = rates.len().saturating_sub(2);
    rates[head..].fill(plan.learning_rate * plan.head_rate);
    rates[..weights.parameters_before(first)].fill(0.0);
    rates
}
