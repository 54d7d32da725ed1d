//! Emulators of ARM for single programs, from the system or from Debian's archive, without root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::Arm;
use super::python::{cache, install};

/// The emulators that need no libraries.
const STATIC: [&str; 2] = ["qemu-aarch64-static", "qemu-arm-static"];

/// The emulator of such processors, or what to do to get it.
pub(crate) fn qemu(arm: Arm) -> Result<&'static Path, String> {
    static PROGRAMS: LazyLock<[Option<PathBuf>; 2]> =
        LazyLock::new(|| STATIC.map(|program| installed(program).or_else(|| fetched(program))));
    let [arm64, armv7] = &*PROGRAMS;
    let program = match arm {
        Arm::Arm64 => arm64,
        Arm::Armv7 => armv7,
    };
    program.as_deref().ok_or_else(|| {
        "no qemu-aarch64 and qemu-arm in PATH, and they can't be fetched here by apt-get: install qemu-user (Fedora: qemu-user-static)"
            .to_owned()
    })
}

fn installed(program: &str) -> Option<PathBuf> {
    let names = [program.trim_end_matches("-static"), program];
    std::env::split_paths(&std::env::var_os("PATH")?)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|program| program.is_file())
}

/// Debian's and Ubuntu's `qemu-user-static`; of its 40 emulators two are kept.
fn fetched(program: &str) -> Option<PathBuf> {
    let folder = cache().join("qemu-user-static-arm");
    let keep = |unfinished: &Path| {
        let unpacked = unpacked("qemu-user-static")?;
        for program in STATIC {
            let path = unpacked.path().join("usr/bin").join(program);
            std::fs::copy(path, unfinished.join(program)).ok()?;
        }
        Some(())
    };
    install(&folder, |unfinished| keep(unfinished).is_some()).then_some(folder.join(program))
}

/// The root below which the emulator finds 32-bit ARM's C library: the system's own, or Debian's and Ubuntu's
/// `libc6-armhf-cross`.
pub(crate) fn armv7_libraries() -> Result<&'static Path, String> {
    const ROOT: &str = "usr/arm-linux-gnueabihf";
    static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let system = Path::new("/").join(ROOT);
        if system.join("lib/ld-linux-armhf.so.3").exists() {
            return Some(system);
        }
        let folder = cache().join("libc6-armhf-cross");
        let keep = |unfinished: &Path| {
            let unpacked = unpacked("libc6-armhf-cross")?;
            std::fs::rename(
                unpacked.path().join(ROOT).join("lib"),
                unfinished.join("lib"),
            )
            .ok()
        };
        install(&folder, |unfinished| keep(unfinished).is_some()).then_some(folder)
    });
    FOLDER.as_deref().ok_or_else(|| {
        "no C library for 32-bit ARM, and it can't be fetched here by apt-get: install libc6-armhf-cross".to_owned()
    })
}

/// The files of a package of the system's archive, downloaded with package lists of its own (the system's may be missing
/// or old, and only root may renew them).
fn unpacked(package: &str) -> Option<tempfile::TempDir> {
    let scratch = tempfile::tempdir_in(cache()).ok()?;
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
    apt(&[sandbox, "download", package])?;
    let archive = std::fs::read_dir(scratch.path())
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|suffix| suffix == "deb"))?;
    let files = tempfile::tempdir_in(cache()).ok()?;
    let ended = Command::new("dpkg-deb")
        .arg("-x")
        .arg(archive)
        .arg(files.path())
        .status()
        .ok()?;
    ended.success().then_some(files)
}
