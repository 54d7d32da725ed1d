//! `graft-device serve` under load and under attack: many clients, slow ones, too large requests, too few files.
//!
//! Short by default; `GRAFT_LONG_TESTS=1` waits for every deadline and loads for ten minutes.

use std::io::{ErrorKind, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Client, Dir, Service, long, skip, trained};

/// kB that the service may take beside what it takes at rest.
const LOADED: u64 = 64 << 10;
/// kB that too large requests may cost.
const ATTACKED: u64 = 16 << 10;

fn photo(name: &str) -> Vec<u8> {
    std::fs::read(trained().photos.join(name)).unwrap()
}

/// A service that has labelled: its memory is that of one at rest.
fn started(dir: &Dir) -> Service {
    let service = Service::start(dir, &trained().model);
    for _ in 0..20 {
        service.client().post("/v1/label", &photo("rose/000.jpg"));
    }
    service
}

/// The time below which 99 of 100 are.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn many_clients_get_right_answers_or_a_time_to_try_again() {
    let dir = Dir::new();
    let service = started(&dir);
    let idle = service.status("VmRSS");
    let time = Duration::from_secs(if long() { 600 } else { 5 });
    let (labelled, busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let pictures = [
        ("rose", photo("rose/000.jpg")),
        ("tulip", photo("tulip/000.jpg")),
    ];
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..256 {
            let (label, picture) = &pictures[client % 2];
            let (address, labelled, busy) = (service.address(), &labelled, &busy);
            let client = move || {
                let mut client = Client::connect(address);
                while start.elapsed() < time {
                    let answer = client.post("/v1/label", picture);
                    match answer.status {
                        200 => {
                            assert_eq!(answer.json()["label"], *label);
                            labelled.fetch_add(1, Ordering::Relaxed);
                        }
                        503 => {
                            assert_eq!(answer.header("retry-after"), Some("1"));
                            busy.fetch_add(1, Ordering::Relaxed);
                            // A tenth of what it was asked for.
                            std::thread::sleep(Duration::from_millis(100));
                        }
                        _ => panic!("{answer:?}"),
                    }
                }
            };
            std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, client)
                .unwrap();
        }
    });
    let (labelled, busy) = (labelled.into_inner(), busy.into_inner());
    assert!(labelled > 50, "only {labelled} answers, {busy} times busy");
    let peak = service.status("VmHWM");
    assert!(peak < idle + LOADED, "{idle} kB at rest, at most {peak} kB");
}

#[test]
fn what_is_too_large_is_refused_early_and_costs_little() {
    let dir = Dir::new();
    let service = started(&dir);
    let idle = service.status("VmRSS");
    let post = "POST /v1/label HTTP/1.1\r\nHost: 127.0.0.1\r\n";
    let host = "Host: 127.0.0.1\r\n";
    let headers: String = (0..10_000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let target = "a".repeat(1 << 20);
    // What is sent, and which answers are right.
    let cases: [(&str, String, &[u16]); 12] = [
        (
            "a large body",
            format!("{post}Content-Length: 99999999999\r\n\r\n"),
            &[413],
        ),
        (
            "a negative length",
            format!("{post}Content-Length: -1\r\n\r\n"),
            &[400],
        ),
        (
            "two lengths",
            format!("{post}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"),
            &[400],
        ),
        (
            "a length and chunks",
            format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            &[400, 422],
        ),
        (
            "chunks in disguise",
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a bad chunk",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n"),
            &[400],
        ),
        (
            "compressed",
            format!("{post}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"),
            &[415],
        ),
        (
            "many headers",
            format!("GET / HTTP/1.1\r\n{host}{headers}\r\n"),
            &[431],
        ),
        (
            "a long header",
            format!("GET / HTTP/1.1\r\n{host}X: {target}\r\n\r\n"),
            &[431],
        ),
        (
            "a long target",
            format!("GET /{target} HTTP/1.1\r\n{host}\r\n"),
            &[414, 431],
        ),
        ("no HTTP", "\u{1}\u{2}\u{3}\u{4}\r\n\r\n".to_owned(), &[400]),
        (
            "HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            &[400, 505],
        ),
    ];
    for (name, bytes, statuses) in cases {
        let mut client = service.client();
        // The service may close before all is sent.
        let _ = client.send(bytes.as_bytes());
        match client.answer() {
            Ok(answer) => assert!(statuses.contains(&answer.status), "{name}: {answer:?}"),
            Err(error) => {
                let closed = [ErrorKind::NotConnected, ErrorKind::ConnectionReset];
                assert!(closed.contains(&error.kind()), "{name}: {error:?}");
            }
        }
        assert!(
            service.client().get("/healthz").status == 200,
            "after {name}"
        );
    }

    // A body without an end: refused when it is too large, not when it is there.
    let mut client = service.client();
    client
        .send(format!("{post}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[0; 1 << 16], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 64 << 20 && client.send(&chunk).is_ok() {
        sent += 1 << 16;
    }
    // What the system's buffers hold comes on top.
    assert!(sent < 48 << 20, "{sent} bytes were taken");

    // One after the other on one connection, not waited for.
    let mut client = service.client();
    let request = format!("GET /healthz HTTP/1.1\r\n{host}\r\n");
    client.send(request.repeat(100).as_bytes()).unwrap();
    for _ in 0..100 {
        assert_eq!(client.answer().unwrap().status, 200);
    }

    for target in [
        "/",
        "/v1",
        "/v1/",
        "/v1/label",
        "/v1/label/",
        "/v1/model",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//",
        "/v1//label",
        "/%00",
        "/v1/label?",
        "/v1/label?top",
        "/v1/label?top=%31",
        "/v1/label?&&&",
        "*",
        "http://example.org/",
        "/favicon.ico",
    ] {
        for method in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW",
        ] {
            let mut client = service.client();
            let sent = format!("{method} {target} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n");
            client.send(sent.as_bytes()).unwrap();
            let line = format!("{method} {target}");
            let answer = if method == "HEAD" {
                client.head()
            } else {
                client.answer()
            };
            let status = answer
                .unwrap_or_else(|error| panic!("{line}: {error}"))
                .status;
            assert!(status < 500, "{line}: {status}");
        }
    }
    let peak = service.status("VmHWM");
    assert!(
        peak < idle + ATTACKED,
        "{idle} kB at rest, at most {peak} kB"
    );
}

