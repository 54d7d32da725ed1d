//! What the programs say when asked for help and when used wrongly, word for word.

use insta::assert_snapshot;

use crate::support::{Dir, Finished, graft, graft_device};

/// A help text that fits a screen.
fn help(finished: Finished) -> String {
    let text = finished.expect_code(0).stdout;
    let lines = text.lines().count();
    assert!(
        lines <= 50,
        "{lines} lines are more than a screen holds:\n{text}"
    );
    text
}

#[test]
fn graft_device_help() {
    let dir = Dir::new();
    assert_snapshot!("graft-device", help(graft_device(&dir).arg("--help").run()));
    for command in ["label", "eval", "preprocess", "info", "bench", "verify"] {
        let text = help(graft_device(&dir).args([command, "--help"]).run());
        assert_snapshot!(format!("graft-device {command}"), text);
    }
}

#[test]
fn graft_help() {
    let dir = Dir::new();
    assert_snapshot!("graft", help(graft(&dir).arg("--help").run()));
    for command in ["train", "evaluate", "label"] {
        let text = graft(&dir).args([command, "--help"]).stdout();
        assert_snapshot!(format!("graft {command}"), text);
    }
}

#[test]
fn versions_name_the_program_and_its_features() {
    let dir = Dir::new();
    assert_snapshot!(graft_device(&dir).arg("--version").stdout(), @"");
    let version = graft(&dir).arg("--version").stdout();
    assert!(version.starts_with("graft 0.1.0"), "{version}");
}

#[test]
fn graft_device_errors() {
    let dir = Dir::new();
    dir.write("notes.txt", "not a model");
    dir.write("empty.onnx", "");
    let refused = |arguments: &[&str]| {
        let finished = graft_device(&dir).args(arguments).run().expect_code(2);
        assert_eq!(finished.stdout, "");
        finished.stderr
    };
    assert_snapshot!(refused(&["label", "missing.onnx", "a.jpg"]), @"");
    assert_snapshot!(refused(&["info", "notes.txt"]), @"");
    assert_snapshot!(refused(&["info", "empty.onnx"]), @"");
    assert_snapshot!(refused(&["label", "missing.onnx"]), @"");
    assert_snapshot!(refused(&["label", "m.onnx", "a.jpg", "--threshold", "50"]), @"");
    assert_snapshot!(refused(&["label", "m.onnx", "a.jpg", "--tpo", "3"]), @"");
}
