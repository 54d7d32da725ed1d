//! `graft train`: from a folder of photos to a finished run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use graft_engine::Engine;
use graft_shared::card::{Metrics, Probe, Provenance};
use graft_shared::error::{Context, Result};
use graft_shared::files::write_atomic;
use graft_shared::preprocess::{Fit, Pixels, Preprocess};
use rayon::prelude::*;
use serde_json::json;

use crate::backbone::{self, Backbone, FetchOptions};
use crate::classifier::{Classifier, Exported, Samples};
use crate::cli::Recipe;
use crate::dataset::{self, Dataset, Earlier, GroupBy, Percentages, Split};
use crate::evaluate::{self, Comparison};
use crate::features::{self, Bottlenecks, Store};
use crate::fine_tune::{self, Request, Stage};
use crate::head::{self, Head, Rows};
use crate::metrics;
use crate::progress::Progress;
use crate::report::{Report, Seconds};
use crate::run::{Run, names};
use crate::settings::{ChosenBy, Settings};
use crate::weight_bits::WeightBits;

/// The backbone that most people want: small, accurate, made for int8.
pub const DEFAULT_BACKBONE: &str = "efficientnet_lite0";
/// Training images that the ranges of the activations are taken from.
const CALIBRATION_IMAGES: usize = 256;
/// Further training images on which the ways to pick a range are compared.
const COMPARISON_IMAGES: usize = 128;
/// Validation images that decide on the bits of the weights, beside those of the comparison.
const JUDGED_IMAGES: usize = 512;
/// Generated images whose logits the card keeps.
const PROBES: u64 = 4;
/// How a split came about, as a setting: the folders or the list gave it.
const GIVEN: &str = "given";
/// Or groups of photos were put on its sides.
const GROUPED: &str = "groups";
/// Colour of the bars of `--fit pad`: the middle of the pixels' range.
const PAD_COLOUR: [u8; 3] = [127; 3];

/// What `graft train` was told.
#[derive(Debug)]
pub struct Options {
    /// Folder of label folders, or a TSV.
    pub source: PathBuf,
    /// Run folder, if one was named.
    pub run: Option<PathBuf>,
    /// Name in the registry of backbones.
    pub backbone: String,
    /// Side of the model's input in pixels, if not the backbone's own.
    pub image_size: Option<usize>,
    /// How a photo is brought to the model's input.
    pub fit: FitName,
    /// Parts put aside.
    pub percentages: Percentages,
    /// What belongs together beside what is found to.
    pub group_by: GroupBy,
    /// Cache of bottlenecks.
    pub bottleneck_dir: PathBuf,
    /// Where pretrained weights come from.
    pub weights: FetchOptions,
    /// A further place for the int8 model.
    pub output_graph: Option<PathBuf>,
    /// A further place for the labels.
    pub output_labels: Option<PathBuf>,
    /// Fail and export nothing below this int8 accuracy, a fraction.
    pub min_accuracy: Option<f64>,
    /// Fail and export nothing when int8 loses more than this to float, a fraction.
    pub max_drop: Option<f64>,
    /// The model of an earlier run to begin with.
    pub from: Option<PathBuf>,
    /// Bits of the weights.
    pub weight_bits: WeightBits,
    /// What to train, and how.
    pub fine_tuning: Request,
    /// Recorded in the model; the head itself needs no randomness.
    pub seed: u64,
    /// Threads for evaluation.
    pub threads: usize,
    /// Who chose what.
    pub settings: Settings,
}

/// A fit by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FitName {
    /// The middle, at the backbone's crop_pct.
    Crop,
    /// All of it, with bars.
    Pad,
    /// All of it, the aspect ratio lost.
    Squash,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All was exported.
    Finished(Box<Report>),
    /// A gate was missed and nothing was exported; the text says which and by how much.
    GateMissed(String),
    /// It was asked to stop; the text says where it is and how it goes on.
    Stopped(String),
}

