//! The pictures that arguments name: files, folders, standard input, a list of paths.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use graft_engine::label::{Picture, pictures, read_image};
use graft_shared::error::{Context, Result};

/// The pictures that `paths`, then the lines of `paths_from` name, in order. All is read as it is asked for: `-` among
/// the paths is the bytes of one image on standard input, `-` as `paths_from` a list there.
///
/// # Errors
/// When the list can't be opened.
pub fn each_picture(
    paths: &[PathBuf],
    paths_from: Option<&Path>,
) -> Result<impl Iterator<Item = Picture> + Send + use<>> {
    let mut list: Box<dyn BufRead + Send> = match paths_from {
        None => Box::new(io::empty()),
        Some(path) if is_standard_input(path) => Box::new(BufReader::new(io::stdin())),
        Some(path) => Box::new(BufReader::new(
            File::open(path).with_context(|| format!("can't open `{}`", path.display()))?,
        )),
    };
    let mut ended = false;
    let listed = std::iter::from_fn(move || {
        while !ended {
            match line(&mut list) {
                Ok(Some(path)) if path.as_os_str().is_empty() => {}
                Ok(Some(path)) => return Some(Named::Path(path)),
                Ok(None) => ended = true,
                Err(error) => {
                    ended = true;
                    let list = PathBuf::from("--paths-from");
                    return Some(Named::Picture(Picture::Unopened(list, error)));
                }
            }
        }
        None
    });
    let paths = paths.to_vec();
    let typed = paths.into_iter().map(|path| {
        if !is_standard_input(&path) {
            return Named::Path(path);
        }
        Named::Picture(match read_image(io::stdin().lock()) {
            Ok(bytes) => Picture::Bytes(bytes),
            Err(error) => Picture::Unopened(path, error),
        })
    });
    Ok(typed.chain(listed).flat_map(|named| {
        let (path, picture) = match named {
            Named::Path(path) => (Some(path), None),
            Named::Picture(picture) => (None, Some(picture)),
        };
        let below = path.into_iter().flat_map(|path| pictures(&path));
        below.chain(picture)
    }))
}

/// Whether more than one picture may come.
#[must_use]
pub fn several(paths: &[PathBuf], paths_from: Option<&Path>) -> bool {
    match paths {
        [path] => paths_from.is_some() || path.is_dir(),
        _ => true,
    }
}

/// What one argument or line stands for.
enum Named {
    Path(PathBuf),
    Picture(Picture),
}

/// The next path of a list, of any bytes but a line break; `None` at the end.
fn line(list: &mut impl BufRead) -> Result<Option<PathBuf>> {
    let mut bytes = Vec::new();
    list.read_until(b'\n', &mut bytes)
        .context("can't read the list of paths")?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let path = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let path = path.strip_suffix(b"\r").unwrap_or(path);
    Ok(Some(PathBuf::from(OsStr::from_bytes(path))))
}

pub(crate) fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}
