//! A form with files (`multipart/form-data`, RFC 7578), read part by part: of each file no more is held than a body may
//! have, of the rest no more than a head.

use graft_shared::limits::{BODY_DEADLINE, MAX_HEAD_BYTES};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use memchr::memmem;
use tokio::time::timeout;

use super::body::{Bytes, Memory, too_slow};
use super::problem::Problem;

/// A form as it comes in.
#[derive(Debug)]
pub(crate) struct Form<B = Incoming> {
    body: B,
    /// What comes between parts.
    delimiter: Vec<u8>,
    /// What is there and was not looked at.
    buffer: Vec<u8>,
}

/// A file of a form.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

/// The boundary that the headers of a form name; `None` where it is no form.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<&str> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (kind, parameters) = content_type.split_once(';')?;
    let form = kind.trim().eq_ignore_ascii_case("multipart/form-data");
    parameters
        .split(';')
        .filter_map(|parameter| parameter.trim().split_once('='))
        .find(|(name, _)| form && name.eq_ignore_ascii_case("boundary"))
        .map(|(_, value)| value.trim_matches('"'))
        .filter(|boundary| (1..=70).contains(&boundary.len()))
}

/// What a body of any kind gives next.
pub(crate) trait Chunks {
    /// The next bytes; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<hyper::body::Bytes>, Problem>;
}

