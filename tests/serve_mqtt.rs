//! `graft-device serve` with an MQTT broker, which comes and goes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use graft_shared::labels::Labels;
use serde_json::Value;

use crate::support::{Dir, Mosquitto, Service, Witness, long, model_with, skip, trained};

const PATIENCE: Duration = Duration::from_secs(60);

/// The broker, or why the test can't be.
fn broker(dir: &Dir, test: &str) -> Option<Mosquitto> {
    let broker = Mosquitto::start(dir);
    if broker.is_none() {
        if long() {
            skip("no mosquitto, or no mosquitto_sub");
        }
        let _ = writeln!(
            std::io::stderr(),
            "skipped {test}: no mosquitto, or no mosquitto_sub here"
        );
    }
    broker
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn rename_into(dir: &Dir, picture: &str, name: &str) {
    std::fs::copy(trained().photos.join(picture), dir.path("next")).unwrap();
    std::fs::rename(dir.path("next"), dir.path(name)).unwrap();
}

#[test]
fn home_assistant_finds_the_label_and_hears_of_the_end() {
    let dir = Dir::new();
    let Some(broker) = broker(&dir, "home_assistant_finds_the_label_and_hears_of_the_end") else {
        return;
    };
    let heard = broker.subscribe("#");
    rename_into(&dir, "rose/000.jpg", "now");
    std::fs::copy(&trained().model, dir.path("model.onnx")).unwrap();
    let url = format!("mqtt://127.0.0.1:{}/garden/gate", broker.port);
    let camera = "while cat now; do sleep 0.05; done";
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--state",
        ".",
        "--command",
        camera,
    ];
    let arguments = [&arguments[..], &["--mqtt", &url]].concat();
    let start = || Service::start_with(&dir, &dir.path("model.onnx"), &arguments, &[]);
    let mut service = start();
    assert_eq!(heard.wait_for("garden/gate/availability"), "online");
    let label = json(&heard.wait_for("/label/config"));
    let score = json(&heard.wait_for("/score/config"));
    assert_eq!(label["state_topic"], "garden/gate/state");
    assert_eq!(label["device"], score["device"]);
    assert_eq!(label["device_class"], "enum");
    let options = label["options"].as_array().unwrap();
    assert!(options.contains(&"rose".into()), "{label}");
    assert_eq!(json(&heard.wait_for("garden/gate/state"))["label"], "rose");
    rename_into(&dir, "tulip/000.jpg", "now");
    assert_eq!(json(&heard.wait_for("garden/gate/state"))["label"], "tulip");
    // Who comes later sees it too.
    let late = broker.subscribe("garden/#");
    assert_eq!(json(&late.wait_for("garden/gate/state"))["label"], "tulip");

    // Home Assistant has started anew.
    broker.publish("homeassistant/status", "online");
    assert_eq!(json(&heard.wait_for("/label/config")), label);
    // The model is another one.
    let new = model_with(&dir, "new.onnx", |card| {
        let labels = card.labels.iter().map(|label| format!("new {label}"));
        card.labels = Labels::new(labels.collect()).unwrap();
    });
    std::fs::rename(new, dir.path("model.onnx")).unwrap();
    service.signal("HUP");
    let changed = json(&heard.wait_for("/label/config"));
    assert_eq!(changed["unique_id"], label["unique_id"]);
    let options = changed["options"].as_array().unwrap();
    assert!(options.contains(&"new rose".into()), "{changed}");
    assert_eq!(
        json(&heard.wait_for("garden/gate/state"))["label"],
        "new tulip"
    );

    service.signal("KILL");
    assert_eq!(heard.wait_for("garden/gate/availability"), "offline");
    service = start();
    assert_eq!(heard.wait_for("garden/gate/availability"), "online");
    service.signal("TERM");
    assert!(service.ended().success());
    assert_eq!(heard.wait_for("garden/gate/availability"), "offline");
}

