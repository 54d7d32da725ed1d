//! Labels pictures side by side and writes the answers in order, for `graft-device label` and `graft label` alike.
//!
//! Any number of pictures runs in bounded memory: [`pictures`] streams a folder, and only [`WINDOW`] pictures a thread
//! are between the first that is not yet written and the last that is begun.

mod answer;
mod pictures;
mod resume;

use std::collections::BTreeMap;
use std::io::Write;
use std::iter::Enumerate;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use graft_shared::error::{Context, Error, Result};
use graft_shared::exif;

use crate::{Classification, Engine};

pub use answer::{Candidate, Verdict, csv_header, write_json};
pub use pictures::{Picture, Pictures, pictures, read_image};
pub use resume::{Answered, resume};

/// Pictures in work or waiting to be written, for each thread.
const WINDOW: usize = 16;

/// How pictures are labelled and answers written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelOptions {
    /// Labels to write for each picture, best first; `None` for what is usual: 5, in CSV only the one label.
    pub top: Option<usize>,
    /// Score in 0..=1 below which the label is unknown; `None` takes the model's own.
    pub threshold: Option<f32>,
    /// Pictures in work at once.
    pub threads: usize,
    /// How answers are written.
    pub format: Format,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text {
        /// The path above the labels, as is needed when there are several pictures.
        headings: bool,
    },
    /// One JSON object a line.
    Json,
    /// RFC 4180 with line feeds: `path,label,score,unknown,taken,milliseconds,error`, then `label_1,score_1` and so on
    /// for the best labels that were asked for.
    Csv {
        /// Begin with the names of the columns.
        header: bool,
    },
}

/// Labels every picture, in order, and writes each answer as soon as it and all before it are there. A picture that
/// fails stops nothing: its answer says so in JSON and CSV. `told` hears how each picture went, in order. Returns how
/// many failed.
///
/// # Errors
/// When `out` can't be written to; the error's source is then the `io::Error`.
pub fn label(
    engine: &Engine,
    pictures: impl Iterator<Item = Picture> + Send,
    options: &LabelOptions,
    out: &mut dyn Write,
    told: &mut dyn FnMut(Result<(), &Error>),
) -> Result<usize> {
    let threads = options.threads.max(1);
    let (permit, permits) = mpsc::channel();
    let (sender, receiver) = mpsc::channel();
    let feed = Mutex::new(Feed {
        pictures: pictures.enumerate(),
        permits,
    });
    thread::scope(|scope| {
        for _ in 0..threads {
            let sender = sender.clone();
            let feed = &feed;
            scope.spawn(move || {
                while let Some((index, picture)) = next(feed) {
                    // The receiver is gone when writing failed: nobody waits for more.
                    if sender.send((index, answer(engine, picture))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        // In here, so that it is dropped with an error and the threads end.
        let permit = permit;
        let allow = |pictures: usize| {
            for _ in 0..pictures {
                // Without a receiver all threads have ended, and no picture is left.
                let _ = permit.send(());
            }
        };
        allow(WINDOW * threads);
        let mut writer = answer::Writer::new(engine, options, out);
        writer.header()?;
        let mut waiting = BTreeMap::new();
        let mut written = 0;
        let mut failures = 0;
        for (index, answer) in receiver {
            waiting.insert(index, answer);
            while let Some(answer) = waiting.remove(&written) {
                writer.write(&answer)?;
                told(answer.outcome.as_ref().map(|_| ()));
                written += 1;
                failures += usize::from(answer.outcome.is_err());
                allow(1);
            }
            writer.flush()?;
        }
        Ok(failures)
    })
}

/// Pictures in turn, each against a permit: fetched one by one, classified side by side.
struct Feed<I> {
    pictures: Enumerate<I>,
    permits: Receiver<()>,
}

fn next<I: Iterator>(feed: &Mutex<Feed<I>>) -> Option<(usize, I::Item)> {
    // A poisoned lock means that the iterator panicked: there is no next picture.
    let mut feed = feed.lock().ok()?;
    feed.permits.recv().ok()?;
    feed.pictures.next()
}

/// What became of one picture.
struct Answer {
    path: PathBuf,
    outcome: Result<Classification>,
    /// When the photo was taken, by its EXIF data.
    taken: Option<String>,
    milliseconds: f64,
}

fn answer(engine: &Engine, picture: Picture) -> Answer {
    let start = Instant::now();
    let path = picture.path().to_path_buf();
    let labelled = || {
        let bytes = picture.read()?;
        Ok((engine.classify(&bytes)?, exif::taken(&bytes)))
    };
    // Others wait for this picture's turn: it must be answered, come what may.
    let outcome = catch_unwind(AssertUnwindSafe(labelled))
        .unwrap_or_else(|_| Err(Error::new("labelling it panicked")))
        .with_context(|| format!("can't label `{}`", path.display()));
    let (outcome, taken) = match outcome {
        Ok((classification, taken)) => (Ok(classification), taken),
        Err(error) => (Err(error), None),
    };
    Answer {
        path,
        outcome,
        taken,
        milliseconds: start.elapsed().as_secs_f64() * 1e3,
    }
}
