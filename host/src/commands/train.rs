//! `graft train`: what was typed becomes the options of a training run.

use graft_shared::error::{Error, Result};

use super::{Done, bottleneck_dir, complain, print, use_threads, weights};
use crate::backbone::FetchOptions;
use crate::cli::TrainArguments;
use crate::dataset::Percentages;
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
    match crate::train::train(options(arguments)?, &progress)? {
        Outcome::Finished(report) => {
            print(&if json {
                report.to_json()? + "\n"
            } else {
                report.to_text()
            })?;
            Ok(Done::Fine)
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

fn options(arguments: TrainArguments) -> Result<Options> {
    let common = &arguments.common;
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
    record(
        "backbone",
        arguments.backbone.clone(),
        crate::train::DEFAULT_BACKBONE,
    );
    if let Some(weights) = &arguments.weights {
        record("weights", weights.to_string(), "");
    }
    record("recipe", "head".into(), "head");
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
    record("seed", common.seed.to_string(), "0");
    Ok(Options {
        run: arguments.run,
        backbone: arguments.backbone,
        fit: arguments.fit,
        percentages: Percentages {
            validation: arguments.validation_percentage,
            testing: arguments.testing_percentage,
        },
        bottleneck_dir: bottleneck_dir(common)?,
        weights: FetchOptions {
            own: arguments.weights.clone(),
            ..weights(common)
        },
        output_graph: arguments.output_graph,
        output_labels: arguments.output_labels,
        min_accuracy: arguments.min_accuracy,
        max_drop: arguments.max_drop,
        seed: common.seed,
        threads: use_threads(common.threads)?,
        source: arguments.source,
        settings,
    })
}
