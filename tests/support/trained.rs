//! One small training run that the tests share.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use super::{Dir, graft, python};

/// A finished run on pictures that the tests made.
pub(crate) struct Trained {
    /// Label folders.
    pub(crate) photos: PathBuf,
    /// The run folder.
    pub(crate) run: PathBuf,
    /// `run/model.onnx`.
    pub(crate) model: PathBuf,
    /// The last line that `graft train --json` printed.
    pub(crate) summary: Value,
    _dir: Dir,
}

/// The run, made when the first test asks for it. The backbone's weights come from the user's cache or from PyPI, as
/// they do for a user.
pub(crate) fn trained() -> &'static Trained {
    static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
        let dir = Dir::new();
        let photos = dir.path("photos");
        make_pictures(&photos, 4, 40);
        let printed = graft(&dir)
            .args([
                "train", "photos", "--recipe", "head", "--run", "run", "--seed", "1", "--json",
                "--quiet",
            ])
            .arg("--bottleneck-dir")
            .arg(dir.path("bottlenecks"))
            .stdout();
        let last = printed.lines().last().expect("a summary on stdout");
        Trained {
            photos,
            run: dir.path("run"),
            model: dir.path("run/model.onnx"),
            summary: serde_json::from_str(last).expect("the summary is JSON"),
            _dir: dir,
        }
    });
    &TRAINED
}

/// Makes `labels` label folders of `images` pictures each.
pub(crate) fn make_pictures(folder: &Path, labels: usize, images: usize) {
    python(
        "pictures.py",
        [
            folder.as_os_str(),
            labels.to_string().as_ref(),
            images.to_string().as_ref(),
        ],
    );
}
