//! The figures side by side: float in Candle, float in the device's engine, int8 in the device's engine.

use std::path::Path;

use graft_engine::Engine;
use graft_engine::evaluate::{Evaluation, evaluate};
use graft_engine::label::Picture;
use graft_engine::listing;
use graft_shared::card::Card;
use graft_shared::digest::sha256;
use graft_shared::error::{Error, Result};

use crate::backbone::{self, FetchOptions};
use crate::dataset::Dataset;
use crate::features::{self, Item, Store};
use crate::head::Head;
use crate::metrics;
use crate::progress::Progress;
use crate::run::names;

/// How many of the classes that lost most are shown.
const SHOWN_CLASSES: usize = 5;

/// Accuracy of one form of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Share of photos whose label is right.
    pub top1: f64,
    /// Mean over the classes of the share of their photos that is right.
    pub macro_recall: f64,
}

/// The three forms on the same photos.
#[derive(Debug)]
pub struct Comparison {
    /// Float, in Candle; unknown where only the files are at hand.
    pub float: Option<Figure>,
    /// Float, in the device's engine; unknown without the float twin.
    pub float_device: Option<Evaluation>,
    /// Int8, in the device's engine: the figure that ships.
    pub int8: Evaluation,
}

impl Comparison {
    /// The 95 % interval of the int8 accuracy.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        self.int8.top1_interval()
    }

    /// What int8 loses to float, in fractions; negative where it wins.
    #[must_use]
    pub fn drop(&self) -> Option<f64> {
        let float = self
            .float
            .map(|figure| figure.top1)
            .or(self.float_device.as_ref().map(|device| device.top1));
        float.map(|float| float - self.int8.top1)
    }

    /// Which gate was missed, and by how much: least int8 accuracy, most loss to float, in fractions.
    #[must_use]
    pub fn gate_missed(&self, min_accuracy: Option<f64>, max_drop: Option<f64>) -> Option<String> {
        let int8 = self.int8.top1;
        if let Some(least) = min_accuracy.filter(|least| int8 < *least) {
            return Some(format!(
                "int8 accuracy {:.2} % is below --min-accuracy {:.2} %",
                100.0 * int8,
                100.0 * least
            ));
        }
        let (most, drop) = max_drop
            .zip(self.drop())
            .filter(|(most, drop)| drop > most)?;
        Some(format!(
            "int8 loses {:.2} points, --max-drop allows {:.2}",
            100.0 * drop,
            100.0 * most
        ))
    }

    /// The table for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (low, high) = self.interval();
        let mut text = format!("{:<16}{:>9}{:>14}\n", "", "top-1", "macro recall");
        let mut row = |name: &str, figure: Figure, tail: &str| {
            text.push_str(&format!(
                "{name:<16}{:>7.2} %{:>12.2} %{tail}\n",
                100.0 * figure.top1,
                100.0 * figure.macro_recall
            ));
        };
        if let Some(figure) = self.float {
            row("float (Candle)", figure, "");
        }
        if let Some(device) = &self.float_device {
            row("float (device)", figure(device), "");
        }
        let tail = format!(
            "   95 % interval {:.1} to {:.1}, {} photos",
            100.0 * low,
            100.0 * high,
            self.int8.images
        );
        row("int8 (device)", figure(&self.int8), &tail);
        let lost = self.classes_that_lost();
        if !lost.is_empty() {
            text.push_str("lost most to int8: ");
            let named: Vec<String> = lost
                .iter()
                .map(|(label, float, int8)| {
                    format!("{label} ({:.0} % to {:.0} %)", 100.0 * float, 100.0 * int8)
                })
                .collect();
            text.push_str(&named.join(", "));
            text.push('\n');
        }
        text
    }

    /// Label, float recall and int8 recall of the classes whose recall fell most, worst first.
    #[must_use]
    pub fn classes_that_lost(&self) -> Vec<(String, f64, f64)> {
        let Some(float) = &self.float_device else {
            return Vec::new();
        };
        let mut lost: Vec<(String, f64, f64)> = (float.classes.iter().zip(&self.int8.classes))
            .map(|(before, after)| (before.label.clone(), before.recall, after.recall))
            .filter(|(_, before, after)| after < before)
            .collect();
        lost.sort_by(|a, b| {
            (b.1 - b.2)
                .total_cmp(&(a.1 - a.2))
                .then_with(|| a.0.cmp(&b.0))
        });
        lost.truncate(SHOWN_CLASSES);
        lost
    }
}

