//! `graft-device serve`: answers, refusals, limits, who is let in.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Answer, Client, Dir, Service, graft_device, trained};

/// Bytes that a body may have.
const MOST: usize = 8 << 20;

fn photo(name: &str) -> Vec<u8> {
    std::fs::read(trained().photos.join(name)).unwrap()
}

/// An answer without what differs from run to run.
fn comparable(mut answer: Value) -> Value {
    let fields = answer.as_object_mut().unwrap();
    for name in ["path", "milliseconds", "model_version"] {
        fields.remove(name);
    }
    answer
}

/// What `label --json` says.
fn labelled(dir: &Dir, picture: &std::path::Path, arguments: &[&str]) -> Value {
    let line = graft_device(dir)
        .arg("label")
        .arg(&trained().model)
        .arg(picture)
        .arg("--json")
        .args(arguments)
        .stdout();
    comparable(serde_json::from_str(&line).unwrap())
}

/// A problem as RFC 9457 has it, with that status.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(problem["title"].is_string() && problem["detail"].is_string());
}

/// A form with files, as curl and browsers send it.
fn form(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in files {
        body.extend(
            format!(
                "--boundary\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\
                 Content-Type: image/jpeg\r\n\r\n"
            )
            .bytes(),
        );
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--boundary--\r\n");
    body
}

const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=boundary");

#[test]
fn answers_are_those_of_label() {
    let dir = Dir::new();
    let service = Service::start(&dir, &trained().model);
    let mut client = service.client();
    for name in ["rose/000.jpg", "gänseblümchen/000.jpg", "tulip/007.png"] {
        let answer = client.post("/v1/label", &photo(name));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let version = answer.json()["model_version"].as_str().unwrap().to_owned();
        assert_eq!(version.len(), 12);
        let path = trained().photos.join(name);
        assert_eq!(comparable(answer.json()), labelled(&dir, &path, &[]));
        // Whatever the client says that it is.
        let header = [("Content-Type", "text/plain; boundary=x")];
        let answer = client
            .request("POST", "/v1/label?top=2&threshold=1", &header, &photo(name))
            .unwrap();
        let asked = ["--top", "2", "--threshold", "1"];
        assert_eq!(comparable(answer.json()), labelled(&dir, &path, &asked));
    }
}

#[test]
fn a_form_of_files_gets_a_line_for_each() {
    let dir = Dir::new();
    let service = Service::start(&dir, &trained().model);
    let (rose, tulip) = (photo("rose/000.jpg"), photo("tulip/007.png"));
    let large = vec![0; MOST / 2];
    let body = form(&[
        ("rose.jpg", &rose),
        ("no \\\"picture\\\".txt", b"no picture"),
        ("empty", b""),
        ("large", &large),
        ("tulip.png", &tulip),
    ]);
    let answer = service
        .client()
        .request("POST", "/v1/label", &[FORM], &body)
        .unwrap();
    assert_eq!(answer.header("content-type"), Some("application/jsonl"));
    let text = answer.text();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<_> = lines
        .iter()
        .map(|line| line["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "rose.jpg",
            "no \"picture\".txt",
            "empty",
            "large",
            "tulip.png"
        ]
    );
    for line in &lines[1..4] {
        assert!(line["error"].is_string(), "{line}");
    }
    let path = trained().photos.join("tulip/007.png");
    assert_eq!(comparable(lines[4].clone()), labelled(&dir, &path, &[]));
    // Cut off, and too large.
    for body in [
        &body[..body.len() - 30],
        &form(&[("a", &vec![0; MOST + 1])]),
    ] {
        let answer = service
            .client()
            .request("POST", "/v1/label", &[FORM], body)
            .unwrap();
        let last = answer.text().lines().last().unwrap().to_owned();
        assert!(last.starts_with("{\"error\":"), "{last}");
    }
}

#[test]
fn what_is_wrong_is_a_problem_and_the_service_goes_on() {
    let dir = Dir::new();
    let service = Service::start(&dir, &trained().model);
    let rose = photo("rose/000.jpg");
    for (body, status) in [
        (&b"no picture"[..], 422),
        (b"", 422),
        (&rose[..rose.len() / 2], 422),
        (&vec![0; MOST], 422),
        (&vec![0; MOST + 1], 413),
    ] {
        assert_problem(&service.client().post("/v1/label", body), status);
    }
    for (method, target, headers, status) in [
        ("GET", "/v1/label", &[][..], 405),
        ("DELETE", "/v1/model", &[], 405),
        ("GET", "/none", &[], 404),
        ("POST", "/v1/label?top=0", &[], 400),
        ("POST", "/v1/label?threshold=50", &[], 400),
        ("POST", "/v1/label?tpo=3", &[], 400),
        ("POST", "/v1/label", &[("Content-Encoding", "gzip")], 415),
        ("GET", "/v1/model", &[("Host", "example.org")], 403),
    ] {
        let answer = service
            .client()
            .request(method, target, headers, b"x")
            .unwrap();
        assert_problem(&answer, status);
    }
    let target = format!("/{}", "a".repeat(3_000));
    assert_problem(&service.client().get(&target), 414);
    assert_eq!(service.client().post("/v1/label", &rose).status, 200);
}

#[test]
fn a_picture_that_would_take_too_much_memory_is_refused() {
    let dir = Dir::new();
    let service = Service::start(&dir, &trained().model);
    // The header of a BMP of 5,000 x 4,000 pixels, with nothing behind it.
    let mut header = vec![0; 54];
    header[..2].copy_from_slice(b"BM");
    for (place, number) in [
        (10, 54),
        (14, 40),
        (18, 5_000),
        (22, 4_000),
        (26, 1 | 24 << 16),
    ] {
        header[place..place + 4].copy_from_slice(&u32::to_le_bytes(number));
    }
    let answer = service.client().post("/v1/label", &header);
    assert_problem(&answer, 422);
    assert!(answer.text().contains("16000000"), "{}", answer.text());
}

#[test]
fn the_other_places_say_what_they_should() {
    let dir = Dir::new();
    let service = Service::start(&dir, &trained().model);
    let mut client = service.client();
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(client.get("/readyz").status, 200);
    let model = client.get("/v1/model").json();
    assert_eq!(model["model"]["labels"].as_array().unwrap().len(), 4);
    let answer = client.post("/v1/label", &photo("rose/000.jpg")).json();
    assert_eq!(answer["model_version"], model["model_version"]);
    client.post("/v1/label", b"no picture");
    let metrics = client.get("/metrics");
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    for line in [
        "graft_requests_total{path=\"/v1/label\",status=\"200\"} 1",
        "graft_requests_total{path=\"/v1/label\",status=\"422\"} 1",
        "graft_pictures_total{outcome=\"labelled\"} 1",
        "graft_label_seconds_count 1",
        "graft_connections 1",
    ] {
        assert!(
            metrics.text().lines().any(|other| other == line),
            "{line}\n{}",
            metrics.text()
        );
    }
    let api = client.get("/openapi.json").json();
    for path in [
        "/v1/label",
        "/v1/model",
        "/v1/live",
        "/v1/live/picture",
        "/healthz",
        "/readyz",
        "/metrics",
    ] {
        assert!(api["paths"][path].is_object(), "{path}");
    }
}

#[test]
fn others_need_the_token() {
    let dir = Dir::new();
    let refused = graft_device(&dir)
        .arg("serve")
        .arg(&trained().model)
        .args(["--listen", "0.0.0.0:0"])
        .run()
        .expect_code(2);
    assert!(
        refused.stderr.contains("--token-file"),
        "{}",
        refused.stderr
    );

    let arguments = ["--listen", "0.0.0.0:0", "--state", "."];
    let mut service = Service::start_with(&dir, &trained().model, &arguments, &[]);
    let token = std::fs::read_to_string(dir.path("token")).unwrap();
    let mode = std::fs::metadata(dir.path("token"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!((token.trim().len(), mode & 0o777), (64, 0o600));
    let port = service.address().port();
    let ask = |target, authorization: &str| {
        let headers = [("Authorization", authorization), ("Host", "board.local")];
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.request("GET", target, &headers, b"").unwrap()
    };
    let bearer = format!("Bearer {}", token.trim());
    for target in ["/v1/model", "/metrics"] {
        assert_eq!(ask(target, &bearer).status, 200);
        for wrong in [
            "",
            "Bearer ",
            "Bearer x",
            token.trim(),
            &bearer.to_uppercase(),
        ] {
            let answer = ask(target, wrong);
            assert_problem(&answer, 401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    for open in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(ask(open, "").status, 200);
    }
    // A new token counts from the next reload on.
    dir.write("token", "a token that somebody has written");
    service.signal("HUP");
    service.wait_for("the model is the same");
    assert_eq!(ask("/v1/model", &bearer).status, 401);
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    let headers = [("Authorization", "bearer a token that somebody has written")];
    assert_eq!(
        client
            .request("GET", "/v1/model", &headers, b"")
            .unwrap()
            .status,
        200
    );
}

#[test]
fn a_unix_socket_serves_too() {
    let dir = Dir::new();
    let arguments = ["--listen", "unix:socket"];
    let mut service = Service::start_with(&dir, &trained().model, &arguments, &[]);
    let answer =
        Client::connect_unix(&dir.path("socket")).post("/v1/label", &photo("rose/000.jpg"));
    assert_eq!(answer.json()["label"], "rose");
    // Nobody else takes the place of a living service; what a killed one left is no obstacle.
    let refused = graft_device(&dir)
        .arg("serve")
        .arg(&trained().model)
        .args(arguments)
        .run()
        .expect_code(2);
    assert!(
        refused.stderr.contains("can't listen"),
        "{}",
        refused.stderr
    );
    service.signal("KILL");
    service.ended();
    let mut service = Service::start_with(&dir, &trained().model, &arguments, &[]);
    service.signal("TERM");
    assert!(service.ended().success());
    assert!(!dir.path("socket").exists());
}

#[test]
fn a_full_queue_is_503_with_a_time_to_try_again() {
    let dir = Dir::new();
    let service = Service::start(&dir, &trained().model);
    let (rose, tulip) = (photo("rose/000.jpg"), photo("tulip/000.jpg"));
    let (done, busy) = (AtomicBool::new(false), AtomicBool::new(false));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..64 {
            let (picture, label) = if client % 2 == 0 {
                (&rose, "rose")
            } else {
                (&tulip, "tulip")
            };
            let (address, done, busy) = (service.address(), &done, &busy);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                while !done.load(Ordering::Relaxed) {
                    let answer = client.post("/v1/label", picture);
                    if answer.status == 200 {
                        assert_eq!(answer.json()["label"], label);
                    } else {
                        assert_problem(&answer, 503);
                        assert_eq!(answer.header("retry-after"), Some("1"));
                        busy.store(true, Ordering::Relaxed);
                    }
                    let late = start.elapsed() > Duration::from_secs(30);
                    if busy.load(Ordering::Relaxed) || late {
                        done.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(
        busy.load(Ordering::Relaxed),
        "64 clients never filled the queue"
    );
}

#[test]
fn the_configuration_file_has_a_key_for_each_flag() {
    let dir = Dir::new();
    dir.write(
        "serve.toml",
        "listen = \"127.0.0.1:0\"\nthreshold = 1.0\ntop = 1\n",
    );
    let service = Service::start_with(
        &dir,
        &trained().model,
        &["--config", "serve.toml", "--top", "2"],
        &[],
    );
    let answer = service
        .client()
        .post("/v1/label", &photo("rose/000.jpg"))
        .json();
    assert_eq!(answer["top"].as_array().unwrap().len(), 2);
    assert!(answer["unknown"] == true || answer["score"] == 1.0);
    drop(service);
    dir.write("wrong.toml", "lisen = \"127.0.0.1:0\"\n");
    let refused = graft_device(&dir)
        .args(["serve", "--config", "wrong.toml"])
        .run()
        .expect_code(2);
    assert!(refused.stderr.contains("lisen"), "{}", refused.stderr);
}
