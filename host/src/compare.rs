//! Two models on the same photos: what got better and what worse, photo for photo.

use std::fmt::Write as _;
use std::path::PathBuf;

use graft_engine::Engine;
use graft_engine::evaluate::classify;
use graft_engine::listing::Photo;
use graft_shared::error::{Context, Error, Result};
use graft_shared::labels::Labels;
use serde::Serialize;
use serde_json::{Value, json};

use crate::paired::Counts;
use crate::progress::Progress;

/// What two models say about a photo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The photo.
    pub path: PathBuf,
    /// Its label.
    pub truth: String,
    /// The label that the old model gives it.
    pub old: String,
    /// The label that the new model gives it.
    pub new: String,
}

impl Pair {
    /// Whether the old and whether the new model is right.
    fn right(&self) -> (bool, bool) {
        (self.old == self.truth, self.new == self.truth)
    }
}

/// What two models say about photos whose labels are known. Labels are compared by name: a model is wrong about a photo
/// whose label it does not have.
#[derive(Debug)]
pub struct Comparison {
    /// One for each photo that was labelled, in the order of the list.
    pub pairs: Vec<Pair>,
    /// Photos that could not be read or decoded, and why.
    pub refused: Vec<(PathBuf, String)>,
    /// Labels that only the old model has.
    pub only_old_labels: Vec<String>,
    /// Labels that only the new model has.
    pub only_new_labels: Vec<String>,
}

/// Labels all `photos` with both models, on `threads` threads.
///
/// # Errors
/// When neither model has the label of a photo, no photo could be labelled, or a model fails.
pub fn compare(
    old: &Engine,
    new: &Engine,
    photos: Vec<Photo>,
    threads: usize,
    progress: &Progress,
) -> Result<Comparison> {
    let (old_labels, new_labels) = (&old.card().labels, &new.card().labels);
    let has = |labels: &Labels, label: &str| labels.index_of(label).is_some();
    let unknown = |photo: &&Photo| !has(old_labels, &photo.label) && !has(new_labels, &photo.label);
    if let Some(photo) = photos.iter().find(unknown) {
        return Err(Error::new(format!(
            "`{}` has the label `{}`, which neither model knows",
            photo.path.display(),
            photo.label
        ))
        .hint("compare on photos with the labels that the models were trained on"));
    }
    let predictions = |name: &str, engine: &Engine| {
        let stage = progress.stage(name, photos.len());
        let best = &|_: usize, classification: graft_engine::Classification| {
            let (label, _) = classification.best();
            label
        };
        let predictions = classify(engine, &photos, threads, best, &|done| stage.advance(done))?;
        stage.finish();
        Ok::<_, Error>(predictions)
    };
    let old_predictions = predictions("testing the old model", old)?;
    let new_predictions = predictions("testing the new model", new)?;
    let mut pairs = vec![];
    let mut refused = vec![];
    let name = |labels: &Labels, index: usize| labels.get(index).unwrap_or_default().to_owned();
    for ((photo, old), new) in photos.into_iter().zip(old_predictions).zip(new_predictions) {
        match (old, new) {
            (Ok(old), Ok(new)) => pairs.push(Pair {
                path: photo.path,
                truth: photo.label,
                old: name(old_labels, old),
                new: name(new_labels, new),
            }),
            (Err(reason), _) | (_, Err(reason)) => refused.push((photo.path, reason)),
        }
    }
    if pairs.is_empty() {
        let first = refused.first().map_or(String::new(), |(path, reason)| {
            format!("{}: {reason}", path.display())
        });
        return Err(Error::new("none of the photos could be labelled").source(first));
    }
    let missing = |from: &Labels, labels: &Labels| {
        let missing = labels.iter().filter(|label| !has(from, label));
        missing.map(str::to_owned).collect()
    };
    Ok(Comparison {
        pairs,
        refused,
        only_old_labels: missing(new_labels, old_labels),
        only_new_labels: missing(old_labels, new_labels),
    })
}

impl Comparison {
    /// All photos.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of(self.pairs.iter().map(Pair::right))
    }

    /// The photos whose labels both models have; `None` where those are all.
    #[must_use]
    pub fn counts_of_common_labels(&self) -> Option<Counts> {
        let (old, new) = (&self.only_old_labels, &self.only_new_labels);
        let common = |pair: &&Pair| !old.contains(&pair.truth) && !new.contains(&pair.truth);
        let pairs = self.pairs.iter().filter(common);
        let counts = Counts::of(pairs.map(Pair::right));
        (counts.images() < self.counts().images()).then_some(counts)
    }

    /// Photos that only the new model labels right.
    pub fn better(&self) -> impl Iterator<Item = &Pair> {
        self.pairs
            .iter()
            .filter(|pair| pair.right() == (false, true))
    }

    /// Photos that only the old model labels right.
    pub fn worse(&self) -> impl Iterator<Item = &Pair> {
        self.pairs
            .iter()
            .filter(|pair| pair.right() == (true, false))
    }

    /// For people: the photos, then the totals.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        list(&mut text, "better", self.better());
        list(&mut text, "worse", self.worse());
        totals(&mut text, "all photos", self.counts());
        for (model, labels) in [
            ("old", &self.only_old_labels),
            ("new", &self.only_new_labels),
        ] {
            if !labels.is_empty() {
                let labels = labels.join(", ");
                text.push_str(&format!("\nonly the {model} model has: {labels}\n"));
            }
        }
        if let Some(common) = self.counts_of_common_labels() {
            text.push('\n');
            totals(&mut text, "photos of the labels that both have", common);
        }
        text
    }

    /// As one JSON object.
    ///
    /// # Errors
    /// None that a comparison can cause.
    pub fn to_json(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Listed<'a> {
            path: std::borrow::Cow<'a, str>,
            r#true: &'a str,
            old: &'a str,
            new: &'a str,
        }
        fn listed<'a>(pairs: impl Iterator<Item = &'a Pair>) -> Vec<Listed<'a>> {
            pairs
                .map(|pair| Listed {
                    path: pair.path.to_string_lossy(),
                    r#true: &pair.truth,
                    old: &pair.old,
                    new: &pair.new,
                })
                .collect()
        }
        let mut object = figures(self.counts());
        object["refused"] = json!(self.refused.len());
        object["labels"] = json!({
            "only_old": self.only_old_labels,
            "only_new": self.only_new_labels,
        });
        object["common_labels"] = json!(self.counts_of_common_labels().map(figures));
        object["better"] = json!(listed(self.better()));
        object["worse"] = json!(listed(self.worse()));
        serde_json::to_string(&object).context("can't write the comparison as JSON")
    }
}

