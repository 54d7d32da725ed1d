//! The exported files as other runtimes see them.

use std::path::PathBuf;

use graft_engine::Engine;
use graft_engine::bare::Graph;

use crate::support::{Dir, data, graft_device, python, trained};

/// The pixels that the model sees of each picture, written by `graft-device preprocess`.
fn preprocessed(dir: &Dir, pictures: &[PathBuf]) -> Vec<PathBuf> {
    // One folder each: pictures of two labels may have one name.
    pictures
        .iter()
        .enumerate()
        .map(|(index, picture)| {
            let printed = graft_device(dir)
                .args([
                    "preprocess".as_ref(),
                    trained().model.as_os_str(),
                    picture.as_os_str(),
                ])
                .args(["--output", &index.to_string()])
                .stdout();
            dir.path(printed.trim_end())
        })
        .collect()
}

/// ONNX Runtime's logits as float32 bits, picture by picture.
fn onnx_runtime(model: PathBuf, pictures: &[PathBuf]) -> Vec<Vec<u32>> {
    let printed = python("onnx_logits.py", std::iter::once(&model).chain(pictures));
    printed
        .lines()
        .map(|line| {
            let (_, logits) = line.split_once('\t').unwrap();
            logits
                .split(' ')
                .map(|bits| u32::from_str_radix(bits, 16).unwrap())
                .collect()
        })
        .collect()
}

/// Pictures of every kind that the tests make: JPEG of all qualities, PNG, turned by EXIF.
fn some_pictures() -> Vec<PathBuf> {
    let folder = trained().photos.join("rose");
    let mut pictures: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pictures.sort();
    pictures
}

#[test]
fn onnx_runtime_and_the_engine_agree_to_the_bit() {
    let dir = Dir::new();
    let engine = Engine::open(&trained().model).unwrap();
    let mut pictures = some_pictures();
    if let Some(data) = data() {
        let folder = data.join("photos/clothing10/test/hat");
        pictures.extend(
            std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .take(10),
        );
    }
    let theirs = onnx_runtime(trained().model.clone(), &preprocessed(&dir, &pictures));
    assert_eq!(theirs.len(), pictures.len());
    for (picture, theirs) in pictures.iter().zip(theirs) {
        let ours = engine
            .classify(&std::fs::read(picture).unwrap())
            .unwrap()
            .logits;
        let ours: Vec<_> = ours.iter().map(|logit| logit.to_bits()).collect();
        assert_eq!(ours, theirs, "{}", picture.display());
    }
}

#[test]
fn the_float_twin_runs_in_onnx_runtime_and_agrees_with_the_int8_file() {
    let dir = Dir::new();
    let pictures = some_pictures();
    let seen = preprocessed(&dir, &pictures);
    let best = |logits: &Vec<u32>| {
        let mut order: Vec<_> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| f32::from_bits(logits[b]).total_cmp(&f32::from_bits(logits[a])));
        order[0]
    };
    let int8 = onnx_runtime(trained().model.clone(), &seen);
    let float = onnx_runtime(trained().run.join("model.float.onnx"), &seen);
    let agreed = int8
        .iter()
        .zip(&float)
        .filter(|(int8, float)| best(int8) == best(float))
        .count();
    assert!(
        agreed * 100 >= pictures.len() * 95,
        "{agreed} of {}",
        pictures.len()
    );
}

/// ONNX Runtime's two forms of static quantization run in our operators, but for the edge where bytes become floats.
#[test]
fn static_files_of_onnx_runtime_run_in_our_operators_with_its_bits() {
    let dir = Dir::new();
    let folder = dir.path("static");
    let printed = python("static_onnx.py", [&folder]);
    assert_eq!(printed.lines().count(), 2);
    for line in printed.lines() {
        let (name, theirs) = line.split_once('\t').unwrap();
        let graph = Graph::open(&folder.join(name), 1).unwrap();
        let nodes = graph.nodes();
        assert_eq!(nodes.tract_operators, ["DequantizeLinearF32"], "{name}");
        assert_eq!((nodes.fast, nodes.tract), (20, 1), "{name}: {nodes:?}");
        let ours: Vec<_> = graph.run().unwrap().iter().map(|v| v.to_bits()).collect();
        let ours: Vec<_> = ours.iter().map(|bits| format!("{bits:08x}")).collect();
        assert_eq!(ours.join(" "), theirs, "{name}");
    }
}
