//! Which photos to train on or evaluate, with their labels: a folder of label folders, or a TSV.
//!
//! A folder: `DIR/<label>/**`, or `DIR/{train,val,test}/<label>/**`. Links are followed, but no folder is walked twice
//! for one label, so that a link upwards or sideways ends; what is neither file nor folder is passed over. A TSV: a
//! header with the columns `path` (relative to the TSV) and `label`, and if wanted `split` and `group`; further columns
//! are ignored. The order is that of the sorted paths, or of the rows.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

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
    /// Photos that belong together: the sub-folder inside the label folder, or the column `group` of a TSV.
    pub group: Option<String>,
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

/// All photos of `source`.
///
/// # Errors
/// When it does not exist or can't be read, holds no photos, or a TSV lacks a column or a value.
pub fn list(source: &Path) -> Result<Vec<Photo>> {
    let metadata = fs::metadata(source)
        .with_context(|| format!("can't open `{}`", source.display()))
        .map_err(|error| {
            error.hint("check the path; it is a folder with one sub-folder per label, or a TSV")
        })?;
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
    let mut labels = vec![];
    if !splits.is_empty() && splits.len() == folders.len() {
        for (folder, split) in splits {
            let below = self::folders(folder)?;
            labels.extend(below.into_iter().map(|label| (label, Some(split))));
        }
    } else {
        labels.extend(folders.into_iter().map(|label| (label, None)));
    }
    // Folders are walked side by side: on a network or a slow disk the answers take longer than the work.
    let next = AtomicUsize::new(0);
    let walk = || -> Vec<(usize, Result<Vec<Photo>>)> {
        let indices = std::iter::from_fn(|| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            labels.get(index).map(|label| (index, label))
        });
        indices
            .map(|(index, (label, split))| (index, list_label(source, label, *split)))
            .collect()
    };
    let mut listed: Vec<(usize, Result<Vec<Photo>>)> = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let walks: Vec<_> = (1..threads.min(labels.len()))
            .map(|_| scope.spawn(walk))
            .collect();
        let mut listed = walk();
        for walk in walks {
            match walk.join() {
                Ok(more) => listed.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        listed
    });
    listed.sort_by_key(|(index, _)| *index);
    let mut photos = vec![];
    for (_, label) in listed {
        photos.append(&mut label?);
    }
    Ok(photos)
}

/// The photos below a label folder, sorted by path. Real folders are walked before links to folders, so that a photo that
/// both lead to has its own path.
fn list_label(source: &Path, folder: &Path, split: Option<&str>) -> Result<Vec<Photo>> {
    let mut walk = Walk::new(source, folder)?;
    walk.real(folder)?;
    while let Some(link) = walk.links.pop() {
        walk.real(&link)?;
    }
    walk.files.sort_unstable();
    if walk.files.is_empty() {
        return Ok(vec![]);
    }
    let label = folder
        .file_name()
        .and_then(OsStr::to_str)
        .with_context(|| {
            format!(
                "the folder name `{}` is no UTF-8, so it can't be a label",
                folder.display()
            )
        })
        .map_err(|error| error.hint("rename the folder"))?;
    let photo = |path: PathBuf| Photo {
        label: label.to_owned(),
        split: split.map(str::to_owned),
        group: sub_folder(folder, &path),
        path,
    };
    Ok(walk.files.into_iter().map(photo).collect())
}

/// The first folder between a label folder and a file below it.
fn sub_folder(label: &Path, file: &Path) -> Option<String> {
    let mut below = file.strip_prefix(label).ok()?.components();
    match (below.next(), below.next()) {
        (Some(Component::Normal(name)), Some(_)) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    }
}

/// The files below one label folder.
struct Walk {
    /// Canonical paths of the folders that are not to be walked (again).
    seen: HashSet<PathBuf>,
    /// Links to folders that wait for their turn.
    links: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Walk {
    /// The folders above the label folder are those that a loop leads to.
    fn new(source: &Path, label: &Path) -> Result<Self> {
        let canonical = canonical(source)?;
        let mut seen: HashSet<PathBuf> = canonical.ancestors().map(Path::to_path_buf).collect();
        if let Some(parent) = label.parent() {
            seen.insert(self::canonical(parent)?);
        }
        Ok(Self {
            seen,
            links: vec![],
            files: vec![],
        })
    }

    /// Walks a folder and the real folders below it.
    fn real(&mut self, folder: &Path) -> Result<()> {
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            if !self.seen.insert(canonical(&folder)?) {
                continue;
            }
            for (path, kind) in entries(&folder)? {
                match kind {
                    Kind::File => self.files.push(path),
                    Kind::Folder => folders.push(path),
                    Kind::LinkToFolder => self.links.push(path),
                }
            }
        }
        // The last is taken first.
        self.links.sort_unstable_by(|a, b| b.cmp(a));
        Ok(())
    }
}

