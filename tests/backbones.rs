//! `graft backbones`: a mirror of the Hugging Face Hub as a source, its cache, and the rules of the environment.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use crate::support::{Dir, Finished, graft};

const WEIGHTS: &[u8] = b"not the weights that the registry knows";

/// Serves [`WEIGHTS`] as `me/net/model.safetensors` at the revision `v1`, and nothing else, until the test ends; returns
/// the address.
fn hub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that hangs up is its own affair.
            let _ = answer(stream);
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut start = 0;
    let mut end = WEIGHTS.len();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            let (first, last) = range.split_once('-').unwrap();
            start = first.parse().unwrap();
            end = last.parse().map_or(end, |last: usize| last + 1);
        }
    }
    if !request.starts_with("GET /me/net/resolve/v1/model.safetensors ") {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
    }
    let body = &WEIGHTS[start..end];
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {start}-{}/{}\r\n\
         etag: \"e7a6\"\r\nx-repo-commit: 0123456789abcdef\r\nconnection: close\r\n\r\n",
        body.len(),
        end - 1,
        WEIGHTS.len()
    )?;
    stream.write_all(body)
}

/// The registry's weights are nowhere on the test's Hub, so that a download ends in the comparison of hashes.
#[test]
fn weights_come_from_the_hub_that_the_environment_names_and_then_from_its_cache() {
    let dir = Dir::new();
    let fetch = |source: &str, endpoint: &str, offline: &str| -> Finished {
        graft(&dir)
            .args([
                "backbones",
                "fetch",
                "mobilenet_v2_0.35_96",
                "--from",
                source,
            ])
            .arg("--model-dir")
            .arg(dir.path("models"))
            .env("HF_HOME", dir.path("hub"))
            .env("HF_ENDPOINT", endpoint)
            .env("HF_HUB_OFFLINE", offline)
            .run()
            .expect_code(2)
    };
    let source = "hf:me/net/model.safetensors@v1";
    let address = hub();
    let found = graft_shared::digest::hex(&graft_shared::digest::sha256(WEIGHTS));
    let dead = "http://127.0.0.1:9";

    let refused = fetch(source, &address, "1").stderr;
    assert!(refused.contains("not in the Hub's cache"), "{refused}");
    let compared = fetch(source, &address, "0").stderr;
    assert!(
        compared.contains(&found) && compared.contains(source),
        "{compared}"
    );
    // From here on the file is in the Hub's cache.
    for (endpoint, offline) in [(dead, "1"), (dead, "0")] {
        let compared = fetch(source, endpoint, offline).stderr;
        assert!(compared.contains(&found), "{compared}");
    }

    let missing = fetch("hf:me/net/other.safetensors@v1", &address, "0").stderr;
    assert!(
        missing.contains("404") && missing.contains("hint: "),
        "{missing}"
    );
    let unreachable = fetch("hf:me/other/model.safetensors", dead, "0").stderr;
    assert!(
        unreachable.contains("hint: is there a network"),
        "{unreachable}"
    );
    assert!(!dir.path("models").exists(), "a wrong file was kept");
}
