//! Fine-tuning: the whole network on the user's photos, from a backbone with a trained head.

mod continued;
mod device;
mod loss;
#[cfg(test)]
mod loss_curve;
mod optimizer;
pub mod plan;
mod range_test;
mod stage;
mod state;
mod trainer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use graft_shared::error::{Context, Error, Result};

use crate::metrics;
use crate::nn::{Graph, Weights};
use crate::pictures::{Loader, Normalisation, Pictures, Prefetch};
use crate::progress::Progress;
pub use continued::continued;
pub use device::{Device, DeviceName};
use plan::Plan;
pub use stage::{Request, Stage};
use state::State;
use trainer::Trainer;

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
    /// On what.
    pub device: &'a Device,
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
        let sizes = (plan.train_batch_size, size, job.classes);
        let mut trainer =
            Trainer::new(job.graph(size), sizes, (plan, job.seed), &state, job.device)?;
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
                trainer.fetch(&mut state)?;
                state.save(job.checkpoint)?;
                saved = Instant::now();
            }
            if stop {
                return Ok(Outcome::Stopped(state.position.steps, total));
            }
        }
        trainer.fetch(&mut state)?;
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
        let batch = Tensor::from_slice(&input, shape, &candle_core::Device::Cpu)
            .context("a batch of pictures")?;
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
    device: &Device,
) -> Result<Vec<f64>> {
    let circumstances = plan::Circumstances {
        photos: usize::MAX,
        smallest_class: 1,
        largest_class: 1,
        input_size: size,
    };
    let (plan, _) = Plan::choose(crate::cli::Recipe::Balanced, circumstances);
    let mut state = State::start(Weights::of(graph)?, &plan);
    let mut trainer = Trainer::new(graph, (batch, size, classes), (&plan, 0), &state, device)?;
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
