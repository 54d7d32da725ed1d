//! The Debian package for a board: the one that `device/package/build` left beside this program.

use std::env;
use std::path::PathBuf;

use graft_shared::error::{Context, Error, Result};

/// This program's own version: a package of another one may not read its models.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The package for `architecture`, as Debian calls it: beside this program, or in `debian/` of the folder above it, where a
/// build leaves it.
///
/// # Errors
/// When there is none.
pub(super) fn built(architecture: &str) -> Result<PathBuf> {
    let program = env::current_exe().context("can't say where this program is")?;
    let folder = program.parent().context("this program is in no folder")?;
    let name = format!("graft-device_{VERSION}_{architecture}.deb");
    let beside = folder.join(&name);
    let target = folder.parent().unwrap_or(folder);
    let found = [beside, target.join("debian").join(&name)];
    found
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::new(format!("no package {name} is here")).hint(format!(
                "build it with `device/package/build {architecture}`, or name one with --package"
            ))
        })
}
