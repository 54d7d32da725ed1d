//! Python with ONNX, ONNX Runtime and Pillow, the independent judges of what graft writes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Pinned, because results are compared to the bit. They need Python 3.11 or newer.
const PACKAGES: [&str; 4] = [
    "numpy==2.4.6",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "pillow==13.0.0",
];

/// Runs `support/<script>` and gives what it printed.
#[track_caller]
pub(crate) fn python<A: AsRef<OsStr>>(
    script: &str,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(packages);
    let output = Command::new("python3")
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("support")
                .join(script),
        )
        .args(arguments)
        .env("PYTHONPATH", &*FOLDER)
        .output()
        .expect("python3 starts");
    assert!(
        output.status.success(),
        "{script} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The folder with the packages, installed once into the user's cache. `pip --target` needs neither root nor `venv`,
/// which Debian has in a package of its own.
fn packages() -> PathBuf {
    let folder = cache().join("python-onnxruntime-1.32.0");
    let installed = install(&folder, |unfinished| {
        Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--root-user-action=ignore",
            ])
            .args(["--only-binary=:all:", "--target"])
            .arg(unfinished)
            .args(PACKAGES)
            .status()
            .is_ok_and(|status| status.success())
    });
    assert!(
        installed,
        "the tests need python3 (3.11 or newer) with pip, and a network the first time, for {PACKAGES:?}"
    );
    folder
}

/// Where the tests keep what they fetch.
pub(super) fn cache() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .expect("HOME or XDG_CACHE_HOME is set")
        .join("graft/tests")
}

/// Fills `folder` once: beside it first, then renamed, so that neither an interruption nor a second run at the same time
/// leaves half of it. `fill` says whether it could; so does this function.
pub(super) fn install(folder: &Path, fill: impl FnOnce(&Path) -> bool) -> bool {
    if folder.is_dir() {
        return true;
    }
    let parent = folder.parent().unwrap();
    std::fs::create_dir_all(parent).unwrap();
    let unfinished = tempfile::tempdir_in(parent).unwrap();
    let filled = unfinished.path().join("filled");
    std::fs::create_dir(&filled).unwrap();
    if !fill(&filled) {
        return false;
    }
    let renamed = std::fs::rename(&filled, folder);
    assert!(renamed.is_ok() || folder.is_dir(), "{renamed:?}");
    true
}