/// Runs the whole chain: scan, bottlenecks, split, head, fine-tuning, quantize, evaluate, export.
///
/// # Errors
/// Whatever keeps a model from being made. What was cached until then stays, and a rerun continues from there.
pub fn train(mut options: Options, progress: &Progress) -> Result<Outcome> {
    let start = Instant::now();
    let mut seconds = Seconds::default();
    let mut dataset = dataset::scan(&options.source, Some(&options.bottleneck_dir), progress)?;
    let backbone = backbone::load(&options.backbone, options.image_size, &options.weights)?;
    let backbone = match &options.from {
        Some(model) => fine_tune::continued(backbone, model)?,
        None => backbone,
    };
    let preprocess = Preprocess {
        fit: fit(&backbone, options.fit),
        ..backbone.preprocess()?
    };
    let mut run = Run::open(options.run.as_deref(), &options.source)?;

    let clock = Instant::now();
    let features = bottlenecks(&mut dataset, &backbone, &preprocess, &options, progress)?;
    seconds.features = clock.elapsed().as_secs_f64();
    dataset::group(&mut dataset, options.group_by, &features)?;
    let given = dataset.photos.iter().any(|photo| photo.split.is_some());
    let (split_by, by) = if given {
        (GIVEN, ChosenBy::User)
    } else {
        (GROUPED, ChosenBy::Graft)
    };
    options.settings.set(dataset::SPLIT_BY, split_by, by, "");
    let earlier = if given {
        Earlier::default()
    } else {
        earlier(&dataset, &run, &options)
    };
    dataset::split(&mut dataset, options.percentages, &earlier)?;
    if let Some(folder) = &earlier.run {
        progress.say(&format!(
            "photos keep the sides they had in {}",
            folder.display()
        ));
    }
    tell_about(&dataset, progress);
    // The settings first: a split without them would not be found by a later run. Those of a fine-tuning that goes on stay.
    if !options.fine_tuning.resume {
        run.write(names::SETTINGS, options.settings.to_toml()?.as_bytes())?;
    }
    run.write(names::SPLIT, &dataset::manifest_tsv(&dataset)?)?;
    run.event(
        &json!({"event": "features", "photos": dataset.photos.len(), "seconds": seconds.features}),
    )?;

    let clock = Instant::now();
    let train = rows(&features, &dataset, Split::Train);
    let validation = rows(&features, &dataset, Split::Validation);
    let (mut head, choice) = head::train(&train, &validation, dataset.labels.len())?;
    if options.fine_tuning.recipe == Recipe::Head {
        let rows = (&train, &validation);
        head = adjusted(&head, &choice, rows, &dataset, &backbone, &mut options)?;
    }
    seconds.head = clock.elapsed().as_secs_f64();
    choice.record(&mut options.settings);
    run.write(names::HEAD, &head.to_safetensors()?)?;
    run.event(&json!({"event": "head", "validation_top1": choice.validation_top1, "iterations": choice.iterations, "seconds": seconds.head}))?;
    progress.say(&choice.to_string());

    let clock = Instant::now();
    let (backbone, head, logits, images_per_second) = if options.fine_tuning.recipe == Recipe::Head
    {
        let test = rows(&features, &dataset, Split::Test);
        (
            backbone,
            head.clone(),
            head.logits(&test.bottlenecks)?,
            None,
        )
    } else {
        let train_logits = head.logits(&train.bottlenecks)?;
        drop((features, train, validation));
        let stage = Stage {
            train_logits: &train_logits,
            dataset: &dataset,
            backbone: &backbone,
            backbone_for: &|size| backbone::load(&options.backbone, Some(size), &options.weights),
            head: &head,
            preprocess: &preprocess,
            request: &options.fine_tuning,
            seed: options.seed,
        };
        match stage.run(&mut options.settings, &mut run, progress)? {
            fine_tune::Outcome::Finished(tuned) => {
                tuned.record(&mut options.settings);
                let logits = stage.test_logits(&tuned, &run, progress)?;
                let (backbone, head) = tuned.split(&backbone)?;
                (backbone, head, logits, Some(tuned.images_per_second))
            }
            fine_tune::Outcome::Stopped(steps, total) => {
                return Ok(Outcome::Stopped(format!(
                    "stopped after {steps} of {total} steps of fine-tuning; the same command with `--run {} --resume` goes on",
                    run.folder().display()
                )));
            }
        }
    };
    seconds.finetune = clock.elapsed().as_secs_f64();

    let clock = Instant::now();
    let provenance = provenance(&options, &backbone, &dataset);
    let classifier = Classifier::new(
        &backbone,
        &head,
        preprocess,
        dataset.labels.clone(),
        provenance,
    )?;
    let samples = samples(&dataset, &preprocess)?;
    let (mut int8, quantized) = classifier.export_int8(&samples, options.weight_bits, progress)?;
    drop(samples);
    let mut float = classifier.export_float()?;
    quantized.record(&mut options.settings);
    run.write(names::QUANTIZATION, quantized.to_tsv().as_bytes())?;
    seconds.quantize = clock.elapsed().as_secs_f64();

    let clock = Instant::now();
    let comparison = compare(&float, &int8, &logits, &dataset, options.threads, progress)?;
    let temperature = temperature(&int8, &dataset, options.threads, progress)?;
    seconds.evaluate = clock.elapsed().as_secs_f64();
    if let Some(missed) = comparison.gate_missed(options.min_accuracy, options.max_drop) {
        progress.say(&comparison.to_text());
        return Ok(Outcome::GateMissed(missed));
    }

    options.settings.set(
        "temperature",
        temperature,
        ChosenBy::Graft,
        "calibrates the scores on the validation photos",
    );
    for exported in [&mut float, &mut int8] {
        exported.card.decision.temperature = temperature;
        exported.card.provenance.settings = options.settings.pairs();
        exported.card.metrics = card_metrics(&comparison);
        exported.card.probes = probes(&exported.engine()?, &preprocess)?;
    }
    let labels: String = dataset
        .labels
        .iter()
        .map(|label| format!("{label}\n"))
        .collect();
    let model = int8.to_bytes()?;
    run.write(names::FLOAT_MODEL, &float.to_bytes()?)?;
    run.write(names::LABELS, labels.as_bytes())?;
    run.write(names::SETTINGS, options.settings.to_toml()?.as_bytes())?;
    run.write(names::MODEL, &model)?;
    for (path, bytes) in [
        (&options.output_graph, &model[..]),
        (&options.output_labels, labels.as_bytes()),
    ] {
        path.as_ref()
            .map_or(Ok(()), |path| write_atomic(path, bytes))?;
    }
    seconds.total = start.elapsed().as_secs_f64();
    let mut report = Report::new(
        &run,
        &options,
        &dataset,
        comparison,
        seconds,
        model.len(),
        preprocess.width,
    );
    report.train_images_per_second = images_per_second;
    report.quantization = Some(quantized.summary);
    run.event(&json!({"event": "finished", "seconds": seconds.total}))?;
    run.write(names::METRICS, report.to_json()?.as_bytes())?;
    Ok(Outcome::Finished(Box::new(report)))
}

