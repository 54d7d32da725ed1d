//! Pictures of every kind, read and refused.

use std::path::PathBuf;

use super::{Dir, python};

/// Makes them in a folder of `dir` and gives their paths, sorted: those that are read, whose pixels as Pillow sees them
/// are in `seen/`, and those that are refused.
pub(crate) fn make_kinds(dir: &Dir, folder: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let folder = dir.path(folder);
    python("kinds.py", [&folder]);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files.into_iter().partition(|path| {
        !path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("refused_")
    })
}
