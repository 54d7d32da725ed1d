//! An emulator of 64-bit ARM for single programs, from the system or from Debian's archive, without root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::python::{cache, install};

/// The emulator that needs no libraries.
const STATIC: &str = "qemu-aarch64-static";

/// The program `qemu-aarch64`, or what to do to get it.
pub(crate) fn qemu_aarch64() -> Result<&'static Path, String> {
    static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| installed().or_else(fetched));
    PROGRAM.as_deref().ok_or_else(|| {
        "no qemu-aarch64 in PATH, and it can't be fetched here by apt-get: install qemu-user (Fedora: qemu-user-static)"
            .to_owned()
    })
}

fn installed() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .flat_map(|folder| ["qemu-aarch64", STATIC].map(|name| folder.join(name)))
        .find(|program| program.is_file())
}

/// Debian's and Ubuntu's `qemu-user-static`, downloaded with package lists of its own (the system's may be missing or
/// old, and only root may renew them); of its 40 emulators the one is kept.
fn fetched() -> Option<PathBuf> {
    let folder = cache().join("qemu-user-static");
    let program = folder.join(STATIC);
    install(&folder, |unfinished| download(unfinished).is_some()).then_some(program)
}

fn download(folder: &Path) -> Option<()> {
    let scratch = tempfile::tempdir().ok()?;
    let at = |below: &str| scratch.path().join(below);
    for below in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(at(below)).ok()?;
    }
    std::fs::write(at("status"), "").ok()?;
    let apt = |arguments: &[&str]| {
        let ended = Command::new("apt-get")
            .args(["-qq", "-o"])
            .arg(format!("Dir::State::Lists={}", at("lists").display()))
            .arg("-o")
            .arg(format!("Dir::State::status={}", at("status").display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", at("cache").display()))
            .args(arguments)
            .current_dir(scratch.path())
            .output()
            .ok()?;
        ended.status.success().then_some(())
    };
    // As root, apt-get would download as the user `_apt`, who may not write into the scratch folder.
    let sandbox = "-oAPT::Sandbox::User=root";
    // Exits with an error for a clean-up hook of the system's caches, though the lists are there.
    let _ = apt(&[sandbox, "update"]);
    apt(&[sandbox, "download", "qemu-user-static"])?;
    let package = std::fs::read_dir(scratch.path())
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|suffix| suffix == "deb"))?;
    let unpacked = Command::new("dpkg-deb")
        .arg("-x")
        .arg(package)
        .arg(at("unpacked"))
        .status()
        .ok()?;
    if !unpacked.success() {
        return None;
    }
    std::fs::copy(at("unpacked/usr/bin").join(STATIC), folder.join(STATIC)).ok()?;
    Some(())
}
