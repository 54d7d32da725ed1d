//! Events that wait until the broker has taken them: in memory, and in a file where they wait for long.
//!
//! The file is text, a record a line: the first digits of the SHA-256 of what follows, a number, and the event. A record without an
//! event says that all events with smaller numbers are done. A line that was cut off or damaged counts for nothing.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use graft_shared::digest::{hex, sha256};
use graft_shared::error::{Context, Error, Result};
use graft_shared::files::write_atomic;

/// Events that wait at most; the oldest go first.
pub(super) const MAX_EVENTS: usize = 10_000;
/// Bytes of all events that wait, at most: 8 MiB, 800 for each.
const MAX_BYTES: usize = 8 << 20;
/// Bytes of records that are done before the file is written anew without them.
const MAX_DONE_BYTES: usize = MAX_BYTES;
/// An event that waits for longer goes to the file, also while the broker is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a record's digest, half as many as its digits.
const DIGEST_BYTES: usize = 4;

/// An event, and its number.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) json: String,
    since: Instant,
    taken: bool,
}

/// The events, oldest first, and the file.
#[derive(Debug)]
pub(super) struct Queue {
    path: PathBuf,
    waiting: VecDeque<Waiting>,
    /// Of all events that wait.
    bytes: usize,
    /// The next event's number.
    next: u64,
    /// Events below this number are in the file.
    kept: u64,
    /// The file says that events below this number are done.
    told_done: u64,
    /// Bytes of the file; `None` where what it holds is not known, so that it has to be written anew.
    file_bytes: Option<usize>,
}

impl Queue {
    /// Takes up what an earlier run left in the file.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let message = format!("can't read the events that wait in {}", path.display());
                return Err(Error::new(message).source(error));
            }
        };
        let mut queue = Self {
            path: path.to_path_buf(),
            waiting: VecDeque::new(),
            bytes: 0,
            next: 0,
            kept: 0,
            told_done: 0,
            file_bytes: match text.last() {
                None | Some(b'\n') => Some(text.len()),
                Some(_) => None,
            },
        };
        let mut records = text.split(|&byte| byte == b'\n').peekable();
        while let Some(line) = records.next() {
            match record(line) {
                Some((number, Some(json))) if number >= queue.next => {
                    queue.next = number;
                    queue.push(json.to_owned());
                }
                Some((number, None)) => {
                    queue.next = queue.next.max(number);
                    queue.told_done = queue.told_done.max(number);
                }
                // After the last line's end.
                None if line.is_empty() && records.peek().is_none() => {}
                _ => queue.file_bytes = None,
            }
        }
        while queue.first().is_some_and(|first| first < queue.told_done) {
            queue.drop_first();
        }
        queue.kept = queue.next;
        Ok(queue)
    }

    /// Adds an event; gives how many of the oldest had to go for it.
    pub(super) fn push(&mut self, json: String) -> u64 {
        self.bytes += json.len();
        self.waiting.push_back(Waiting {
            number: self.next,
            json,
            since: Instant::now(),
            taken: false,
        });
        self.next += 1;
        let mut lost = 0;
        while self.waiting.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            self.drop_first();
            lost += 1;
        }
        lost
    }

    /// The broker has taken the event.
    pub(super) fn taken(&mut self, number: u64) {
        let place = self.waiting.partition_point(|event| event.number < number);
        if let Some(event) = self.waiting.get_mut(place)
            && event.number == number
        {
            event.taken = true;
        }
        while self.waiting.front().is_some_and(|event| event.taken) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(event) = self.waiting.pop_front() {
            self.bytes -= event.json.len();
        }
    }

    /// The events from that number on, oldest first.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = &Waiting> {
        let place = self.waiting.partition_point(|event| event.number < number);
        self.waiting.range(place..)
    }

    /// The oldest event's number.
    pub(super) fn first(&self) -> Option<u64> {
        self.waiting.front().map(|event| event.number)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Brings the file up to date. While the broker is there (`away` is false), what waits for a moment only does not go there:
    /// cards wear out.
    ///
    /// # Errors
    /// When the file can't be written; the next call tries again.
    pub(super) fn keep(&mut self, away: bool) -> Result<()> {
        let Some(oldest) = self.waiting.front() else {
            return self.clear();
        };
        let (first, late) = (oldest.number, oldest.since.elapsed() > PATIENCE);
        let done = self.file_bytes != Some(0) && self.told_done < first;
        let new = (away || late) && self.kept < self.next;
        if self.file_bytes.is_some() && !done && !new {
            return Ok(());
        }
        let mut text = String::new();
        match self.file_bytes {
            // The first record makes the file, in a folder that must know of it after a power cut.
            Some(bytes @ 1..) if bytes < self.bytes + MAX_DONE_BYTES => {
                if done {
                    add_record(&mut text, first, None);
                }
                if new {
                    self.from(self.kept)
                        .for_each(|event| add_record(&mut text, event.number, Some(&event.json)));
                }
                // Until it is written nobody knows what the file holds.
                self.file_bytes = None;
                append(&self.path, text.as_bytes(), new)?;
                self.file_bytes = Some(bytes + text.len());
            }
            _ => {
                self.from(0)
                    .for_each(|event| add_record(&mut text, event.number, Some(&event.json)));
                write_atomic(&self.path, text.as_bytes())?;
                self.file_bytes = Some(text.len());
                self.kept = self.next;
            }
        }
        self.told_done = first;
        if new {
            self.kept = self.next;
        }
        Ok(())
    }

    /// Nothing waits: the file is empty.
    fn clear(&mut self) -> Result<()> {
        if self.file_bytes == Some(0) {
            return Ok(());
        }
        self.file_bytes = None;
        File::create(&self.path).with_context(|| format!("can't clear {}", self.path.display()))?;
        self.file_bytes = Some(0);
        self.kept = self.next;
        Ok(())
    }
}

