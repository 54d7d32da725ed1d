//! The run folder: what a training run was told, what it found, what it made.

use std::fs;
use std::path::{Path, PathBuf};

use graft_shared::error::{Context, Error, Result};
use graft_shared::files::write_atomic;
use serde::Serialize;

/// Names inside a run folder; people and scripts rely on them.
pub mod names {
    /// The int8 model.
    pub const MODEL: &str = "model.onnx";
    /// Its float twin.
    pub const FLOAT_MODEL: &str = "model.float.onnx";
    /// One label a line, in output order.
    pub const LABELS: &str = "labels.txt";
    /// Which photo was on which side.
    pub const SPLIT: &str = "split.tsv";
    /// Every setting, who chose it and why.
    pub const SETTINGS: &str = "settings.toml";
    /// The figures. Written last: its presence says that the run is finished.
    pub const METRICS: &str = "metrics.json";
    /// What each layer lost to int8, and how it is quantized.
    pub const QUANTIZATION: &str = "quantization.tsv";
    /// One event a line.
    pub const LOG: &str = "log.jsonl";
    /// Where fine-tuning is, in safetensors: weights, optimizer, running mean, position.
    pub const FINE_TUNING: &str = "checkpoint/fine-tuning.safetensors";
    /// The weights that fine-tuning ended with, in safetensors.
    pub const WEIGHTS: &str = "checkpoint/weights.safetensors";
    /// The trained head, in safetensors.
    pub const HEAD: &str = "checkpoint/head.safetensors";
}

/// Below this folder runs get their default names.
pub const RUNS: &str = "runs";

/// The folder of one training run.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    log: Vec<u8>,
}

impl Run {
    /// Opens `folder`, or the first free `runs/<source's name>-<n>`, and creates it. An unfinished folder is continued.
    ///
    /// # Errors
    /// When the folder holds a finished run, or can't be created.
    pub fn open(folder: Option<&Path>, source: &Path) -> Result<Self> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => default_folder(source),
        };
        if is_finished(&folder) {
            return Err(
                Error::new(format!("`{}` holds a finished run", folder.display()))
                    .hint("give another `--run` folder, or remove this one"),
            );
        }
        fs::create_dir_all(&folder)
            .with_context(|| format!("can't create the run folder `{}`", folder.display()))?;
        Ok(Self {
            folder,
            log: Vec::new(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of `name` inside.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes `name`, whole or not at all.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("can't create `{}`", parent.display()))?;
        }
        write_atomic(&path, bytes)
    }

    /// Adds an event to the log.
    ///
    /// # Errors
    /// When the log can't be written.
    pub fn event(&mut self, event: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.log, event).context("can't write an event as JSON")?;
        self.log.push(b'\n');
        self.write(names::LOG, &self.log)
    }
}

/// Whether `folder` holds a run that reached its end.
#[must_use]
pub fn is_finished(folder: &Path) -> bool {
    folder.join(names::METRICS).is_file()
}

/// The newest finished run below `runs` in the current folder.
///
/// # Errors
/// When there is none.
pub fn newest_finished() -> Result<PathBuf> {
    let finished = fs::read_dir(RUNS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|folder| is_finished(folder));
    finished
        .max_by_key(|folder| {
            fs::metadata(folder.join(names::METRICS))
                .and_then(|meta| meta.modified())
                .ok()
        })
        .context("no model was given, and `runs` holds no finished run")
        .map_err(|error| {
            error.hint(
                "train one with `graft train photos/`, or name a model file before the photos",
            )
        })
}

fn default_folder(source: &Path) -> PathBuf {
    let absolute = std::path::absolute(source).unwrap_or_else(|_| source.to_owned());
    let stem = if source.is_dir() {
        absolute.file_name()
    } else {
        absolute.file_stem()
    };
    let stem = stem.map_or_else(
        || "photos".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    let mut number = 1;
    loop {
        let folder = Path::new(RUNS).join(format!("{stem}-{number}"));
        if !is_finished(&folder) {
            return folder;
        }
        number += 1;
    }
}
