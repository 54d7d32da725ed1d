//! The figures of a finished run: `metrics.json`, the last line of `graft train --json`, and the text for people.

use std::path::PathBuf;

use graft_shared::error::{Context, Result};
use serde::Serialize;

use crate::advice;
use crate::dataset::{Dataset, Split};
use crate::evaluate::Comparison;
use crate::quantization::Summary;
use crate::run::{Run, names};
use crate::train::Options;

/// The fields that scripts rely on; fractions in 0..=1.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The int8 file.
    pub model: PathBuf,
    /// The run folder.
    pub run: PathBuf,
    /// Name of the backbone.
    pub backbone: String,
    /// Name of the recipe.
    pub recipe: String,
    /// Side of the input, in pixels.
    pub image_size: u32,
    /// Number of labels.
    pub classes: usize,
    /// Photos on each side.
    pub images: Images,
    /// Accuracy on the test photos.
    pub top1: Top1,
    /// 95 % interval of `top1.int8`.
    pub top1_interval: (f64, f64),
    /// Mean over the labels of the share recognised.
    pub macro_recall: MacroRecall,
    /// How the network was quantized, and what that lost.
    pub quantization: Option<Summary>,
    /// Wall time by stage.
    pub seconds: Seconds,
    /// Of fine-tuning; none when only the head was trained.
    pub train_images_per_second: Option<f64>,
    /// Most memory the run had, in bytes.
    pub peak_rss_bytes: u64,
    /// Of the int8 file.
    pub model_bytes: usize,
    /// The seed.
    pub seed: u64,
    /// What people should know about their data.
    pub warnings: Vec<String>,
    #[serde(skip)]
    comparison: Comparison,
    /// What would improve the model most.
    #[serde(skip)]
    improvements: Vec<String>,
}

/// Photos on each side of the split.
#[derive(Debug, Serialize)]
pub struct Images {
    train: usize,
    val: usize,
    test: usize,
    refused: usize,
}

/// Accuracy of the three forms of the model.
#[derive(Debug, Serialize)]
pub struct Top1 {
    /// Float, in Candle.
    pub float: Option<f64>,
    /// Float, in the device's engine.
    pub float_device: Option<f64>,
    /// Int8, in the device's engine: the figure that ships. None without test photos.
    pub int8: Option<f64>,
}

/// Macro recall of float and int8.
#[derive(Debug, Serialize)]
pub struct MacroRecall {
    float: Option<f64>,
    int8: Option<f64>,
}

/// Wall time by stage, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seconds {
    /// From start to the last file.
    pub total: f64,
    /// Bottlenecks, cached or not.
    pub features: f64,
    /// The head.
    pub head: f64,
    /// Fine-tuning of the backbone.
    pub finetune: f64,
    /// Calibration, rounding, the choice of ranges.
    pub quantize: f64,
    /// All three forms over the test photos.
    pub evaluate: f64,
}

impl Report {
    /// Gathers the figures of a run.
    #[must_use]
    pub fn new(
        run: &Run,
        options: &Options,
        dataset: &Dataset,
        comparison: Comparison,
        seconds: Seconds,
        model_bytes: usize,
        image_size: u16,
    ) -> Self {
        let count = |side| dataset.indices(side).len();
        let measured = |value: f64| (comparison.int8.images > 0).then_some(value);
        Self {
            model: run.path(names::MODEL),
            run: run.folder().to_owned(),
            backbone: options.backbone.clone(),
            recipe: options.fine_tuning.recipe.name().to_owned(),
            image_size: u32::from(image_size),
            classes: dataset.labels.len(),
            images: Images {
                train: count(Split::Train),
                val: count(Split::Validation),
                test: count(Split::Test),
                refused: dataset.refused.len(),
            },
            top1: Top1 {
                float: comparison.float.and_then(|figure| measured(figure.top1)),
                float_device: comparison
                    .float_device
                    .as_ref()
                    .and_then(|device| measured(device.top1)),
                int8: measured(comparison.int8.top1),
            },
            top1_interval: comparison.interval(),
            macro_recall: MacroRecall {
                float: comparison
                    .float
                    .and_then(|figure| measured(figure.macro_recall)),
                int8: measured(comparison.int8.macro_recall),
            },
            quantization: None,
            seconds,
            train_images_per_second: None,
            peak_rss_bytes: graft_engine::bench::peak_rss_bytes().unwrap_or(0),
            model_bytes,
            seed: options.seed,
            warnings: dataset.warnings.clone(),
            improvements: advice::improvements(dataset, &comparison.int8),
            comparison,
        }
    }

    /// One line of JSON, without a line break.
    ///
    /// # Errors
    /// Never for finite figures.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("can't write the figures as JSON")
    }

    /// The table, where the files are, and what to do next.
    #[must_use]
    pub fn to_text(&self) -> String {
        let model = self.model.display();
        let mut text = format!(
            "{}\nmodel:    {model} ({:.1} MB)\nrun:      {}\ntime:     {:.0} s (bottlenecks {:.0}, head {:.0}, fine-tuning {:.0}, quantize {:.0}, evaluate {:.0})\n\n",
            self.comparison.to_text(),
            self.model_bytes as f64 / 1e6,
            self.run.display(),
            self.seconds.total,
            self.seconds.features,
            self.seconds.head,
            self.seconds.finetune,
            self.seconds.quantize,
            self.seconds.evaluate,
        );
        let wrong = self.top1.int8.is_some_and(|top1| top1 < 1.0);
        text += &advice::commands(&self.model, &self.run.join(names::SPLIT), wrong);
        if !self.improvements.is_empty() {
            text += "to make it better:\n";
        }
        for improvement in &self.improvements {
            text += &format!("  {improvement}\n");
        }
        text
    }
}
