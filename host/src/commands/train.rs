//! `graft train`: what was typed becomes the options of a training run.

use std::fs;
use std::path::Path;

use graft_shared::error::{Context, Error, Result};

use super::{Done, bottleneck_dir, complain, print, use_threads, weights};
use crate::backbone::{FetchOptions, registry};
use crate::cli::{Recipe, TrainArguments};
use crate::dataset::{self, Percentages};
use crate::fine_tune::{Device, DeviceName, Request};
use crate::progress::Progress;
use crate::settings::{ChosenBy, Settings};
use crate::train::{Options, Outcome};

/// `graft train`.
///
/// # Errors
/// What keeps a model from being made.
pub fn run(arguments: TrainArguments) -> Result<Done> {
    let progress = Progress::new(arguments.common.quiet);
    let json = arguments.json;
    warn(&arguments, &progress);
    for file in [&arguments.output_graph, &arguments.output_labels] {
        file.as_deref().map_or(Ok(()), make_room)?;
    }
    match crate::train::train(options(arguments)?, &progress)? {
        Outcome::Finished(report) => {
            print(&if json {
                report.to_json()? + "\n"
            } else {
                report.to_text()
            })?;
            Ok(Done::Fine)
        }
        Outcome::Stopped(text) => {
            progress.say(&text);
            Ok(Done::Missed)
        }
        Outcome::GateMissed(missed) => {
            complain(
                &Error::new(missed)
                    .hint("nothing was exported; more photos of the weak labels help most"),
            );
            Ok(Done::Missed)
        }
    }
}

/// Says what was typed in vain.
fn warn(arguments: &TrainArguments, progress: &Progress) {
    for warning in arguments.retrain.warnings() {
        progress.say(&format!("warning: {warning}"));
    }
    let suffix = |path: &Path| path.extension().is_none_or(|suffix| suffix != "onnx");
    if let Some(path) = arguments
        .output_graph
        .as_deref()
        .filter(|path| suffix(path))
    {
        progress.say(&format!(
            "warning: `{}` will be an ONNX file whatever its suffix; `graft label` takes it as it is",
            path.display()
        ));
    }
}

/// Makes the folder of a file that is written when training is over: a missing one must not cost the training.
fn make_room(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder)
        .with_context(|| format!("can't make the folder of `{}`", file.display()))
}

fn options(arguments: TrainArguments) -> Result<Options> {
    let common = &arguments.common;
    let backbone = arguments.backbone()?;
    // Known before the photos are looked at: a mistyped name must not cost a scan.
    registry::find(&backbone)?;
    let mut settings = Settings::default();
    // The default is the user's choice too when it is typed: what counts is the value.
    let mut record = |name: &str, value: String, default: &str| {
        let by = if value == default {
            ChosenBy::Default
        } else {
            ChosenBy::User
        };
        settings.set(
            name,
            value,
            by,
            if by == ChosenBy::User {
                "given on the command line"
            } else {
                ""
            },
        );
    };
    record("backbone", backbone.clone(), crate::train::DEFAULT_BACKBONE);
    if let Some(weights) = &arguments.weights {
        record("weights", weights.to_string(), "");
    }
    if let Some(model) = &arguments.from {
        record("from", model.display().to_string(), "");
    }
    record(
        "recipe",
        arguments.recipe.name().into(),
        Recipe::Balanced.name(),
    );
    record("fit", format!("{:?}", arguments.fit).to_lowercase(), "crop");
    record(
        "testing_percentage",
        arguments.testing_percentage.to_string(),
        "10",
    );
    record(
        "validation_percentage",
        arguments.validation_percentage.to_string(),
        "10",
    );
    let group_by = arguments.group_by.unwrap_or_default();
    record("group_by", group_by.name().into(), "none");
    record(
        dataset::SOURCE,
        dataset::source_name(arguments.source()),
        "",
    );
    if let Some(pixels) = arguments.image_size {
        record("image_size", pixels.to_string(), "");
    }
    record("seed", common.seed.to_string(), "0");
    let mut given = Vec::new();
    let mut give = |name: &str, value: Option<String>| {
        given.extend(value.map(|value| (name.to_owned(), value)));
    };
    give("epochs", arguments.epochs.map(|epochs| epochs.to_string()));
    give(
        "train_batch_size",
        arguments.train_batch_size.map(|photos| photos.to_string()),
    );
    give(
        "learning_rate",
        arguments.learning_rate.map(|rate| rate.to_string()),
    );
    given.extend(arguments.set.iter().cloned());
    // The head alone is trained on the CPU, so that no GPU is looked for.
    let device = match (arguments.recipe, arguments.device) {
        (Recipe::Head, DeviceName::Auto) => Device::Cpu,
        (_, name) => Device::choose(name, &mut settings)?,
    };
    let fine_tuning = Request {
        recipe: arguments.recipe,
        given,
        steps: arguments.how_many_training_steps,
        time_budget: arguments.time_budget,
        summaries: arguments.summaries_dir.clone(),
        resume: arguments.resume,
        device,
    };
    fine_tuning.check()?;
    Ok(Options {
        from: arguments.from.clone(),
        fine_tuning,
        source: arguments.source().to_path_buf(),
        run: arguments.run,
        backbone,
        image_size: arguments.image_size.map(usize::from),
        fit: arguments.fit,
        percentages: Percentages {
            validation: arguments.validation_percentage,
            testing: arguments.testing_percentage,
        },
        group_by,
        bottleneck_dir: bottleneck_dir(common)?,
        weights: FetchOptions {
            own: arguments.weights.clone(),
            ..weights(common)
        },
        output_graph: arguments.output_graph,
        output_labels: arguments.output_labels,
        min_accuracy: arguments.min_accuracy,
        max_drop: arguments.max_drop,
        weight_bits: arguments.weight_bits,
        seed: common.seed,
        threads: use_threads(common.threads)?,
        settings,
    })
}