/// Puts pictures into a folder, one after the other, each of which is an event.
struct Pictures {
    made: Arc<AtomicUsize>,
    running: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pictures {
    fn start(dir: &Dir) -> Self {
        let made = Arc::<AtomicUsize>::default();
        let running = Arc::new(AtomicBool::new(true));
        let picture = std::fs::read(trained().photos.join("rose/000.jpg")).unwrap();
        let (next, folder) = (dir.path("next.jpg"), dir.path("in"));
        let (count, run) = (made.clone(), running.clone());
        let thread = std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(25));
                if !run.load(Ordering::Relaxed) {
                    std::thread::park();
                    if !run.load(Ordering::Relaxed) {
                        return;
                    }
                }
                let number = count.fetch_add(1, Ordering::Relaxed);
                std::fs::write(&next, &picture).unwrap();
                std::fs::rename(&next, folder.join(format!("{number}.jpg"))).unwrap();
            }
        });
        Self {
            made,
            running,
            thread: Some(thread),
        }
    }

    /// Makes no more for now; gives how many there are.
    fn pause(&self) -> usize {
        self.running.store(false, Ordering::Relaxed);
        // Longer than one takes.
        std::thread::sleep(Duration::from_millis(200));
        self.made.load(Ordering::Relaxed)
    }

    fn go_on(&self) {
        self.running.store(true, Ordering::Relaxed);
        self.thread.as_ref().unwrap().thread().unpark();
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            std::thread::sleep(Duration::from_millis(50));
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The guarantee: each event is acknowledged by the broker at least once; first arrivals are in order; an event comes again on
/// another connection only. Here the broker is killed 20 times, at times in the middle of what had waited, and the service
/// once.
#[test]
fn nothing_is_lost_while_the_broker_is_killed_twenty_times() {
    let dir = Dir::new();
    let test = "nothing_is_lost_while_the_broker_is_killed_twenty_times";
    let Some(mut broker) = broker(&dir, test) else {
        return;
    };
    let witness = Witness::start(broker.port);
    let url = format!("mqtt://127.0.0.1:{}/test", witness.port);
    std::fs::create_dir(dir.path("in")).unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--state", ".", "--watch", "in"];
    let arguments = [&arguments[..], &["--lines", "lines", "--mqtt", &url]].concat();
    let start = || Service::start_with(&dir, &trained().model, &arguments, &[]);
    let mut service = start();
    let taken = || witness.acknowledged("test/state").len();
    let pictures = Pictures::start(&dir);
    for turn in 0..20 {
        let before = taken();
        wait_until("an event", || taken() > before + 5);
        if turn % 5 != 4 {
            std::thread::sleep(Duration::from_millis(1_100));
        }
        broker.kill();
        if turn == 10 {
            // All that was made is on the disk when the service is killed too.
            let made = pictures.pause();
            wait_until("the last line", || lines(&dir.path("lines")).len() == made);
            let last = lines(&dir.path("lines")).pop().unwrap();
            wait_until("the last event in the file", || {
                std::fs::read_to_string(dir.path("mqtt-queue"))
                    .is_ok_and(|text| text.contains(&last))
            });
            service.signal("KILL");
            service.ended();
            service = start();
            pictures.go_on();
        }
        std::thread::sleep(Duration::from_millis(100));
        broker.start_again();
    }
    let made = pictures.pause();
    wait_until("the last line", || lines(&dir.path("lines")).len() == made);
    let events = lines(&dir.path("lines"));
    wait_until("the last event", || {
        let last = witness.acknowledged("test/state").pop();
        last.is_some_and(|last| Some(&last.payload) == events.last())
    });

    let mut first = BTreeMap::new();
    let mut order = Vec::new();
    let mut again = 0;
    for event in witness.acknowledged("test/state") {
        match first.get(&event.payload) {
            None => {
                first.insert(event.payload.clone(), event.connection);
                order.push(event.payload);
            }
            Some(&connection) => {
                assert!(event.connection > connection, "{event:?} came twice");
                again += 1;
            }
        }
    }
    assert_eq!(order.len(), events.len());
    assert!(order == events, "the order is another one");
    let _ = writeln!(
        std::io::stderr(),
        "{} events, {again} of them twice",
        order.len()
    );
    let metrics = service.client().get("/metrics").text();
    for line in [
        "graft_events_lost_total{sink=\"mqtt\"} 0",
        "graft_events_waiting{sink=\"mqtt\"} 0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{metrics}");
    }
    assert_eq!(std::fs::read(dir.path("mqtt-queue")).unwrap(), b"");
    assert_eq!(service.client().get("/readyz").status, 200);
}
