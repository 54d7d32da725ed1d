//! `graft label`: as `graft-device label`, and without a model the newest finished run's.

use std::fs;
use std::io::Read;
use std::path::Path;

use graft_engine::Engine;
use graft_shared::error::{Error, Result};

use super::{Done, say};
use crate::cli::LabelArguments;
use crate::run::{self, names};

/// `graft label`.
///
/// # Errors
/// When there is no model, it can't be loaded, or the answers can't be written.
pub fn run(arguments: &LabelArguments) -> Result<Done> {
    let (model, paths) = match arguments.paths.split_first() {
        Some((first, rest)) if is_model(first) => (first.clone(), rest),
        _ => (
            run::newest_finished()?.join(names::MODEL),
            &arguments.paths[..],
        ),
    };
    if paths.is_empty() && arguments.label.paths_from.is_none() {
        return Err(
            Error::new(format!("no picture to label with `{}`", model.display()))
                .hint("name image files or folders after the model"),
        );
    }
    let engine = Engine::open(&model)?;
    let failed = graft_cli::label::run(&engine, paths, &arguments.label, &mut say)?;
    Ok(if failed == 0 {
        Done::Fine
    } else {
        Done::Missed
    })
}

/// Whether a file is an ONNX model, whatever its suffix: it begins with the field `ir_version`, as no picture does.
fn is_model(path: &Path) -> bool {
    let mut first = [0];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut first))
        .is_ok()
        && first == [0x08]
}