#[test]
fn slow_clients_are_closed_and_do_not_hold_up_others() {
    let dir = Dir::new();
    let service = started(&dir);
    let rose = photo("rose/000.jpg");
    let round = || {
        let times = (0..200).map(|_| {
            let start = Instant::now();
            let answer = service.client().post("/v1/label", &rose);
            assert_eq!(answer.status, 200, "{answer:?}");
            start.elapsed()
        });
        p99(times.collect())
    };
    let files = service.open_files();
    let quiet = round();
    let body = "POST /v1/label HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n";
    let head = "POST /v1/label HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ";
    // Clients of each kind: what they send at once, whether a byte a second follows, and when they are closed.
    let kinds = [
        ("", false, 10),
        (head, true, 10),
        (body, true, 30),
        (body, false, 30),
    ];
    let kinds = if long() { &kinds[..] } else { &kinds[..2] };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for (beginning, trickle, seconds) in kinds {
            for _ in 0..500 / kinds.len() {
                let stream = std::net::TcpStream::connect(service.address()).unwrap();
                (&stream).write_all(beginning.as_bytes()).unwrap();
                clients.push((stream, *trickle, *seconds, Instant::now()));
            }
        }
        let done = &done;
        let watched = scope.spawn(move || {
            while !clients.is_empty() {
                std::thread::sleep(Duration::from_secs(1));
                clients.retain_mut(|(stream, trickle, seconds, start)| {
                    if *trickle {
                        let _ = stream.write_all(b"a");
                    }
                    let open = is_open(stream);
                    // The linger, a second between two looks, and a busy machine.
                    let late = start.elapsed() > Duration::from_secs(*seconds + 8);
                    assert!(!(open && late), "open after {:?}", start.elapsed());
                    open
                });
            }
            done.store(true, Ordering::Relaxed);
        });
        // What else the machine does makes a round slower, never faster: the best of three counts.
        let allowed = 2 * quiet + Duration::from_millis(20);
        let rounds: Vec<_> = (0..3).map(|_| round()).collect();
        assert!(
            rounds.iter().any(|slow| *slow <= allowed),
            "{quiet:?} alone, {rounds:?} beside slow clients"
        );
        watched.join().unwrap();
    });
    let start = Instant::now();
    while service.open_files() > files {
        assert!(start.elapsed() < Duration::from_secs(10), "files stay open");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether the service has not closed; what it says is passed over.
fn is_open(stream: &mut std::net::TcpStream) -> bool {
    use std::io::Read;
    stream.set_nonblocking(true).unwrap();
    let open = loop {
        let mut bytes = [0; 1_024];
        match stream.read(&mut bytes) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    open
}

#[test]
fn a_client_that_never_reads_is_closed() {
    if !long() {
        return;
    }
    let dir = Dir::new();
    let service = started(&dir);
    let stream = std::net::TcpStream::connect(service.address()).unwrap();
    let request = "GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(1_000);
    let start = Instant::now();
    stream
        .set_write_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    while (&stream).write_all(request.as_bytes()).is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(50),
            "it is still open"
        );
    }
}

#[test]
fn too_few_files_pass_over() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        return skip("no prlimit");
    }
    let dir = Dir::new();
    let service = started(&dir);
    let limited = Command::new("prlimit")
        .args(["--pid", &service.id().to_string(), "--nofile=64:64"])
        .status();
    assert!(limited.unwrap().success());
    let clients: Vec<_> = (0..200)
        .map(|_| std::net::TcpStream::connect(service.address()).unwrap())
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    drop(clients);
    let start = Instant::now();
    let answer = service.client().post("/v1/label", &photo("rose/000.jpg"));
    assert_eq!(answer.status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_client_that_goes_away_costs_nothing() {
    let dir = Dir::new();
    let service = started(&dir);
    let rose = photo("rose/000.jpg");
    let files = service.open_files();
    for cut in (0..rose.len()).step_by(rose.len() / 50 + 1) {
        let mut stream = std::net::TcpStream::connect(service.address()).unwrap();
        let head = format!(
            "POST /v1/label HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n",
            rose.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&rose[..cut]).unwrap();
    }
    let mut client: Client = service.client();
    assert_eq!(client.post("/v1/label", &rose).status, 200);
    drop(client);
    let start = Instant::now();
    while service.open_files() > files {
        assert!(start.elapsed() < Duration::from_secs(10), "files stay open");
        std::thread::sleep(Duration::from_millis(100));
    }
}
