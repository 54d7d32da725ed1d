//! Pictures that the model is unsure of, kept for the next round of training in the layout that `graft train` reads: a folder
//! for each label, here the label that the model takes for the best. Bytes and writes are bounded: cards wear out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use graft_engine::label::{Picture as Found, pictures};
use graft_shared::error::{Context, Error, Result};
use graft_shared::files::write_atomic;

use super::{Sink, Wanted};
use crate::report;
use crate::serve::source::Frame;

/// Pictures that wait for the disk.
const ROOM: usize = 4;
const HOUR: Duration = Duration::from_secs(3_600);

/// What is kept.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    /// The folder of label folders.
    pub(crate) folder: PathBuf,
    /// Pictures whose best score is below it are kept.
    pub(crate) below: f32,
    /// Bytes of all pictures; the oldest go first.
    pub(crate) bytes: u64,
    /// Pictures an hour, evenly spread.
    pub(crate) per_hour: u32,
}

/// # Errors
/// When the folder can't be made.
pub(crate) fn start(spool: Spool) -> Result<Sink> {
    fs::create_dir_all(&spool.folder)
        .with_context(|| format!("can't make the folder {}", spool.folder.display()))?;
    let pause = HOUR / spool.per_hour.max(1);
    let mut next = Instant::now();
    Sink::on_thread("spool", ROOM, Wanted::Below(spool.below), move |event| {
        let Some(frame) = &event.frame else {
            return;
        };
        if Instant::now() < next {
            return;
        }
        next = Instant::now() + pause;
        if let Err(error) = keep(&spool, &event.best, frame) {
            report(&Error::new("can't keep a picture for the next training").source(error));
        }
    })
}

fn keep(spool: &Spool, label: &str, frame: &Frame) -> Result<()> {
    let (bytes, kind) = frame.picture.file()?;
    make_room(
        &spool.folder,
        spool.bytes.saturating_sub(bytes.len() as u64),
    );
    let folder = spool.folder.join(folder_name(label));
    fs::create_dir_all(&folder).context("can't make the label's folder")?;
    let since = frame.time.duration_since(UNIX_EPOCH);
    let suffix = match (&frame.path, kind) {
        (Some(path), _) => Path::new(path)
            .extension()
            .and_then(|suffix| suffix.to_str()),
        (None, "image/png") => Some("png"),
        (None, _) => Some("jpg"),
    };
    let milliseconds = since.unwrap_or_default().as_millis();
    let name = format!("{milliseconds}.{}", suffix.unwrap_or("jpg"));
    write_atomic(&folder.join(name), &bytes)
}

/// A label as a name of a folder: labels were folder names, but a model can have any.
fn folder_name(label: &str) -> String {
    let name = label.replace(['/', '\0'], "_");
    if name.starts_with('.') || name.is_empty() {
        format!("_{name}")
    } else {
        name
    }
}

/// Removes the oldest pictures until the others have no more bytes than that.
fn make_room(folder: &Path, bytes: u64) {
    let mut there: Vec<_> = pictures(folder)
        .filter_map(|found| {
            let Found::File(path) = found else {
                return None;
            };
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), path))
        })
        .collect();
    there.sort_unstable();
    let mut total: u64 = there.iter().map(|(_, length, _)| length).sum();
    for (_, length, path) in there {
        if total <= bytes {
            return;
        }
        // One that can't be removed stays, and the next one goes.
        if fs::remove_file(path).is_ok() {
            total -= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_names_of_folders() {
        for (label, name) in [
            ("rose", "rose"),
            ("lily of the valley", "lily of the valley"),
            ("../x", "_.._x"),
            ("a/b", "a_b"),
            ("", "_"),
            (".", "_."),
        ] {
            assert_eq!(folder_name(label), name);
        }
    }
}
