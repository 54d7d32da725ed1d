//! `POST /v1/label`: the bytes of one image get one JSON object; the files of a form one JSON object a line, as they are
//! done.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Either;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;

use super::form::{self, Form};
use super::problem::Problem;
use super::{JSON, Reply, body, ready, text};
use crate::serve::Service;
use crate::serve::model::{Ask, Failure};
use crate::serve::queue;

/// Objects, one a line.
const JSON_LINES: &str = "application/jsonl";
/// Lines that wait for the client.
const LINES: usize = 4;

pub(super) async fn label(
    service: &Arc<Service>,
    request: Request<Incoming>,
) -> Result<Reply, Problem> {
    let model = ready(service)?;
    let ask = ask(request.uri().query(), service.ask)?;
    body::check_encoding(request.headers())?;
    if let Some(boundary) = form::boundary(request.headers()) {
        let boundary = boundary.to_owned();
        let form = Form::new(request.into_body(), &boundary);
        return Ok(stream(service, form, ask));
    }
    let image = body::read(request.into_body(), &service.memory).await?;
    let answer = service
        .queue
        .offer(move || model.label(&image, ask, None))
        .await;
    let line = judge(service, answer)?;
    Ok(text(JSON, line))
}

/// What was asked for behind the `?`.
fn ask(query: Option<&str>, usual: Ask) -> Result<Ask, Problem> {
    let mut ask = usual;
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "top" => match value.parse::<NonZeroUsize>() {
                Ok(top) => ask.top = Some(top.get()),
                Err(_) => return Err(bad(format!("`top` is `{value}`, not a number above 0"))),
            },
            "threshold" => match value.parse::<f32>() {
                Ok(value) if (0.0..=1.0).contains(&value) => ask.threshold = Some(value),
                _ => {
                    return Err(bad(format!(
                        "`threshold` is `{value}`, not a number from 0 to 1"
                    )));
                }
            },
            _ => {
                return Err(bad(format!(
                    "there is no `{name}`; there are `top` and `threshold`"
                )));
            }
        }
    }
    Ok(ask)
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail).close()
}

/// The line of an answer, or the problem that it is.
fn judge(
    service: &Service,
    answer: Result<Result<(String, Duration), Failure>, queue::Refused>,
) -> Result<String, Problem> {
    let failed = |detail| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
    match answer {
        Ok(Ok((line, time))) => {
            service.metrics.labelled.count();
            service.metrics.label_time.record(time);
            Ok(line + "\n")
        }
        Ok(Err(Failure::Picture(error))) => {
            service.metrics.refused.count();
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.line()))
        }
        Ok(Err(Failure::Model(error))) => Err(failed(error.line())),
        Err(queue::Refused::Panicked) => Err(failed("labelling it panicked".to_owned())),
        Err(queue::Refused::Full) => Err(Problem::busy("too many pictures wait already")),
    }
}

/// The answers to a form, begun before the form's end is there.
fn stream(service: &Arc<Service>, form: Form, ask: Ask) -> Reply {
    let (lines, channel) = Channel::new(LINES);
    let service = service.clone();
    tokio::spawn(async move { each_file(&service, form, ask, lines).await });
    let mut reply = Response::new(Either::Right(channel));
    let content_type = HeaderValue::from_static(JSON_LINES);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

async fn each_file(service: &Service, mut form: Form, ask: Ask, mut lines: Sender<Bytes>) {
    loop {
        let (line, goes_on) = match form.next(&service.memory).await {
            Ok(None) => return,
            Ok(Some(file)) => {
                let name = file.name.clone();
                let line = label_file(service, file, ask).await;
                (
                    line.unwrap_or_else(|problem| refused(Some(&name), &problem)),
                    true,
                )
            }
            Err(problem) => (refused(None, &problem), false),
        };
        // A client that has gone wants no more.
        if lines.send_data(line.into()).await.is_err() || !goes_on {
            return;
        }
    }
}

/// Waits for its turn: a form brings its files one after the other, and so takes one place in the queue.
async fn label_file(service: &Service, file: form::File, ask: Ask) -> Result<String, Problem> {
    let model = ready(service)?;
    let answer = service
        .queue
        .wait(move || model.label(&file.bytes, ask, Some(&file.name)))
        .await;
    judge(service, answer)
}

/// A line of `label --json` for a file that can't be labelled.
#[derive(Serialize)]
struct Refused<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    error: &'a str,
}

fn refused(path: Option<&str>, problem: &Problem) -> String {
    let error = problem.detail();
    // Strings can always be written.
    serde_json::to_string(&Refused { path, error }).unwrap_or_default() + "\n"
}