fn add_record(text: &mut String, number: u64, json: Option<&str>) {
    let content = match json {
        Some(json) => format!("{number} {json}"),
        None => number.to_string(),
    };
    text.push_str(&digest(content.as_bytes()));
    text.push(' ');
    text.push_str(&content);
    text.push('\n');
}

fn digest(content: &[u8]) -> String {
    hex(&sha256(content)[..DIGEST_BYTES])
}

/// The number of a record, and its event if it has one; `None` when it is damaged.
fn record(line: &[u8]) -> Option<(u64, Option<&str>)> {
    let (said, content) = line.split_at_checked(2 * DIGEST_BYTES)?;
    let content = content.strip_prefix(b" ")?;
    if said != digest(content).as_bytes() {
        return None;
    }
    let content = std::str::from_utf8(content).ok()?;
    match content.split_once(' ') {
        Some((number, json)) => Some((number.parse().ok()?, Some(json))),
        None => Some((content.parse().ok()?, None)),
    }
}

/// Adds to the file, and waits until it is on the disk where that matters.
fn append(path: &Path, bytes: &[u8], sync: bool) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(bytes)?;
        if sync { file.sync_data() } else { Ok(()) }
    };
    write().with_context(|| format!("can't write to {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn events(queue: &Queue) -> Vec<&str> {
        queue.from(0).map(|event| event.json.as_str()).collect()
    }

    fn with(path: &Path, events: &[&str]) -> Queue {
        let mut queue = Queue::open(path).unwrap();
        for event in events {
            assert_eq!(queue.push((*event).to_owned()), 0);
        }
        queue
    }

    #[test]
    fn what_waits_is_there_after_a_new_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue");
        let mut queue = with(&path, &["a", "b b", "c"]);
        // The broker is there and quick: the file is not touched.
        queue.keep(false).unwrap();
        assert!(!path.exists());
        queue.keep(true).unwrap();
        let mut again = Queue::open(&path).unwrap();
        assert_eq!(events(&again), ["a", "b b", "c"]);
        again.push("d".to_owned());
        again.taken(0);
        // Not in order.
        again.taken(2);
        again.keep(true).unwrap();
        assert_eq!(events(&Queue::open(&path).unwrap()), ["b b", "c", "d"]);
        for number in [1, 3] {
            again.taken(number);
        }
        assert_eq!(again.len(), 0);
        again.keep(false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert_eq!(Queue::open(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_line_that_was_cut_off_or_damaged_costs_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue");
        with(&path, &["first", "second", "third"])
            .keep(true)
            .unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let mut queue = Queue::open(&path).unwrap();
            let lines = whole[..length]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            let there = queue.len();
            // The last line may lack its end only.
            assert!(there == lines || there == lines + 1, "{length}");
            queue.push("new".to_owned());
            queue.keep(true).unwrap();
            assert_eq!(events(&Queue::open(&path).unwrap()), events(&queue));
            assert_eq!(queue.len(), there + 1);
        }
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        fs::write(&path, damaged).unwrap();
        let queue = Queue::open(&path).unwrap();
        assert_eq!(queue.len(), 2);
        fs::write(&path, [0xff; 100]).unwrap();
        assert_eq!(Queue::open(&path).unwrap().len(), 0);
    }

    #[test]
    fn the_oldest_go_and_the_file_does_not_grow() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue");
        let mut queue = Queue::open(&path).unwrap();
        let mut lost = 0;
        for number in 0..MAX_EVENTS + 10 {
            lost += queue.push(number.to_string());
        }
        assert_eq!((lost, queue.len()), (10, MAX_EVENTS));
        assert_eq!(queue.first(), Some(10));
        for _ in 0..60 {
            lost += queue.push("x".repeat(1 << 20));
            queue.keep(true).unwrap();
            let bytes = fs::metadata(&path).unwrap().len() as usize;
            assert!(bytes < 2 * MAX_BYTES + MAX_DONE_BYTES, "{bytes}");
        }
        assert_eq!(queue.len(), 8);
        assert_eq!(lost as usize, MAX_EVENTS + 10 + 60 - 8);
        assert_eq!(events(&Queue::open(&path).unwrap()), events(&queue));
    }

    #[test]
    fn a_disk_that_refuses_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("away").join("queue");
        let mut queue = with(&path, &["a"]);
        queue.keep(true).unwrap_err();
        queue.push("b".to_owned());
        fs::create_dir(path.parent().unwrap()).unwrap();
        queue.keep(true).unwrap();
        assert_eq!(events(&Queue::open(&path).unwrap()), ["a", "b"]);
    }
}
