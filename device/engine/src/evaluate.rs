//! Accuracy of a model on photos whose labels are known: figures, confusion matrix, predictions.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use graft_shared::error::{Context, Error, Result};
use serde::Serialize;

use crate::label::Picture;
use crate::listing::Photo;
use crate::{Classification, Engine};

/// What a model achieves on labelled photos. Fractions in 0..=1; refused photos do not count.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Photos that were labelled.
    pub images: u64,
    /// Photos that could not be read or decoded, and why.
    pub refused: Vec<(PathBuf, String)>,
    /// Share of photos whose label scores best.
    pub top1: f64,
    /// Share of photos whose label is among the best five.
    pub top5: f64,
    /// Mean recall of the labels that have photos.
    pub macro_recall: f64,
    /// One per label, in the model's order.
    pub classes: Vec<ClassReport>,
    /// Photos by true label (row) and predicted label (column), in the model's order.
    pub confusion: Vec<Vec<u64>>,
    /// One per photo that was labelled, in the order of the list.
    pub predictions: Vec<Prediction>,
}

/// What a model achieves on one label. A figure without photos to count is 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// The label.
    pub label: String,
    /// Photos that have it.
    pub images: u64,
    /// Share of the photos given this label that have it.
    pub precision: f64,
    /// Share of the photos that have this label that were given it.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

/// What a model says about one photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The photo.
    pub path: PathBuf,
    /// Index of its label.
    pub truth: usize,
    /// Index of the label that scores best, whatever the threshold.
    pub predicted: usize,
    /// The score of `predicted`.
    pub score: f32,
    /// One per label.
    pub logits: Vec<f32>,
}

/// Labels all `photos` on `threads` threads. `progress` is told how many more photos are done, from any of them. The
/// result does not depend on the number of threads.
///
/// # Errors
/// When a photo has a label that the model does not know, none could be labelled, or the model fails.
pub fn evaluate(
    engine: &Engine,
    photos: &[Photo],
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Evaluation> {
    let truths = photos
        .iter()
        .map(|photo| truth(engine, photo))
        .collect::<Result<Vec<usize>>>()?;
    let keep = |index: usize, classification: Classification| {
        let truth = truths[index];
        let five = classification.top(5);
        let in_top5 = five.iter().any(|(label, _)| *label == truth);
        let (predicted, score) = classification.best();
        let prediction = Prediction {
            path: photos[index].path.clone(),
            truth,
            predicted,
            score,
            logits: classification.logits,
        };
        (prediction, in_top5)
    };
    let mut refused = vec![];
    let mut predictions = vec![];
    let mut among_five = 0;
    let outcomes = classify(engine, photos, threads, &keep, progress)?;
    for (photo, outcome) in photos.iter().zip(outcomes) {
        match outcome {
            Ok((prediction, in_top5)) => {
                predictions.push(prediction);
                among_five += u64::from(in_top5);
            }
            Err(reason) => refused.push((photo.path.clone(), reason)),
        }
    }
    if predictions.is_empty() {
        let first = refused.first().map_or(String::new(), |(path, reason)| {
            format!("{}: {reason}", path.display())
        });
        return Err(Error::new("none of the photos could be labelled").source(first));
    }
    let labels: Vec<&str> = engine.card().labels.iter().collect();
    let mut confusion = vec![vec![0u64; labels.len()]; labels.len()];
    for prediction in &predictions {
        confusion[prediction.truth][prediction.predicted] += 1;
    }
    let classes: Vec<ClassReport> = labels
        .iter()
        .enumerate()
        .map(|(index, label)| class_report(label, index, &confusion))
        .collect();
    let images = predictions.len() as u64;
    let right: u64 = (0..labels.len()).map(|index| confusion[index][index]).sum();
    let present: Vec<f64> = classes
        .iter()
        .filter(|class| class.images > 0)
        .map(|class| class.recall)
        .collect();
    Ok(Evaluation {
        images,
        refused,
        top1: share(right, images),
        top5: share(among_five, images),
        macro_recall: present.iter().sum::<f64>() / present.len() as f64,
        classes,
        confusion,
        predictions,
    })
}

fn truth(engine: &Engine, photo: &Photo) -> Result<usize> {
    engine.card().labels.index_of(&photo.label).ok_or_else(|| {
        Error::new(format!(
            "`{}` has the label `{}`, which the model does not know",
            photo.path.display(),
            photo.label
        ))
        .hint("evaluate on photos with the labels that the model was trained on")
    })
}

/// Labels all `photos` as [`evaluate`] does, whatever labels they have. For each, in their order: what `keep` makes of
/// its index and its classification, or why the photo is refused.
///
/// # Errors
/// When the model fails.
pub fn classify<T: Send>(
    engine: &Engine,
    photos: &[Photo],
    threads: usize,
    keep: &(dyn Fn(usize, Classification) -> T + Sync),
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Result<T, String>>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut outcomes = vec![];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(photo) = photos.get(index) else {
                return Ok(outcomes);
            };
            match classify_one(engine, photo) {
                Ok(outcome) => outcomes.push((index, outcome.map(|found| keep(index, found)))),
                Err(error) => {
                    // The others stop too.
                    next.store(photos.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
            progress(1);
        }
    };
    let mut outcomes = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, photos.len().max(1)))
            .map(|_| scope.spawn(work))
            .collect();
        let mut outcomes = vec![];
        for worker in workers {
            outcomes.extend(
                worker
                    .join()
                    .map_err(|_| Error::new("a thread that labelled photos panicked"))??,
            );
        }
        Ok::<_, Error>(outcomes)
    })?;
    outcomes.sort_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// The outer error is the model's, the inner the photo's.
