//! Labels pictures and writes the answers as text or JSON lines, for `graft-device label` and `graft label` alike.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Instant;

use graft_shared::error::{Context, Error, Result};
use graft_shared::limits::MAX_IMAGE_FILE_BYTES;
use serde::Serialize;

use crate::{Classification, Engine};

/// Suffixes, in lower case, that mark a file in a folder as a picture. Also kinds that can't be decoded, so that such
/// a file is named as failed and not passed over. A file that the user names itself is always tried.
const PICTURE_SUFFIXES: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif",
    "avif", "ppm", "qoi",
];

/// One picture to label.
#[derive(Debug)]
pub enum Picture {
    /// An image file.
    File(PathBuf),
    /// The bytes of an image file that has no path (standard input); it is called `-`.
    Bytes(Vec<u8>),
    /// A path that can't be opened, and why: it fails in its turn.
    Unopened(PathBuf, Error),
}

impl Picture {
    /// The name that answers and errors carry.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Unopened(path, _) => path,
            Self::Bytes(_) => Path::new("-"),
        }
    }

    /// The bytes of the image file.
    ///
    /// # Errors
    /// When it can't be read or is larger than [`MAX_IMAGE_FILE_BYTES`].
    pub fn read(self) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => read_image(File::open(path).context("can't open the file")?),
            Self::Bytes(bytes) => Ok(bytes),
            Self::Unopened(_, error) => Err(error),
        }
    }
}

/// Reads an image file of at most [`MAX_IMAGE_FILE_BYTES`].
///
/// # Errors
/// When it can't be read or is larger.
pub fn read_image(source: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source
        .take(MAX_IMAGE_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .context("can't read the image")?;
    if bytes.len() > MAX_IMAGE_FILE_BYTES {
        return Err(Error::new(format!(
            "the image is larger than {MAX_IMAGE_FILE_BYTES} bytes, the most that is read"
        )));
    }
    Ok(bytes)
}

/// The pictures that a path stands for: a file is itself, a folder every picture below it, sorted by path.
///
/// Hidden files and folders (their name begins with a dot) are left out; links to folders are not followed.
#[must_use]
pub fn pictures(path: &Path) -> Vec<Picture> {
    if !path.is_dir() {
        return vec![Picture::File(path.to_path_buf())];
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        match entries.context("can't read the folder") {
            Ok(entries) => entries.iter().for_each(|entry| {
                let path = entry.path();
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if is_picture(&path) && !path.is_dir() {
                    found.push(Picture::File(path));
                }
            }),
            Err(error) => found.push(Picture::Unopened(folder, error)),
        }
    }
    if found.is_empty() {
        let error = Error::new("no pictures in this folder")
            .hint("pictures in a folder are recognised by suffix, such as `.jpg` or `.png`");
        found.push(Picture::Unopened(path.to_path_buf(), error));
    }
    found.sort_by(|a, b| a.path().cmp(b.path()));
    found
}

fn is_picture(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|suffix| PICTURE_SUFFIXES.contains(&suffix.to_ascii_lowercase().as_str()))
}

/// How pictures are labelled and answers written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelOptions {
    /// Labels to write for each picture, best first.
    pub top: usize,
    /// Score in 0..=1 below which the label is unknown; `None` takes the model's own.
    pub threshold: Option<f32>,
    /// Pictures in work at once.
    pub threads: usize,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// Text only: the path above the labels, as is needed when there are several pictures.
    pub headings: bool,
}

