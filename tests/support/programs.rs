//! The programs under test, built with the very profile and features that the tests were built with, so that nothing is
//! compiled twice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::data::project;
use super::{Dir, TestCommand};

/// `graft`, to be run in `dir`.
pub(crate) fn graft(dir: &Dir) -> TestCommand {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| built("graft"));
    dir.command(&*PROGRAM)
}

/// `graft-device`, to be run in `dir`.
pub(crate) fn graft_device(dir: &Dir) -> TestCommand {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| built("graft-device"));
    dir.command(&*PROGRAM)
}

/// The kinds of ARM systems that `device/cross` builds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arm {
    /// 64-bit.
    Arm64,
    /// 32-bit.
    Armv7,
}

/// `graft-device` for ARM, built by the documented command, or why it can't be.
pub(crate) fn cross_built(arm: Arm) -> Result<&'static Path, String> {
    static ARM64: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| cross("arm64"));
    static ARMV7: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| cross("armv7"));
    let program = match arm {
        Arm::Arm64 => &ARM64,
        Arm::Armv7 => &ARMV7,
    };
    program.as_deref().map_err(Clone::clone)
}

/// A copy: another build at the same time may not pull it from under an emulator that runs for minutes.
fn cross(arm: &str) -> Result<PathBuf, String> {
    let built = Command::new(project().join("device/cross"))
        .args([arm, "--profile", "release"])
        .env("CARGO_TARGET_DIR", target())
        .output()
        .map_err(|error| format!("can't start device/cross: {error}"))?;
    let said = String::from_utf8_lossy(&built.stderr);
    if !built.status.success() {
        return Err(format!("device/cross failed:\n{said}"));
    }
    let path = project().join(String::from_utf8_lossy(&built.stdout).trim_end());
    let copy = Dir::until_the_next_run().keep().join("graft-device");
    std::fs::copy(&path, &copy)
        .map_err(|error| format!("can't copy {}: {error}", path.display()))?;
    Ok(copy)
}

/// Cargo's target folder: the test itself lies in `<target>/release/deps`.
fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().to_path_buf()
}

/// Without `--package`, Cargo unifies features over the whole workspace, as it did for the tests: another selection
/// would compile the dependencies anew. So would what Cargo told this test about its own package: ring's build script
/// depends on those variables.
fn built(program: &str) -> PathBuf {
    let target = target();
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let status = cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--bin",
            program,
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(project())
        .status()
        .expect("cargo starts");
    assert!(status.success(), "cargo can't build {program}");
    target.join("release").join(program)
}
