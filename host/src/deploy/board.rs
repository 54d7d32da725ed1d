//! What a board says of itself.

use std::collections::HashMap;

use graft_shared::error::{Context, Error, Result};
use serde::Serialize;

/// The script that asks it; `sh` reads it from standard input.
pub(super) const SCRIPT: &str = include_str!("board.sh");

/// The oldest glibc that the 32-bit package runs on.
const OLDEST_GLIBC: (u32, u32) = (2, 31);
/// Beside package and model, free space that a system needs to live: 16 MiB.
const MARGIN: u64 = 16 << 20;
/// A package unpacked, and its copy; a model's copy beside the one that it replaces.
const COPIES: u64 = 3;

/// A machine that a model can be deployed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Board {
    /// What the hardware is, where it says: `Raspberry Pi 4 Model B Rev 1.4`.
    pub board: Option<String>,
    /// The distribution and its version.
    pub system: Option<String>,
    /// The instruction set as `uname -m` has it.
    pub machine: String,
    /// The architecture of its packages: arm64, armhf, amd64.
    pub architecture: String,
    /// The version of the C library.
    pub glibc: Option<String>,
    /// Memory in all.
    pub memory_bytes: u64,
    /// Free space where models lie.
    pub free_bytes: u64,
    /// Whether systemd runs it.
    pub systemd: bool,
    /// Whether commands for root need `sudo`.
    #[serde(skip)]
    pub(super) sudo: bool,
}

impl Board {
    /// Reads what [`SCRIPT`] printed.
    ///
    /// # Errors
    /// When it can't be a board of ours: no Debian packages, an ARM processor that is too old, nobody who may install.
    pub(super) fn read(said: &str) -> Result<Self> {
        let lines = said.lines().filter_map(|line| line.split_once(' '));
        let values: HashMap<_, _> = lines.collect();
        let value = |name: &str| {
            values
                .get(name)
                .map(|value| value.trim())
                .unwrap_or_default()
        };
        let text = |name: &str| Some(value(name).to_owned()).filter(|text| !text.is_empty());
        let bytes = |name: &str| value(name).parse::<u64>().map(|kibibytes| kibibytes << 10);
        let machine = value("machine").to_owned();
        let architecture = text("architecture").ok_or_else(|| {
            Error::new("it has no Debian packages").hint(
                "Raspberry Pi OS, Debian, Ubuntu and Armbian do; elsewhere copy the program that device/cross builds",
            )
        })?;
        let glibc = text("glibc");
        if architecture == "armhf" {
            if machine == "armv6l" {
                return Err(Error::new("its processor is an ARMv6").hint(
                    "32-bit boards need an ARMv7 with NEON, such as a Raspberry Pi 2 or newer",
                ));
            }
            if glibc
                .as_deref()
                .and_then(version)
                .is_some_and(|found| found < OLDEST_GLIBC)
            {
                return Err(
                    Error::new(format!("its C library is {}", glibc.unwrap_or_default())).hint(
                        "glibc 2.31 or newer is needed: Debian 11 or Raspberry Pi OS of 2021",
                    ),
                );
            }
        }
        let sudo = match value("root") {
            "itself" => false,
            "sudo" => true,
            _ => {
                return Err(Error::new("the user may not install packages there").hint(
                    "name root (root@HOST), or a user who may run `sudo` without a password",
                ));
            }
        };
        Ok(Self {
            board: text("board"),
            system: text("system"),
            machine,
            architecture,
            glibc,
            memory_bytes: bytes("memory_kibibytes")
                .context("it does not say how much memory it has")?,
            free_bytes: bytes("free_kibibytes")
                .context("it does not say how much space is free")?,
            systemd: value("systemd") == "yes",
            sudo,
        })
    }

    /// # Errors
    /// When a package and a model of these sizes do not fit.
    pub(super) fn has_room(&self, package_bytes: u64, model_bytes: u64) -> Result<()> {
        let needed = COPIES * (package_bytes + model_bytes) + MARGIN;
        if self.free_bytes < needed {
            return Err(Error::new(format!(
                "{} MB are free there, {} MB are needed",
                self.free_bytes / 1_000_000,
                needed.div_ceil(1_000_000)
            ))
            .hint("make room on the board, such as with `apt-get clean`"));
        }
        Ok(())
    }
}

/// Whether a path means the same to every shell.
pub(super) fn is_plain(path: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    path.starts_with('/') && path.chars().all(plain)
}

/// Major and minor of `2.36`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PI: &str = "machine aarch64\narchitecture arm64\nglibc 2.36\nboard Raspberry Pi 4 Model B Rev 1.4\n\
        system Debian GNU/Linux 12 (bookworm)\nmemory_kibibytes 3884348\nfree_kibibytes 20480\nroot sudo\nsystemd yes\n";

    #[test]
    fn a_board_is_read() {
        let board = Board::read(PI).unwrap();
        assert_eq!(
            board.board.as_deref(),
            Some("Raspberry Pi 4 Model B Rev 1.4")
        );
        assert_eq!(
            (board.memory_bytes, board.free_bytes),
            (3_884_348 << 10, 20 << 20)
        );
        assert!(board.systemd && board.sudo);
        board.has_room(1 << 20, 1 << 18).unwrap();
        let said = board.has_room(1 << 20, 1 << 20).unwrap_err().line();
        assert!(
            said.contains("20 MB are free there, 24 MB are needed"),
            "{said}"
        );
    }

    #[test]
    fn a_path_means_the_same_to_every_shell() {
        assert!(is_plain("/tmp/tmp.x_Y-1"));
        for path in ["", "tmp.x", "/tmp/a b", "/tmp/$x", "/tmp/x\n"] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn what_can_not_be_used_is_refused() {
        let other = |from: &str, to: &str| Board::read(&PI.replace(from, to)).map_err(|e| e.line());
        let refused = |from: &str, to: &str| other(from, to).unwrap_err();
        let armhf = "architecture armhf";
        assert!(refused("architecture arm64", "architecture ").contains("Debian packages"));
        assert!(refused("root sudo\n", "").contains("may not install"));
        assert!(refused("memory_kibibytes 3884348", "memory_kibibytes").contains("memory"));
        assert!(
            refused(
                "machine aarch64\narchitecture arm64",
                &format!("machine armv6l\n{armhf}")
            )
            .contains("ARMv6")
        );
        let old = format!("{armhf}\nglibc 2.28");
        assert!(refused("architecture arm64\nglibc 2.36", &old).contains("2.28"));
        assert!(
            other(
                "architecture arm64\nglibc 2.36",
                &old.replace("2.28", "2.31")
            )
            .is_ok()
        );
        assert!(other("glibc 2.36", "glibc ").is_ok());
    }
}