/// Labels every picture, in order, and writes each answer as soon as it and all before it are there. A picture that
/// fails stops nothing: it goes to `failed`, and with `json` also to `out`. Returns how many failed.
///
/// # Errors
/// When `out` can't be written to; the error's source is then the `io::Error`.
pub fn label(
    engine: &Engine,
    pictures: impl Iterator<Item = Picture> + Send,
    options: &LabelOptions,
    out: &mut dyn Write,
    failed: &mut dyn FnMut(&Error),
) -> Result<usize> {
    let pictures = Mutex::new(pictures.enumerate());
    let (sender, receiver) = mpsc::sync_channel(options.threads.max(1));
    thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            let sender = sender.clone();
            let pictures = &pictures;
            scope.spawn(move || {
                // The lock ends with the statement: pictures are fetched in turn, classified side by side.
                while let Some((index, picture)) = next(pictures) {
                    // The receiver is gone when writing failed: nobody waits for more.
                    if sender.send((index, answer(engine, picture))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut failures = 0;
        let mut labelled = 0;
        for (index, answer) in receiver {
            waiting.insert(index, answer);
            while let Some(answer) = waiting.remove(&(labelled + failures)) {
                write_answer(engine, &answer, labelled == 0, options, out)?;
                match &answer.outcome {
                    Ok(_) => labelled += 1,
                    Err(error) => {
                        failed(error);
                        failures += 1;
                    }
                }
            }
            out.flush().context("can't write the answer")?;
        }
        Ok(failures)
    })
}

fn next<I: Iterator>(pictures: &Mutex<I>) -> Option<I::Item> {
    // A poisoned lock means that the iterator panicked: there is no next picture.
    pictures.lock().ok()?.next()
}

struct Answer {
    path: PathBuf,
    outcome: Result<Classification>,
    milliseconds: f64,
}

fn answer(engine: &Engine, picture: Picture) -> Answer {
    let start = Instant::now();
    let path = picture.path().to_path_buf();
    let outcome = picture
        .read()
        .and_then(|bytes| engine.classify(&bytes))
        .with_context(|| format!("can't label `{}`", path.display()));
    Answer {
        path,
        outcome,
        milliseconds: start.elapsed().as_secs_f64() * 1e3,
    }
}

/// A line of `label --json`.
#[derive(Serialize)]
struct Labelled<'a> {
    path: &'a str,
    label: Option<&'a str>,
    score: f32,
    unknown: bool,
    top: Vec<Candidate<'a>>,
    milliseconds: f64,
}

/// A label that may be the right one.
#[derive(Serialize)]
struct Candidate<'a> {
    label: &'a str,
    score: f32,
}

/// A line of `label --json` for a picture that can't be labelled.
#[derive(Serialize)]
struct Refused<'a> {
    path: &'a str,
    error: String,
}

fn write_answer(
    engine: &Engine,
    answer: &Answer,
    first: bool,
    options: &LabelOptions,
    out: &mut dyn Write,
) -> Result<()> {
    let path = answer.path.to_string_lossy();
    let path = path.as_ref();
    let classification = match &answer.outcome {
        Ok(classification) => classification,
        Err(error) if options.json => {
            let error = error.line();
            return write_json(&Refused { path, error }, out);
        }
        Err(_) => return Ok(()),
    };
    let card = engine.card();
    let threshold = options.threshold.unwrap_or(card.decision.threshold);
    let top: Vec<_> = classification
        .top(options.top.max(1))
        .into_iter()
        .map(|(index, score)| Candidate {
            label: card.labels.get(index).unwrap_or_default(),
            score,
        })
        .collect();
    let best = top.first().context("the model has no labels")?;
    let unknown = best.score < threshold;
    if options.json {
        return write_json(
            &Labelled {
                path,
                label: (!unknown).then_some(best.label),
                score: best.score,
                unknown,
                milliseconds: answer.milliseconds,
                top,
            },
            out,
        );
    }
    let mut text = String::new();
    if options.headings {
        text.push_str(if first { "" } else { "\n" });
        text.push_str(&format!("{path}\n"));
    }
    if unknown {
        text.push_str(&format!("unknown (no score reaches {threshold:.5})\n"));
    }
    for Candidate { label, score } in &top {
        text.push_str(&format!("{label} (score = {score:.5})\n"));
    }
    out.write_all(text.as_bytes())
        .context("can't write the answer")
}

/// Writes one JSON object and a line break.
///
/// # Errors
/// When `out` can't be written to.
pub fn write_json(value: &impl Serialize, out: &mut dyn Write) -> Result<()> {
    let mut line = serde_json::to_vec(value).context("can't write the answer as JSON")?;
    line.push(b'\n');
    out.write_all(&line).context("can't write the answer")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_every_picture_below_it_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "b/2.JPG",
            "b/1.png",
            "a.jpeg",
            "b/notes.txt",
            ".hidden/3.jpg",
            "b/.4.jpg",
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = pictures(folder.path());
        let paths: Vec<_> = found
            .iter()
            .map(|picture| picture.path().strip_prefix(folder.path()).unwrap())
            .collect();
        assert_eq!(paths, ["a.jpeg", "b/1.png", "b/2.JPG"].map(Path::new));
    }

    #[test]
    fn a_folder_without_pictures_and_a_missing_path_fail_in_their_turn() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            let picture = pictures(path).pop().unwrap();
            assert_eq!(picture.path(), path);
            picture.read().unwrap_err().report()
        };
        assert!(refused(folder.path()).contains("no pictures"));
        assert!(refused(&folder.path().join("none")).contains("can't open"));
    }
}
