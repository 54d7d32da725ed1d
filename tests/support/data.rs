//! Real photos, which only some machines have, and how a test says that it can't run.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder with `photos/` and `weights/`: `GRAFT_DATA`, else `../shared/data` from the project's root. Where there
/// is none, says so and gives `None`.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("GRAFT_DATA").map_or_else(
        || project().parent().unwrap().join("shared/data"),
        PathBuf::from,
    );
    if folder.join("photos").is_dir() {
        return Some(folder);
    }
    skip(&format!(
        "no real photos in `{}`; GRAFT_DATA can name another folder",
        folder.display()
    ));
    None
}

/// The project's root.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Says on the terminal, past the test harness, why the running test does nothing. With `CI=true`, where everything
/// that tests need is there, it fails instead, unless `GRAFT_TESTS_MAY_SKIP` says that not all could be installed.
#[track_caller]
pub(crate) fn skip(reason: &str) {
    let test = std::thread::current();
    let test = test.name().unwrap_or("test");
    let everything_is_there = project().parent().unwrap().join("shared").is_dir();
    let strict = std::env::var_os("GRAFT_TESTS_MAY_SKIP").is_none();
    if std::env::var("CI").is_ok_and(|ci| ci == "true") && everything_is_there && strict {
        panic!("{test} may not be skipped in CI: {reason}");
    }
    say_skipped(test, reason);
}

/// Says the same of what the machine does not let a test do, which nothing that is installed would change.
pub(crate) fn not_here(reason: &str) {
    say_skipped(std::thread::current().name().unwrap_or("test"), reason);
}

fn say_skipped(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "skipped {test}: {reason}");
}

/// Whether tests may take minutes: `GRAFT_LONG_TESTS=1`.
pub(crate) fn long() -> bool {
    std::env::var_os("GRAFT_LONG_TESTS").is_some_and(|value| value == "1")
}
