//! The pictures that a path stands for: a file itself, a folder everything below it, streamed in order.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::vec;

use graft_shared::error::{Context, Error, Result};
use graft_shared::limits::MAX_IMAGE_FILE_BYTES;

/// Suffixes, in lower case, that mark a file in a folder as a picture. Also kinds that can't be decoded, so that such
/// a file is named as failed and not passed over. A file that the user names itself is always tried.
const PICTURE_SUFFIXES: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif",
    "avif", "ppm", "qoi",
];

/// Folders that systems put among photos, with pictures in them that are nobody's photos: thumbnails (Synology) and
/// resource forks (macOS archives).
const NO_PHOTO_FOLDERS: [&str; 2] = ["@eaDir", "__MACOSX"];

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

/// The pictures that a path stands for: a file is itself, a folder every picture below it, ordered by path.
///
/// Hidden files and folders (their name begins with a dot) are left out, as are the thumbnail folders that systems put
/// among photos. Links are followed, but not back to a folder that is being walked.
#[must_use]
pub fn pictures(path: &Path) -> Pictures {
    Pictures {
        start: Some(path.to_path_buf()),
        levels: Vec::new(),
        nothing_yet: None,
    }
}

/// Walks a folder depth first. What it holds is the names in one folder of each level: never those of the whole tree.
#[derive(Debug)]
pub struct Pictures {
    start: Option<PathBuf>,
    /// The folders being walked, each inside the one before.
    levels: Vec<Level>,
    /// The folder that the walk began with, until something came out of it.
    nothing_yet: Option<PathBuf>,
}

/// A folder being walked.
#[derive(Debug)]
struct Level {
    folder: PathBuf,
    /// Device and inode: the same folder by whatever path.
    identity: (u64, u64),
    entries: vec::IntoIter<Entry>,
}

/// A picture or a folder inside a folder.
#[derive(Debug)]
struct Entry {
    name: OsString,
    is_folder: bool,
}

impl Iterator for Pictures {
    type Item = Picture;

    fn next(&mut self) -> Option<Picture> {
        let picture = self.advance();
        if picture.is_some() {
            self.nothing_yet = None;
            return picture;
        }
        self.nothing_yet.take().map(|folder| {
            let error = Error::new("no pictures in this folder")
                .hint("pictures in a folder are recognised by suffix, such as `.jpg` or `.png`");
            Picture::Unopened(folder, error)
        })
    }
}

impl Pictures {
    fn advance(&mut self) -> Option<Picture> {
        if let Some(start) = self.start.take() {
            if !start.is_dir() {
                return Some(Picture::File(start));
            }
            self.nothing_yet = Some(start.clone());
            if let Err(refused) = self.enter(start) {
                return Some(refused);
            }
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(entry) = level.entries.next() else {
                self.levels.pop();
                continue;
            };
            let path = level.folder.join(entry.name);
            if !entry.is_folder {
                return Some(Picture::File(path));
            }
            if let Err(refused) = self.enter(path) {
                return Some(refused);
            }
        }
        None
    }

    /// Begins to walk a folder, unless it is being walked already.
    fn enter(&mut self, folder: PathBuf) -> Result<(), Picture> {
        match Level::open(&folder) {
            Ok(level) => {
                let known = |other: &Level| other.identity == level.identity;
                if !self.levels.iter().any(known) {
                    self.levels.push(level);
                }
                Ok(())
            }
            Err(error) => Err(Picture::Unopened(folder, error)),
        }
    }
}

impl Level {
    fn open(folder: &Path) -> Result<Self> {
        let read = || -> io::Result<_> {
            let metadata = fs::metadata(folder)?;
            let mut entries = Vec::new();
            for entry in fs::read_dir(folder)? {
                entries.extend(Entry::of(&entry?));
            }
            Ok((metadata, entries))
        };
        let (metadata, mut entries) = read().context("can't read the folder")?;
        // By bytes, folders among files: then the walk gives paths in the order in which `Path` compares them.
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            folder: folder.to_path_buf(),
            identity: (metadata.dev(), metadata.ino()),
            entries: entries.into_iter(),
        })
    }
}

impl Entry {
    /// `None` for what is neither a picture nor a folder to walk.
    fn of(entry: &DirEntry) -> Option<Self> {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            return None;
        }
        let kind = entry.file_type().ok()?;
        let is_folder = if kind.is_symlink() {
            entry.path().is_dir()
        } else {
            kind.is_dir()
        };
        let wanted = if is_folder {
            !NO_PHOTO_FOLDERS.iter().any(|other| name == *other)
        } else {
            is_picture(&name)
        };
        wanted.then_some(Self { name, is_folder })
    }
}

fn is_picture(name: &OsStr) -> bool {
    Path::new(name)
        .extension()
        .and_then(OsStr::to_str)
        .is_some_and(|suffix| PICTURE_SUFFIXES.contains(&suffix.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn make(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    fn walked(folder: &Path) -> Vec<PathBuf> {
        pictures(folder)
            .map(|picture| picture.path().strip_prefix(folder).unwrap().to_path_buf())
            .collect()
    }

    #[test]
    fn a_folder_is_every_picture_below_it_in_order() {
        let folder = tempfile::tempdir().unwrap();
        make(
            folder.path(),
            &[
                "b/2.JPG",
                "b/1.png",
                "b.jpg",
                "b-c/1.jpg",
                "a.jpeg",
                "b/notes.txt",
                ".hidden/3.jpg",
                "b/.4.jpg",
                "b/@eaDir/1.png",
                "__MACOSX/5.jpg",
            ],
        );
        let paths = walked(folder.path());
        let mut expected =
            ["a.jpeg", "b/1.png", "b/2.JPG", "b-c/1.jpg", "b.jpg"].map(PathBuf::from);
        assert_eq!(paths, expected);
        expected.sort();
        assert_eq!(paths, expected);
    }

    #[test]
    fn links_are_followed_but_not_in_a_circle() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &["a/1.jpg", "c/2.jpg"]);
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        };
        link("..", "a/up");
        link("../c", "a/c");
        link("../a/1.jpg", "c/3.jpg");
        link("nowhere", "c/4.jpg");
        let paths = ["a/1.jpg", "a/c/2.jpg", "a/c/3.jpg", "a/c/4.jpg"];
        let then = ["c/2.jpg", "c/3.jpg", "c/4.jpg"];
        assert_eq!(
            walked(folder.path()),
            [&paths[..], &then]
                .concat()
                .iter()
                .map(PathBuf::from)
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_folder_without_pictures_and_a_missing_path_fail_in_their_turn() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &["empty/notes.txt"]);
        let refused = |path: &Path| {
            let mut found: Vec<_> = pictures(path).collect();
            let picture = found.pop().unwrap();
            assert!(found.is_empty());
            assert_eq!(picture.path(), path);
            picture.read().unwrap_err().report()
        };
        assert!(refused(folder.path()).contains("no pictures"));
        assert!(refused(&folder.path().join("none")).contains("can't open"));
    }
}
