//! The command line of TensorFlow's retrain.py, as tutorials print it, with `graft train` in place of
//! `python retrain.py`.

use crate::support::{Dir, data, graft, make_pictures};

#[test]
fn the_tutorials_command_runs_and_its_label_is_right() {
    let Some(data) = data() else { return };
    let dir = Dir::new();
    let labels = ["dress", "hat", "shoes"];
    let photos = |part: &str, label: &str| {
        let folder = data.join("photos/clothing10").join(part).join(label);
        let mut photos: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        photos.sort();
        photos
    };
    for label in labels {
        for (index, photo) in photos("train", label).iter().take(25).enumerate() {
            let bytes = std::fs::read(photo).unwrap();
            dir.write(&format!("flower_photos/{label}/{index}.jpg"), bytes);
        }
    }
    let trained = graft(&dir)
        .args([
            "train",
            "--bottleneck_dir=tf_files/bottlenecks",
            "--how_many_training_steps",
            "20",
            "--model_dir=tf_files/models/",
            "--summaries_dir=tf_files/training_summaries/basic",
            "--output_graph=tf_files/retrained_graph.pb",
            "--output_labels=tf_files/retrained_labels.txt",
            "--image_dir=flower_photos",
        ])
        .run()
        .expect_code(0);
    for warned in [
        "fine-tuning: 6 epochs",
        "retrained_graph.pb` will be an ONNX file",
    ] {
        assert!(trained.stderr.contains(warned), "{}", trained.stderr);
    }
    for told in [
        "graft label runs/flower_photos-1/model.onnx",
        "graft deploy USER@HOST runs/flower_photos-1/model.onnx",
        "more photos: half of the labels have 19",
    ] {
        assert!(trained.stdout.contains(told), "{}", trained.stdout);
    }
    for side in ["train", "validation"] {
        let folder = dir.path(&format!("tf_files/training_summaries/basic/{side}"));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    }
    let names = std::fs::read_to_string(dir.path("tf_files/retrained_labels.txt")).unwrap();
    assert_eq!(names, "dress\nhat\nshoes\n");

    let mut right = 0;
    for label in labels {
        for photo in photos("test", label).iter().take(5) {
            // The newest run's model, and the file that the tutorial names.
            let said = graft(&dir).arg("label").arg(photo).stdout();
            let named = graft(&dir)
                .args(["label", "tf_files/retrained_graph.pb"])
                .arg(photo)
                .stdout();
            assert_eq!(said, named);
            right += usize::from(said.starts_with(&format!("{label} (score = ")));
        }
    }
    assert!(right >= 13, "{right} of 15 labels are right");
}

#[test]
fn old_networks_and_unknown_flags_are_refused_before_anything_is_done() {
    let dir = Dir::new();
    make_pictures(&dir.path("photos"), 2, 8);
    let refused = |arguments: &[&str]| {
        let command = graft(&dir).args(["train", "--image_dir", "photos"]);
        let finished = command.args(arguments).run().expect_code(2);
        assert!(!dir.path("runs").exists());
        finished.stderr
    };
    let said = refused(&["--architecture", "nasnet_large"]);
    assert!(said.contains("`--architecture nasnet_large`"), "{said}");
    assert!(
        said.contains("hint: --backbone takes: efficientnet_lite0"),
        "{said}"
    );
    let said = refused(&["--bottelneck_dir", "x"]);
    assert!(said.contains("--bottelneck-dir"), "{said}");
    let said = refused(&["--learning_rate", "fast"]);
    assert!(said.contains("--learning-rate"), "{said}");
}
