//! What goes wrong with a request, as RFC 9457 has it: `application/problem+json`.

use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::{Reply, whole};

/// Seconds after which a client may try again when the service had no room.
const RETRY_SECONDS: &str = "1";

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            headers: Vec::new(),
        }
    }

    /// The service has no room or no model at the moment.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .header(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS))
    }

    pub(crate) fn wrong_method(allowed: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("only {allowed} is possible here"),
        )
        .header(ALLOW, HeaderValue::from_static(allowed))
    }

    /// What remains of the request is not read.
    pub(crate) fn close(self) -> Self {
        self.header(CONNECTION, HeaderValue::from_static("close"))
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

/// The members that RFC 9457 has.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let fields = Fields {
            kind: "about:blank",
            title: problem.status.canonical_reason().unwrap_or("error"),
            status: problem.status.as_u16(),
            detail: &problem.detail,
        };
        // Strings and a number can always be written.
        let json = serde_json::to_string(&fields).unwrap_or_default();
        let mut reply = Response::new(whole(json + "\n"));
        *reply.status_mut() = problem.status;
        let headers = reply.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.extend(problem.headers);
        reply
    }
}