fn list<'a>(text: &mut String, name: &str, pairs: impl Iterator<Item = &'a Pair>) {
    let mut lines = String::new();
    let mut number = 0;
    for pair in pairs {
        number += 1;
        // Writing to a string can't fail.
        let _ = writeln!(
            lines,
            "  {}  {}: {} -> {}",
            pair.path.display(),
            pair.truth,
            pair.old,
            pair.new
        );
    }
    text.push_str(&format!("{name}: {number}\n{lines}\n"));
}

fn totals(text: &mut String, name: &str, counts: Counts) {
    let (low, high) = counts.difference_interval();
    let p = counts.mcnemar_p();
    let p = if p < 0.001 {
        "< 0.001".to_owned()
    } else {
        format!("{p:.3}")
    };
    text.push_str(&format!(
        "{name}: {}\n\
         {:<12}{:>7.2} %\n\
         {:<12}{:>7.2} %\n\
         {:<12}{:>+7.2} points   95 % interval {:+.2} to {:+.2}, McNemar's exact p {p}\n\
         right in both {}, only in old {}, only in new {}, in neither {}\n",
        counts.images(),
        "old top-1",
        100.0 * counts.old_top1(),
        "new top-1",
        100.0 * counts.new_top1(),
        "new - old",
        100.0 * counts.difference(),
        100.0 * low,
        100.0 * high,
        counts.both,
        counts.only_old,
        counts.only_new,
        counts.neither,
    ));
}

fn figures(counts: Counts) -> Value {
    let (low, high) = counts.difference_interval();
    json!({
        "images": counts.images(),
        "top1": {"old": counts.old_top1(), "new": counts.new_top1()},
        "difference": counts.difference(),
        "difference_interval": [low, high],
        "mcnemar_p": counts.mcnemar_p(),
        "right": counts,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn comparison(only_new_labels: &[&str]) -> Comparison {
        let pair = |path: &str, truth: &str, old: &str, new: &str| Pair {
            path: path.into(),
            truth: truth.into(),
            old: old.into(),
            new: new.into(),
        };
        Comparison {
            pairs: vec![
                pair("1.jpg", "cat", "cat", "cat"),
                pair("2.jpg", "cat", "dog", "cat"),
                pair("3.jpg", "dog", "dog", "fox"),
                pair("4.jpg", "fox", "dog", "fox"),
                pair("5.jpg", "fox", "dog", "cat"),
            ],
            refused: vec![],
            only_old_labels: vec![],
            only_new_labels: only_new_labels.iter().map(|&label| label.into()).collect(),
        }
    }

    #[test]
    fn photos_are_named_and_totalled() {
        let text = comparison(&["fox"]).to_text();
        for expected in [
            "better: 2\n  2.jpg  cat: dog -> cat\n  4.jpg  fox: dog -> fox\n\nworse: 1\n  3.jpg  dog: dog -> fox\n",
            "all photos: 5\nold top-1     40.00 %\nnew top-1     60.00 %\nnew - old    +20.00 points",
            "right in both 1, only in old 1, only in new 2, in neither 1\n",
            "\nonly the new model has: fox\n\nphotos of the labels that both have: 3\nold top-1     66.67 %\n",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
        let text = comparison(&["oak"]).to_text();
        assert!(text.contains("only the new model has: oak"), "{text}");
        assert!(!text.contains("both have"), "{text}");
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let json: Value = serde_json::from_str(&comparison(&["fox"]).to_json().unwrap()).unwrap();
        assert_eq!(json["images"], 5);
        assert_eq!(json["refused"], 0);
        assert_eq!(json["top1"], json!({"old": 0.4, "new": 0.6}));
        assert_eq!(json["mcnemar_p"], 1.0);
        let right = json!({"both": 1, "only_old": 1, "only_new": 2, "neither": 1});
        assert_eq!(json["right"], right);
        let labels = json!({"only_old": [], "only_new": ["fox"]});
        assert_eq!(json["labels"], labels);
        assert_eq!(json["common_labels"]["images"], 3);
        let worse = json!([{"path": "3.jpg", "true": "dog", "old": "dog", "new": "fox"}]);
        assert_eq!(json["worse"], worse);
        assert_eq!(json["better"].as_array().unwrap().len(), 2);
        let same: Value = serde_json::from_str(&comparison(&[]).to_json().unwrap()).unwrap();
        assert_eq!(same["common_labels"], Value::Null);
    }
}
