//! `graft compare` and `graft devices`.

use std::collections::HashMap;

use serde_json::Value;

use crate::support::{Dir, graft, trained};

/// Path, label and prediction of each test photo.
fn predictions(dir: &Dir, model: &str) -> HashMap<String, (String, String)> {
    graft(dir)
        .args(["evaluate", model])
        .arg(trained().run.join("split.tsv"))
        .args(["--predictions", "predictions.tsv", "--quiet"])
        .stdout();
    let tsv = std::fs::read_to_string(dir.path("predictions.tsv")).unwrap();
    let rows = tsv.lines().skip(1).map(|line| {
        let values: Vec<String> = line.split('\t').map(str::to_owned).collect();
        (values[0].clone(), (values[1].clone(), values[2].clone()))
    });
    rows.collect()
}

#[test]
fn two_models_are_compared_as_their_evaluations_say() {
    let dir = Dir::new();
    // The old model lacks one of the labels.
    for label in ["lily of the valley", "rose", "tulip"] {
        for photo in std::fs::read_dir(trained().photos.join(label)).unwrap() {
            let path = photo.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            dir.write(
                &format!("photos/{label}/{name}"),
                std::fs::read(&path).unwrap(),
            );
        }
    }
    graft(&dir)
        .args(["train", "photos", "--recipe", "head"])
        .args(["--run", "old", "--quiet"])
        .arg("--bottleneck-dir")
        .arg(trained().run.with_file_name("bottlenecks"))
        .run()
        .expect_code(0);
    let split = trained().run.join("split.tsv");
    let compared = |flags: &[&str]| {
        graft(&dir)
            .args(["compare", "old/model.onnx"])
            .arg(&trained().model)
            .arg(&split)
            .args(["--quiet"])
            .args(flags)
            .stdout()
    };
    let json: Value = serde_json::from_str(&compared(&["--json"])).unwrap();
    let new_label = "gänseblümchen";
    assert_eq!(json["labels"]["only_new"], serde_json::json!([new_label]));
    assert_eq!(json["labels"]["only_old"], serde_json::json!([]));

    let new = predictions(&dir, trained().model.to_str().unwrap());
    let right = new.values().filter(|(truth, new)| truth == new).count();
    assert_eq!(json["images"], new.len());
    assert_eq!(json["top1"]["new"], right as f64 / new.len() as f64);
    let of_new_label = new.values().filter(|(truth, _)| truth == new_label).count();
    assert_eq!(json["common_labels"]["images"], new.len() - of_new_label);
    let better = json["better"].as_array().unwrap();
    assert_eq!(json["right"]["only_new"], better.len());
    assert!(
        better.iter().any(|photo| photo["true"] == new_label),
        "{json}"
    );
    for photo in better {
        let (truth, predicted) = &new[photo["path"].as_str().unwrap()];
        assert_eq!(
            (truth, predicted),
            (&text(photo, "true"), &text(photo, "new"))
        );
        assert_ne!(photo["old"], photo["true"]);
    }

    let said = compared(&[]);
    for expected in [
        format!("better: {}\n", better.len()),
        format!("all photos: {}\n", new.len()),
        format!("only the new model has: {new_label}\n"),
    ] {
        assert!(said.contains(&expected), "{expected}: {said}");
    }
}

fn text(photo: &Value, name: &str) -> String {
    photo[name].as_str().unwrap().to_owned()
}

#[test]
fn a_photo_that_cannot_be_read_or_has_an_unknown_label_is_told() {
    let dir = Dir::new();
    let rose = std::fs::read_dir(trained().photos.join("rose")).unwrap();
    let rose = std::fs::read(rose.flatten().next().unwrap().path()).unwrap();
    dir.write("photos/rose/1.jpg", &rose);
    dir.write("photos/rose/2.jpg", "no picture");
    let compare = || {
        let model = &trained().model;
        let float = model.with_file_name("model.float.onnx");
        graft(&dir).arg("compare").arg(float).arg(model)
    };
    let finished = compare().args(["photos", "--json"]).run().expect_code(1);
    assert!(finished.stderr.contains("2.jpg"), "{}", finished.stderr);
    let json: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((&json["images"], &json["refused"]), (&1.into(), &1.into()));
    assert_eq!(json["common_labels"], Value::Null);

    dir.write("photos/oak/1.jpg", &rose);
    let finished = compare().arg("photos").run().expect_code(2);
    assert!(finished.stderr.contains("`oak`"), "{}", finished.stderr);
    assert!(finished.stderr.contains("hint: "), "{}", finished.stderr);
}

#[test]
fn devices_are_listed() {
    let dir = Dir::new();
    let json = graft(&dir).args(["devices", "--json"]).stdout();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["cpu"]["threads"].as_u64().unwrap() >= 1);
    let cuda = &json["cuda"];
    let usable = cuda["usable"].as_bool().unwrap();
    assert_eq!(usable, cuda["reason"].is_null(), "{cuda}");
    let said = graft(&dir).arg("devices").stdout();
    assert!(said.starts_with("cpu     usable "), "{said}");
    assert_eq!(usable, !said.contains("hint: "), "{said}");
}
