//! `graft-device serve` with sources other than HTTP, and where their labels go.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Dir, Service, graft, long, skip, trained};

const PATIENCE: Duration = Duration::from_secs(60);

fn copy(dir: &Dir, picture: &str, name: &str) {
    dir.write(name, std::fs::read(trained().photos.join(picture)).unwrap());
}

/// Waits until `made` gives something.
#[track_caller]
fn wait_for<T>(what: &str, mut made: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(made) = made() {
            return made;
        }
        assert!(start.elapsed() < PATIENCE, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The JSON lines of a file, whole ones.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// The value of a line of `/metrics`.
fn metric(service: &Service, name: &str) -> f64 {
    let metrics = service.client().get("/metrics").text();
    let line = metrics
        .lines()
        .find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn serve(dir: &Dir, arguments: &[&str]) -> Service {
    let arguments = [&["--listen", "127.0.0.1:0", "--state", "."], arguments].concat();
    Service::start_with(dir, &trained().model, &arguments, &[])
}

/// A camera that shows the file `now`.
const CAMERA: &str = "while cat now; do sleep 0.05; done";

#[test]
fn a_commands_frames_are_labelled_and_changes_go_everywhere() {
    let dir = Dir::new();
    copy(&dir, "rose/000.jpg", "rose.jpg");
    copy(&dir, "tulip/000.jpg", "tulip.jpg");
    let show = |picture: &str| {
        std::fs::copy(dir.path(picture), dir.path("next")).unwrap();
        std::fs::rename(dir.path("next"), dir.path("now")).unwrap();
    };
    show("rose.jpg");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (sender, posted) = std::sync::mpsc::channel();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (turn, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut bytes = [0; 4_096];
            while !request.ends_with(b"}") {
                let length = stream.read(&mut bytes).unwrap();
                request.extend(&bytes[..length]);
            }
            // It is away at first, and then there.
            let status = if turn == 0 { "503 Away" } else { "200 OK" };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
            if turn > 0 {
                sender.send(String::from_utf8(request).unwrap()).unwrap();
            }
        }
    });
    let on_change =
        "echo \"$GRAFT_PREVIOUS>$GRAFT_LABEL ${NOTIFY_SOCKET-unset}\" >> changes; cat >> events";
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--command",
        CAMERA,
        "--lines",
        "lines",
        "--on-change",
        on_change,
        "--webhook",
        &url,
        "--hold",
        "0.2",
        "--smooth",
        "0.1",
    ];
    let notify = std::os::unix::net::UnixDatagram::bind(dir.path("notify")).unwrap();
    let variables = [("NOTIFY_SOCKET", dir.path("notify"))];
    let variables = variables
        .each_ref()
        .map(|(name, path)| (*name, path.as_os_str()));
    let mut service = Service::start_with(&dir, &trained().model, &arguments, &variables);
    drop(notify);

    let line = |count: usize| wait_for("a line", || lines(&dir.path("lines")).get(count).cloned());
    let first = line(0);
    assert_eq!(first["label"], "rose", "{first}");
    assert_eq!(
        (&first["source"], &first["changed"]),
        (&"command".into(), &true.into())
    );
    assert!(first["time"].as_str().unwrap().ends_with('Z'));
    show("tulip.jpg");
    let second = line(1);
    assert_eq!(second["label"], "tulip", "{second}");
    let changes = wait_for("the second change", || {
        let text = std::fs::read_to_string(dir.path("changes")).ok()?;
        (text.lines().count() == 2).then_some(text)
    });
    assert_eq!(changes, ">rose unset\nrose>tulip unset\n");
    for label in ["rose", "tulip"] {
        let request = posted.recv_timeout(PATIENCE).unwrap();
        assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
        let event: Value =
            serde_json::from_str(request.rsplit_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(event["label"], label);
    }
    assert_eq!(lines(&dir.path("events")), lines(&dir.path("lines")));

    // What the page shows.
    let live = service.client().get("/v1/live").json();
    assert_eq!(live["now"]["label"], "tulip");
    assert_eq!(live["history"].as_array().unwrap().len(), 2);
    let picture = service.client().get("/v1/live/picture");
    assert_eq!(picture.header("content-type"), Some("image/jpeg"));
    assert_eq!(picture.body, std::fs::read(dir.path("tulip.jpg")).unwrap());

    // A command that ends is started again.
    std::fs::remove_file(dir.path("now")).unwrap();
    service.wait_for("it is started again in 1 s");
    show("rose.jpg");
    assert_eq!(line(2)["label"], "rose");
    service.signal("TERM");
    assert!(service.ended().success());
}

#[test]
fn a_slow_engine_drops_frames_and_counts_them() {
    let dir = Dir::new();
    copy(&dir, "rose/000.jpg", "rose.jpg");
    // As fast as the pipe takes them.
    let camera = "cat rose.jpg > many; for n in 1 2 3 4 5 6 7; do cat many many > more; mv more many; done; \
                  while cat many; do :; done";
    let service = serve(&dir, &["--command", camera]);
    wait_for("a dropped frame", || {
        (metric(&service, "graft_frames_dropped_total") > 10.0).then_some(())
    });
    // Requests have their turn all the same.
    let answer = service
        .client()
        .post("/v1/label", &std::fs::read(dir.path("rose.jpg")).unwrap());
    assert_eq!(answer.status, 200);
}

#[test]
fn pictures_that_appear_in_a_folder_are_labelled_once() {
    let dir = Dir::new();
    copy(&dir, "rose/000.jpg", "in/old.jpg");
    let mut service = serve(&dir, &["--watch", "in", "--lines", "lines"]);
    copy(&dir, "rose/001.jpg", "in/a.jpg");
    copy(&dir, "tulip/007.png", "in/below/b.png");
    dir.write("in/c.jpg", "no picture");
    service.wait_for("can't label a picture of in/c.jpg");
    let found = wait_for("two lines", || {
        let lines = lines(&dir.path("lines"));
        (lines.len() >= 2).then_some(lines)
    });
    let mut paths: Vec<_> = found
        .iter()
        .map(|line| line["path"].as_str().unwrap())
        .collect();
    paths.sort_unstable();
    assert_eq!(paths, ["in/a.jpg", "in/below/b.png"]);
    // One that is written anew is new.
    copy(&dir, "tulip/000.jpg", "in/a.jpg");
    let third = wait_for("a third line", || lines(&dir.path("lines")).get(2).cloned());
    assert_eq!(
        (&third["path"], &third["label"]),
        (&"in/a.jpg".into(), &"tulip".into())
    );
}

#[test]
fn raw_frames_and_a_region_come_from_standard_input() {
    let dir = Dir::new();
    let photo = std::fs::read(trained().photos.join("rose/000.jpg")).unwrap();
    let pixels = graft_shared::decode::decode(&photo).unwrap();
    // The photo in the middle of black.
    let (width, height) = (pixels.width + 20, pixels.height + 10);
    let mut frame = vec![0; width * height * 3];
    for (y, row) in pixels.data.chunks_exact(pixels.width * 3).enumerate() {
        frame[((y + 5) * width + 10) * 3..][..row.len()].copy_from_slice(row);
    }
    dir.write("frame", frame);
    dir.write("rose.jpg", photo);
    let frames = format!("rgb24:{width}x{height}");
    let region = format!("10,5,{},{}", pixels.width, pixels.height);
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--command",
        "cat frame; sleep 60",
        "--lines",
        "lines",
    ];
    let arguments = [&arguments[..], &["--frames", &frames, "--region", &region]].concat();
    let service = Service::start_with(&dir, &trained().model, &arguments, &[]);
    let line = wait_for("a line", || lines(&dir.path("lines")).first().cloned());
    assert_eq!(line["label"], "rose", "{line}");
    let picture = service.client().get("/v1/live/picture");
    assert_eq!(picture.header("content-type"), Some("image/png"));
    let shown = graft_shared::decode::decode(&picture.body).unwrap();
    assert_eq!((shown.width, shown.height), (width, height));
}

