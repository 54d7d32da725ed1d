//! `graft demo`: sample photos for a machine that has none, so that the main job can be seen from end to end.
//!
//! The photos are those of Debian's package `tuxpaint-stamps-default` (free licences), fetched by the machine's own
//! `apt-get download` and unpacked by `dpkg-deb`: neither needs root, nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use graft_shared::digest::sha256;
use graft_shared::error::{Context, Error, Result};
use graft_shared::files::write_atomic;

use crate::progress::Progress;

const PACKAGE: &str = "tuxpaint-stamps-default";
const STAMPS: &str = "usr/share/tuxpaint/stamps";
/// Label and the package's folder with its photos.
const LABELS: [(&str, &str); 5] = [
    ("bird", "animals/birds"),
    ("flower", "plants/flowers"),
    ("fruit", "food/fruit"),
    ("mammal", "animals/mammals"),
    ("vegetable", "food/vegetables"),
];
/// Photos of each label that no training run gets to see.
const UNSEEN: usize = 2;

/// Where the sample photos are.
#[derive(Debug)]
pub struct Samples {
    /// Folder of label folders, to train on.
    pub photos: PathBuf,
    /// Photos to label afterwards, with their true labels.
    pub unseen: Vec<(PathBuf, &'static str)>,
}

/// Fetches the sample photos into `folder`, or finds them there.
///
/// # Errors
/// When the package can't be had: the hint says what else to do.
pub fn samples(folder: &Path, offline: bool, progress: &Progress) -> Result<Samples> {
    let complete = folder.join(".complete");
    if !complete.is_file() {
        let unpacked = folder.join("package");
        if !unpacked.join(STAMPS).is_dir() {
            fetch(&unpacked, offline, progress)?;
        }
        for (label, source) in LABELS {
            sort_photos(&unpacked.join(STAMPS).join(source), folder, label)?;
        }
        fs::remove_dir_all(&unpacked)
            .with_context(|| format!("can't remove `{}`", unpacked.display()))?;
        write_atomic(&complete, b"")?;
    }
    let mut unseen = Vec::new();
    for (label, _) in LABELS {
        unseen.extend(
            pngs(&folder.join("unseen").join(label))?
                .into_iter()
                .map(|path| (path, label)),
        );
    }
    Ok(Samples {
        photos: folder.join("photos"),
        unseen,
    })
}

/// Downloads and unpacks the package. Where apt has no lists of packages, or old ones, lists of its own are fetched.
fn fetch(unpacked: &Path, offline: bool, progress: &Progress) -> Result<()> {
    if offline {
        return Err(Error::new(
            "the sample photos are not here, and `--offline` forbids to fetch them",
        )
        .hint(
            "run once without `--offline`, or train on photos of your own: `graft train photos/`",
        ));
    }
    let download = unpacked.with_extension("download");
    fs::create_dir_all(&download)
        .with_context(|| format!("can't create `{}`", download.display()))?;
    progress.say("fetching sample photos: Debian's package tuxpaint-stamps-default, 160 MB");
    if apt(&download, &[], &["download", PACKAGE]).is_err() {
        let state = std::path::absolute(&download).context("the current folder")?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = state.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("can't create `{}`", folder.display()))?;
        }
        let own = [
            format!("Dir::State::Lists={}/lists", state.display()),
            format!("Dir::Cache={}/cache", state.display()),
        ];
        apt(&download, &own, &["update"])?;
        apt(&download, &own, &["download", PACKAGE])?;
    }
    let entries =
        fs::read_dir(&download).with_context(|| format!("can't list `{}`", download.display()))?;
    let archive = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    let partial = unpacked.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("can't remove `{}`", partial.display()))?;
    }
    command(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&archive)
            .arg(&partial),
    )?;
    fs::rename(&partial, unpacked)
        .with_context(|| format!("can't rename `{}`", partial.display()))?;
    fs::remove_dir_all(&download).with_context(|| format!("can't remove `{}`", download.display()))
}

fn apt(folder: &Path, options: &[String], arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.current_dir(folder).arg("-qq");
    options.iter().for_each(|option| {
        apt.arg("-o").arg(option);
    });
    command(apt.args(arguments))
}

/// Runs a command to its end, its output kept for the error.
fn command(command: &mut Command) -> Result<()> {
    const HINT: &str = "sample photos need Debian, Ubuntu or Raspberry Pi OS and a network; \
                        without them, train on photos of your own: `graft train photos/`";
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("can't run `{name}`"))
        .map_err(|error| error.hint(HINT))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!(
        "`{name}` failed ({}): {}",
        output.status,
        said.trim()
    ))
    .hint(HINT))
}

/// Copies a label's photos below `folder`: the first of them, ordered by content, to `unseen`, the rest to `photos`.
fn sort_photos(source: &Path, folder: &Path, label: &str) -> Result<()> {
    let mut photos = Vec::new();
    let mut folders = vec![source.to_owned()];
    while let Some(next) = folders.pop() {
        photos.extend(pngs(&next)?);
        let entries =
            fs::read_dir(&next).with_context(|| format!("can't list `{}`", next.display()))?;
        folders.extend(
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir() && !path.ends_with("cartoon")),
        );
    }
    let mut photos: Vec<([u8; 32], PathBuf, Vec<u8>)> = photos
        .into_iter()
        .map(|path| {
            let bytes =
                fs::read(&path).with_context(|| format!("can't read `{}`", path.display()))?;
            Ok((sha256(&bytes), path, bytes))
        })
        .collect::<Result<_>>()?;
    photos.sort();
    for (rank, (_, path, bytes)) in photos.iter().enumerate() {
        let side = folder
            .join(if rank < UNSEEN { "unseen" } else { "photos" })
            .join(label);
        fs::create_dir_all(&side).with_context(|| format!("can't create `{}`", side.display()))?;
        let name = path.file_name().context("a photo without a name")?;
        write_atomic(&side.join(name), bytes)?;
    }
    Ok(())
}

/// The PNG files in a folder, sorted.
fn pngs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("can't list `{}`", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "png") && path.is_file()
        })
        .collect();
    files.sort();
    Ok(files)
}
