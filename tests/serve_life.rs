//! `graft-device serve` from its start to its end: what systemd hears, new models while requests run, the end under load.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use graft_shared::files::write_atomic;
use graft_shared::labels::Labels;

use crate::support::{Client, Dir, Service, graft_device, long, model_with, skip, trained};

fn rose() -> Vec<u8> {
    std::fs::read(trained().photos.join("rose/000.jpg")).unwrap()
}

/// Stands for systemd.
struct Manager(UnixDatagram);

impl Manager {
    fn new(dir: &Dir) -> Self {
        let socket = UnixDatagram::bind(dir.path("notify")).unwrap();
        Self(socket)
    }

    /// The next message, unless none comes for that long.
    fn hear(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut bytes = [0; 4_096];
        let length = self.0.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// Waits for a message that begins so; others are passed over.
    #[track_caller]
    fn wait_for(&self, beginning: &str) -> String {
        loop {
            match self.hear(Duration::from_secs(60)) {
                Some(message) if message.starts_with(beginning) => return message,
                Some(_) => {}
                None => panic!("systemd never heard {beginning}"),
            }
        }
    }
}

/// The trained model with all labels behind a prefix.
fn relabelled(dir: &Dir, name: &str, prefix: &str) -> std::path::PathBuf {
    model_with(dir, name, |card| {
        let labels = card.labels.iter().map(|label| format!("{prefix}{label}"));
        card.labels = Labels::new(labels.collect()).unwrap();
    })
}

#[test]
fn systemd_hears_ready_alive_reloading_and_stopping() {
    let dir = Dir::new();
    let manager = Manager::new(&dir);
    let socket = dir.path("notify");
    let variables = [
        ("NOTIFY_SOCKET", socket.as_os_str()),
        ("WATCHDOG_USEC", OsStr::new("400000")),
    ];
    let arguments = ["--listen", "127.0.0.1:0"];
    let mut service = Service::start_with(&dir, &trained().model, &arguments, &variables);
    let ready = manager.hear(Duration::from_secs(60)).unwrap();
    assert!(ready.starts_with("READY=1\nSTATUS=serving at"), "{ready}");
    for _ in 0..3 {
        assert_eq!(manager.wait_for("WATCHDOG"), "WATCHDOG=1");
    }
    service.signal("HUP");
    let reloading = manager.wait_for("RELOADING=1\nMONOTONIC_USEC=");
    assert!(reloading.rsplit_once('=').unwrap().1.parse::<u64>().is_ok());
    assert!(
        manager
            .wait_for("READY=1")
            .contains("the model is the same")
    );
    service.signal("TERM");
    manager.wait_for("STOPPING=1");
    assert!(service.ended().success());
}

#[test]
fn a_model_that_computes_something_else_is_never_ready() {
    let dir = Dir::new();
    let manager = Manager::new(&dir);
    let model = model_with(&dir, "wrong.onnx", |card| card.probes[0].logits[0] += 0.5);
    let refused = graft_device(&dir)
        .arg("serve")
        .arg(model)
        .args(["--listen", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", dir.path("notify"))
        .run()
        .expect_code(2);
    assert!(refused.stderr.contains("probe 0"), "{}", refused.stderr);
    assert_eq!(manager.hear(Duration::from_millis(1)), None);
}

#[test]
fn a_worker_that_hangs_is_not_called_alive() {
    if Command::new("strace").arg("--version").output().is_err() {
        return skip("no strace, which can hold a thread");
    }
    let dir = Dir::new();
    let manager = Manager::new(&dir);
    let socket = dir.path("notify");
    let variables = [
        ("NOTIFY_SOCKET", socket.as_os_str()),
        ("WATCHDOG_USEC", OsStr::new("400000")),
    ];
    let arguments = ["--listen", "127.0.0.1:0"];
    let service = Service::start_with(&dir, &trained().model, &arguments, &variables);
    manager.wait_for("WATCHDOG");
    let thread = std::fs::read_dir(format!("/proc/{}/task", service.id()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap() == "engine-0\n");
    let thread = thread.unwrap().file_name().unwrap().to_owned();
    let mut holder = Command::new("strace")
        .args([
            "-e",
            "trace=futex",
            "-e",
            "inject=futex:delay_enter=60000000",
        ])
        .arg("-p")
        .arg(thread)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while manager.hear(Duration::from_secs(3)).is_some() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it is still called alive"
        );
    }
    // The rest of the service goes on.
    assert_eq!(service.client().get("/healthz").status, 200);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn new_models_come_in_under_load_without_a_failed_or_mixed_answer() {
    let swaps = if long() { 100 } else { 6 };
    let dir = Dir::new();
    let models = [
        relabelled(&dir, "0.onnx", "0-"),
        relabelled(&dir, "1.onnx", "1-"),
    ];
    let models = models.map(|model| std::fs::read(model).unwrap());
    let served = dir.write("model.onnx", &models[0]);
    let mut service = Service::start(&dir, &served);
    let version = |service: &Service| {
        let model = service.client().get("/v1/model").json();
        model["model_version"].as_str().unwrap().to_owned()
    };
    let first = version(&service);
    let done = AtomicBool::new(false);
    let answers = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let address = service.address();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (mut client, rose) = (Client::connect(address), rose());
                while !done.load(Ordering::Relaxed) {
                    let answer = client.post("/v1/label", &rose);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let answer = answer.json();
                    let second = answer["model_version"] != first.as_str();
                    let prefix = if second { "1-" } else { "0-" };
                    for candidate in answer["top"].as_array().unwrap() {
                        let label = candidate["label"].as_str().unwrap();
                        assert!(label.starts_with(prefix), "mixed: {answer}");
                    }
                    answers[usize::from(second)].fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(150));
                }
            });
        }
        for swap in 1..=swaps {
            write_atomic(&served, &models[swap % 2]).unwrap();
            // Without a signal it is found too.
            if swap != 2 {
                service.signal("HUP");
            }
            let line = service.wait_for("now serving version");
            assert_eq!(line.ends_with(&first), swap % 2 == 0, "{line}");
        }
        // What is no model changes nothing.
        write_atomic(&served, &models[1][..1_000]).unwrap();
        service.signal("HUP");
        service.wait_for("the old model stays");
        done.store(true, Ordering::Relaxed);
    });
    let [before, after] = answers.map(AtomicUsize::into_inner);
    assert!(before > 0 && after > 0, "{before} and {after} answers");
    assert_eq!(version(&service), first);
}

