//! Which photos to train on or evaluate, with their labels: a folder of label folders, or a TSV.
//!
//! A folder: `DIR/<label>/**`, or `DIR/{train,val,test}/<label>/**`. A TSV: a header with the columns `path` (relative
//! to the TSV) and `label`, and if wanted `split`; further columns are ignored. The order is that of the sorted folders,
//! or of the rows.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use graft_shared::error::{Context, Error, Result};

/// A photo whose label is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// The source's path joined with the path below it.
    pub path: PathBuf,
    /// Its label.
    pub label: String,
    /// The side of a split that the source puts it on: `train`, `val` or `test` for folders, any word for a TSV.
    pub split: Option<String>,
}

/// Folders that name the side of a split, and the word for it.
const SPLIT_FOLDERS: [(&str, &str); 4] = [
    ("train", "train"),
    ("val", "val"),
    ("validation", "val"),
    ("test", "test"),
];

/// Names that other programs leave behind; a leading dot is skipped too.
const SKIPPED: [&str; 4] = ["Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"];

/// Folders in folders, at most: a link that leads upwards ends here.
const MAX_DEPTH: usize = 32;

/// All photos of `source`.
///
/// # Errors
/// When it does not exist or can't be read, holds no photos, or a TSV lacks a column or a value.
pub fn list(source: &Path) -> Result<Vec<Photo>> {
    let metadata =
        fs::metadata(source).with_context(|| format!("can't open `{}`", source.display()))?;
    let photos = if metadata.is_dir() {
        list_folders(source)?
    } else {
        list_tsv(source)?
    };
    if photos.is_empty() {
        return Err(Error::new(format!("no photos in `{}`", source.display())).hint(LAYOUT_HINT));
    }
    Ok(photos)
}

/// The photos of `source` on the side `split`; all of them where the source knows no split.
///
/// # Errors
/// As for [`list`], and when no photo is on that side.
pub fn list_split(source: &Path, split: &str) -> Result<Vec<Photo>> {
    let mut photos = list(source)?;
    let mut sides: Vec<String> = photos
        .iter()
        .filter_map(|photo| photo.split.clone())
        .collect();
    if sides.is_empty() {
        return Ok(photos);
    }
    photos.retain(|photo| photo.split.as_deref() == Some(split));
    if photos.is_empty() {
        sides.sort_unstable();
        sides.dedup();
        return Err(Error::new(format!(
            "no photo of `{}` is on side `{split}` of the split",
            source.display()
        ))
        .hint(format!("the sides there are: {}", sides.join(", "))));
    }
    Ok(photos)
}

const LAYOUT_HINT: &str = "put the photos into one folder per label (photos/cat/1.jpg, photos/dog/2.jpg), or list them in a TSV";

fn list_folders(source: &Path) -> Result<Vec<Photo>> {
    let folders = folders(source)?;
    let split_of = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        SPLIT_FOLDERS
            .iter()
            .find(|(folder, _)| *folder == name)
            .map(|(_, split)| *split)
    };
    let mut splits = vec![];
    for folder in &folders {
        match split_of(folder) {
            Some(split) if !self::folders(folder)?.is_empty() => splits.push((folder, split)),
            _ => {}
        }
    }
    let mut photos = vec![];
    if !splits.is_empty() && splits.len() == folders.len() {
        for (folder, split) in splits {
            for label in self::folders(folder)? {
                add_label(&label, Some(split), &mut photos)?;
            }
        }
    } else {
        for label in &folders {
            add_label(label, None, &mut photos)?;
        }
    }
    Ok(photos)
}

fn add_label(folder: &Path, split: Option<&str>, photos: &mut Vec<Photo>) -> Result<()> {
    let label = folder
        .file_name()
        .and_then(OsStr::to_str)
        .with_context(|| {
            format!(
                "the folder name `{}` is no UTF-8, so it can't be a label",
                folder.display()
            )
        })?;
    add_files(folder, label, split, MAX_DEPTH, photos)
}

fn add_files(
    folder: &Path,
    label: &str,
    split: Option<&str>,
    depth: usize,
    photos: &mut Vec<Photo>,
) -> Result<()> {
    if depth == 0 {
        return Err(Error::new(format!(
            "more than {MAX_DEPTH} folders in folders at `{}`",
            folder.display()
        ))
        .hint("does a link lead upwards?"));
    }
    for path in entries(folder)? {
        if path.is_dir() {
            add_files(&path, label, split, depth - 1, photos)?;
        } else {
            photos.push(Photo {
                path,
                label: label.to_owned(),
                split: split.map(str::to_owned),
            });
        }
    }
    Ok(())
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?
        .into_iter()
        .filter(|path| path.is_dir())
        .collect())
}

/// What is in a folder and is meant to be seen, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let place = || format!("can't read the folder `{}`", folder.display());
    let mut paths = vec![];
    for entry in fs::read_dir(folder).with_context(place)? {
        let entry = entry.with_context(place)?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".")
            && !SKIPPED.iter().any(|skipped| name == *skipped)
        {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn list_tsv(source: &Path) -> Result<Vec<Photo>> {
    let place = || format!("can't read the list `{}`", source.display());
    let bytes = fs::read(source).with_context(place)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new("it is no UTF-8 text").hint(LAYOUT_HINT))
        .with_context(place)?;
    parse_tsv(&text, source.parent().unwrap_or(Path::new(""))).with_context(place)
}

