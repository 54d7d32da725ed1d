//! An answer as text, as a line of JSON or as a row of CSV.

use std::fmt::Write as _;
use std::io::Write;

use graft_shared::card::Card;
use graft_shared::error::{Context, Result};
use serde::Serialize;

use super::{Answer, Format, LabelOptions};
use crate::{Classification, Engine};

/// Labels in text and JSON where no number was asked for.
const USUAL_TOP: usize = 5;

/// Writes answers, whole ones.
pub(super) struct Writer<'a> {
    engine: &'a Engine,
    options: &'a LabelOptions,
    out: &'a mut dyn Write,
    /// Text only: the next answer is the first.
    first: bool,
}

/// What a model says of a picture, for people and scripts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict<'a> {
    /// The best label, unless it is unknown.
    pub label: Option<&'a str>,
    /// The best label's score, known or not.
    pub score: f32,
    /// Whether the best score is below the threshold.
    pub unknown: bool,
    /// The best labels, best first.
    pub top: Vec<Candidate<'a>>,
    /// The score below which a label is unknown.
    #[serde(skip)]
    pub threshold: f32,
}

/// A label that may be the right one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Candidate<'a> {
    /// Its name.
    pub label: &'a str,
    /// Its score in 0..=1.
    pub score: f32,
}

impl<'a> Verdict<'a> {
    /// The `top` best labels (`None`: 5) of a classification by the model of `card`, unknown below `threshold` (`None`:
    /// the card's).
    #[must_use]
    pub fn new(
        card: &'a Card,
        classification: &Classification,
        top: Option<usize>,
        threshold: Option<f32>,
    ) -> Self {
        let threshold = threshold.unwrap_or(card.decision.threshold);
        let top: Vec<_> = classification
            .top(top.unwrap_or(USUAL_TOP).max(1))
            .into_iter()
            .map(|(index, score)| Candidate {
                label: card.labels.get(index).unwrap_or_default(),
                score,
            })
            .collect();
        let score = classification.best().1;
        let unknown = score < threshold;
        let best = top.first().map(|best| best.label);
        Self {
            label: best.filter(|_| !unknown),
            score,
            unknown,
            top,
            threshold,
        }
    }
}

/// A line of `label --json`.
#[derive(Serialize)]
struct Labelled<'a> {
    path: &'a str,
    #[serde(flatten)]
    verdict: &'a Verdict<'a>,
    milliseconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    taken: Option<&'a str>,
}

/// A line of `label --json` for a picture that can't be labelled.
#[derive(Serialize)]
struct Refused<'a> {
    path: &'a str,
    error: String,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        options: &'a LabelOptions,
        out: &'a mut dyn Write,
    ) -> Self {
        Self {
            engine,
            options,
            out,
            first: true,
        }
    }

    /// What comes before all answers.
    pub(super) fn header(&mut self) -> Result<()> {
        if self.options.format == (Format::Csv { header: true }) {
            self.put(&csv_header(self.engine, self.options))?;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, answer: &Answer) -> Result<()> {
        let path = answer.path.to_string_lossy();
        let verdict = answer.outcome.as_ref().map(|classification| {
            let LabelOptions { top, threshold, .. } = *self.options;
            Verdict::new(self.engine.card(), classification, top, threshold)
        });
        match (self.options.format, &verdict) {
            (Format::Json, Ok(verdict)) => write_json(
                &Labelled {
                    path: &path,
                    verdict,
                    milliseconds: answer.milliseconds,
                    taken: answer.taken.as_deref(),
                },
                self.out,
            ),
            (Format::Json, Err(error)) => {
                let error = error.line();
                write_json(&Refused { path: &path, error }, self.out)
            }
            (Format::Csv { .. }, verdict) => {
                let verdict = verdict.as_ref().map_err(|error| error.line());
                let row = csv_row(&path, verdict, answer, self.columns());
                self.put(&row)
            }
            (Format::Text { headings }, Ok(verdict)) => {
                let blank = if self.first { "" } else { "\n" };
                self.first = false;
                let heading = if headings {
                    format!("{blank}{path}\n")
                } else {
                    String::new()
                };
                self.put(&(heading + &text(verdict)))
            }
            (Format::Text { .. }, Err(_)) => Ok(()),
        }
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.out.flush().context("can't write the answers")
    }

    fn columns(&self) -> usize {
        columns(self.engine, self.options)
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.out
            .write_all(text.as_bytes())
            .context("can't write the answers")
    }
}

fn text(verdict: &Verdict<'_>) -> String {
    let mut text = String::new();
    if verdict.unknown {
        let _ = writeln!(text, "unknown (no score reaches {:.5})", verdict.threshold);
    }
    for Candidate { label, score } in &verdict.top {
        let _ = writeln!(text, "{label} (score = {score:.5})");
    }
    text
}

/// The line that CSV begins with.
#[must_use]
pub fn csv_header(engine: &Engine, options: &LabelOptions) -> String {
    let mut line = String::from("path,label,score,unknown,taken,milliseconds,error");
    for place in 1..=columns(engine, options) {
        let _ = write!(line, ",label_{place},score_{place}");
    }
    line + "\n"
}

/// Pairs of columns in CSV for the best labels.
fn columns(engine: &Engine, options: &LabelOptions) -> usize {
    let labels = engine.card().labels.len();
    options.top.map_or(0, |top| top.min(labels))
}

fn csv_row(
    path: &str,
    verdict: Result<&Verdict<'_>, String>,
    answer: &Answer,
    columns: usize,
) -> String {
    let mut row = String::new();
    field(&mut row, path);
    let taken = answer.taken.as_deref().unwrap_or_default();
    let milliseconds = answer.milliseconds;
    match verdict {
        Ok(verdict) => {
            row.push(',');
            field(&mut row, verdict.label.unwrap_or_default());
            let _ = write!(row, ",{:.5},{}", verdict.score, verdict.unknown);
            let _ = write!(row, ",{taken},{milliseconds:.1},");
            for Candidate { label, score } in verdict.top.iter().take(columns) {
                row.push(',');
                field(&mut row, label);
                let _ = write!(row, ",{score:.5}");
            }
        }
        Err(error) => {
            let _ = write!(row, ",,,,,{milliseconds:.1},");
            field(&mut row, &error);
            (0..columns).for_each(|_| row.push_str(",,"));
        }
    }
    row.push('\n');
    row
}

/// A field of RFC 4180: quoted where it holds a comma, a quote or a line break, a quote in it doubled.
fn field(row: &mut String, text: &str) {
    if text.contains([',', '"', '\n', '\r']) {
        row.push('"');
        row.push_str(&text.replace('"', "\"\""));
        row.push('"');
    } else {
        row.push_str(text);
    }
}

/// Writes one JSON object and a line break.
///
/// # Errors
/// When `out` can't be written to.
pub fn write_json(value: &impl Serialize, out: &mut dyn Write) -> Result<()> {
    let mut line = serde_json::to_vec(value).context("can't write the answer as JSON")?;
    line.push(b'\n');
    out.write_all(&line).context("can't write the answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let mut row = String::new();
        for text in ["plain.jpg", "a,b", "5\" disk", "two\nlines", " ö "] {
            field(&mut row, text);
            row.push(';');
        }
        assert_eq!(row, "plain.jpg;\"a,b\";\"5\"\" disk\";\"two\nlines\"; ö ;");
    }
}
