//! Fine-tuning as a stage of a run: photos decoded, plan chosen and recorded, network trained, weights kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graft_shared::error::{Context, Error, Result};
use graft_shared::preprocess::Preprocess;
use serde_json::json;

use super::plan::{Circumstances, FEW_PHOTOS, Plan};
use super::{Device, Epoch, Job, Outcome, Tuned, loss, range_test};
use crate::backbone::Backbone;
use crate::cli::Recipe;
use crate::dataset::{Dataset, Split};
use crate::features::Item;
use crate::head::{Head, class_offsets};
use crate::interrupt;
use crate::memory;
use crate::nn::{Graph, Linear, Op, Tape, Weights, write_lists};
use crate::pictures::loader::Settings as LoaderSettings;
use crate::pictures::sheet::sheet;
use crate::pictures::store::DEFAULT_MEMORY;
use crate::pictures::{Batch, Loader, Normalisation, Pictures, Room};
use crate::progress::Progress;
use crate::run::{Run, names};
use crate::settings::{ChosenBy, Settings};
use crate::summaries::Summaries;

/// Photos that an epoch is validated on, at most.
const MOST_VALIDATION_PHOTOS: usize = 2000;

/// Photos of a step, at least, where memory is scarce: fewer make no statistics.
const SMALLEST_BATCH: usize = 4;
/// Pictures side by side in the summary of a batch.
const SHEET_COLUMNS: usize = 8;
/// Photos whose logits are softened together.
const ROWS_AT_ONCE: usize = 1024;
/// Tenths that the logits are lessened by, one after the other, at most.
const SOFTEST: i32 = 30;

/// How to fine-tune, as far as the user said.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to train.
    pub recipe: Recipe,
    /// Settings of the plan by name.
    pub given: Vec<(String, String)>,
    /// Steps in place of epochs.
    pub steps: Option<usize>,
    /// Time for all of it.
    pub time_budget: Option<Duration>,
    /// Folder for TensorBoard's event files.
    pub summaries: Option<PathBuf>,
    /// Whether to go on from the run's checkpoint.
    pub resume: bool,
    /// On what.
    pub device: Device,
}

impl Request {
    /// Tries the settings, so that a mistyped one is refused before the photos are looked at.
    ///
    /// # Errors
    /// A setting that does not exist, or a value that it can't have.
    pub fn check(&self) -> Result<()> {
        let anything = Circumstances {
            photos: 1,
            smallest_class: 1,
            largest_class: 1,
            input_size: 224,
        };
        self.change(&mut Plan::choose(self.recipe, anything).0, 1)
    }

    /// The plan for a dataset and an input of so many pixels, and why its values are what they are.
    ///
    /// # Errors
    /// A setting that does not exist, or a value that it can't have.
    pub fn plan(
        &self,
        dataset: &Dataset,
        input_size: usize,
    ) -> Result<(Plan, Vec<(&'static str, String)>)> {
        let mut counts = vec![0; dataset.labels.len()];
        let train = dataset.indices(Split::Train);
        for class in dataset.classes(&train) {
            counts[class] += 1;
        }
        let circumstances = Circumstances {
            photos: train.len(),
            smallest_class: counts.iter().copied().min().unwrap_or(0),
            largest_class: counts.iter().copied().max().unwrap_or(0),
            input_size,
        };
        let (mut plan, why) = Plan::choose(self.recipe, circumstances);
        self.change(&mut plan, circumstances.photos)?;
        Ok((plan, why))
    }

    /// Puts what the user gave into `plan`, for so many photos to train on.
    fn change(&self, plan: &mut Plan, photos: usize) -> Result<()> {
        for (name, value) in &self.given {
            plan.set(name, value)?;
        }
        if let Some(steps) = self.steps {
            let seen = steps.saturating_mul(plan.train_batch_size);
            plan.epochs = seen.div_ceil(photos.max(1));
        }
        plan.validate()
    }

    /// Whether the user gave the setting `name`.
    pub(crate) fn gives(&self, name: &str) -> bool {
        let steps = name == "epochs" && self.steps.is_some();
        steps || self.given.iter().any(|(given, _)| given == name)
    }
}

/// What a fine-tuning needs of its run.
pub struct Stage<'a> {
    /// The photos with their sides.
    pub dataset: &'a Dataset,
    /// Before fine-tuning.
    pub backbone: &'a Backbone,
    /// The same backbone for another input size, in pixels.
    pub backbone_for: &'a dyn Fn(usize) -> Result<Backbone>,
    /// Trained on its bottlenecks.
    pub head: &'a Head,
    /// What it says of the training photos.
    pub train_logits: &'a [Vec<f32>],
    /// How photos become the model's input.
    pub preprocess: &'a Preprocess,
    /// What the user said.
    pub request: &'a Request,
    /// Of all randomness.
    pub seed: u64,
}

