//! What the programs say when asked for help and when used wrongly, word for word.

use insta::assert_snapshot;

use crate::support::{Dir, Finished, TestCommand, graft, graft_device};

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
    for command in [
        "label",
        "eval",
        "preprocess",
        "info",
        "bench",
        "verify",
        "serve",
    ] {
        let text = help(graft_device(&dir).args([command, "--help"]).run());
        assert_snapshot!(format!("graft-device-{command}"), text);
    }
}

#[test]
fn graft_help() {
    let dir = Dir::new();
    assert_snapshot!("graft", help(graft(&dir).arg("--help").run()));
    for command in ["train", "evaluate", "compare", "label", "devices"] {
        let text = graft(&dir).args([command, "--help"]).stdout();
        assert_snapshot!(format!("graft-{command}"), text);
    }
}

#[test]
fn versions_name_the_program_and_its_features() {
    let dir = Dir::new();
    let device = graft_device(&dir).arg("--version").stdout();
    let host = graft(&dir).arg("--version").stdout();
    assert_snapshot!("versions", device + &host);
}

/// What a command says on standard error when it can't run, below the command itself.
fn refused(program: &str, command: TestCommand, arguments: &[&str]) -> String {
    let finished = command.args(arguments).run().expect_code(2);
    assert_eq!(finished.stdout, "");
    format!("$ {program} {}\n{}\n", arguments.join(" "), finished.stderr)
}

#[test]
fn graft_device_errors() {
    let dir = Dir::new();
    dir.write("notes.txt", "not a model");
    dir.write("empty.onnx", "");
    let said: String = [
        &["label", "missing.onnx", "a.jpg"][..],
        &["info", "notes.txt"],
        &["info", "empty.onnx"],
        &["label", "model.onnx"],
        &["label", "model.onnx", "a.jpg", "--threshold", "50"],
        &["label", "model.onnx", "a.jpg", "--tpo", "3"],
        &["lable", "model.onnx", "a.jpg"],
    ]
    .map(|arguments| refused("graft-device", graft_device(&dir), arguments))
    .concat();
    assert_snapshot!("graft-device-errors", said);
}

#[test]
fn graft_errors() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("empty")).unwrap();
    dir.write("one/cat/a.jpg", "");
    dir.write("no-header.tsv", "a.jpg\tcat\n");
    let said: String = [
        &["train", "missing"][..],
        &["train", "empty"],
        &["train", "one"],
        &["train", "no-header.tsv"],
        &["train", "one", "--epohcs", "3"],
        &["train", "one", "--backbone", "nasnet"],
        &["train", "one", "--device", "cuda"],
        &["label", "a.jpg"],
        &["evaluate", "missing.onnx", "one"],
        &["compare", "missing.onnx", "missing.onnx"],
        &["compare", "missing.onnx", "missing.onnx", "one"],
    ]
    .map(|arguments| refused("graft", graft(&dir), arguments))
    .concat();
    assert_snapshot!("graft-errors", said);
}