#[test]
fn unsure_pictures_are_kept_as_training_reads_them() {
    let dir = Dir::new();
    let settings = "spool_below = 1.0\nspool_per_hour = 100000\nspool_megabytes = 1\n\
                    frames = \"rgb24:64x64\"\n";
    dir.write("serve.toml", settings);
    // Noise shows nothing.
    let camera = "while head -c 12288 /dev/urandom; do sleep 0.05; done";
    let service = serve(&dir, &["--config", "serve.toml", "--command", camera]);
    let kept = wait_for("a kept picture", || {
        let labels = std::fs::read_dir(dir.path("unsure")).ok()?;
        let pictures = labels.flat_map(|label| std::fs::read_dir(label.unwrap().path()).unwrap());
        let names: Vec<_> = pictures.map(|picture| picture.unwrap().path()).collect();
        names
            .iter()
            .find(|name| name.extension().is_some_and(|kind| kind == "png"))
            .cloned()
    });
    drop(service);
    let shown = graft_shared::decode::decode(&std::fs::read(&kept).unwrap()).unwrap();
    assert_eq!((shown.width, shown.height), (64, 64));
    for label in ["rose", "tulip"] {
        copy(
            &dir,
            &format!("{label}/000.jpg"),
            &format!("unsure/{label}/a.jpg"),
        );
    }
    let checked = graft(&dir).args(["check", "unsure"]).run();
    let label = kept
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();
    assert!(
        checked.stdout.contains(label),
        "{}{}",
        checked.stdout,
        checked.stderr
    );
}

