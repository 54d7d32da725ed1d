//! `graft evaluate`: a model on pictures whose labels are known, its float twin beside it.

use graft_engine::{Engine, listing};
use graft_shared::error::{Error, Result};

use super::{Done, bottleneck_dir, complain, print, use_threads, weights};
use crate::cli::EvaluateArguments;
use crate::evaluate::{Comparison, candle_figure_of_run, measure};
use crate::progress::Progress;
use crate::run::names;

/// `graft evaluate`.
///
/// # Errors
/// What keeps the model from being measured.
pub fn run(arguments: &EvaluateArguments) -> Result<Done> {
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
    let float = candle_figure_of_run(
        &arguments.model,
        engine.card(),
        &photos,
        &bottleneck_dir(common)?,
        &weights(common),
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
