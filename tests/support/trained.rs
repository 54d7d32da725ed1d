//! One small training run that the tests share.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use super::{Dir, data, graft, python};

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
        let dir = Dir::until_the_next_run();
        make_pictures(&dir.path("photos"), 4, 40);
        train(dir)
    });
    &TRAINED
}

/// A run on four labels of real photos, where there are any.
pub(crate) fn trained_on_photos() -> Option<&'static Trained> {
    static TRAINED: LazyLock<Option<Trained>> = LazyLock::new(|| {
        let source = data()?.join("photos/clothing10/train");
        let dir = Dir::until_the_next_run();
        for label in ["dress", "shoes", "pants", "hat"] {
            let mut photos: Vec<_> = std::fs::read_dir(source.join(label))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            photos.sort();
            for photo in photos.iter().take(60) {
                let name = photo.file_name().unwrap().to_str().unwrap();
                let bytes = std::fs::read(photo).unwrap();
                dir.write(&format!("photos/{label}/{name}"), bytes);
            }
        }
        Some(train(dir))
    });
    TRAINED.as_ref()
}

/// Trains on `photos` in `dir`.
fn train(dir: Dir) -> Trained {
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
        photos: dir.path("photos"),
        run: dir.path("run"),
        model: dir.path("run/model.onnx"),
        summary: serde_json::from_str(last).expect("the summary is JSON"),
        _dir: dir,
    }
}

/// Makes `labels` label folders of `images` pictures each.
pub(crate) fn make_pictures(folder: &Path, labels: usize, images: usize) {
    pictures(folder, labels, images, "varied");
}

/// The same with pictures that hardly differ within a label.
pub(crate) fn make_pictures_alike(folder: &Path, labels: usize, images: usize) {
    pictures(folder, labels, images, "alike");
}

fn pictures(folder: &Path, labels: usize, images: usize, kind: &str) {
    python(
        "pictures.py",
        [
            folder.as_os_str(),
            labels.to_string().as_ref(),
            images.to_string().as_ref(),
            kind.as_ref(),
        ],
    );
}
