//! `graft train`: what it leaves behind, and what it says when it can't.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{
    Dir, Finished, TestCommand, Trained, graft, graft_device, make_pictures, make_pictures_alike,
    trained, trained_on_photos,
};

#[test]
fn a_run_leaves_everything_behind() {
    let run = &trained().run;
    for name in [
        "model.onnx",
        "model.float.onnx",
        "labels.txt",
        "split.tsv",
        "settings.toml",
        "metrics.json",
        "quantization.tsv",
        "log.jsonl",
    ] {
        assert!(run.join(name).is_file(), "{name} is missing");
    }
    let labels = std::fs::read_to_string(run.join("labels.txt")).unwrap();
    assert_eq!(labels, "gänseblümchen\nlily of the valley\nrose\ntulip\n");
    let split = std::fs::read_to_string(run.join("split.tsv")).unwrap();
    assert_eq!(
        split.lines().next(),
        Some("path\tlabel\tsplit\tcontent_hash\tgroup")
    );
    assert_eq!(split.lines().count(), 161);
    let metrics: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics, trained().summary);
}

#[test]
fn the_summary_has_the_documented_fields() {
    let summary = &trained().summary;
    for name in [
        "model",
        "run",
        "backbone",
        "recipe",
        "image_size",
        "classes",
        "images",
        "top1",
        "top1_interval",
        "macro_recall",
        "seconds",
        "train_images_per_second",
        "peak_rss_bytes",
        "model_bytes",
        "seed",
        "warnings",
    ] {
        assert!(summary.get(name).is_some(), "{name} is missing: {summary}");
    }
    for (group, names) in [
        ("images", &["train", "val", "test", "refused"][..]),
        ("top1", &["float", "float_device", "int8"]),
        ("macro_recall", &["float", "int8"]),
        (
            "seconds",
            &[
                "total", "features", "head", "finetune", "quantize", "evaluate",
            ],
        ),
    ] {
        for name in names {
            assert!(
                summary[group].get(name).is_some(),
                "{group}.{name} is missing: {summary}"
            );
        }
    }
    let images =
        ["train", "val", "test", "refused"].map(|side| summary["images"][side].as_u64().unwrap());
    assert_eq!(images.iter().sum::<u64>(), 160);
    assert_eq!(summary["classes"], 4);
    assert_eq!(summary["seed"], 1);
    assert!(summary["top1"]["int8"].as_f64().unwrap() > 0.8, "{summary}");
}

/// What a run that failed said. It may leave no model behind.
fn refused(dir: &Dir, command: TestCommand) -> String {
    let finished = command.run().expect_code(2);
    assert_eq!(finished.stdout, "");
    assert!(finished.stderr.contains("error: "), "{}", finished.stderr);
    assert!(finished.stderr.contains("hint: "), "{}", finished.stderr);
    assert!(!dir.path("run/model.onnx").exists());
    finished.stderr
}

fn train(dir: &Dir, photos: &str) -> TestCommand {
    graft(dir).args([
        "train",
        photos,
        "--recipe",
        "head",
        "--run",
        "run",
        "--quiet",
        "--bottleneck-dir",
        "bottlenecks",
    ])
}

/// Bottlenecks of such pictures have dimensions that hardly change; a head must not build on those.
#[test]
fn int8_keeps_what_float_knows_of_pictures_that_look_alike() {
    let dir = Dir::new();
    make_pictures_alike(&dir.path("photos"), 4, 40);
    train(&dir, "photos").run().expect_code(0);
    let right = |model: &str| {
        let printed = graft_device(&dir)
            .args(["eval", model, "photos", "--json"])
            .stdout();
        let metrics: serde_json::Value = serde_json::from_str(&printed).unwrap();
        metrics["top1"].as_f64().unwrap()
    };
    let (float, int8) = (right("run/model.float.onnx"), right("run/model.onnx"));
    assert!(float > 0.95 && float - int8 < 0.02, "{float} {int8}");
}

#[test]
fn a_wrong_path_an_empty_folder_and_a_single_label_are_refused() {
    let dir = Dir::new();
    let missing = refused(&dir, train(&dir, "no-such-folder"));
    assert!(missing.contains("no-such-folder"), "{missing}");
    std::fs::create_dir(dir.path("empty")).unwrap();
    refused(&dir, train(&dir, "empty"));
    make_pictures(&dir.path("single"), 1, 8);
    let single = refused(&dir, train(&dir, "single"));
    assert!(single.contains("label"), "{single}");
}

