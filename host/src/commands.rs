//! What each command does with its arguments.

use std::fs;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use graft_engine::label::{LabelOptions, Picture, pictures, read_image};
use graft_engine::{Engine, listing};
use graft_shared::error::{Context, Error, Result};

use crate::backbone::FetchOptions;
use crate::cli::{
    CommonArguments, DemoArguments, EvaluateArguments, LabelArguments, TrainArguments,
};
use crate::dataset::Percentages;
use crate::evaluate::{Comparison, candle_figure_of_run, measure};
use crate::progress::Progress;
use crate::run::{self, names};
use crate::settings::{ChosenBy, Settings};
use crate::train::{Options, Outcome};
use crate::{demo, features};

/// How a command that could run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All of it.
    Fine,
    /// Some inputs failed, or a gate was missed; what and why is on stderr.
    Missed,
}

/// `graft train`.
///
/// # Errors
/// What keeps a model from being made.
pub fn train(arguments: TrainArguments) -> Result<Done> {
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
            model_dir: common.model_dir.clone(),
            offline: common.offline,
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

fn bottleneck_dir(common: &CommonArguments) -> Result<PathBuf> {
    common
        .bottleneck_dir
        .clone()
        .map_or_else(features::default_dir, Ok)
}

/// Sizes the pool that all computing shares.
fn use_threads(threads: Option<NonZeroUsize>) -> Result<usize> {
    let threads = threads.map_or_else(cores, NonZeroUsize::get);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("can't start the threads")?;
    Ok(threads)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// `graft evaluate`.
///
/// # Errors
/// What keeps the model from being measured.
pub fn evaluate(arguments: &EvaluateArguments) -> Result<Done> {
    let progress = Progress::new(arguments.common.quiet);
    let threads = use_threads(arguments.common.threads)?;
    let photos = listing::list_split(&arguments.source, &arguments.split)?;
    let engine = Engine::open(&arguments.model)?;
    let model = measure("testing the model", &engine, &photos, threads, &progress)?;
    if let Some(path) = &arguments.predictions {
        graft_shared::files::write_atomic(path, model.predictions_tsv().as_bytes())?;
    }
    let twin = arguments.model.with_file_name(names::FLOAT_MODEL);
    let float_device = (twin.is_file() && twin != arguments.model)
        .then(|| {
            measure(
                "testing its float twin",
                &Engine::open(&twin)?,
                &photos,
                threads,
                &progress,
            )
        })
        .transpose()?;
    let common = &arguments.common;
    let weights = FetchOptions {
        model_dir: common.model_dir.clone(),
        offline: common.offline,
    };
    let float = candle_figure_of_run(
        &arguments.model,
        engine.card(),
        &photos,
        &bottleneck_dir(common)?,
        &weights,
        &progress,
    );
    // The figure in Candle is an extra: without the backbone's weights the other two stand.
    let float = float.unwrap_or_else(|error| {
        progress.say(&format!("warning: no figure in Candle: {}", error.line()));
        None
    });
    let comparison = Comparison {
        float,
        float_device,
        int8: model,
    };
    for (path, reason) in &comparison.int8.refused {
        complain(&Error::new(format!("{}: {reason}", path.display())));
    }
    let text = if arguments.json {
        comparison.int8.to_json()? + "\n"
    } else {
        comparison.to_text()
    };
    print(&text)?;
    let missed = comparison.gate_missed(arguments.min_accuracy, arguments.max_drop);
    if let Some(missed) = &missed {
        complain(&Error::new(missed));
    }
    Ok(if missed.is_some() || !comparison.int8.refused.is_empty() {
        Done::Missed
    } else {
        Done::Fine
    })
}

/// `graft label`.
///
/// # Errors
/// When there is no model, or it can't be loaded.
pub fn label(arguments: &LabelArguments) -> Result<Done> {
    let (model, paths) = match arguments.paths.split_first() {
        Some((first, rest)) if is_model(first) => (first.clone(), rest),
        _ => (
            run::newest_finished()?.join(names::MODEL),
            &arguments.paths[..],
        ),
    };
    if paths.is_empty() {
        return Err(
            Error::new(format!("no picture to label with `{}`", model.display()))
                .hint("name image files or folders after the model"),
        );
    }
    let options = LabelOptions {
        top: arguments.top.get(),
        threshold: arguments.threshold.map(|threshold| threshold as f32),
        threads: arguments.threads.map_or_else(cores, NonZeroUsize::get),
        json: arguments.json,
        headings: paths.len() > 1 || paths.iter().any(|path| path.is_dir()),
    };
    let pictures: Vec<Picture> = paths
        .iter()
        .flat_map(|path| {
            if path == Path::new("-") {
                vec![standard_input()]
            } else {
                pictures(path)
            }
        })
        .collect();
    let failed = graft_engine::label::label(
        &Engine::open(&model)?,
        pictures.into_iter(),
        &options,
        &mut io::stdout().lock(),
        &mut complain,
    )?;
    Ok(if failed == 0 {
        Done::Fine
    } else {
        Done::Missed
    })
}

fn standard_input() -> Picture {
    match read_image(io::stdin().lock()) {
        Ok(bytes) => Picture::Bytes(bytes),
        Err(error) => Picture::Unopened(PathBuf::from("-"), error),
    }
}

/// Whether a file is an ONNX model, whatever its suffix: it begins with the field `ir_version`, as no picture does.
fn is_model(path: &Path) -> bool {
    let mut first = [0];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut first))
        .is_ok()
        && first == [0x08]
}

/// `graft demo`.
///
/// # Errors
/// When photos or weights can't be had, and what keeps a model from being made.
pub fn demo(arguments: DemoArguments) -> Result<Done> {
    let progress = Progress::new(arguments.common.quiet);
    let samples = demo::samples(&arguments.folder, arguments.common.offline, &progress)?;
    let mut number = 1;
    let folder = loop {
        let folder = arguments.folder.join(format!("run-{number}"));
        if !run::is_finished(&folder) {
            break folder;
        }
        number += 1;
    };
    progress.say(&format!(
        "graft train {} --run {}",
        samples.photos.display(),
        folder.display()
    ));
    let done = train(TrainArguments::of(
        samples.photos,
        folder.clone(),
        arguments.common,
    ))?;
    let model = folder.join(names::MODEL);
    if done == Done::Fine {
        let engine = Engine::open(&model)?;
        print("\nphotos that training has not seen, and what the board will say of them:\n")?;
        for (path, label) in &samples.unseen {
            let bytes =
                fs::read(path).with_context(|| format!("can't read `{}`", path.display()))?;
            let (class, score) = engine.classify(&bytes)?.best();
            let said = engine.card().labels.get(class).unwrap_or_default();
            let mark = if said == *label { "" } else { "   (wrong)" };
            print(&format!(
                "{:<44} {said} (score = {score:.5}){mark}\n",
                path.display()
            ))?;
        }
    }
    Ok(done)
}

fn complain(error: &Error) {
    // When stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", error.report());
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("can't write to standard output")
}
