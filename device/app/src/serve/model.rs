//! The model that is served, and its replacement by a new file while requests run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use graft_engine::label::Verdict;
use graft_engine::{Classification, Engine};
use graft_shared::card::Probe;
use graft_shared::decode::decode_within;
use graft_shared::digest::hex;
use graft_shared::error::{Context, Error, Result};
use graft_shared::exif;
use graft_shared::limits::MAX_SERVICE_PIXELS;
use graft_shared::preprocess::Pixels;
use serde::Serialize;

use super::source::{Content, Picture, Region};

/// Hexadecimal digits of a model's version: enough to tell a fleet's models apart.
const VERSION_DIGITS: usize = 12;

/// A model that has proven to compute here what it should.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) engine: Engine,
    /// The first digits of the SHA-256 of the file.
    pub(crate) version: String,
    /// What the watchdog runs, and what came of it when the model was opened.
    probe: (Pixels, Vec<f32>),
}

/// How a picture is asked about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ask {
    /// Labels to answer with, best first.
    pub(crate) top: Option<usize>,
    /// Score below which the label is unknown.
    pub(crate) threshold: Option<f32>,
}

/// Whose fault it is that a picture has no label.
#[derive(Debug)]
pub(crate) enum Failure {
    Picture(Error),
    Model(Error),
}

/// What became of a picture.
#[derive(Debug)]
pub(crate) struct Labelling {
    pub(crate) classification: Classification,
    /// When the photo was taken, by its EXIF data.
    pub(crate) taken: Option<String>,
    /// From the bytes of the file to the label.
    pub(crate) time: Duration,
}

/// The object of `label --json`, and the model that said it.
#[derive(Debug, Serialize)]
pub(crate) struct Labelled<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(flatten)]
    verdict: Verdict<'a>,
    milliseconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    taken: Option<String>,
    model_version: &'a str,
}

impl Model {
    /// Opens and proves a model file.
    ///
    /// # Errors
    /// When it is damaged, or gives other logits for its probes than where it was made.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let engine = Engine::open(path)?;
        engine
            .verify()
            .with_context(|| format!("the model {} is not fit for use here", path.display()))?;
        let seed = engine.card().probes.first().map_or(0, |probe| probe.seed);
        let pixels = Probe::pixels(seed, &engine.card().preprocess);
        let logits = engine.logits(&pixels)?;
        let mut version = hex(engine.file_digest());
        version.truncate(VERSION_DIGITS);
        Ok(Self {
            engine,
            version,
            probe: (pixels, logits),
        })
    }

    /// Labels a picture, or a region of it.
    pub(crate) fn classify(
        &self,
        picture: &Picture,
        region: Option<Region>,
    ) -> Result<Labelling, Failure> {
        let start = Instant::now();
        match picture.content() {
            Content::File(bytes) => self.classify_file(bytes, region),
            Content::Pixels(pixels) => {
                let part = region.map(|region| region.of(&pixels)).transpose();
                let part = part.map_err(Failure::Picture)?;
                let pixels = part.as_ref().unwrap_or(&*pixels);
                let input = self.engine.card().preprocess.apply_pixels(pixels);
                self.classify_input(&input.map_err(Failure::Picture)?, start)
            }
        }
    }

    fn classify_file(&self, bytes: &[u8], region: Option<Region>) -> Result<Labelling, Failure> {
        let start = Instant::now();
        let preprocess = &self.engine.card().preprocess;
        let input = match region {
            None => preprocess.apply_within(bytes, MAX_SERVICE_PIXELS),
            Some(region) => {
                decode_within(bytes, &|width, height| (width, height), MAX_SERVICE_PIXELS)
                    .and_then(|image| region.of(&image.pixels))
                    .and_then(|part| preprocess.apply_pixels(&part))
            }
        };
        let input = input.map_err(Failure::Picture)?;
        Ok(Labelling {
            taken: exif::taken(bytes),
            ..self.classify_input(&input, start)?
        })
    }

    fn classify_input(&self, input: &Pixels, start: Instant) -> Result<Labelling, Failure> {
        let classification = self.engine.classify_pixels(input);
        Ok(Labelling {
            classification: classification.map_err(Failure::Model)?,
            taken: None,
            time: start.elapsed(),
        })
    }

    /// Labels the picture in the bytes of an image file: one JSON object, and how long it took.
    pub(crate) fn label(
        &self,
        image_file: &[u8],
        ask: Ask,
        path: Option<&str>,
    ) -> Result<(String, Duration), Failure> {
        let Labelling {
            classification,
            taken,
            time,
        } = self.classify_file(image_file, None)?;
        let labelled = Labelled {
            path,
            verdict: Verdict::new(self.engine.card(), &classification, ask.top, ask.threshold),
            taken,
            milliseconds: time.as_secs_f64() * 1e3,
            model_version: &self.version,
        };
        let json = serde_json::to_string(&labelled).context("can't write the answer as JSON");
        Ok((json.map_err(Failure::Model)?, time))
    }

    /// Whether the engine still computes what it did when the model was opened.
    pub(crate) fn is_sound(&self) -> bool {
        let (pixels, before) = &self.probe;
        self.engine.logits(pixels).is_ok_and(|logits| {
            let bits = |logits: &[f32]| logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
            bits(&logits) == bits(before)
        })
    }
}

/// The model at hand, and the file that it came from.
#[derive(Debug)]
pub(crate) struct Models {
    path: PathBuf,
    current: RwLock<Option<Arc<Model>>>,
    files: Mutex<Files>,
}

/// The model file as it was when it was looked at.
#[derive(Debug, Default)]
struct Files {
    /// When it was last opened, be it with success or not.
    opened: Option<Fingerprint>,
    /// At the last look.
    seen: Option<Fingerprint>,
}

/// What changes when a file is replaced or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Fingerprint {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl Models {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            current: RwLock::default(),
            files: Mutex::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The model to use; what is begun with it ends with it. `None` until the first one is there.
    pub(crate) fn current(&self) -> Option<Arc<Model>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Opens the file anew and puts it in the place of the model at hand, unless it is the same.
    ///
    /// # Errors
    /// When the file is not fit for use; then the model at hand stays.
    pub(crate) fn open(&self) -> Result<Opened> {
        // Before it is read: a change from now on is seen later.
        self.files().opened = Fingerprint::of(&self.path);
        let new = Arc::new(Model::open(&self.path)?);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let same = current
            .as_ref()
            .is_some_and(|old| old.version == new.version);
        if same {
            return Ok(Opened::Same(new));
        }
        *current = Some(new.clone());
        Ok(Opened::New(new))
    }

    /// Whether there is another file than the one that was opened last, and nobody is writing to it: it was the same at
    /// the look before this one.
    pub(crate) fn changed(&self) -> bool {
        let now = Fingerprint::of(&self.path);
        let mut files = self.files();
        let settled = now.is_some() && now == files.seen;
        files.seen = now;
        settled && now != files.opened
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Models::open`] found.
#[derive(Debug)]
pub(crate) enum Opened {
    New(Arc<Model>),
    Same(Arc<Model>),
}
