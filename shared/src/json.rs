//! The card as people and other tools read it: plain structures for any serde format that names its fields.
//!
//! The types of the card themselves serialise to the wire format; these do to JSON such as
//! `{"width":224,"height":224,"fit":"crop","crop_pct":0.875,"filter":"bicubic","dct_scaling":true}`. Numbers that are f32
//! in the card are written in their shortest form (0.9, not 0.8999999761581421).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::card::{Card, Decision, Metrics, Provenance, Quantization, QuantizationKind};
use crate::digest::hex;
use crate::labels::Labels;
use crate::preprocess::{Filter, Fit, Preprocess};

/// A [`Card`] for reading.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CardJson<'a> {
    /// Labels in output order.
    pub labels: &'a Labels,
    /// How an image file becomes the model's input.
    pub preprocess: PreprocessJson,
    /// What the graph's numbers are.
    pub quantization: QuantizationJson<'a>,
    /// How logits become a label, or none.
    pub decision: DecisionJson,
    /// What was measured on the test split, or null.
    pub metrics: Option<MetricsJson>,
    /// How many golden probes there are.
    pub probes: usize,
    /// Where the model comes from.
    pub provenance: ProvenanceJson<'a>,
    /// SHA-256 of the graph, hexadecimal.
    pub digest: String,
    /// The version of the operators' arithmetic.
    pub arithmetic: u32,
}

/// A [`Preprocess`] for reading.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PreprocessJson {
    /// Width of the model's input in pixels.
    pub width: u16,
    /// Height of the model's input in pixels.
    pub height: u16,
    /// What happens where the image has another shape.
    #[serde(flatten)]
    pub fit: FitJson,
    /// The resampling filter.
    pub filter: FilterJson,
    /// Whether large JPEGs are decoded at a fraction of their size.
    pub dct_scaling: bool,
}

/// A [`Fit`] for reading.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "fit", rename_all = "lowercase")]
pub enum FitJson {
    /// [`Fit::Crop`].
    Crop {
        /// Share of the shorter side that is kept.
        crop_pct: f64,
    },
    /// [`Fit::Pad`].
    Pad {
        /// Red, green, blue.
        colour: [u8; 3],
    },
    /// [`Fit::Squash`].
    Squash,
}

/// A [`Filter`] for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterJson {
    /// [`Filter::Bilinear`].
    Bilinear,
    /// [`Filter::Bicubic`].
    Bicubic,
}

/// A [`Quantization`] for reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuantizationJson<'a> {
    /// `float` or `int8`.
    pub kind: &'static str,
    /// Bits of a weight.
    pub weight_bits: u8,
    /// Images that the activations' ranges were taken from.
    pub calibration_images: u32,
    /// How the ranges were chosen.
    pub calibration_method: &'a str,
}

/// A [`Decision`] for reading.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DecisionJson {
    /// Logits are divided by it before the softmax.
    pub temperature: f64,
    /// A best score below it means that the label is unknown.
    pub threshold: f64,
}

/// [`Metrics`] for reading; fractions in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MetricsJson {
    /// Images of the test split.
    pub test_images: u32,
    /// Share of images whose label scores best.
    pub top1: f64,
    /// Share of images whose label is among the best five.
    pub top5: f64,
    /// Mean recall over the labels.
    pub macro_recall: f64,
    /// `top1` before quantization.
    pub float_top1: f64,
    /// The 95 % confidence interval of `top1`.
    pub interval: [f64; 2],
}

/// A [`Provenance`] for reading; digests hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProvenanceJson<'a> {
    /// SHA-256 of the dataset's manifest.
    pub manifest_digest: String,
    /// Name of the pretrained backbone.
    pub backbone: &'a str,
    /// SHA-256 of the backbone's weight file.
    pub backbone_digest: String,
    /// Name of the training recipe.
    pub recipe: &'a str,
    /// The seed of all randomness.
    pub seed: u64,
    /// Every setting and its value.
    pub settings: BTreeMap<&'a str, &'a str>,
    /// The release that made the model.
    pub graft_version: &'a str,
    /// When the model was made, in seconds since 1970-01-01 UTC.
    pub created: u64,
}

impl<'a> From<&'a Card> for CardJson<'a> {
    fn from(card: &'a Card) -> Self {
        Self {
            labels: &card.labels,
            preprocess: (&card.preprocess).into(),
            quantization: (&card.quantization).into(),
            decision: (&card.decision).into(),
            metrics: card.metrics.as_ref().map(Into::into),
            probes: card.probes.len(),
            provenance: (&card.provenance).into(),
            digest: hex(&card.graph_digest),
            arithmetic: card.quantization.arithmetic,
        }
    }
}

impl From<&Preprocess> for PreprocessJson {
    fn from(preprocess: &Preprocess) -> Self {
        Self {
            width: preprocess.width,
            height: preprocess.height,
            fit: match preprocess.fit {
                Fit::Crop { crop_pct } => FitJson::Crop {
                    crop_pct: shortest(crop_pct),
                },
                Fit::Pad { colour } => FitJson::Pad { colour },
                Fit::Squash => FitJson::Squash,
            },
            filter: match preprocess.filter {
                Filter::Bilinear => FilterJson::Bilinear,
                Filter::Bicubic => FilterJson::Bicubic,
            },
            dct_scaling: preprocess.dct_scaling,
        }
    }
}

impl<'a> From<&'a Quantization> for QuantizationJson<'a> {
    fn from(quantization: &'a Quantization) -> Self {
        Self {
            kind: match quantization.kind {
                QuantizationKind::Float => "float",
                QuantizationKind::Int8 => "int8",
            },
            weight_bits: quantization.weight_bits,
            calibration_images: quantization.calibration_images,
            calibration_method: &quantization.calibration_method,
        }
    }
}

impl From<&Decision> for DecisionJson {
    fn from(decision: &Decision) -> Self {
        Self {
            temperature: shortest(decision.temperature),
            threshold: shortest(decision.threshold),
        }
    }
}

impl From<&Metrics> for MetricsJson {
    fn from(metrics: &Metrics) -> Self {
        Self {
            test_images: metrics.test_images,
            top1: shortest(metrics.top1),
            top5: shortest(metrics.top5),
            macro_recall: shortest(metrics.macro_recall),
            float_top1: shortest(metrics.float_top1),
            interval: [shortest(metrics.interval.0), shortest(metrics.interval.1)],
        }
    }
}

impl<'a> From<&'a Provenance> for ProvenanceJson<'a> {
    fn from(provenance: &'a Provenance) -> Self {
        Self {
            manifest_digest: hex(&provenance.manifest_digest),
            backbone: &provenance.backbone,
            backbone_digest: hex(&provenance.backbone_digest),
            recipe: &provenance.recipe,
            seed: provenance.seed,
            settings: provenance
                .settings
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
            graft_version: &provenance.graft_version,
            created: provenance.created,
        }
    }
}

/// The f64 whose shortest decimal form is that of the f32.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
