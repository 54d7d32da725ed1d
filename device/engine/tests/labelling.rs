//! Pictures on disk: classified, evaluated, and the model timed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use graft_engine::bench::bench;
use graft_engine::evaluate::evaluate;
use graft_engine::listing::list;
use support::{Conv, Graph, Head, Random, int};

const SIDE: usize = 16;

/// A net that tells red, green and blue pictures apart: the pool's channels are the logits.
fn net() -> Graph {
    let mut graph = Graph::new(SIDE, SIDE, 3);
    graph.transpose();
    graph.pool("pixels", "pooled", (1.0 / 128.0, 127));
    graph.node("Flatten", &["pooled"], "flat", vec![int("axis", 1)]);
    let mut weights = vec![0; 9];
    (0..3).for_each(|c| weights[c * 4] = 64);
    graph.head(
        "flat",
        "pooled_zero",
        &Head {
            weights,
            bias: vec![0; 3],
            scales: vec![0.001; 3],
        },
    );
    graph
}

fn picture(path: &Path, colour: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(20, 24, image::Rgb(colour))
        .save(path)
        .unwrap();
}

#[test]
fn photos_are_evaluated_the_same_on_any_number_of_threads() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for index in 0..5u8 {
        picture(&at(&format!("Öffnung 0/{index}.png")), [200, 10 * index, 7]);
        picture(&at(&format!("Öffnung 1/{index}.png")), [3, 200 - index, 9]);
    }
    picture(&at("Öffnung 1/wrong.png"), [10, 20, 200]);
    fs::write(at("Öffnung 0/broken.png"), b"no picture").unwrap();
    let engine = net().engine();
    let photos = list(root.path()).unwrap();
    let done = AtomicUsize::new(0);
    let progress = |photos: usize| {
        done.fetch_add(photos, Ordering::Relaxed);
    };
    let evaluation = evaluate(&engine, &photos, 1, &progress).unwrap();
    assert_eq!(done.load(Ordering::Relaxed), photos.len());
    assert_eq!(evaluation, evaluate(&engine, &photos, 3, &|_| {}).unwrap());

    assert_eq!(evaluation.images, 11);
    assert_eq!(evaluation.refused.len(), 1);
    assert_eq!(evaluation.refused[0].0, at("Öffnung 0/broken.png"));
    assert_eq!(evaluation.confusion, [[5, 0, 0], [0, 5, 1], [0, 0, 0]]);
    assert_eq!((evaluation.top1, evaluation.top5), (10.0 / 11.0, 1.0));
    assert_eq!(evaluation.macro_recall, (1.0 + 5.0 / 6.0) / 2.0);
    assert!(
        evaluation.top1_interval().0 < evaluation.top1
            && evaluation.top1 < evaluation.top1_interval().1
    );
    let json = evaluation.to_json().unwrap();
    assert!(
        json.starts_with(r#"{"images":11,"refused":1,"top1":0.909"#),
        "{json}"
    );
    assert!(json.contains(
        r#""classes":[{"label":"Öffnung 0","images":5,"precision":1.0,"recall":1.0,"f1":1.0}"#
    ));
    assert!(
        json.ends_with(r#""confusion":[[5,0,0],[0,5,1],[0,0,0]]}"#),
        "{json}"
    );
    let tsv = evaluation.predictions_tsv();
    let wrong = tsv.lines().find(|line| line.contains("wrong.png")).unwrap();
    let expected = format!(
        "{}\tÖffnung 1\tÖffnung 2\t",
        at("Öffnung 1/wrong.png").display()
    );
    assert!(
        tsv.starts_with("path\ttrue\tpredicted\tscore\n") && wrong.starts_with(&expected),
        "{tsv}"
    );

    picture(&at("unheard of/1.png"), [1, 2, 3]);
    let error = evaluate(&engine, &list(root.path()).unwrap(), 2, &|_| {}).unwrap_err();
    assert!(
        error
            .message()
            .contains("`unheard of`, which the model does not know"),
        "{}",
        error.message()
    );
}

#[test]
fn a_picture_is_labelled_from_its_bytes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.png");
    picture(&path, [9, 220, 30]);
    let engine = net().engine();
    let classification = engine.classify(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(classification.best().0, 1);
    assert_eq!(classification.top(2).len(), 2);
    assert!(engine.classify(b"no picture").is_err());
}

#[test]
fn a_model_is_timed() {
    let mut random = Random(1);
    let mut graph = Graph::new(SIDE, SIDE, 3);
    graph.transpose();
    graph.conv(
        "pixels",
        "conv",
        &Conv::random(&mut random, 3, 4, 3, 2, false),
    );
    graph.pool("conv", "pooled", (0.02, 100));
    graph.node("Flatten", &["pooled"], "flat", vec![int("axis", 1)]);
    graph.head("flat", "pooled_zero", &Head::random(&mut random, 4, 3));
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.onnx");
    fs::write(&path, graph.file()).unwrap();

    let figures = bench(&path, 2, 5).unwrap();
    assert_eq!(
        (figures.threads, figures.runs, figures.macs),
        (2, 5, 64 * 27 * 4 + 12)
    );
    let latency = figures.milliseconds;
    assert!(
        0.0 < latency.min
            && latency.min <= latency.p50
            && latency.p50 <= latency.p90
            && latency.p90 <= latency.p99
    );
    assert!(figures.cold_start_milliseconds > 0.0);
    assert_eq!(
        figures.model_bytes as u64,
        fs::metadata(&path).unwrap().len()
    );
    let json = serde_json::to_string(&figures).unwrap();
    for field in [
        "isa",
        "threads",
        "runs",
        "milliseconds",
        "cpu_milliseconds",
        "cold_start_milliseconds",
        "peak_rss_bytes",
    ] {
        assert!(json.contains(&format!("\"{field}\":")), "{json}");
    }
    assert!(bench(&path, 0, 1).is_err());
    assert!(
        bench(&root.path().join("none.onnx"), 1, 1)
            .unwrap_err()
            .report()
            .contains("No such file")
    );
}
