//! Continues an interrupted file of answers: which pictures it has, and where its last whole answer ends.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use graft_shared::digest::sha256;
use graft_shared::error::{Context, Error, Result};
use serde::Deserialize;

use super::Format;

/// The pictures that a file has answers for, by the digests of their paths: 200,000 of them take 10 MB.
#[derive(Debug, Default)]
pub struct Answered {
    /// How often each path stands there: a path may be given twice, and paths that are no UTF-8 may print alike.
    times: HashMap<u128, u32>,
    count: usize,
}

impl Answered {
    /// How many answers the file has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether a picture has its answer. Each answer serves one picture.
    pub fn take(&mut self, path: &Path) -> bool {
        let times = self.times.get_mut(&key(&path.to_string_lossy()));
        times.is_some_and(|times| {
            let has = *times > 0;
            *times = times.saturating_sub(1);
            has
        })
    }

    fn add(&mut self, path: &str) {
        *self.times.entry(key(path)).or_default() += 1;
        self.count += 1;
    }
}

fn key(path: &str) -> u128 {
    let digest = sha256(path.as_bytes());
    digest
        .iter()
        .take(16)
        .fold(0, |key, byte| key << 8 | u128::from(*byte))
}

/// Opens a file of answers to add to; a missing one is made. An answer that was cut off is removed. Of CSV, `header` is
/// the line that the file must begin with.
///
/// # Errors
/// When the file can't be read or written, or holds something else.
pub fn resume(path: &Path, format: Format, header: &str) -> Result<(File, Answered)> {
    let failed = || format!("can't continue `{}`", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(failed)?;
    let (answered, whole) = read(&mut BufReader::new(&file), format, header)
        .map_err(|error| error.hint("give another `--output` file, or remove this one"))
        .with_context(failed)?;
    file.set_len(whole)
        .and_then(|()| file.seek(SeekFrom::Start(whole)))
        .with_context(failed)?;
    Ok((file, answered))
}

/// The answers, and the length of all whole ones in bytes.
fn read(source: &mut impl BufRead, format: Format, header: &str) -> Result<(Answered, u64)> {
    let mut answered = Answered::default();
    let mut whole = 0;
    let mut number = 0;
    let mut bytes = Vec::new();
    let csv = matches!(format, Format::Csv { .. });
    loop {
        bytes.clear();
        // A line break inside quotes does not end the answer.
        let mut open = true;
        while open
            && source
                .read_until(b'\n', &mut bytes)
                .context("can't read it")?
                > 0
        {
            open = !bytes.ends_with(b"\n") || csv && quotes(&bytes) % 2 == 1;
        }
        // The last write of an interrupted run may have been cut off.
        let (false, Some(line)) = (open, bytes.strip_suffix(b"\n")) else {
            return Ok((answered, whole));
        };
        number += 1;
        let line = std::str::from_utf8(line).ok();
        if number == 1 && csv {
            if line != Some(header.trim_end()) {
                return Err(Error::new(
                    "its columns are not those that this command writes",
                ));
            }
        } else {
            let path = line.and_then(|line| match format {
                Format::Csv { .. } => csv_path(line),
                _ => json_path(line),
            });
            answered.add(&path.with_context(|| format!("its answer {number} is none"))?);
        }
        whole += bytes.len() as u64;
    }
}

fn quotes(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'"').count()
}

fn json_path(line: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        path: String,
    }
    serde_json::from_str(line).ok().map(|Line { path }| path)
}

/// The first field.
fn csv_path(line: &str) -> Option<String> {
    let Some(quoted) = line.strip_prefix('"') else {
        return line.split_once(',').map(|(path, _)| path.to_owned());
    };
    let mut path = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        path.push_str(part);
        rest = after;
        if rest.starts_with(',') {
            return Some(path);
        }
        rest = rest.strip_prefix('"')?;
        path.push('"');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CSV: Format = Format::Csv { header: true };
    const HEADER: &str = "path,label,score\n";

    #[test]
    fn answers_are_found_and_what_was_cut_off_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let whole =
            format!("{HEADER}a.jpg,rose,0.5\n\"b,\"\"1\"\"\n.jpg\",rose,0.5\na.jpg,rose,0.5\n");
        for cut in ["", "c.jp", "\"c.jpg\n", "c.jpg,rose,0.", "\0\0\0"] {
            std::fs::write(&path, whole.clone() + cut).unwrap();
            let (_, mut answered) = resume(&path, CSV, HEADER).unwrap();
            assert_eq!(answered.count(), 3);
            let mut take = |path: &str| answered.take(Path::new(path));
            assert!(take("a.jpg") && take("a.jpg") && !take("a.jpg"));
            assert!(take("b,\"1\"\n.jpg") && !take("c.jpg"));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        }
    }

    #[test]
    fn json_lines_are_read_and_other_files_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let (_, answered) = resume(&path, Format::Json, "").unwrap();
        assert_eq!(answered.count(), 0);
        std::fs::write(
            &path,
            "{\"path\":\"ö \\\"1\\\".jpg\",\"label\":null}\n{\"path\"",
        )
        .unwrap();
        let (_, mut answered) = resume(&path, Format::Json, "").unwrap();
        assert!(answered.take(Path::new("ö \"1\".jpg")));

        for other in ["something else\n", "{}\n"] {
            std::fs::write(&path, other).unwrap();
            for format in [Format::Json, CSV] {
                let report = resume(&path, format, HEADER).unwrap_err().report();
                assert!(report.contains("hint: give another"), "{report}");
                assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
            }
        }
    }
}