fn canonical(folder: &Path) -> Result<PathBuf> {
    fs::canonicalize(folder).with_context(|| format!("can't open `{}`", folder.display()))
}

/// Folders and links to folders in a folder, sorted by name.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = entries(folder)?
        .into_iter()
        .filter(|(_, kind)| *kind != Kind::File)
        .map(|(path, _)| path)
        .collect();
    folders.sort_unstable();
    Ok(folders)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Or a link to one, or one that leads nowhere: that the file can't be read is said when it is read.
    File,
    Folder,
    LinkToFolder,
}

/// What is in a folder and is meant to be seen.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Kind)>> {
    let place = || format!("can't read the folder `{}`", folder.display());
    let mut found = vec![];
    for entry in fs::read_dir(folder).with_context(place)? {
        let entry = entry.with_context(place)?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".")
            || SKIPPED.iter().any(|skipped| name == *skipped)
        {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().with_context(place)?;
        let kind = if kind.is_dir() {
            Kind::Folder
        } else if kind.is_file() {
            Kind::File
        } else if kind.is_symlink() {
            match fs::metadata(&path) {
                Ok(target) if target.is_dir() => Kind::LinkToFolder,
                Ok(target) if !target.is_file() => continue,
                _ => Kind::File,
            }
        } else {
            // A pipe or a socket: reading it could wait for ever.
            continue;
        };
        found.push((path, kind));
    }
    Ok(found)
}

fn list_tsv(source: &Path) -> Result<Vec<Photo>> {
    let place = || format!("can't read the list `{}`", source.display());
    let bytes = fs::read(source).with_context(place)?;
    parse_tsv(&bytes, source.parent().unwrap_or(Path::new(""))).with_context(place)
}

/// Everything is UTF-8 but the paths, which are what the file system says.
fn parse_tsv(bytes: &[u8], folder: &Path) -> Result<Vec<Photo>> {
    let mut lines = bytes
        .strip_prefix("\u{feff}".as_bytes())
        .unwrap_or(bytes)
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .enumerate();
    let header: Vec<&[u8]> = lines.next().map_or(vec![], |(_, line)| {
        line.split(|&byte| byte == b'\t').collect()
    });
    let column = |name: &str| header.iter().position(|column| *column == name.as_bytes());
    let required = |name: &str| {
        column(name).ok_or_else(|| {
            Error::new(format!("line 1 has no column `{name}`"))
                .hint("the first line names the columns: path, label and, if wanted, split and group, with tabs between them")
        })
    };
    let (path, label) = (required("path")?, required("label")?);
    let (split, group) = (column("split"), column("group"));
    let mut photos = vec![];
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let values: Vec<&[u8]> = line.split(|&byte| byte == b'\t').collect();
        let value = |column: usize, name: &str| {
            values
                .get(column)
                .copied()
                .filter(|value| !value.is_empty())
                .with_context(|| format!("line {} has no {name}", index + 1))
        };
        let text = |column: usize, name: &str| {
            String::from_utf8(value(column, name)?.to_vec()).map_err(|_| {
                Error::new(format!("line {}: the {name} is no UTF-8 text", index + 1))
                    .hint(LAYOUT_HINT)
            })
        };
        photos.push(Photo {
            path: folder.join(
                file_name(value(path, "path")?)
                    .with_context(|| format!("line {}: the path is no UTF-8 text", index + 1))?,
            ),
            label: text(label, "label")?,
            split: split.map(|column| text(column, "split")).transpose()?,
            group: match group {
                Some(column) if values.get(column).is_some_and(|value| !value.is_empty()) => {
                    Some(text(column, "group")?)
                }
                _ => None,
            },
        });
    }
    Ok(photos)
}

#[cfg(unix)]
fn file_name(bytes: &[u8]) -> Option<&OsStr> {
    Some(std::os::unix::ffi::OsStrExt::from_bytes(bytes))
}