/// Whether there is an ffmpeg; where there is none it is said.
fn ffmpeg(test: &str) -> bool {
    let there = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !there {
        skip(&format!("no ffmpeg is here, which {test} needs"));
    }
    there
}

#[test]
fn ffmpeg_is_a_source() {
    if !ffmpeg("ffmpeg_is_a_source") {
        return;
    }
    let dir = Dir::new();
    for (index, picture) in ["rose/000.jpg", "tulip/000.jpg"].iter().enumerate() {
        copy(&dir, picture, &format!("{index}.jpg"));
    }
    // Each picture for three seconds.
    let command =
        "ffmpeg -nostdin -loglevel error -re -framerate 1/3 -i %d.jpg -r 10 -f mjpeg -q:v 2 -";
    let service = serve(&dir, &["--command", command, "--lines", "lines"]);
    let labels = wait_for("two labels", || {
        let lines = lines(&dir.path("lines"));
        let labels = lines.iter().map(|line| line["label"].clone());
        (lines.len() >= 2).then(|| labels.collect::<Vec<_>>())
    });
    assert_eq!(labels[..2], [Value::from("rose"), "tulip".into()]);
    assert!(metric(&service, "graft_frames_total") > 10.0);
}

/// A stream over the network, as a camera's: 6 s of it, or 10 minutes with `GRAFT_LONG_TESTS`.
#[test]
fn a_network_stream_through_ffmpeg_loses_no_frame() {
    if !ffmpeg("a_network_stream_through_ffmpeg_loses_no_frame") {
        return;
    }
    let seconds = if long() { 600 } else { 6 };
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let source = format!("testsrc2=size=640x480:rate=10:duration={seconds}");
    let place = format!("tcp://127.0.0.1:{port}");
    let mut camera = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i"])
        .args([&source, "-c:v", "mpeg4", "-q:v", "4", "-f", "mpegts"])
        .arg(format!("{place}?listen=1"))
        .spawn()
        .unwrap();
    let dir = Dir::new();
    let command = format!(
        "ffmpeg -nostdin -loglevel error -analyzeduration 100k -i {place} -fps_mode passthrough -flush_packets 1 -f mjpeg -q:v 3 -"
    );
    let service = serve(&dir, &["--command", &command]);
    let frames = |name: &str| metric(&service, &format!("graft_frames{name}_total"));
    wait_for("the first frame", || (frames("") > 0.0).then_some(()));
    std::thread::sleep(Duration::from_secs(seconds / 10));
    let before = service.status("VmRSS");
    // What ffmpeg keeps until it knows the stream comes at once.
    let at_once = frames("_dropped");
    assert!(camera.wait().unwrap().success());
    // The stream is over when no more frames come.
    let mut seen = 0.0;
    wait_for("the last frame", || {
        std::thread::sleep(Duration::from_secs(1));
        let last = std::mem::replace(&mut seen, frames(""));
        (last == seen).then_some(())
    });
    let after = service.status("VmRSS");
    let (dropped, labelled) = (
        frames("_dropped"),
        metric(&service, "graft_pictures_total{outcome=\"labelled\"}"),
    );
    let sent = 10.0 * seconds as f64;
    let _ = writeln!(
        std::io::stderr(),
        "{sent} frames sent, {seen} seen, {labelled} labelled, {dropped} dropped ({at_once} at the beginning); {before} kB, then {after} kB"
    );
    assert_eq!(seen, sent);
    assert_eq!(labelled + dropped, seen);
    // The engine is faster; a busy machine may hold it up for a moment.
    assert!(
        dropped - at_once <= (0.01 * sent).max(6.0),
        "{dropped} dropped"
    );
    assert!(after <= before + 8_192, "{before} kB, then {after} kB");
}
