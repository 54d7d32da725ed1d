//! `label`: which label each picture has.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use graft_engine::Engine;
use graft_engine::label::{LabelOptions, Picture, label, pictures, read_image};
use graft_shared::error::{Context, Result};

use crate::cli::{LabelArguments, PictureArguments, threads};
use crate::{Outcome, report};

pub(crate) fn run(arguments: &LabelArguments) -> Result<Outcome> {
    let engine = Engine::open(&arguments.model)?;
    let options = LabelOptions {
        top: arguments.top.get(),
        threshold: arguments.threshold,
        threads: threads(arguments.threads),
        json: arguments.json,
        headings: several(&arguments.pictures),
    };
    let failures = label(
        &engine,
        each_picture(&arguments.pictures)?,
        &options,
        &mut io::stdout().lock(),
        &mut |error| report(error),
    )?;
    Ok(Outcome::of(failures))
}

/// The pictures that the arguments name, in order. Listed paths are read one by one, as they are asked for.
pub(crate) fn each_picture(
    arguments: &PictureArguments,
) -> Result<impl Iterator<Item = Picture> + Send + use<>> {
    let mut list: Box<dyn BufRead + Send> = match &arguments.paths_from {
        None => Box::new(io::empty()),
        Some(path) if is_standard_input(path) => Box::new(BufReader::new(io::stdin())),
        Some(path) => Box::new(BufReader::new(
            File::open(path).with_context(|| format!("can't open `{}`", path.display()))?,
        )),
    };
    let mut listed = true;
    let listed = std::iter::from_fn(move || {
        while listed {
            match line(&mut list) {
                Ok(Some(path)) if path.as_os_str().is_empty() => {}
                Ok(Some(path)) => return Some(pictures(&path)),
                Ok(None) => listed = false,
                Err(error) => {
                    listed = false;
                    let list = PathBuf::from("--paths-from");
                    return Some(vec![Picture::Unopened(list, error)]);
                }
            }
        }
        None
    });
    let typed = arguments.paths.clone().into_iter().map(|path| {
        if !is_standard_input(&path) {
            return pictures(&path);
        }
        vec![match read_image(io::stdin().lock()) {
            Ok(bytes) => Picture::Bytes(bytes),
            Err(error) => Picture::Unopened(path, error),
        }]
    });
    Ok(typed.chain(listed).flatten())
}

/// The next path of a list, of any bytes but a line break; `None` at the end.
fn line(list: &mut impl BufRead) -> Result<Option<PathBuf>> {
    let mut bytes = Vec::new();
    list.read_until(b'\n', &mut bytes)
        .context("can't read the list of paths")?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let path = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let path = path.strip_suffix(b"\r").unwrap_or(path);
    Ok(Some(PathBuf::from(OsStr::from_bytes(path))))
}

/// Whether more than one picture may come.
fn several(arguments: &PictureArguments) -> bool {
    match arguments.paths.as_slice() {
        [path] => arguments.paths_from.is_some() || path.is_dir(),
        _ => true,
    }
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}
