//! `graft label`: as `graft-device label`, and without a model the newest finished run's.

use std::fs;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use graft_engine::Engine;
use graft_engine::label::{LabelOptions, Picture, pictures, read_image};
use graft_shared::error::{Error, Result};

use super::{Done, complain, cores};
use crate::cli::LabelArguments;
use crate::run::{self, names};

/// `graft label`.
///
/// # Errors
/// When there is no model, or it can't be loaded.
pub fn run(arguments: &LabelArguments) -> Result<Done> {
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
