//! The HTTP side: which request gets which answer.
//!
//! | module | duty |
//! |---|---|
//! | `connection` | how many connections, how long each may take |
//! | `access` | who is let in |
//! | `body`, `form` | what comes in, bounded |
//! | `label` | `POST /v1/label` |
//! | `problem` | what goes wrong, as RFC 9457 has it |
//! | `metrics` | what is counted |

pub(crate) mod access;
pub(crate) mod body;
pub(crate) mod connection;
mod form;
mod label;
pub(crate) mod metrics;
mod problem;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use graft_shared::error::Error;
use graft_shared::limits::MAX_TARGET_BYTES;
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use super::Service;
use super::stream::Live;
use crate::info::Info;

use self::problem::Problem;

/// What goes out: all at once, or line by line.
pub(crate) type Body = Either<Full<Bytes>, Channel<Bytes>>;
/// An answer.
pub(crate) type Reply = Response<Body>;

const JSON: &str = "application/json";
/// The version of the text format, which Prometheus asks for.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENAPI: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("page.html");
/// The page takes nothing from elsewhere, and nobody puts it into another.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    img-src blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// A worker that is at one picture for longer than this hangs.
const HANGING: Duration = Duration::from_secs(30);

/// All places, and the method of each. `HEAD` goes where `GET` does.
const PLACES: [(&str, &str); 9] = [
    ("/", "GET"),
    ("/v1/label", "POST"),
    ("/v1/model", "GET"),
    ("/v1/live", "GET"),
    ("/v1/live/picture", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
    ("/openapi.json", "GET"),
];

/// What anyone may see: that the service lives, how to talk to it, and the page, which has nothing in it but a program.
const OPEN: [&str; 4] = ["/", "/healthz", "/readyz", "/openapi.json"];

/// Answers a request, whatever it is.
pub(crate) async fn answer(service: &Arc<Service>, request: Request<Incoming>) -> Reply {
    let place = PLACES
        .into_iter()
        .find(|(path, _)| *path == request.uri().path());
    let reply = match route(service, request, place).await {
        Ok(reply) => reply,
        Err(problem) => problem.into(),
    };
    let path = place.map_or("other", |(path, _)| path);
    service.metrics.answered(path, reply.status().as_u16());
    reply
}

async fn route(
    service: &Arc<Service>,
    request: Request<Incoming>,
    place: Option<(&'static str, &'static str)>,
) -> Result<Reply, Problem> {
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        let detail = format!("the target has more than {MAX_TARGET_BYTES} bytes");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, detail).close());
    }
    let Some((path, method)) = place else {
        let detail = "there is nothing here; `/openapi.json` says what there is";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let typed = request.method();
    if typed.as_str() != method && !(method == "GET" && typed == Method::HEAD) {
        return Err(Problem::wrong_method(method));
    }
    if !OPEN.contains(&path) {
        service.access.check(request.headers())?;
    }
    match path {
        "/v1/label" => label::label(service, request).await,
        "/" => Ok(page()),
        "/v1/model" => model(service),
        "/v1/live" => live(service).map(|live| text(JSON, live.json())),
        "/v1/live/picture" => picture(service),
        "/metrics" => Ok(text(PROMETHEUS, service.metrics.text(service))),
        "/openapi.json" => Ok(text(JSON, OPENAPI)),
        "/readyz" => {
            ready(service)?;
            Ok(text("text/plain", "ready\n"))
        }
        _ if service.queue.longest() < HANGING => Ok(text("text/plain", "ok\n")),
        _ => Err(Problem::busy("a picture is taking too long")),
    }
}

/// # Errors
/// 503 before there is a model, and when the service is about to end.
fn ready(service: &Service) -> Result<Arc<super::model::Model>, Problem> {
    if service.draining.load(Ordering::Relaxed) {
        return Err(Problem::busy("the service is stopping").close());
    }
    let model = service.models.current();
    model.ok_or_else(|| Problem::busy("the model is not there yet"))
}

/// What `info --json` says of the model, and its version.
fn model(service: &Service) -> Result<Reply, Problem> {
    let model = ready(service)?;
    let fields = serde_json::json!({
        "model_version": model.version,
        "model": Info::from(&model.engine),
    });
    Ok(text(JSON, format!("{fields}\n")))
}

/// # Errors
/// 404 where pictures come over HTTP alone.
fn live(service: &Service) -> Result<&Live, Problem> {
    let missing = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "this service has no source of pictures",
        )
    };
    service
        .has_source
        .then_some(&service.live)
        .ok_or_else(missing)
}

/// The last frame of the source.
fn picture(service: &Service) -> Result<Reply, Problem> {
    let frame = live(service)?.frame();
    let frame = frame.ok_or_else(|| Problem::busy("there is no picture yet"))?;
    let failed = |error: Error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.line());
    let (bytes, content_type) = frame.picture.file().map_err(failed)?;
    Ok(text(content_type, bytes))
}

fn page() -> Reply {
    let mut reply = text("text/html; charset=utf-8", PAGE);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    reply
}

/// An answer of that type.
fn text(content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(whole(body));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

fn whole(body: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(body.into()))
}
