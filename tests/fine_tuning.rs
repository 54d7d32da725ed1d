//! Fine-tuning as a user runs it: it ends, it can be stopped, killed and resumed, and begun with an earlier run.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Dir, TestCommand, graft, make_pictures};

/// Two labels of twenty small pictures, trained in a few seconds.
fn train(dir: &Dir, run: &str, threads: &str) -> TestCommand {
    graft(dir)
        .args(["train", "photos", "--run", run, "--threads", threads])
        .args(["--bottleneck-dir", "bottlenecks", "--image-size", "64"])
        .args(["--epochs", "4", "--set", "train_batch_size=8"])
}

fn weights(dir: &Dir, run: &str) -> Vec<u8> {
    std::fs::read(dir.path(&format!("{run}/checkpoint/weights.safetensors"))).unwrap()
}

/// Ends a run of one thread after its first epoch, by `signal`.
fn interrupt(dir: &Dir, run: &str, signal: &str) {
    let mut child = train(dir, run, "1")
        .into_command()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let log = dir.path(&format!("{run}/log.jsonl"));
    let started = Instant::now();
    while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("epoch")) {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(
            started.elapsed() < Duration::from_secs(300),
            "no epoch ends"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = dir.command("kill").args([signal, &child.id().to_string()]);
    sent.run().expect_code(0);
    child.wait().unwrap();
    assert!(!dir.path(&format!("{run}/model.onnx")).exists());
}

#[test]
fn a_stopped_and_a_killed_run_end_with_the_weights_of_one_that_was_not() {
    let dir = Dir::new();
    make_pictures(&dir.path("photos"), 2, 20);
    let whole = train(&dir, "whole", "2").run().expect_code(0);
    assert!(
        whole.stderr.contains("fine-tuning: 4 epochs"),
        "{}",
        whole.stderr
    );
    assert!(whole.stdout.contains("int8 (device)"), "{}", whole.stdout);
    for signal in ["-TERM", "-KILL"] {
        let run = &format!("run{signal}");
        interrupt(&dir, run, signal);
        let resumed = train(&dir, run, "2").arg("--resume").run().expect_code(0);
        assert!(
            resumed.stderr.contains("goes on after step"),
            "{}",
            resumed.stderr
        );
        assert!(weights(&dir, run) == weights(&dir, "whole"), "{signal}");
    }

    // Another run begins with these weights; one of another backbone is refused.
    let from = |run: &str| {
        let command = train(&dir, run, "2").args(["--from", "whole/model.onnx"]);
        command.args(["--recipe", "head"])
    };
    from("later").run().expect_code(0);
    let other = from("other").args(["--backbone", "efficientnet_lite1"]);
    let said = other.run().expect_code(2).stderr;
    assert!(
        said.contains("hint: give `--backbone efficientnet_lite0`"),
        "{said}"
    );
}

#[test]
fn a_step_takes_fewer_photos_where_memory_is_short() {
    let dir = Dir::new();
    make_pictures(&dir.path("photos"), 2, 20);
    let train = graft(&dir)
        .args(["train", "photos", "--run", "run", "--threads", "2"])
        .args(["--bottleneck-dir", "bottlenecks"])
        .args(["--how_many_training_steps", "2"])
        .into_command();
    let said = dir
        .command("prlimit")
        .arg("--as=1100000000")
        .arg(train.get_program())
        .args(train.get_args())
        .run()
        .expect_code(0)
        .stderr;
    assert!(said.contains("photos a step: 16 need about"), "{said}");
}

#[test]
fn a_setting_that_does_not_exist_is_refused_with_those_that_do() {
    let dir = Dir::new();
    make_pictures(&dir.path("photos"), 2, 8);
    for (setting, said) in [
        ("epohcs=3", "label_smoothing"),
        ("mixup=7", "mixup of 7"),
        ("optimizer=lion", "`lion`"),
    ] {
        let command = train(&dir, "run", "1").args(["--set", setting]);
        let stderr = command.run().expect_code(2).stderr;
        assert!(stderr.contains(said), "{stderr}");
    }
}
