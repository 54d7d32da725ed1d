//! `graft label` and `graft-device label`: the arguments beside the model and the pictures, and what they do.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use graft_engine::Engine;
use graft_engine::label::{
    Answered, Format, LabelOptions, Picture, csv_header, label, pictures, resume,
};
use graft_shared::error::{Context, Error, Result};

use crate::pictures::{each_picture, is_standard_input, several};
use crate::{fraction, threads};

/// Work that lasts is told about this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// Of `label`, beside the model and the pictures.
#[derive(Debug, Args)]
pub struct LabelArguments {
    /// Read paths from a file, one a line; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub paths_from: Option<PathBuf>,

    /// Labels to print for each picture [default: 5; with --csv the best one]
    #[arg(long, value_name = "K")]
    pub top: Option<NonZeroUsize>,

    /// Score from 0 to 1 below which the label is unknown [default: the model's]
    #[arg(long, value_name = "SCORE", value_parser = fraction::<f32>)]
    pub threshold: Option<f32>,

    /// Pictures in work at once [default: one for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Print one JSON object a line
    #[arg(long, group = "format")]
    pub json: bool,

    /// Print a table: path, label, score, when the photo was taken
    #[arg(long, group = "format")]
    pub csv: bool,

    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Leave out the pictures that the output file has already, and add the others
    #[arg(long, requires = "output", requires = "format")]
    pub resume: bool,

    /// Say nothing on stderr but errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Labels the pictures that `paths` and the arguments name. `say` takes lines for people. Returns how many failed.
///
/// # Errors
/// When the list of paths can't be opened, or the answers can't be written.
pub fn run(
    engine: &Engine,
    paths: &[PathBuf],
    arguments: &LabelArguments,
    say: &mut dyn FnMut(&str),
) -> Result<usize> {
    let paths_from = arguments.paths_from.as_deref();
    let mut options = LabelOptions {
        top: arguments.top.map(NonZeroUsize::get),
        threshold: arguments.threshold,
        threads: threads(arguments.threads),
        format: match (arguments.json, arguments.csv) {
            (true, _) => Format::Json,
            (_, true) => Format::Csv { header: true },
            _ => Format::Text {
                headings: several(paths, paths_from),
            },
        },
    };
    let found = each_picture(paths, paths_from)?;
    let Output { mut out, answered } = open(engine, arguments, &mut options)?;
    let had = answered.count();
    if had > 0 && !arguments.quiet {
        say(&format!("{had} pictures have their answers already"));
    }
    // On a terminal the answers themselves show how far it is.
    let shown = arguments.output.is_none() && io::stdout().is_terminal();
    let mut progress = (!arguments.quiet && !shown).then(|| Progress::new(paths, paths_from));
    let left_out = Arc::new(AtomicUsize::new(0));
    let failed = label(
        engine,
        unanswered(found, answered, &left_out),
        &options,
        &mut *out,
        &mut |outcome| {
            if let Err(error) = outcome {
                say(&error.report());
            }
            if let Some(progress) = &mut progress
                && let Some(line) = progress.advance(left_out.load(Ordering::Relaxed))
            {
                say(&line);
            }
        },
    );
    failed.map_err(|error| match &arguments.output {
        Some(path) => Error::new(format!("can't write `{}`", path.display()))
            .source(error)
            .hint("with room on the disk, --resume continues where this ended"),
        None => error,
    })
}

/// Where answers go, and those that are there.
struct Output {
    out: Box<dyn Write>,
    answered: Answered,
}

fn open(engine: &Engine, arguments: &LabelArguments, options: &mut LabelOptions) -> Result<Output> {
    let Some(path) = &arguments.output else {
        return Ok(Output {
            out: Box::new(io::stdout().lock()),
            answered: Answered::default(),
        });
    };
    if !arguments.resume {
        let there = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0);
        if there {
            return Err(Error::new(format!("`{}` is there already", path.display()))
                .hint("--resume adds to it what it lacks; or remove it, or name another file"));
        }
        let file =
            File::create(path).with_context(|| format!("can't make `{}`", path.display()))?;
        return Ok(Output {
            out: Box::new(io::BufWriter::new(file)),
            answered: Answered::default(),
        });
    }
    let (file, answered) = resume(path, options.format, &csv_header(engine, options))?;
    if answered.count() > 0 && options.format == (Format::Csv { header: true }) {
        options.format = Format::Csv { header: false };
    }
    Ok(Output {
        out: Box::new(io::BufWriter::new(file)),
        answered,
    })
}

/// Those without an answer; counts the others.
fn unanswered(
    pictures: impl Iterator<Item = Picture> + Send,
    mut answered: Answered,
    left_out: &Arc<AtomicUsize>,
) -> impl Iterator<Item = Picture> + Send {
    let left_out = left_out.clone();
    pictures.filter(move |picture| {
        let has = answered.take(picture.path());
        left_out.fetch_add(usize::from(has), Ordering::Relaxed);
        !has
    })
}

/// How far it is and how long it will take. Pictures are counted beside the work, so that it begins at once.
struct Progress {
    total: Arc<Mutex<Option<usize>>>,
    done: usize,
    start: Instant,
    told: Instant,
}

impl Progress {
    fn new(paths: &[PathBuf], paths_from: Option<&Path>) -> Self {
        let total = Arc::new(Mutex::new(None));
        // What standard input will bring nobody knows; a list is short beside what it names.
        if paths_from.is_none() && !paths.iter().any(|path| is_standard_input(path)) {
            let (paths, counted) = (paths.to_vec(), total.clone());
            thread::spawn(move || {
                let count = paths.iter().map(|path| pictures(path).count()).sum();
                if let Ok(mut total) = counted.lock() {
                    *total = Some(count);
                }
            });
        }
        Self {
            total,
            done: 0,
            start: Instant::now(),
            told: Instant::now(),
        }
    }

    /// One more is done, `left_out` others were done before: a line now and then.
    fn advance(&mut self, left_out: usize) -> Option<String> {
        self.done += 1;
        if self.told.elapsed() < PROGRESS_INTERVAL {
            return None;
        }
        self.told = Instant::now();
        let rate = self.done as f64 / self.start.elapsed().as_secs_f64();
        let done = self.done + left_out;
        let total = self.total.lock().ok().and_then(|total| *total);
        Some(match total {
            Some(total) => format!(
                "labelling: {done} of {total}, {rate:.0} a second, {} left",
                duration(total.saturating_sub(done) as f64 / rate)
            ),
            None => format!("labelling: {done}, {rate:.0} a second"),
        })
    }
}

/// A time that people grasp: `40 s`, `7 min`, `2.5 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.0} s"),
        ..6_000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}