/// A fit by its name, with the backbone's own crop_pct.
fn fit(backbone: &Backbone, name: FitName) -> Fit {
    match name {
        FitName::Crop => Fit::Crop {
            crop_pct: backbone.spec.crop_pct,
        },
        FitName::Pad => Fit::Pad { colour: PAD_COLOUR },
        FitName::Squash => Fit::Squash,
    }
}

/// Bottlenecks and classes of the photos on one side.
fn rows(features: &Bottlenecks, dataset: &Dataset, side: Split) -> Rows {
    let indices = dataset.indices(side);
    Rows {
        bottlenecks: features.pick(&indices),
        classes: dataset.classes(&indices),
    }
}

/// The head for labels that are as frequent as each other, as far as the plan wants it.
fn adjusted(
    head: &Head,
    choice: &head::Choice,
    (train, validation): (&Rows, &Rows),
    dataset: &Dataset,
    backbone: &Backbone,
    options: &mut Options,
) -> Result<Head> {
    let request = &options.fine_tuning;
    let (plan, why) = request.plan(dataset, backbone.input_size)?;
    let given = |name: &str| request.gives(name);
    plan.record_one("logit_adjustment", &mut options.settings, &given, &why)?;
    if plan.logit_adjustment == 0.0 {
        return Ok(head.clone());
    }
    // Weighted by the inverse root of the frequencies it has seen their root.
    let seen = if choice.balanced { 0.5 } else { 1.0 };
    let logits = head.logits(&validation.bottlenecks)?;
    head.adjusted(&head::class_offsets(
        &train.classes,
        dataset.labels.len(),
        plan.logit_adjustment * seen,
        (&logits, &validation.classes),
    ))
}