/// The figure of an evaluation.
#[must_use]
pub fn figure(evaluation: &Evaluation) -> Figure {
    Figure {
        top1: evaluation.top1,
        macro_recall: evaluation.macro_recall,
    }
}

/// The figure of logits computed in Candle.
#[must_use]
pub fn candle_figure(logits: &[Vec<f32>], targets: &[usize], classes: usize) -> Figure {
    Figure {
        top1: metrics::top1(logits, targets),
        macro_recall: metrics::macro_recall(logits, targets, classes),
    }
}

/// The figure in Candle of a model whose run folder still has its head: the backbone is loaded again, bottlenecks come
/// from the cache where it has them. `None` where the model's folder is no run folder.
///
/// # Errors
/// When the head can't be read, or the backbone or a bottleneck can't be had.
pub fn candle_figure_of_run(
    model: &Path,
    card: &Card,
    photos: &[listing::Photo],
    bottleneck_dir: &Path,
    weights: &FetchOptions,
    progress: &Progress,
) -> Result<Option<Figure>> {
    let Ok(bytes) = std::fs::read(model.with_file_name(names::HEAD)) else {
        return Ok(None);
    };
    let head = Head::from_safetensors(&bytes)?;
    let input_size = usize::from(card.preprocess.width);
    let backbone = backbone::load(&card.provenance.backbone, Some(input_size), weights)?;
    if backbone.weights_digest != card.provenance.backbone_digest {
        return Err(
            Error::new("the model was trained on other weights of its backbone")
                .hint("weights of your own are not in the cache"),
        );
    }
    let mut store = Store::open(bottleneck_dir, &backbone, &card.preprocess)?;
    let mut items = Vec::new();
    let mut truths = Vec::new();
    for photo in photos {
        // Photos that can't be read, or have a label that the model doesn't know, are the engine's to refuse.
        let class = card.labels.index_of(&photo.label);
        if let (Some(class), Ok(bytes)) = (class, Picture::File(photo.path.clone()).read()) {
            items.push(Item {
                content_hash: sha256(&bytes),
                path: photo.path.clone(),
            });
            truths.push(class);
        }
    }
    let stage = progress.stage("bottlenecks", items.len());
    let extracted =
        features::extract(&backbone, &card.preprocess, &items, &mut store, &|photos| {
            stage.advance(photos)
        })?;
    stage.finish();
    let mut refused = extracted.refused.iter().map(|(index, _)| *index).peekable();
    let mut index = 0..;
    truths.retain(|_| {
        index
            .next()
            .is_none_or(|index| refused.next_if_eq(&index).is_none())
    });
    Ok(Some(candle_figure(
        &head.logits(&extracted.bottlenecks)?,
        &truths,
        card.labels.len(),
    )))
}

/// Runs an engine over photos.
///
/// # Errors
/// When a photo's label is not the model's. A photo that can't be read is refused.
pub fn measure(
    name: &str,
    engine: &Engine,
    photos: &[listing::Photo],
    threads: usize,
    progress: &Progress,
) -> Result<Evaluation> {
    let stage = progress.stage(name, photos.len());
    let evaluation = evaluate(engine, photos, threads, &|photos| stage.advance(photos))?;
    stage.finish();
    Ok(evaluation)
}

/// The photos of a dataset at `indices`, as the engine lists them.
#[must_use]
pub fn listed(dataset: &Dataset, indices: &[usize]) -> Vec<listing::Photo> {
    let photo = |&index: &usize| {
        let photo = &dataset.photos[index];
        let label = dataset
            .labels
            .get(photo.class)
            .unwrap_or_default()
            .to_owned();
        listing::Photo {
            path: photo.path.clone(),
            label,
            split: None,
            group: None,
        }
    };
    indices.iter().map(photo).collect()
}
