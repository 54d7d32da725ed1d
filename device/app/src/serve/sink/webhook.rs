//! A POST of each event to another service.

use std::sync::Arc;
use std::time::Duration;

use graft_shared::error::{Context, Error, Result};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

use super::{Event, Sink, Wanted};
use crate::say;
use crate::serve::pause::Pause;

/// Events that wait while the other side is away.
const ROOM: usize = 256;
/// Within this the other side must have answered.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where events are sent to.
#[derive(Debug)]
struct Target {
    uri: Uri,
    /// Host and port.
    authority: String,
}

/// Starts a task; needs the runtime.
///
/// # Errors
/// When the URL is none that can be reached: only `http` is spoken.
pub(crate) fn start(url: &str, wanted: Wanted) -> Result<Sink> {
    let target = parse(url)?;
    let (sink, events) = Sink::new("webhook", ROOM, wanted);
    tokio::spawn(send_each(target, events));
    Ok(sink)
}

fn parse(url: &str) -> Result<Target> {
    let refused = || format!("can't post to `{url}`");
    let uri: Uri = url.parse().with_context(refused)?;
    if uri.scheme_str() != Some("http") {
        return Err(Error::new(refused()).hint(
            "only http:// is spoken; for https run curl with --on-change, or a proxy on this machine",
        ));
    }
    let authority = uri.authority().with_context(refused)?;
    let port = authority.port_u16().unwrap_or(80);
    Ok(Target {
        authority: format!("{}:{port}", authority.host()),
        uri,
    })
}

/// Sends events in order, each until it is taken.
async fn send_each(target: Target, mut events: Receiver<Arc<Event>>) {
    while let Some(event) = events.recv().await {
        let mut pause = Pause::default();
        let mut told = false;
        loop {
            let sent = timeout(DEADLINE, send(&target, &event.json));
            match sent.await.unwrap_or_else(|_| Err(Error::new("no answer"))) {
                Ok(()) => break,
                Err(error) if !told => {
                    say(&format!("can't post to {}: {}", target.uri, error.line()))
                }
                Err(_) => {}
            }
            told = true;
            sleep(pause.next()).await;
        }
    }
}

/// # Errors
/// When the other side can't be reached, or is not able to take it now. What it refuses for good counts as taken.
async fn send(target: &Target, json: &str) -> Result<()> {
    let stream = TcpStream::connect(&target.authority)
        .await
        .context("can't connect")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .context("can't begin")?;
    let path = target
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, &target.authority)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(json.to_owned())))
        .context("can't write the request")?;
    let answer = async { sender.send_request(request).await };
    let (answer, _) = tokio::join!(answer, connection_until_done(connection));
    let status = answer.context("no answer")?.status();
    if status.is_server_error() || status == hyper::StatusCode::TOO_MANY_REQUESTS {
        return Err(Error::new(format!("the answer was {status}")));
    }
    if !status.is_success() {
        say(&format!("{} refused an event: {status}", target.uri));
    }
    Ok(())
}

/// What goes wrong with the connection the sender hears of.
async fn connection_until_done<C: Future>(connection: C) {
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_http_is_spoken() {
        let target = parse("http://example.org/hook?a=b").unwrap();
        assert_eq!(target.authority, "example.org:80");
        assert_eq!(parse("http://[::1]:9000").unwrap().authority, "[::1]:9000");
        for wrong in ["https://example.org", "example.org", "", "http://"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