#[test]
fn an_unreadable_photo_is_a_warning() {
    let dir = Dir::new();
    make_pictures(&dir.path("photos"), 2, 16);
    // Both label folders are there; the name is that of the second.
    let broken = "photos/lily of the valley/broken.jpg";
    dir.write(broken, "no picture");
    let finished = graft(&dir)
        .args([
            "train",
            "photos",
            "--recipe",
            "head",
            "--run",
            "run",
            "--bottleneck-dir",
            "bottlenecks",
            "--json",
        ])
        .run()
        .expect_code(0);
    let summary = summary(&finished);
    assert_eq!(summary["images"]["refused"], 1);
    assert!(
        finished.stderr.contains("broken.jpg"),
        "{}",
        finished.stderr
    );
}

/// The last line that `graft train --json` printed.
fn summary(finished: &Finished) -> serde_json::Value {
    let last = finished.stdout.lines().last().expect("a summary on stdout");
    serde_json::from_str(last).expect("the summary is JSON")
}

#[test]
fn without_network_and_cache_the_weights_are_asked_for() {
    let dir = Dir::new();
    make_pictures(&dir.path("photos"), 2, 16);
    let said = refused(
        &dir,
        train(&dir, "photos").args(["--offline", "--model-dir", "weights"]),
    );
    assert!(said.contains("efficientnet_lite0"), "{said}");
}

#[test]
fn weights_of_another_content_are_never_used() {
    let dir = Dir::new();
    make_pictures(&dir.path("photos"), 2, 16);
    let name = weights_name();
    dir.write(&format!("weights/{name}"), "damaged");
    let said = refused(
        &dir,
        train(&dir, "photos").args(["--offline", "--model-dir", "weights"]),
    );
    assert!(
        said.contains("SHA-256") || said.contains("sha256"),
        "{said}"
    );
    // With a network the damaged file is replaced.
    train(&dir, "photos")
        .args(["--model-dir", "weights"])
        .run()
        .expect_code(0);
    assert!(
        dir.path(&format!("weights/{name}"))
            .metadata()
            .unwrap()
            .len()
            > 1 << 20
    );
}

/// The file name of the default backbone's weights in the cache.
fn weights_name() -> String {
    let registry = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("models/backbones.toml");
    let registry = std::fs::read_to_string(registry).unwrap();
    let line = registry
        .lines()
        .find(|line| line.starts_with("weights"))
        .unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

#[test]
fn a_killed_run_continues_where_it_was() {
    let dir = Dir::new();
    make_pictures(&dir.path("photos"), 4, 40);
    let run = || train(&dir, "photos").args(["--seed", "1", "--json"]);
    let mut child = run()
        .into_command()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Killed once features are being written.
    let started = Instant::now();
    while !dir.path("bottlenecks").is_dir() && started.elapsed() < Duration::from_secs(60) {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before it could be killed"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!dir.path("run/model.onnx").exists(), "killed too late");

    let finished = run().run().expect_code(0);
    assert_no_leftovers(&dir.path("run"));
    // The same as a run that nobody killed: same seed, same photos.
    let verified = graft_device(&dir).args(["verify", "run/model.onnx"]).run();
    verified.expect_code(0);
    assert_same_figures(&finished);

    let again = run().run().expect_code(2);
    assert!(again.stderr.contains("finished"), "{}", again.stderr);
}

fn assert_same_figures(finished: &Finished) {
    let summary = summary(finished);
    for name in ["top1", "macro_recall", "images"] {
        assert_eq!(summary[name], trained().summary[name], "{name}");
    }
}

/// No temporary file of an interrupted write.
fn assert_no_leftovers(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !name.contains("tmp") && !name.starts_with('.'),
            "{name} was left behind"
        );
    }
}

#[test]
fn a_gate_that_is_missed_exports_nothing() {
    let dir = Dir::new();
    // One kind of picture under two labels: nobody can tell them apart.
    make_pictures(&dir.path("pictures"), 1, 60);
    for index in 0..60 {
        for suffix in ["jpg", "png"] {
            let from = dir.path(&format!("pictures/gänseblümchen/{index:03}.{suffix}"));
            if let Ok(picture) = std::fs::read(from) {
                dir.write(
                    &format!("photos/{}/{index}.{suffix}", ["even", "odd"][index % 2]),
                    picture,
                );
            }
        }
    }
    let finished = train(&dir, "photos")
        .args(["--min-accuracy", "1"])
        .run()
        .expect_code(1);
    assert!(
        finished.stderr.contains("--min-accuracy"),
        "{}",
        finished.stderr
    );
    assert!(!dir.path("run/model.onnx").exists());
}

#[test]
fn real_photos_are_learnt() {
    let Some(Trained { summary, .. }) = trained_on_photos() else {
        return;
    };
    assert!(summary["top1"]["int8"].as_f64().unwrap() > 0.7, "{summary}");
}