/// Computes or reads the bottlenecks; photos that don't decode leave the dataset.
fn bottlenecks(
    dataset: &mut Dataset,
    backbone: &Backbone,
    preprocess: &Preprocess,
    options: &Options,
    progress: &Progress,
) -> Result<Bottlenecks> {
    let mut store = Store::open(&options.bottleneck_dir, backbone, preprocess)?;
    let items: Vec<features::Item> = dataset
        .photos
        .iter()
        .map(|photo| features::Item {
            content_hash: photo.content_hash,
            path: photo.path.clone(),
        })
        .collect();
    let stage = progress.stage("bottlenecks", items.len());
    let extracted = features::extract(backbone, preprocess, &items, &mut store, &|photos| {
        stage.advance(photos)
    })?;
    stage.finish();
    dataset.refuse(extracted.refused)?;
    Ok(extracted.bottlenecks)
}

/// The sides of the newest run beside this one that split the same photos in the same way.
fn earlier(dataset: &Dataset, run: &Run, options: &Options) -> Earlier {
    let runs = match run.folder().parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let settings = [
        (dataset::SPLIT_BY, GROUPED.to_owned()),
        (
            "testing_percentage",
            options.percentages.testing.to_string(),
        ),
        (
            "validation_percentage",
            options.percentages.validation.to_string(),
        ),
        ("group_by", options.group_by.name().to_owned()),
    ];
    Earlier::find(runs, &options.source, &settings, dataset)
}

/// Warnings and refused photos, for people.
fn tell_about(dataset: &Dataset, progress: &Progress) {
    for refused in &dataset.refused {
        progress.say(&format!(
            "refused: {}: {}",
            refused.path.display(),
            refused.reason
        ));
    }
    for warning in &dataset.warnings {
        progress.say(&format!("warning: {warning}"));
    }
    let count = |side| dataset.indices(side).len();
    progress.say(&format!(
        "{} labels, {} photos to train, {} to validate, {} to test, {} refused",
        dataset.labels.len(),
        count(Split::Train),
        count(Split::Validation),
        count(Split::Test),
        dataset.refused.len()
    ));
}