fn classify_one(engine: &Engine, photo: &Photo) -> Result<Result<Classification, String>> {
    let pixels = Picture::File(photo.path.clone())
        .read()
        .and_then(|bytes| engine.card().preprocess.apply(&bytes));
    let pixels = match pixels {
        Ok(pixels) => pixels,
        Err(error) => return Ok(Err(error.line())),
    };
    engine
        .classify_pixels(&pixels)
        .map(Ok)
        .with_context(|| format!("can't label `{}`", photo.path.display()))
}

fn class_report(label: &str, index: usize, confusion: &[Vec<u64>]) -> ClassReport {
    let right = confusion[index][index];
    let images = confusion[index].iter().sum();
    let precision = share(right, confusion.iter().map(|row| row[index]).sum());
    let recall = share(right, images);
    let f1 = if right == 0 {
        0.0
    } else {
        2.0 * precision * recall / (precision + recall)
    };
    ClassReport {
        label: label.to_owned(),
        images,
        precision,
        recall,
        f1,
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

impl Evaluation {
    /// The figures as one JSON object.
    ///
    /// # Errors
    /// None that a computed evaluation can cause.
    pub fn to_json(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Figures<'a> {
            images: u64,
            refused: usize,
            top1: f64,
            top5: f64,
            macro_recall: f64,
            classes: &'a [ClassReport],
            confusion: &'a [Vec<u64>],
        }
        serde_json::to_string(&Figures {
            images: self.images,
            refused: self.refused.len(),
            top1: self.top1,
            top5: self.top5,
            macro_recall: self.macro_recall,
            classes: &self.classes,
            confusion: &self.confusion,
        })
        .context("can't write the evaluation as JSON")
    }

    /// The predictions as a TSV with the header `path true predicted score`; labels are written as they are, tabs and
    /// line breaks in a path as `\t`, `\n` and `\r`.
    #[must_use]
    pub fn predictions_tsv(&self) -> String {
        let mut tsv = "path\ttrue\tpredicted\tscore\n".to_owned();
        for prediction in &self.predictions {
            let path = prediction.path.to_string_lossy();
            let path = path
                .replace('\t', "\\t")
                .replace('\n', "\\n")
                .replace('\r', "\\r");
            let label = |index: usize| {
                self.classes
                    .get(index)
                    .map_or("", |class| class.label.as_str())
            };
            // Writing to a string can't fail.
            let _ = writeln!(
                tsv,
                "{path}\t{}\t{}\t{}",
                label(prediction.truth),
                label(prediction.predicted),
                prediction.score
            );
        }
        tsv
    }

    /// The 95 % confidence interval of `top1`.
    #[must_use]
    pub fn top1_interval(&self) -> (f64, f64) {
        let right = self
            .predictions
            .iter()
            .filter(|p| p.truth == p.predicted)
            .count() as u64;
        wilson_interval(right, self.images)
    }
}

/// The 95 % confidence interval of a share, `right` of `all`: Wilson's score interval (E. B. Wilson, Journal of the
/// American Statistical Association 22, 1927). All of 0..=1 when there is nothing to count.
#[must_use]
pub fn wilson_interval(right: u64, all: u64) -> (f64, f64) {
    /// The 97.5 % quantile of the normal distribution.
    const Z: f64 = 1.959_963_984_540_054;
    if all == 0 {
        return (0.0, 1.0);
    }
    let n = all as f64;
    let p = right as f64 / n;
    let centre = p + Z * Z / (2.0 * n);
    let margin = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (
        ((centre - margin) / scale).max(0.0),
        ((centre + margin) / scale).min(1.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval_of_known_shares() {
        let close =
            |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() < 5e-5 && (a.1 - b.1).abs() < 5e-5;
        assert!(close(wilson_interval(0, 0), (0.0, 1.0)));
        assert!(close(wilson_interval(81, 263), (0.2553, 0.3662)));
        assert!(close(wilson_interval(0, 20), (0.0, 0.1611)));
        assert!(close(wilson_interval(20, 20), (0.8389, 1.0)));
    }

    #[test]
    fn figures_of_a_class() {
        let confusion = vec![vec![6, 2, 0], vec![1, 3, 0], vec![0, 0, 0]];
        let report = class_report("a", 0, &confusion);
        assert_eq!(
            (report.images, report.precision, report.recall),
            (8, 6.0 / 7.0, 0.75)
        );
        assert!((report.f1 - 0.8).abs() < 1e-12);
        let empty = class_report("c", 2, &confusion);
        assert_eq!(
            (empty.images, empty.precision, empty.recall, empty.f1),
            (0, 0.0, 0.0, 0.0)
        );
    }
}