impl Chunks for Incoming {
    async fn chunk(&mut self) -> Result<Option<hyper::body::Bytes>, Problem> {
        loop {
            match self.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(bad(&format!("it can't be read: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

fn bad(what: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        format!("the form is damaged: {what}"),
    )
    .close()
}

impl<B: Chunks> Form<B> {
    pub(crate) fn new(body: B, boundary: &str) -> Self {
        Self {
            body,
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first delimiter begins the body, and has no line break before it.
            buffer: b"\r\n".to_vec(),
        }
    }

    /// The next file; other fields are passed over. `None` at the end.
    ///
    /// # Errors
    /// When it is damaged, too large or too slow; then nothing more can come.
    pub(crate) async fn next(&mut self, memory: &Memory) -> Result<Option<File>, Problem> {
        timeout(BODY_DEADLINE, self.next_file(memory))
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    }

    async fn next_file(&mut self, memory: &Memory) -> Result<Option<File>, Problem> {
        loop {
            let delimiter = self.delimiter.clone();
            self.take_to(&delimiter).await?;
            let after = self.take_to(b"\n").await;
            if self.ended(&after) {
                return Ok(None);
            }
            // The line break before the headers, so that there may be none.
            self.buffer.splice(..0, *b"\r\n");
            let head = self.take_to(b"\r\n\r\n").await?;
            let Some(name) = file_name(&head) else {
                continue;
            };
            // And the one before a delimiter that follows at once.
            let bytes = self.content(memory).await?;
            return Ok(Some(File { name, bytes }));
        }
    }

    /// Whether what follows a delimiter says that it was the last.
    fn ended(&self, after: &Result<Vec<u8>, Problem>) -> bool {
        let line = after.as_deref().unwrap_or(&self.buffer);
        line.starts_with(b"--")
    }

    /// Takes what comes before `mark`, and the mark; at most a head's bytes.
    async fn take_to(&mut self, mark: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut looked_at = 0;
        loop {
            if let Some(at) = memmem::find(&self.buffer[looked_at..], mark) {
                let mut taken: Vec<u8> = self.buffer.drain(..looked_at + at + mark.len()).collect();
                taken.truncate(looked_at + at);
                return Ok(taken);
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(bad("its headers have no end"));
            }
            looked_at = self.buffer.len().saturating_sub(mark.len() - 1);
            if !self.fill().await? {
                return Err(bad("it is cut off"));
            }
        }
    }

    /// What comes before the next delimiter, which stays.
    async fn content(&mut self, memory: &Memory) -> Result<Bytes, Problem> {
        let mut bytes = memory.bytes();
        loop {
            let end = memmem::find(&self.buffer, &self.delimiter);
            // The last bytes may be the beginning of a delimiter.
            let sure = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            let length = end.unwrap_or(sure);
            bytes.push(&self.buffer[..length])?;
            self.buffer.drain(..length);
            if end.is_some() {
                return Ok(bytes);
            }
            if !self.fill().await? {
                return Err(bad("it is cut off"));
            }
        }
    }

    async fn fill(&mut self) -> Result<bool, Problem> {
        let chunk = self.body.chunk().await?;
        if let Some(chunk) = &chunk {
            self.buffer.extend_from_slice(chunk);
        }
        Ok(chunk.is_some())
    }
}

/// The name of the file that a part's headers tell of.
fn file_name(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let wanted = name.trim().eq_ignore_ascii_case("content-disposition");
        wanted.then_some(value)
    })?;
    let at = disposition.find("filename=")? + "filename=".len();
    let value = &disposition[at..];
    let Some(quoted) = value.strip_prefix('"') else {
        return value.split(';').next().map(|name| name.trim().to_owned());
    };
    let mut name = String::new();
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            // As curl writes it; browsers write %22.
            '\\' => name.extend(letters.next()),
            letter => name.push(letter),
        }
    }
    Some(name.replace("%22", "\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use super::*;

    impl Chunks for VecDeque<&[u8]> {
        async fn chunk(&mut self) -> Result<Option<hyper::body::Bytes>, Problem> {
            Ok(self.pop_front().map(hyper::body::Bytes::copy_from_slice))
        }
    }

    /// Names and bytes of a form's files, and what ended it.
    fn read(chunks: &[&[u8]]) -> (Vec<(String, Vec<u8>)>, Option<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let body: VecDeque<_> = chunks.iter().copied().collect();
        let (memory, mut files) = (Memory::new(), Vec::new());
        let mut form = Form::new(body, "x-y");
        loop {
            match runtime.block_on(form.next(&memory)) {
                Ok(Some(file)) => files.push((file.name, file.bytes.to_vec())),
                Ok(None) => return (files, None),
                Err(problem) => return (files, Some(problem.detail().to_owned())),
            }
        }
    }

    const FORM: &[u8] = b"preamble\r\n--x-y\r\n\
        Content-Disposition: form-data; name=\"a\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n\
        one\r\n--x-\r\n--x\r\n\r\n--x-y \r\n\
        content-disposition: form-data; name=\"note\"\r\n\r\nno file\r\n--x-y\r\n\r\nno headers\r\n--x-y\r\n\
        Content-Disposition: form-data; name=\"b\"; filename=\"q\\\"\\\\%22.png\"\r\n\r\n\r\n--x-y\r\n\
        Content-Disposition: form-data; filename=c\r\n\r\n\r\n\r\n--x-y--\r\nepilogue";

    #[test]
    fn files_are_found_wherever_chunks_end() {
        let files = [
            ("a.jpg".to_owned(), b"one\r\n--x-\r\n--x\r\n".to_vec()),
            ("q\"\\\".png".to_owned(), vec![]),
            ("c".to_owned(), b"\r\n".to_vec()),
        ];
        for cut in 0..=FORM.len() {
            let (found, error) = read(&[&FORM[..cut], &FORM[cut..]]);
            assert_eq!((&found[..], error), (&files[..], None), "cut at {cut}");
        }
        let bytes: Vec<_> = FORM.chunks(1).collect();
        assert_eq!(read(&bytes).0, files);
    }

    #[test]
    fn what_is_no_form_ends_with_a_reason_and_bounded_memory() {
        let end = FORM.len() - b"--\r\nepilogue".len();
        for cut in 0..end {
            let (_, error) = read(&[&FORM[..cut]]);
            assert_eq!(
                error.as_deref(),
                Some("the form is damaged: it is cut off"),
                "{cut}"
            );
        }
        let endless = vec![b'a'; 4_096];
        let (_, error) = read(&vec![&endless[..]; 100]);
        assert_eq!(
            error.as_deref(),
            Some("the form is damaged: its headers have no end")
        );
        let mut large = vec![&FORM[..120], b"\r\n\r\n"];
        large.extend(vec![&endless[..]; 4_096]);
        let (files, error) = read(&large);
        assert!(files.is_empty() && error.unwrap().starts_with("a picture may have"));
    }

    #[test]
    fn boundaries_are_read_from_the_content_type() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            boundary(&headers).map(str::to_owned)
        };
        let x = Some("x".to_owned());
        assert_eq!(of("multipart/form-data; boundary=x"), x);
        assert_eq!(of("Multipart/Form-Data; charset=utf-8; Boundary=\"x\""), x);
        for none in [
            "image/jpeg",
            "multipart/form-data",
            "text/plain; boundary=x",
            "multipart/form-data; boundary=",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
