//! `graft demo`: the main job from end to end, on sample photos.

use std::fs;

use graft_engine::Engine;
use graft_shared::error::{Context, Result};

use super::{Done, print};
use crate::cli::{DemoArguments, TrainArguments};
use crate::demo;
use crate::progress::Progress;
use crate::run::{self, names};

/// `graft demo`.
///
/// # Errors
/// When photos or weights can't be had, and what keeps a model from being made.
pub fn run(arguments: DemoArguments) -> Result<Done> {
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
    let done = super::train::run(TrainArguments::of(
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