/// Preprocessed photos for the quantizer, spread evenly over the content hashes and so over the labels: training photos
/// to calibrate on, others to compare on, and for judging those others and validation photos.
fn samples(dataset: &Dataset, preprocess: &Preprocess) -> Result<Samples> {
    let spread = |side, most| {
        let mut indices = dataset.indices(side);
        indices.sort_by_key(|&index| dataset.photos[index].content_hash);
        indices.truncate(most);
        indices
    };
    let pixels = |indices: &[usize]| -> Result<Vec<Pixels>> {
        let pixels = indices.par_iter().map(|&index| {
            let path = &dataset.photos[index].path;
            let bytes = std::fs::read(path)
                .with_context(|| format!("can't read `{}` again", path.display()))?;
            preprocess
                .apply(&bytes)
                .with_context(|| format!("can't decode `{}` again", path.display()))
        });
        pixels.collect()
    };
    let mut calibration = spread(Split::Train, CALIBRATION_IMAGES + COMPARISON_IMAGES);
    // With few photos the comparison still needs some of its own.
    let held_back = (calibration.len() / 3).min(COMPARISON_IMAGES);
    let comparison = match held_back {
        0 => calibration.clone(),
        _ => calibration.split_off(calibration.len() - held_back),
    };
    let validation = spread(Split::Validation, JUDGED_IMAGES);
    let classes = dataset.classes(&[&comparison[..], &validation[..]].concat());
    let comparison = pixels(&comparison)?;
    Ok(Samples {
        calibration: pixels(&calibration)?,
        judged: [comparison.clone(), pixels(&validation)?].concat(),
        comparison,
        classes,
    })
}

/// The three forms of the model on the test photos.
fn compare(
    float: &Exported,
    int8: &Exported,
    logits: &[Vec<f32>],
    dataset: &Dataset,
    threads: usize,
    progress: &Progress,
) -> Result<Comparison> {
    let indices = dataset.indices(Split::Test);
    let test = evaluate::listed(dataset, &indices);
    let candle = evaluate::candle_figure(logits, &dataset.classes(&indices), dataset.labels.len());
    Ok(Comparison {
        float: Some(candle),
        float_device: Some(evaluate::measure(
            "testing the float file",
            &float.engine()?,
            &test,
            threads,
            progress,
        )?),
        int8: evaluate::measure(
            "testing the int8 file",
            &int8.engine()?,
            &test,
            threads,
            progress,
        )?,
    })
}

/// The temperature that calibrates the int8 file's scores on the validation photos.
fn temperature(
    int8: &Exported,
    dataset: &Dataset,
    threads: usize,
    progress: &Progress,
) -> Result<f32> {
    let validation = evaluate::listed(dataset, &dataset.indices(Split::Validation));
    let evaluation = evaluate::measure(
        "calibrating the scores",
        &int8.engine()?,
        &validation,
        threads,
        progress,
    )?;
    let targets: Vec<usize> = evaluation.predictions.iter().map(|p| p.truth).collect();
    let logits: Vec<Vec<f32>> = evaluation
        .predictions
        .into_iter()
        .map(|p| p.logits)
        .collect();
    Ok(metrics::temperature(&logits, &targets))
}

fn card_metrics(comparison: &Comparison) -> Option<Metrics> {
    let int8 = &comparison.int8;
    let (low, high) = comparison.interval();
    (int8.images > 0).then(|| Metrics {
        test_images: int8.images as u32,
        top1: int8.top1 as f32,
        top5: int8.top5 as f32,
        macro_recall: int8.macro_recall as f32,
        float_top1: comparison.float.map_or(0.0, |figure| figure.top1 as f32),
        interval: (low as f32, high as f32),
    })
}

fn probes(engine: &Engine, preprocess: &Preprocess) -> Result<Vec<Probe>> {
    (0..PROBES)
        .map(|seed| {
            Ok(Probe {
                seed,
                logits: engine.logits(&Probe::pixels(seed, preprocess))?,
            })
        })
        .collect()
}

fn provenance(options: &Options, backbone: &Backbone, dataset: &Dataset) -> Provenance {
    Provenance {
        manifest_digest: dataset::manifest_digest(dataset),
        backbone: backbone.name.clone(),
        backbone_digest: backbone.weights_digest,
        recipe: options.fine_tuning.recipe.name().to_owned(),
        seed: options.seed,
        settings: Vec::new(),
        graft_version: env!("CARGO_PKG_VERSION").to_owned(),
        created: created(),
    }
}

/// Seconds since 1970, or `SOURCE_DATE_EPOCH` where a build has to be repeated to the bit.
fn created() -> u64 {
    let given = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    given.unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs())
    })
}
