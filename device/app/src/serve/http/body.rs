//! A request's body in memory: bounded in bytes and in time, and all bodies together in bytes.

use std::sync::Arc;

use graft_shared::limits::{BODY_DEADLINE, MAX_BODIES_BYTES, MAX_BODY_BYTES};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::problem::Problem;

/// Memory is taken in steps of 64 KiB at least.
const SMALLEST_STEP: usize = 64 << 10;

/// The memory that all bodies share.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES_BYTES)))
    }

    /// A body to be filled.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes {
            bytes: Vec::new(),
            memory: self.clone(),
            held: None,
        }
    }
}

/// Bytes, and their share of the memory.
#[derive(Debug)]
pub(crate) struct Bytes {
    bytes: Vec<u8>,
    memory: Memory,
    held: Option<OwnedSemaphorePermit>,
}

impl Bytes {
    /// # Errors
    /// 413 when it gets larger than a body may be, 503 when others hold the memory.
    pub(crate) fn push(&mut self, more: &[u8]) -> Result<(), Problem> {
        let length = self.bytes.len() + more.len();
        if length > MAX_BODY_BYTES {
            return Err(too_large());
        }
        if length > self.bytes.capacity() {
            self.grow(length)?;
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    fn grow(&mut self, length: usize) -> Result<(), Problem> {
        let before = self.bytes.capacity();
        let doubled = (2 * before).clamp(SMALLEST_STEP, MAX_BODY_BYTES);
        let capacity = doubled.max(length);
        let memory = self.memory.0.clone();
        let more = memory
            .try_acquire_many_owned((capacity - before) as u32)
            .map_err(|_| Problem::busy("too many requests at once").close())?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

fn too_large() -> Problem {
    let detail = format!("a picture may have {MAX_BODY_BYTES} bytes, this one has more");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).close()
}

/// What took too long.
pub(crate) fn too_slow() -> Problem {
    let detail = format!("it was not there within {} s", BODY_DEADLINE.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, detail).close()
}

/// Refuses a body that is compressed: a picture is already, and a small body could become a large one.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if plain {
        return Ok(());
    }
    let detail = "the body may not be compressed";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).close())
}

/// The whole body.
pub(crate) async fn read(mut body: Incoming, memory: &Memory) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut bytes = memory.bytes();
    let read = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let detail = format!("the body can't be read: {error}");
                Problem::new(StatusCode::BAD_REQUEST, detail).close()
            })?;
            if let Some(data) = frame.data_ref() {
                bytes.push(data)?;
            }
        }
        Ok(())
    };
    timeout(BODY_DEADLINE, read)
        .await
        .unwrap_or_else(|_| Err(too_slow()))?;
    Ok(bytes)
}
