//! Debian systems in folders: made once by debootstrap and kept in the user's cache folder, a fresh copy for each test.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::python::{cache, install};
use super::{Arm, Dir, TestCommand, qemu};

const SUITE: &str = "bookworm";
/// Beside what every system has: a server for `graft deploy`.
const PACKAGES: &str = "--include=openssh-server";
/// Where the kernel learns which emulator runs foreign programs.
const EMULATORS: &str = "/proc/sys/fs/binfmt_misc";

/// A kind of Debian systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
    Armhf,
}

impl Architecture {
    /// As Debian calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Armhf => "armhf",
        }
    }

    pub(crate) fn arm(self) -> Option<Arm> {
        match self {
            Self::Amd64 => None,
            Self::Arm64 => Some(Arm::Arm64),
            Self::Armhf => Some(Arm::Armv7),
        }
    }
}

/// A system of the test's own.
pub(crate) struct Root(Dir);

impl Root {
    /// A fresh system, or why there can be none.
    pub(crate) fn new(architecture: Architecture) -> Result<Self, String> {
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
            return Err("only root can make a Debian system".to_owned());
        }
        if let Some(arm) = architecture.arm() {
            emulate(arm)?;
        }
        let name = architecture.name();
        let kept = cache().join(format!("debian-{SUITE}-{name}"));
        if !install(&kept, |unfinished| made(name, unfinished)) {
            return Err(format!(
                "debootstrap makes no Debian system for {name} here"
            ));
        }
        let root = Self(Dir::new());
        let unpacked = Command::new("tar")
            .args(["--numeric-owner", "-xf"])
            .arg(kept.join("root.tar"))
            .arg("-C")
            .arg(root.path())
            .status();
        match unpacked {
            Ok(status) if status.success() => Ok(root),
            _ => Err(format!("can't unpack {}", kept.display())),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path("")
    }

    /// A file of the system, by its path in it.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.0.path(path.trim_start_matches('/'))
    }

    /// Copies a file into the system.
    pub(crate) fn put(&self, file: &Path, path: &str) {
        fs::copy(file, self.file(path)).unwrap();
    }

    /// A program of the system, with a `/proc` of its own; what it starts ends with it.
    pub(crate) fn command(&self, program: &str) -> TestCommand {
        let proc = format!("--mount-proc={}", self.file("/proc").display());
        self.0
            .command("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                &proc,
                "chroot",
            ])
            .arg(self.path())
            .arg(program)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    }

    pub(crate) fn shell(&self, commands: &str) -> TestCommand {
        self.command("/bin/sh").args(["-ec", commands])
    }
}

fn made(architecture: &str, folder: &Path) -> bool {
    let root = folder.join("root");
    let run = |command: &mut Command| {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    run(Command::new("debootstrap")
        .args(["--arch", architecture, "--variant=minbase", PACKAGES, SUITE])
        .arg(&root))
        && run(Command::new("tar")
            .arg("--numeric-owner")
            .args(["--exclude=./var/cache/apt", "--exclude=./var/lib/apt/lists"])
            .arg("-cf")
            .arg(folder.join("root.tar"))
            .arg("-C")
            .arg(&root)
            .arg("."))
        && fs::remove_dir_all(root).is_ok()
}

/// Has the kernel start ARM programs by the emulator, unless it does so already.
fn emulate(arm: Arm) -> Result<(), String> {
    let folder = Path::new(EMULATORS);
    if !folder.join("register").exists() {
        // Another test may be faster.
        let _ = Command::new("mount")
            .args(["-t", "binfmt_misc", "none", EMULATORS])
            .stderr(Stdio::null())
            .status();
        if !folder.join("register").exists() {
            return Err("the kernel knows no emulators (binfmt_misc)".to_owned());
        }
    }
    // An ELF header's class, and its machine.
    let (name, class, machine) = match arm {
        Arm::Arm64 => ("aarch64", "02", "b7"),
        Arm::Armv7 => ("arm", "01", "28"),
    };
    let known = [format!("qemu-{name}"), format!("graft-{name}")];
    let is_known = || known.iter().any(|name| folder.join(name).exists());
    if is_known() {
        return Ok(());
    }
    let magic = format!(
        r"\x7fELF\x{class}\x01\x01{}\x02\x00\x{machine}\x00",
        r"\x00".repeat(9)
    );
    let mask = format!(
        r"{}\x00{}\xfe\xff\xff\xff",
        r"\xff".repeat(7),
        r"\xff".repeat(8)
    );
    let emulator = qemu(arm)?.display();
    // F: the emulator is opened now, and so found from every root.
    let rule = format!(":graft-{name}:M::{magic}:{mask}:{emulator}:F");
    match fs::write(folder.join("register"), rule) {
        Err(error) if !is_known() => {
            Err(format!("the kernel takes no emulator for {name}: {error}"))
        }
        _ => Ok(()),
    }
}