#[cfg(not(unix))]
fn file_name(bytes: &[u8]) -> Option<&OsStr> {
    std::str::from_utf8(bytes).ok().map(OsStr::new)
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
        let parse = |text: &str| parse_tsv(text.as_bytes(), Path::new("lists"));
        let photos =
            parse("\u{feff}size\tlabel\tpath\r\n3\ttwo words\ta/1.jpg\r\n\r\n4\tcat\t/b.jpg\r\n")
                .unwrap();
        assert_eq!(
            photos[0],
            Photo {
                path: "lists/a/1.jpg".into(),
                label: "two words".into(),
                split: None,
                group: None
            }
        );
        assert_eq!(photos[1].path, Path::new("/b.jpg"));
        let photos =
            parse("path\tlabel\tsplit\tgroup\na\tb\ttest\tvisit 1\nc\td\ttrain\t\n").unwrap();
        assert_eq!(photos[0].split.as_deref(), Some("test"));
        assert_eq!(photos[0].group.as_deref(), Some("visit 1"));
        assert_eq!(photos[1].group, None);
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
        fs::write(root.path().join("list.tsv"), b"path\tlabel\nb\t\xff\n").unwrap();
        assert!(
            list(&root.path().join("list.tsv"))
                .unwrap_err()
                .report()
                .contains("no UTF-8")
        );
    }

    #[cfg(unix)]
    mod odd {
        use std::os::unix::ffi::OsStringExt;
        use std::os::unix::fs::symlink;

        use super::*;

        fn paths(root: &Path) -> Vec<String> {
            found(root).into_iter().map(|(path, _, _)| path).collect()
        }

        #[test]
        fn links_are_followed_and_loops_end() {
            let root = tempfile::tempdir().unwrap();
            touch(
                root.path(),
                &["all/cat/a/1.jpg", "all/dog/2.jpg", "elsewhere/3.jpg"],
            );
            let all = root.path().join("all");
            symlink(root.path().join("elsewhere"), all.join("cat/0linked")).unwrap();
            // The same folder again, under a name that sorts first; a loop to itself, to the source, and above it.
            symlink("a", all.join("cat/0again")).unwrap();
            symlink(".", all.join("cat/self")).unwrap();
            symlink("../..", all.join("dog/up")).unwrap();
            symlink("..", all.join("dog/source")).unwrap();
            symlink("/", all.join("root")).unwrap();
            symlink(".", all.join("loop")).unwrap();
            symlink("2.jpg", all.join("dog/2-link.jpg")).unwrap();
            symlink("nowhere.jpg", all.join("dog/broken.jpg")).unwrap();
            assert_eq!(
                paths(&all),
                [
                    "cat/0linked/3.jpg",
                    "cat/a/1.jpg",
                    "dog/2-link.jpg",
                    "dog/2.jpg",
                    "dog/broken.jpg"
                ]
            );
        }

        #[test]
        fn a_label_folder_may_be_a_link() {
            let root = tempfile::tempdir().unwrap();
            touch(root.path(), &["photos/cat/1.jpg", "dogs/2.jpg"]);
            symlink("../dogs", root.path().join("photos/dog")).unwrap();
            assert_eq!(
                paths(&root.path().join("photos")),
                ["cat/1.jpg", "dog/2.jpg"]
            );
        }

        #[test]
        fn sockets_are_passed_over() {
            let root = tempfile::tempdir().unwrap();
            touch(root.path(), &["cat/1.jpg"]);
            let _socket =
                std::os::unix::net::UnixListener::bind(root.path().join("cat/s")).unwrap();
            assert_eq!(paths(root.path()), ["cat/1.jpg"]);
        }

        #[test]
        fn names_that_are_no_utf8_work_for_files_and_are_an_error_for_labels() {
            let root = tempfile::tempdir().unwrap();
            let odd = |name: &[u8]| std::ffi::OsString::from_vec(name.to_vec());
            touch(root.path(), &["K\u{e4}se/\u{732b}.jpg"]);
            let file = root.path().join("K\u{e4}se").join(odd(b"\xff.jpg"));
            fs::write(&file, b"").unwrap();
            let photos = list(root.path()).unwrap();
            assert_eq!(photos.len(), 2);
            assert_eq!(photos[1].path, file);

            let mut tsv = b"path\tlabel\n".to_vec();
            tsv.extend_from_slice(file.as_os_str().as_encoded_bytes());
            tsv.extend_from_slice(b"\tK\xc3\xa4se\n");
            fs::write(root.path().join("list.tsv"), tsv).unwrap();
            assert_eq!(list(&root.path().join("list.tsv")).unwrap()[0].path, file);

            let folder = root.path().join(odd(b"caf\xe9"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("1.jpg"), b"").unwrap();
            let report = list(root.path()).unwrap_err().report();
            assert!(
                report.contains("caf\u{fffd}") && report.contains("rename"),
                "{report}"
            );
        }
    }

    #[test]
    fn the_sub_folder_is_the_group() {
        let root = tempfile::tempdir().unwrap();
        touch(
            root.path(),
            &[
                "cat/1.jpg",
                "cat/site 1/2.jpg",
                "cat/site 2/2026/3.jpg",
                "dog/4.jpg",
            ],
        );
        let groups: Vec<Option<String>> = list(root.path())
            .unwrap()
            .into_iter()
            .map(|photo| photo.group)
            .collect();
        let site = |name: &str| Some(name.to_owned());
        assert_eq!(groups, [None, site("site 1"), site("site 2"), None]);
    }
}
