//! What came out of quantization: for the exporter, for `settings.toml` and `metrics.json`, for people.

use std::fmt::Write;

use serde::Serialize;

use crate::quantize::{Method, QuantizedGraph, Sqnr};
use crate::settings::{ChosenBy, Settings};
use crate::weight_bits;

/// A quantized network and what it lost.
#[derive(Debug)]
pub struct Quantized {
    /// What is exported.
    pub graph: QuantizedGraph,
    /// Which layers have seven bits.
    pub weight_bits: weight_bits::Choice,
    /// Every operator of the engine's.
    pub layers: Vec<Layer>,
    /// For `metrics.json`.
    pub summary: Summary,
}

/// One operator of the quantized graph.
#[derive(Debug)]
pub struct Layer {
    /// The node's name.
    pub name: String,
    /// How its range was picked; none where it has no range of its own.
    pub range: Option<Method>,
    /// The largest factor of its channels; 1 where equalization left them.
    pub factor: f32,
    /// Of the weights; none without weights.
    pub bits: Option<u8>,
    /// One way to pick ranges for all layers, channels as they are.
    pub before: Sqnr,
    /// Channels scaled, whether that was kept or not.
    pub equalized: Sqnr,
    /// Ranges layer by layer on top of what was kept.
    pub ranges: Sqnr,
    /// Weights rounded with feedback on top, whether that was kept or not.
    pub feedback: Sqnr,
    /// As exported.
    pub after: Sqnr,
}

/// What a quantization comes to. Losses are shares of the float logits' variance over classes.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// How ranges are picked: one method, or the one of most layers and how many have another.
    pub range: String,
    /// Strength of the equalization; none where it did not help.
    pub equalization: Option<f32>,
    /// Layers whose range is picked by another method than the others'.
    pub own_ranges: usize,
    /// Loss by the best method for all layers, channels as they are.
    pub loss_before: f64,
    /// The least loss with scaled channels.
    pub loss_equalized: f64,
    /// Loss with ranges layer by layer.
    pub loss_ranges: f64,
    /// Loss with weights rounded with feedback on top.
    pub loss_feedback: f64,
    /// Whether they are.
    pub feedback: bool,
    /// Loss of what is exported.
    pub loss: f64,
    /// Of the logits, in dB.
    pub sqnr_logits: f64,
    /// The noisiest layer.
    pub noisiest: String,
    /// Its signal to quantization noise in dB.
    pub sqnr_noisiest: f64,
}

impl Summary {
    /// One line for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "int8 loses {} (logits {:.1} dB); noisiest layer: {} at {:.1} dB",
            share(self.loss),
            self.sqnr_logits,
            self.noisiest,
            self.sqnr_noisiest
        )
    }
}

impl Quantized {
    /// Records what was chosen, and why.
    pub fn record(&self, settings: &mut Settings) {
        let Summary {
            range,
            equalization,
            own_ranges,
            loss_before,
            loss_equalized,
            loss_ranges,
            loss_feedback,
            feedback,
            ..
        } = &self.summary;
        let mut set = |name: &str, value: String, why: String| {
            settings.set(name, value, ChosenBy::Graft, why);
        };
        let before = share(*loss_before);
        set(
            "calibration",
            range.clone(),
            "nearest to the float logits on training images".to_owned(),
        );
        let equalized = share(*loss_equalized);
        let (value, why) = match equalization {
            Some(strength) => (
                strength.to_string(),
                format!("{equalized} lost, {before} without"),
            ),
            None => (
                "none".to_owned(),
                format!("{equalized} lost with it, {before} without"),
            ),
        };
        set("equalization", value, why);
        let kept = share(loss_before.min(*loss_equalized));
        let why = match own_ranges {
            0 => format!("no other range lost less than {kept}"),
            _ => format!("{} lost, {kept} with one method", share(*loss_ranges)),
        };
        set("layer_ranges", own_ranges.to_string(), why);
        set(
            "weight_rounding",
            if *feedback { "feedback" } else { "nearest" }.to_owned(),
            format!(
                "{} lost with feedback, {} to the nearest",
                share(*loss_feedback),
                share(*loss_ranges)
            ),
        );
        set(
            "seven_bit_layers",
            format!("{} of {}", self.weight_bits.seven, self.weight_bits.of),
            "as many as cost no accuracy on training and validation photos".to_owned(),
        );
    }

    /// The table of all layers, a line each; SQNR in dB.
    #[must_use]
    pub fn to_tsv(&self) -> String {
        let mut text = "layer\trange\tlargest_factor\tweight_bits\tsqnr_before\tsqnr_equalized\tsqnr_ranges\tsqnr_feedback\tsqnr\n".to_owned();
        for layer in &self.layers {
            let _ = writeln!(
                text,
                "{}\t{}\t{:.2}\t{}\t{:.2}\t{:.2}\t{:.2}\t{:.2}\t{:.2}",
                layer.name,
                layer.range.map_or("", Method::name),
                layer.factor,
                layer.bits.map_or(String::new(), |bits| bits.to_string()),
                layer.before.decibels(),
                layer.equalized.decibels(),
                layer.ranges.decibels(),
                layer.feedback.decibels(),
                layer.after.decibels(),
            );
        }
        text
    }
}

/// For people.
pub(super) fn share(loss: f64) -> String {
    format!("{:.2} % of the logits' variance", 100.0 * loss)
}
