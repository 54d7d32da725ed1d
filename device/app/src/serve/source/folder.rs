//! Pictures that appear in a folder or below it. Those that are there at the start are nobody's news.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use graft_engine::label::{Picture as Found, pictures};
use graft_shared::error::{Context, Error, Result};
use tokio::sync::mpsc;

use super::{Frame, Picture};
use crate::report;

/// How often the folder is looked at, at most; a tree that takes long is looked at less often.
const INTERVAL: Duration = Duration::from_secs(1);
/// The share of the time that looking may take.
const IDLE_SHARE: u32 = 20;

/// What changes when a file is written to: bytes, and time of the last change.
type Version = (u64, i64, i64);

/// Starts a thread that looks at `folder`; it ends when nobody receives.
///
/// # Errors
/// When the folder is none, or the system gives no thread.
pub(crate) fn start(folder: PathBuf, frames: mpsc::Sender<Frame>) -> Result<()> {
    if !folder.is_dir() {
        return Err(Error::new(format!("no folder {}", folder.display())));
    }
    let mut known: HashMap<PathBuf, Known> = files(&folder)
        .map(|(path, version)| (path, Known::Done(version)))
        .collect();
    let watch = move || {
        loop {
            let start = Instant::now();
            let mut now = HashMap::new();
            for (path, version) in files(&folder) {
                let before = known.get(&path).copied();
                let state = match before {
                    Some(Known::Done(done)) if done == version => Known::Done(version),
                    // The same at two looks: nobody is writing to it.
                    Some(Known::New(new)) if new == version => {
                        if !give(&path, &frames) {
                            return;
                        }
                        Known::Done(version)
                    }
                    _ => Known::New(version),
                };
                now.insert(path, state);
            }
            known = now;
            thread::sleep(INTERVAL.max(IDLE_SHARE * start.elapsed()));
        }
    };
    thread::Builder::new()
        .name("source".to_owned())
        .spawn(watch)
        .context("can't start a thread for the source")?;
    Ok(())
}

/// A file at the last look.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// It may still be written to.
    New(Version),
    /// It was given on, or was there at the start.
    Done(Version),
}

fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, Version)> {
    pictures(folder).filter_map(|found| {
        let Found::File(path) = found else {
            return None;
        };
        // It may have gone in between.
        let metadata = fs::metadata(&path).ok()?;
        Some((
            path,
            (metadata.len(), metadata.mtime(), metadata.mtime_nsec()),
        ))
    })
}

/// Gives a file on; whether somebody takes more.
fn give(path: &Path, frames: &mpsc::Sender<Frame>) -> bool {
    match Found::File(path.to_path_buf()).read() {
        Ok(bytes) => {
            let mut frame = Frame::now(Picture::File(bytes));
            frame.path = Some(path.to_string_lossy().into_owned());
            frames.blocking_send(frame).is_ok()
        }
        Err(error) => {
            report(&Error::new(format!("can't label `{}`", path.display())).source(error));
            true
        }
    }
}