impl Stage<'_> {
    /// Fine-tunes; `settings` get the plan and `run` the events, the checkpoint and the weights.
    ///
    /// # Errors
    /// Photos that changed since they were indexed, settings that do not exist, and what keeps training from its end.
    pub fn run(
        &self,
        settings: &mut Settings,
        run: &mut Run,
        progress: &Progress,
    ) -> Result<Outcome> {
        let start = Instant::now();
        let checkpoint = run.path(names::FINE_TUNING);
        let (mut plan, mut why) = self.request.plan(self.dataset, self.backbone.input_size)?;
        let recorded =
            if self.request.resume && checkpoint.is_file() {
                let path = run.path(names::SETTINGS);
                let text = std::fs::read_to_string(&path).with_context(|| {
                    format!("reading `{}`, which the run began with", path.display())
                })?;
                let recorded = plan.recorded(&Settings::from_toml(&text)?);
                Some(recorded.with_context(|| {
                    format!("`{}` lacks settings of fine-tuning", path.display())
                })?)
            } else {
                None
            };
        let resumed = recorded.is_some();
        if let Some(recorded) = recorded {
            self.unchanged(&recorded)?;
            plan = recorded;
        }

        let train = self.pictures(Split::Train, usize::MAX, run, progress)?;
        let validation = self.pictures(Split::Validation, MOST_VALIDATION_PHOTOS, run, progress)?;
        let normalisation = self.normalisation();
        let head = self.softened(plan.label_smoothing)?;
        let full = self.backbone.with_head(&head);
        let small = (self.backbone_for)(plan.small_size)?.with_head(&head);
        let small = Weights::of(&full)?.fill(&small)?;
        if !resumed && matches!(self.request.device, Device::Cpu) {
            self.fit_memory(&full, &mut plan, &mut why, progress)?;
        }
        let loader_settings = LoaderSettings {
            classes: self.dataset.labels.len(),
            batch_len: plan.train_batch_size,
            augmentation: plan.augmentation(),
            frequency_power: plan.frequency_power as f32,
            filter: self.preprocess.filter,
            normalisation,
            seed: self.seed,
        };
        let loader = Arc::new(Loader::new(
            Arc::new(train.pictures),
            train.classes,
            loader_settings,
        )?);
        let stop = interrupt::flag()?;
        let mut job = Job {
            full: &full,
            small: &small,
            input_size: self.backbone.input_size,
            loader,
            normalisation,
            validation: &validation.pictures,
            validation_classes: &validation.classes,
            classes: self.dataset.labels.len(),
            plan: &plan,
            seed: self.seed,
            device: &self.request.device,
            checkpoint: &checkpoint,
            stop: &stop,
        };
        let mut chosen = plan.clone();
        if !resumed {
            self.measure(&job, start, &mut chosen, &mut why)?;
        }
        job.plan = &chosen;
        chosen.record(settings, &|name| self.request.gives(name), &why)?;
        run.write(names::SETTINGS, settings.to_toml()?.as_bytes())?;
        let on = settings.value("device").unwrap_or("cpu");
        progress.say(&format!("{chosen}, on {on}"));

        let mut summaries = self.summaries(&job)?;
        let mut outcome = super::run(&job, resumed, progress, &mut |epoch, weights| {
            if let Some(summaries) = &mut summaries {
                summarise(summaries, epoch, weights)?;
            }
            run.event(&json!({"event": "epoch", "at": epoch}))
        })?;
        if let Outcome::Finished(tuned) = &mut outcome {
            // Of the frequencies that the network saw.
            let strength = chosen.logit_adjustment * chosen.frequency_power;
            if strength > 0.0 {
                let logits = super::logits(
                    &tuned.graph,
                    &validation.pictures,
                    &normalisation,
                    self.backbone.input_size,
                )?;
                let validation = (&logits[..], &validation.classes[..]);
                let offsets =
                    class_offsets(&self.train_classes(), job.classes, strength, validation);
                tuned.adjust(&offsets)?;
            }
            let weights = Weights::of(&tuned.graph)?;
            run.write(names::WEIGHTS, &write_lists(weights.lists(), None)?)?;
        }
        Ok(outcome)
    }

    /// The event files, if wanted, with a picture of the first batch.
    fn summaries(&self, job: &Job<'_>) -> Result<Option<Summaries>> {
        let Some(folder) = &self.request.summaries else {
            return Ok(None);
        };
        let mut summaries = Summaries::create(folder)?;
        let mut batch = Batch::default();
        job.loader
            .fill(0, job.plan.size(0, job.input_size), &mut batch)?;
        let picture = sheet(&batch, &job.normalisation, SHEET_COLUMNS);
        summaries.picture(
            0,
            "train/batch",
            picture.width,
            picture.height,
            &picture.data,
        )?;
        summaries.flush()?;
        Ok(Some(summaries))
    }

    /// The logits of the tuned network for the test photos, as Candle computes them.
    ///
    /// # Errors
    /// Photos that changed since they were indexed.
    pub fn test_logits(
        &self,
        tuned: &Tuned,
        run: &Run,
        progress: &Progress,
    ) -> Result<Vec<Vec<f32>>> {
        let test = self.pictures(Split::Test, usize::MAX, run, progress)?;
        super::logits(
            &tuned.graph,
            &test.pictures,
            &self.normalisation(),
            self.backbone.input_size,
        )
    }

    fn train_classes(&self) -> Vec<usize> {
        self.dataset.classes(&self.dataset.indices(Split::Train))
    }

    fn normalisation(&self) -> Normalisation {
        Normalisation {
            mean: self.backbone.spec.mean,
            std: self.backbone.spec.std,
        }
    }

    /// The head, less sure of itself: its logits are scaled so that their loss with smoothed targets is least. Else the
    /// first steps would drive the whole network towards smaller logits.
    fn softened(&self, label_smoothing: f64) -> Result<Head> {
        let classes = self.dataset.labels.len();
        let spread = (label_smoothing / classes as f64) as f32;
        let truths = self.train_classes();
        let mut scales: Vec<(f64, f64)> = (0..=SOFTEST)
            .map(|step| (0.9_f64.powi(step), 0.0))
            .collect();
        let rows = self.train_logits.chunks(ROWS_AT_ONCE);
        for (rows, truths) in rows.zip(truths.chunks(ROWS_AT_ONCE)) {
            let logits = rows.concat();
            let mut targets = vec![spread; logits.len()];
            for (row, &class) in targets.chunks_exact_mut(classes).zip(truths) {
                row[class] += 1.0 - label_smoothing as f32;
            }
            let mut gradient = vec![0.0; logits.len()];
            for (scale, sum) in &mut scales {
                let scaled: Vec<f32> = logits.iter().map(|logit| logit * *scale as f32).collect();
                let mean = loss::cross_entropy(&scaled, &targets, classes, &mut gradient);
                *sum += mean * truths.len() as f64;
            }
        }
        let (scale, _) = scales
            .into_iter()
            .min_by(|one, other| one.1.total_cmp(&other.1))
            .unwrap_or((1.0, 0.0));
        let scaled = || -> candle_core::Result<Head> {
            Ok(Head {
                weight: (&self.head.weight * scale)?,
                bias: (&self.head.bias * scale)?,
            })
        };
        scaled().context("scaling the head")
    }

    /// Refuses settings that are not those the run began with.
    fn unchanged(&self, recorded: &Plan) -> Result<()> {
        let mut changed = recorded.clone();
        let photos = self.dataset.indices(Split::Train).len();
        self.request.change(&mut changed, photos)?;
        if changed == *recorded {
            return Ok(());
        }
        Err(
            Error::new("a run that goes on keeps the settings that it began with")
                .hint("leave the settings out, or begin another run without `--resume`"),
        )
    }

    /// Halves the photos of a step until it fits into the memory that is free.
    fn fit_memory(
        &self,
        graph: &Graph,
        plan: &mut Plan,
        why: &mut Vec<(&'static str, String)>,
        progress: &Progress,
    ) -> Result<()> {
        let tape = |images| {
            Tape::new(
                graph,
                images,
                3,
                self.backbone.input_size,
                self.backbone.input_size,
            )
        };
        let each = tape(1)?.bytes();
        let free = memory::available().unwrap_or(u64::MAX);
        let wanted = plan.train_batch_size;
        let needed = |batch: usize| each.saturating_mul(batch as u64);
        if !self.request.gives("train_batch_size") {
            while plan.train_batch_size > SMALLEST_BATCH
                && needed(plan.train_batch_size) > free / 4 * 3
            {
                plan.train_batch_size /= 2;
            }
        }
        if tape(plan.train_batch_size).is_err() {
            plan.train_batch_size = (plan.train_batch_size / 2).max(2);
            tape(plan.train_batch_size).map_err(|error| {
                error
                    .hint("`--set train_batch_size=2` needs least, `--recipe head` next to nothing")
            })?;
        }
        if plan.train_batch_size < wanted {
            let megabytes = needed(wanted) / 1_000_000;
            let reason = format!("{wanted} need about {megabytes} MB, more than is free");
            progress.say(&format!(
                "{} photos a step: {reason}",
                plan.train_batch_size
            ));
            why.push(("train_batch_size", reason));
        }
        Ok(())
    }

    /// The learning rate and, with a time budget, the epochs: what depends on a few steps taken.
    fn measure(
        &self,
        job: &Job<'_>,
        start: Instant,
        plan: &mut Plan,
        why: &mut Vec<(&'static str, String)>,
    ) -> Result<()> {
        let steps = job.loader.epoch_steps() as usize;
        let budget = self
            .request
            .time_budget
            .filter(|_| !self.request.gives("epochs"));
        // A test of few photos would be most of their training.
        let few = self.train_classes().len() < FEW_PHOTOS || steps < range_test::STEPS;
        let test = !few && !self.request.gives("learning_rate");
        if !test && budget.is_none() {
            return Ok(());
        }
        let clock = Instant::now();
        let rate = range_test::learning_rate(job)?;
        let step = clock.elapsed().as_secs_f64() / range_test::STEPS as f64;
        if test {
            plan.learning_rate = rate;
            why.push((
                "learning_rate",
                "well below where the loss rose in a range test".to_owned(),
            ));
        }
        if let Some(budget) = budget {
            let left = budget.saturating_sub(start.elapsed()).as_secs_f64();
            let area = (job.input_size as f64 / plan.small_size as f64).powi(2);
            let small = plan.small_share;
            let validation =
                job.validation.len() as f64 / plan.train_batch_size as f64 * step * area / 3.0;
            let epoch = steps as f64 * step * (small + (1.0 - small) * area) + validation;
            plan.epochs = ((left / epoch) as usize).max(1);
            plan.patience = plan.epochs;
            why.retain(|(name, _)| *name != "epochs");
            why.push((
                "epochs",
                format!("about as many as fit into {:.0} s", budget.as_secs_f64()),
            ));
        }
        Ok(())
    }

    /// The photos of a side, decoded, and their classes.
    fn pictures(
        &self,
        side: Split,
        most: usize,
        run: &Run,
        progress: &Progress,
    ) -> Result<Decoded> {
        let mut indices = self.dataset.indices(side);
        if indices.len() > most {
            indices.sort_by_key(|&index| self.dataset.photos[index].content_hash);
            indices.truncate(most);
        }
        decoded(self.dataset, &indices, side, self.preprocess, run, progress)
    }
}

/// Photos that are decoded, and their classes.
pub(crate) struct Decoded {
    pub(crate) pictures: Pictures,
    pub(crate) classes: Vec<usize>,
}

/// The photos `indices` of a dataset as its `side` needs them: whole for training, else as the model sees them.
pub(crate) fn decoded(
    dataset: &Dataset,
    indices: &[usize],
    side: Split,
    preprocess: &Preprocess,
    run: &Run,
    progress: &Progress,
) -> Result<Decoded> {
    let items: Vec<Item> = indices
        .iter()
        .map(|&index| Item {
            content_hash: dataset.photos[index].content_hash,
            path: dataset.photos[index].path.clone(),
        })
        .collect();
    let room = Room {
        memory: DEFAULT_MEMORY,
        directory: run.folder(),
    };
    let stage = progress.stage("decoding", items.len());
    let advance = |photos| stage.advance(photos);
    let loaded = match side {
        Split::Train => Pictures::for_training(&items, preprocess, room, &advance)?,
        Split::Validation | Split::Test => {
            Pictures::for_evaluation(&items, preprocess, room, &advance)?
        }
    };
    stage.finish();
    if let Some((index, error)) = loaded.refused.into_iter().next() {
        let path = items[index].path.display();
        return Err(error).with_context(|| format!("`{path}` could be read a moment ago"));
    }
    Ok(Decoded {
        pictures: loaded.pictures,
        classes: dataset.classes(indices),
    })
}

/// An epoch's curves, and how the weights are distributed.
fn summarise(summaries: &mut Summaries, epoch: &Epoch, weights: &Weights) -> Result<()> {
    let step = epoch.steps as u64;
    summaries.scalar(step, "train/loss", epoch.loss as f32)?;
    summaries.scalar(step, "train/learning_rate", epoch.learning_rate as f32)?;
    summaries.scalar(
        step,
        "train/images_per_second",
        epoch.images_per_second as f32,
    )?;
    if let Some(top1) = epoch.validation_top1 {
        summaries.scalar(step, "validation/accuracy", top1 as f32)?;
    }
    for parameter in &weights.parameters {
        summaries.histogram(
            step,
            &format!("train/{}", parameter.name),
            &parameter.values,
        )?;
    }
    summaries.flush()
}

impl Tuned {
    /// The network as a backbone and a head.
    ///
    /// # Errors
    /// When its last node is no linear layer.
    pub fn split(&self, backbone: &Backbone) -> Result<(Backbone, Head)> {
        let mut graph = self.graph.clone();
        let head = Head {
            weight: linear(&mut graph)?.weight.clone(),
            bias: linear(&mut graph)?.bias.clone(),
        };
        graph.nodes.pop();
        let backbone = Backbone {
            graph,
            ..backbone.clone()
        };
        Ok((backbone, head))
    }

    /// Takes `offsets` off the logits.
    fn adjust(&mut self, offsets: &[f32]) -> Result<()> {
        let head = linear(&mut self.graph)?;
        let (weight, bias) = (head.weight.clone(), head.bias.clone());
        head.bias = Head { weight, bias }.adjusted(offsets)?.bias;
        Ok(())
    }

    /// Records how it ended.
    pub fn record(&self, settings: &mut Settings) {
        let why = "best on the validation photos";
        let epoch = self.best.map_or(self.epochs, |best| best.1);
        settings.set("best_epoch", epoch, ChosenBy::Graft, why);
    }
}

/// The head of a classifier's graph.
fn linear(graph: &mut Graph) -> Result<&mut Linear> {
    match graph.nodes.last_mut().map(|node| &mut node.op) {
        Some(Op::Linear(linear)) => Ok(linear),
        _ => Err(Error::new(
            "the last node of a classifier is a linear layer",
        )),
    }
}