fn parse_tsv(text: &str, folder: &Path) -> Result<Vec<Photo>> {
    let mut lines = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .enumerate();
    let header: Vec<&str> = lines
        .next()
        .map_or(vec![], |(_, line)| line.split('\t').collect());
    let column = |name: &str| header.iter().position(|column| *column == name);
    let required = |name: &str| {
        column(name).ok_or_else(|| {
            Error::new(format!("line 1 has no column `{name}`"))
                .hint("the first line names the columns: path, label and, if wanted, split, with tabs between them")
        })
    };
    let (path, label, split) = (required("path")?, required("label")?, column("split"));
    let mut photos = vec![];
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let values: Vec<&str> = line.split('\t').collect();
        let value = |column: usize, name: &str| {
            values
                .get(column)
                .filter(|value| !value.is_empty())
                .with_context(|| format!("line {} has no {name}", index + 1))
        };
        photos.push(Photo {
            path: folder.join(value(path, "path")?),
            label: (*value(label, "label")?).to_owned(),
            split: split
                .map(|column| value(column, "split"))
                .transpose()?
                .map(|split| (*split).to_owned()),
        });
    }
    Ok(photos)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn touch(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
    }

    fn found(root: &Path) -> Vec<(String, String, Option<String>)> {
        let below = |photo: &Photo| {
            photo
                .path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .into_owned()
        };
        list(root)
            .unwrap()
            .iter()
            .map(|photo| (below(photo), photo.label.clone(), photo.split.clone()))
            .collect()
    }

    #[test]
    fn label_folders_are_walked_in_order_without_what_programs_left_behind() {
        let root = tempfile::tempdir().unwrap();
        touch(
            root.path(),
            &[
                "dog/b.jpg",
                "dog/a.jpg",
                "dog/more/c.jpg",
                "cat/z.jpg",
                "cat/.hidden.jpg",
                "cat/Thumbs.db",
                "cat/@eaDir/z.jpg",
                "__MACOSX/x.jpg",
                ".git/y.jpg",
                "readme.txt",
            ],
        );
        let photo = |path: &str, label: &str| (path.to_owned(), label.to_owned(), None);
        assert_eq!(
            found(root.path()),
            [
                photo("cat/z.jpg", "cat"),
                photo("dog/a.jpg", "dog"),
                photo("dog/b.jpg", "dog"),
                photo("dog/more/c.jpg", "dog")
            ]
        );
    }

    #[test]
    fn split_folders_are_honoured_when_there_are_no_others() {
        let root = tempfile::tempdir().unwrap();
        touch(
            root.path(),
            &["train/cat/a.jpg", "validation/cat/b.jpg", "test/dog/c.jpg"],
        );
        let splits: Vec<_> = found(root.path())
            .into_iter()
            .map(|(_, label, split)| (label, split.unwrap()))
            .collect();
        let pair = |label: &str, split: &str| (label.to_owned(), split.to_owned());
        assert_eq!(
            splits,
            [
                pair("dog", "test"),
                pair("cat", "train"),
                pair("cat", "val")
            ]
        );
        assert_eq!(list_split(root.path(), "test").unwrap().len(), 1);
        let error = list_split(root.path(), "dev").unwrap_err();
        assert!(
            error.report().contains("test, train, val"),
            "{}",
            error.report()
        );

        touch(root.path(), &["bus/d.jpg"]);
        assert_eq!(
            found(root.path())
                .iter()
                .filter(|(_, _, split)| split.is_some())
                .count(),
            0
        );
        assert_eq!(list_split(root.path(), "test").unwrap().len(), 4);
    }

    #[test]
    fn a_tsv_needs_its_columns_and_values() {
        let parse = |text: &str| parse_tsv(text, Path::new("lists"));
        let photos =
            parse("\u{feff}size\tlabel\tpath\r\n3\ttwo words\ta/1.jpg\r\n\r\n4\tcat\t/b.jpg\r\n")
                .unwrap();
        assert_eq!(
            photos[0],
            Photo {
                path: "lists/a/1.jpg".into(),
                label: "two words".into(),
                split: None
            }
        );
        assert_eq!(photos[1].path, Path::new("/b.jpg"));
        let photos = parse("path\tlabel\tsplit\na\tb\ttest\n").unwrap();
        assert_eq!(photos[0].split.as_deref(), Some("test"));
        for (text, expected) in [
            ("", "line 1 has no column `path`"),
            ("path\tlabels\n", "line 1 has no column `label`"),
            ("path\tlabel\na\tb\n\nc\n", "line 4 has no label"),
            ("path\tlabel\n\tb\n", "line 2 has no path"),
            ("path\tlabel\tsplit\na\tb\n", "line 2 has no split"),
        ] {
            assert_eq!(parse(text).unwrap_err().message(), expected);
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = list(&root.path().join("no")).unwrap_err();
        assert!(
            error.report().contains("No such file"),
            "{}",
            error.report()
        );
        let error = list(root.path()).unwrap_err();
        assert!(
            error.report().contains("no photos in") && error.report().contains("hint:"),
            "{}",
            error.report()
        );
        fs::write(root.path().join("list.tsv"), b"path\tlabel\n\xff\tb\n").unwrap();
        assert!(
            list(&root.path().join("list.tsv"))
                .unwrap_err()
                .report()
                .contains("no UTF-8")
        );
    }
}
