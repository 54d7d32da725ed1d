//! Replaces files so that a reader, a crash or a power cut sees the old file or the new one, never a part.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Context, Error, Result};

/// Writes `bytes` to `path`, replacing what was there in one step.
///
/// A temporary file beside it is written and synced, renamed over `path`, and the directory is synced: without the last
/// step a power cut can undo the rename. On an error `path` is as it was and the temporary file is removed.
///
/// # Errors
/// When the path names no file, its folder does not exist, or the file system refuses.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = || format!("can't write {}", path.display());
    let (temporary, mut file) = create_temporary(path, directory).with_context(failed)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to tell; a temporary file that can't be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
        return Err(Error::new(failed()).source(error));
    }
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("can't make sure that {} is on the disk", path.display()))
}

fn create_temporary(path: &Path, directory: &Path) -> Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().context("the path names no file")?;
    if !directory.is_dir() {
        return Err(Error::new(format!("no folder {}", directory.display()))
            .hint("make the folder first, or choose another path"));
    }
    loop {
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(
            ".{}-{}.tmp",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        ));
        let temporary = directory.join(temporary_name);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
        {
            Ok(file) => return Ok((temporary, file)),
            // Left over by a process of the same number that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(Error::new("can't make a temporary file beside it").source(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_file_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.onnx");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new, longer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new, longer");
        assert_eq!(names(directory.path()), ["model.onnx"]);
    }

    #[test]
    fn failure_leaves_nothing_behind_and_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_atomic(&directory.path().join("no/model.onnx"), b"x").unwrap_err();
        assert!(error.report().contains("hint: make the folder first"));

        let occupied = directory.path().join("folder");
        fs::create_dir(&occupied).unwrap();
        write_atomic(&occupied, b"x").unwrap_err();
        write_atomic(Path::new("/"), b"x").unwrap_err();
        assert_eq!(names(directory.path()), ["folder"]);
    }

    #[test]
    fn a_leftover_of_a_killed_process_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        for counter in 0..64 {
            let name = format!(".labels.txt.{}-{counter}.tmp", std::process::id());
            fs::write(directory.path().join(name), b"half").unwrap();
        }
        write_atomic(&directory.path().join("labels.txt"), b"whole").unwrap();
        assert_eq!(
            fs::read(directory.path().join("labels.txt")).unwrap(),
            b"whole"
        );
    }
}
