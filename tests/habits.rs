//! What people expect of any program: completions, manual pages, plain text where it is asked for.

use std::process::Command;

use crate::support::{Dir, graft, graft_device, skip};

#[test]
fn completions_know_the_commands() {
    let dir = Dir::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let host = graft(&dir).args(["completions", shell]).stdout();
        for word in ["train", "bottleneck-dir", "label", "resume"] {
            assert!(host.contains(word), "{shell}: {word}");
        }
        let device = graft_device(&dir).args(["completions", shell]).stdout();
        assert!(device.contains("graft-device") && device.contains("preprocess"));
    }
    let said = graft(&dir)
        .args(["completions", "cmd"])
        .run()
        .expect_code(2);
    assert!(said.stderr.contains("bash"), "{}", said.stderr);
}

#[test]
fn manual_pages_are_there_for_every_command() {
    let dir = Dir::new();
    let page = graft(&dir).arg("man").stdout();
    assert!(
        page.contains(".TH graft 1") && page.contains("graft demo"),
        "{page}"
    );
    graft(&dir).args(["man", "--output", "man/graft"]).stdout();
    graft_device(&dir)
        .args(["man", "--output", "man/device"])
        .stdout();
    for name in [
        "graft/graft.1",
        "graft/graft-train.1",
        "graft/graft-label.1",
        "device/graft-device.1",
        "device/graft-device-label.1",
    ] {
        let page = std::fs::read_to_string(dir.path(&format!("man/{name}"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
    }
}

/// What `graft --help` writes to a terminal.
fn on_a_terminal(dir: &Dir, variable: Option<(&str, &str)>) -> Option<String> {
    if Command::new("script").arg("--version").output().is_err() {
        skip("no `script`, which stands for a terminal");
        return None;
    }
    let program = graft(dir).into_command();
    // In CI colours are taken for wanted on any terminal.
    let line = format!(
        "env -u CI '{}' --help",
        program.get_program().to_str().unwrap()
    );
    let mut command = dir.command("script").args(["-qec", &line, "/dev/null"]);
    command = command.env("TERM", "xterm");
    if let Some((name, value)) = variable {
        command = command.env(name, value);
    }
    Some(command.stdout())
}

#[test]
fn text_is_plain_where_that_is_asked_for() {
    let dir = Dir::new();
    assert!(!graft(&dir).arg("--help").stdout().contains('\x1b'));
    let Some(coloured) = on_a_terminal(&dir, None) else {
        return;
    };
    assert!(coloured.contains('\x1b'), "{coloured}");
    for variable in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
        let plain = on_a_terminal(&dir, Some(variable)).unwrap();
        assert!(plain.contains("Usage"), "{plain}");
        assert!(!plain.contains('\x1b'), "{variable:?}: {plain}");
    }
}

#[test]
fn the_help_of_training_fits_a_screen() {
    let dir = Dir::new();
    for command in ["train", "label", "completions", "man"] {
        let text = graft(&dir).args([command, "--help"]).stdout();
        assert!(text.lines().count() <= 50, "{text}");
    }
}
