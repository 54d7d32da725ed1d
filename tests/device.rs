//! `graft-device` with a model that `graft train` made.

use std::path::Path;

use serde_json::Value;

use crate::support::{Dir, graft, graft_device, trained};

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The names of an object's fields, in order.
fn fields(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn copy(dir: &Dir, picture: &str, name: &str) {
    dir.write(name, std::fs::read(trained().photos.join(picture)).unwrap());
}

#[test]
fn label_prints_the_best_labels_first() {
    let dir = Dir::new();
    copy(&dir, "rose/000.jpg", "a.jpg");
    let printed = graft_device(&dir)
        .arg("label")
        .arg(&trained().model)
        .args(["a.jpg", "--top", "2"])
        .stdout();
    let scores: Vec<f32> = printed
        .lines()
        .map(|line| {
            let (label, rest) = line.split_once(" (score = ").unwrap();
            assert!(trained().photos.join(label).is_dir(), "{label}");
            rest.strip_suffix(')').unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(scores.len(), 2);
    assert!(
        scores[0] >= scores[1] && printed.starts_with("rose"),
        "{printed}"
    );
}

#[test]
fn label_json_has_the_documented_fields() {
    let dir = Dir::new();
    copy(&dir, "gänseblümchen/000.jpg", "a.jpg");
    let labelled = |threshold: &str| {
        let command = graft_device(&dir).arg("label").arg(&trained().model);
        json(
            &command
                .args(["a.jpg", "--json", "--threshold", threshold])
                .stdout(),
        )
    };
    let answer = labelled("0");
    let mut names = fields(&answer);
    names.sort_unstable();
    assert_eq!(
        names,
        ["label", "milliseconds", "path", "score", "top", "unknown"]
    );
    assert_eq!(answer["path"], "a.jpg");
    assert_eq!(answer["label"], "gänseblümchen");
    assert_eq!(answer["unknown"], false);
    assert_eq!(answer["top"][0]["label"], answer["label"]);
    assert_eq!(answer["top"][0]["score"], answer["score"]);
    assert_eq!(answer["top"].as_array().unwrap().len(), 4);
    let unknown = labelled("1");
    if unknown["score"] != 1.0 {
        assert_eq!(
            (&unknown["label"], &unknown["unknown"]),
            (&Value::Null, &Value::Bool(true))
        );
    }
}

#[test]
fn label_takes_folders_lists_and_standard_input_and_keeps_their_order() {
    let dir = Dir::new();
    copy(&dir, "rose/000.jpg", "photos/b/1.jpg");
    copy(&dir, "tulip/007.png", "photos/a/2.png");
    let model = &trained().model;
    let text = graft_device(&dir)
        .arg("label")
        .arg(model)
        .args(["photos", "--top", "1"])
        .stdout();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        (lines[0], lines[2], lines[3]),
        ("photos/a/2.png", "", "photos/b/1.jpg")
    );

    let paths = |finished: String| -> Vec<String> {
        finished
            .lines()
            .map(|line| json(line)["path"].as_str().unwrap().to_owned())
            .collect()
    };
    let listed = graft_device(&dir)
        .arg("label")
        .arg(model)
        .args(["--json", "--paths-from", "-"])
        .stdin("photos/b/1.jpg\n\nphotos/a/2.png\r\nphotos\n");
    assert_eq!(
        paths(listed.stdout()),
        [
            "photos/b/1.jpg",
            "photos/a/2.png",
            "photos/a/2.png",
            "photos/b/1.jpg"
        ]
    );
    let bytes = std::fs::read(dir.path("photos/b/1.jpg")).unwrap();
    let piped = graft_device(&dir)
        .arg("label")
        .arg(model)
        .args(["-", "--json"])
        .stdin(bytes);
    assert_eq!(paths(piped.stdout()), ["-"]);
}

#[test]
fn a_bad_picture_fails_alone() {
    let dir = Dir::new();
    copy(&dir, "rose/000.jpg", "good.jpg");
    let mut cut = std::fs::read(dir.path("good.jpg")).unwrap();
    cut.truncate(cut.len() / 2);
    dir.write("cut.jpg", cut);
    dir.write("text.jpg", "no picture");
    dir.write("none/notes.txt", "");
    let label = || graft_device(&dir).arg("label").arg(&trained().model);
    let pictures = ["cut.jpg", "missing.jpg", "text.jpg", "none", "good.jpg"];
    let finished = label().args(pictures).arg("--json").run().expect_code(1);
    let lines: Vec<_> = finished.stdout.lines().map(json).collect();
    assert_eq!(lines.len(), 5);
    for (line, path) in lines.iter().zip(pictures) {
        assert_eq!(line["path"], path);
        assert_eq!(line["error"].is_string(), path != "good.jpg", "{line}");
    }
    let finished = label().args(pictures).run().expect_code(1);
    for path in &pictures[..4] {
        assert!(
            finished.stderr.contains(&format!("can't label `{path}`")),
            "{}",
            finished.stderr
        );
    }
    assert!(
        finished.stdout.starts_with("good.jpg\nrose (score = "),
        "{}",
        finished.stdout
    );
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let dir = Dir::new();
    let mut command = graft_device(&dir)
        .arg("label")
        .arg(&trained().model)
        .arg(&trained().photos)
        .into_command();
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn eval_has_the_documented_fields_and_its_figures_hang_together() {
    let dir = Dir::new();
    let finished = graft_device(&dir)
        .arg("eval")
        .arg(&trained().model)
        .arg(&trained().photos)
        .args(["--json", "--predictions", "predictions.tsv"])
        .stdout();
    let figures = json(&finished);
    for name in [
        "images",
        "refused",
        "top1",
        "top5",
        "macro_recall",
        "classes",
        "confusion",
    ] {
        assert!(figures.get(name).is_some(), "{name} is missing: {figures}");
    }
    assert_eq!(figures["images"], 160);
    assert_eq!(figures["refused"], 0);
    let confusion: Vec<Vec<u64>> = serde_json::from_value(figures["confusion"].clone()).unwrap();
    let right: u64 = (0..4).map(|label| confusion[label][label]).sum();
    assert!((figures["top1"].as_f64().unwrap() - right as f64 / 160.0).abs() < 1e-6);
    assert!(figures["top1"].as_f64().unwrap() > 0.8, "{figures}");
    for (row, class) in confusion.iter().zip(figures["classes"].as_array().unwrap()) {
        assert_eq!(row.iter().sum::<u64>(), 40);
        assert_eq!(class["images"], 40);
        for name in ["label", "precision", "recall", "f1"] {
            assert!(class.get(name).is_some(), "{name} is missing: {class}");
        }
    }

    let predictions = std::fs::read_to_string(dir.path("predictions.tsv")).unwrap();
    let mut lines = predictions.lines();
    assert_eq!(lines.next(), Some("path\ttrue\tpredicted\tscore"));
    let rows: Vec<Vec<_>> = lines.map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 160);
    assert_eq!(
        rows.iter().filter(|row| row[1] == row[2]).count() as u64,
        right
    );
    assert!(
        rows.iter().all(|row| Path::new(row[0]).is_file()),
        "paths are the argument joined with what is below"
    );
}

#[test]
fn host_and_device_predict_the_same_image_for_image() {
    let dir = Dir::new();
    let arguments = |output: &str| -> Vec<std::ffi::OsString> {
        vec![
            trained().model.clone().into(),
            trained().photos.clone().into(),
            "--json".into(),
            "--predictions".into(),
            output.into(),
        ]
    };
    let device = json(
        &graft_device(&dir)
            .arg("eval")
            .args(arguments("device.tsv"))
            .stdout(),
    );
    let host = json(
        graft(&dir)
            .arg("evaluate")
            .args(arguments("host.tsv"))
            .stdout()
            .lines()
            .last()
            .unwrap(),
    );
    for name in [
        "images",
        "refused",
        "top1",
        "top5",
        "macro_recall",
        "classes",
        "confusion",
    ] {
        assert_eq!(device[name], host[name], "{name}");
    }
    let read = |name: &str| std::fs::read_to_string(dir.path(name)).unwrap();
    assert_eq!(read("device.tsv"), read("host.tsv"));

    // The test photos, which the run set aside: the number that ships.
    let split = trained().run.join("split.tsv");
    let tested = json(
        &graft_device(&dir)
            .arg("eval")
            .arg(&trained().model)
            .arg(split)
            .arg("--json")
            .stdout(),
    );
    assert_eq!(tested["images"], trained().summary["images"]["test"]);
    assert_eq!(tested["top1"], trained().summary["top1"]["int8"]);
}

#[test]
fn info_names_every_node_and_none_is_slow() {
    let dir = Dir::new();
    let info = json(
        &graft_device(&dir)
            .arg("info")
            .arg(&trained().model)
            .arg("--json")
            .stdout(),
    );
    for name in [
        "labels",
        "preprocess",
        "metrics",
        "provenance",
        "digest",
        "nodes",
        "arithmetic",
    ] {
        assert!(info.get(name).is_some(), "{name} is missing: {info}");
    }
    assert_eq!(info["labels"].as_array().unwrap().len(), 4);
    assert_eq!(
        info["provenance"]["backbone"],
        trained().summary["backbone"]
    );
    assert_eq!(info["arithmetic"], 1);
    assert_eq!(
        info["nodes"]["tract_operators"],
        serde_json::json!([]),
        "{}",
        info["nodes"]
    );
    let text = graft_device(&dir)
        .arg("info")
        .arg(&trained().model)
        .stdout();
    assert!(text.contains("lily of the valley"), "{text}");
}

#[test]
fn bench_has_the_documented_fields() {
    let dir = Dir::new();
    let bench = json(
        &graft_device(&dir)
            .arg("bench")
            .arg(&trained().model)
            .args(["--json", "--runs", "5"])
            .stdout(),
    );
    for name in [
        "isa",
        "threads",
        "runs",
        "milliseconds",
        "cpu_milliseconds",
        "cold_start_milliseconds",
        "peak_rss_bytes",
        "model_bytes",
        "macs",
    ] {
        assert!(bench.get(name).is_some(), "{name} is missing: {bench}");
    }
    for name in ["min", "p50", "p90", "p99", "mean"] {
        assert!(
            bench["milliseconds"][name].as_f64().unwrap() > 0.0,
            "{bench}"
        );
    }
    assert_eq!(bench["runs"], 5);
    assert_eq!(
        bench["model_bytes"],
        std::fs::metadata(&trained().model).unwrap().len()
    );
}

#[test]
fn verify_passes_a_whole_model_and_refuses_a_damaged_one() {
    let dir = Dir::new();
    graft_device(&dir)
        .arg("verify")
        .arg(&trained().model)
        .stdout();
    let model = std::fs::read(&trained().model).unwrap();
    // From the first byte to the last, in the graph, in the weights and in the card.
    for place in 0..24 {
        let mut damaged = model.clone();
        let at = place * (model.len() - 1) / 23;
        damaged[at] ^= 1 << (place % 8);
        dir.write("damaged.onnx", damaged);
        let finished = graft_device(&dir).args(["verify", "damaged.onnx"]).run();
        assert_eq!(
            finished.code,
            Some(2),
            "byte {at}: {}{}",
            finished.stdout,
            finished.stderr
        );
        assert!(
            finished.stderr.starts_with("error: "),
            "{}",
            finished.stderr
        );
    }
    dir.write("cut.onnx", &model[..model.len() / 2]);
    graft_device(&dir)
        .args(["verify", "cut.onnx"])
        .run()
        .expect_code(2);
}
