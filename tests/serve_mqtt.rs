//! `graft-device serve` with an MQTT broker, which comes and goes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use graft_shared::labels::Labels;
use serde_json::Value;

use crate::support::{Dir, Mosquitto, Service, Witness, model_with, skip, trained};

const PATIENCE: Duration = Duration::from_secs(120);

/// The broker, or why the test can't be.
fn broker(dir: &Dir, test: &str) -> Option<Mosquitto> {
    let broker = Mosquitto::start(dir);
    if broker.is_none() {
        skip(&format!(
            "no mosquitto, or no mosquitto_sub, which {test} needs"
        ));
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

    let sent = "graft_events_sent_total{sink=\"mqtt\"} 3";
    wait_until(sent, || {
        let metrics = service.client().get("/metrics").text();
        metrics.lines().any(|line| line == sent)
    });
    service.signal("KILL");
    assert_eq!(heard.wait_for("garden/gate/availability"), "offline");
    service = start();
    assert_eq!(heard.wait_for("garden/gate/availability"), "online");
    service.signal("TERM");
    assert!(service.ended().success());
    assert_eq!(heard.wait_for("garden/gate/availability"), "offline");
}

/// A camera whose every frame is an event, as long as there is a file `go`.
const CAMERA: &str =
    "while sleep 0.05 && [ -e rose.jpg ]; do [ ! -e go ] || cat rose.jpg || exit; done";

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
    dir.write(
        "rose.jpg",
        std::fs::read(trained().photos.join("rose/000.jpg")).unwrap(),
    );
    let arguments = ["--listen", "127.0.0.1:0", "--state", ".", "--every-frame"];
    let more = ["--command", CAMERA, "--lines", "lines", "--mqtt", &url];
    let arguments = [&arguments[..], &more].concat();
    let start = || Service::start_with(&dir, &trained().model, &arguments, &[]);
    let mut service = start();
    let written = || lines(&dir.path("lines")).len();
    let taken = || witness.acknowledged("test/state").len();
    let go = || drop(dir.write("go", ""));
    let pause = || {
        std::fs::remove_file(dir.path("go")).unwrap();
        let mut before = usize::MAX;
        wait_until("the last line", || {
            std::thread::sleep(Duration::from_millis(500));
            std::mem::replace(&mut before, written()) == written()
        });
    };
    go();
    for turn in 0..20 {
        let before = taken();
        wait_until("an event", || taken() > before + 5);
        if turn % 5 != 4 {
            std::thread::sleep(Duration::from_millis(1_100));
        }
        broker.kill();
        if turn == 10 {
            // All that was made is on the disk when the service is killed too.
            let before = written();
            wait_until("more events", || written() > before + 5);
            pause();
            let last = lines(&dir.path("lines")).pop().unwrap();
            wait_until("the last event in the file", || {
                std::fs::read_to_string(dir.path("mqtt-queue"))
                    .is_ok_and(|text| text.contains(&last))
            });
            service.signal("KILL");
            service.ended();
            service = start();
            go();
        }
        std::thread::sleep(Duration::from_millis(100));
        broker.start_again();
    }
    pause();
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
    wait_until("an empty file", || {
        std::fs::read(dir.path("mqtt-queue")).is_ok_and(|bytes| bytes.is_empty())
    });
    let metrics = service.client().get("/metrics").text();
    for line in [
        "graft_events_lost_total{sink=\"mqtt\"} 0",
        "graft_events_waiting{sink=\"mqtt\"} 0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{metrics}");
    }
    assert_eq!(service.client().get("/readyz").status, 200);
}