#[test]
fn the_end_under_load_cuts_no_answer() {
    let dir = Dir::new();
    let manager = Manager::new(&dir);
    let socket = dir.path("notify");
    let arguments = ["--listen", "127.0.0.1:0"];
    let variables = [("NOTIFY_SOCKET", socket.as_os_str())];
    let mut service = Service::start_with(&dir, &trained().model, &arguments, &variables);
    let address = service.address();
    let (answered, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let rose = rose();
                while !ended.load(Ordering::Relaxed) {
                    let Ok(mut client) = Client::try_connect(address) else {
                        return;
                    };
                    loop {
                        match client.request("POST", "/v1/label", &[], &rose) {
                            Ok(answer) => {
                                assert!([200, 503].contains(&answer.status), "{answer:?}");
                                answered.fetch_add(1, Ordering::Relaxed);
                                if answer.header("connection") == Some("close") {
                                    break;
                                }
                            }
                            // Closed between two answers, or before the first: nothing was begun.
                            Err(error) => {
                                let kinds = [ErrorKind::NotConnected, ErrorKind::ConnectionReset];
                                assert!(kinds.contains(&error.kind()), "cut: {error:?}");
                                break;
                            }
                        }
                    }
                }
            });
        }
        while answered.load(Ordering::Relaxed) < 50 {
            std::thread::sleep(Duration::from_millis(10));
        }
        service.signal("TERM");
        let start = Instant::now();
        manager.wait_for("STOPPING=1");
        assert!(service.ended().success());
        assert!(
            start.elapsed() < Duration::from_secs(7),
            "{:?}",
            start.elapsed()
        );
        ended.store(true, Ordering::Relaxed);
    });
}
