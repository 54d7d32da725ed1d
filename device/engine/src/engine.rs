//! The engine: one model, opened once, run on any number of pictures.

use std::path::Path;

use graft_shared::card::{Card, Probe};
use graft_shared::error::{Context, Error, Result};
use graft_shared::preprocess::Pixels;
use prost::bytes::Bytes;
use tract_onnx::prelude::*;

use crate::classify::Classification;
use crate::model::{self, Model};
use crate::plan::{NodeReport, Plan};

/// How far logits of a probe may be off where nodes run in tract's operators, whose rounding differs between
/// processors: this share of the largest logit.
const PROBE_TOLERANCE: f32 = 0.01;

/// A model ready to label pictures, from any number of threads at once.
#[derive(Debug)]
pub struct Engine {
    card: Card,
    plan: Plan,
    model_bytes: usize,
    file_digest: [u8; 32],
}

/// What [`Engine::verify`] found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VerifyReport {
    /// Probes compared; 0 where the card has none.
    pub probes: usize,
    /// Whether logits had to be equal to the bit: every node runs in our operators.
    pub exact: bool,
    /// The largest difference between a logit and the card's.
    pub largest_difference: f32,
    /// The largest difference that was allowed.
    pub tolerance: f32,
}

/// Batch, height, width, channels of the model's input.
fn input_shape(card: &Card) -> [usize; 4] {
    let [height, width] = [card.preprocess.height, card.preprocess.width].map(usize::from);
    [1, height, width, 3]
}

impl Engine {
    /// Opens a model file.
    ///
    /// # Errors
    /// When it can't be read, is no intact model file, or its graph can't be run.
    pub fn open(path: &Path) -> Result<Engine> {
        Engine::open_with_threads(path, 1)
    }

    /// Opens a model file for as many `threads` to share the work of each picture. The result is the same for every
    /// number.
    ///
    /// # Errors
    /// As for [`Engine::open`].
    pub fn open_with_threads(path: &Path, threads: usize) -> Result<Engine> {
        let place = || format!("can't open the model {}", path.display());
        let bytes = model::read(path).with_context(place)?;
        Engine::of(bytes, threads).with_context(place)
    }

    /// Opens the bytes of a model file.
    ///
    /// # Errors
    /// When they are no intact model file, or its graph can't be run.
    pub fn from_bytes(bytes: &[u8]) -> Result<Engine> {
        Engine::of(Bytes::copy_from_slice(bytes), 1)
    }

    /// Opens the bytes of a model file for as many `threads`.
    pub(crate) fn of(bytes: Bytes, threads: usize) -> Result<Engine> {
        let Model {
            card,
            proto,
            bytes,
            digest,
        } = Model::of(bytes)?;
        let plan = Plan::new(proto, (u8::datum_type(), &input_shape(&card)), threads)?;
        Ok(Engine {
            card,
            plan,
            model_bytes: bytes,
            file_digest: digest,
        })
    }

    /// What the model says about itself: labels, preprocessing, metrics.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Which nodes run in our operators.
    pub fn nodes(&self) -> &NodeReport {
        &self.plan.nodes
    }

    /// Multiply-adds of one picture in our operators.
    pub fn macs(&self) -> u64 {
        self.plan.macs
    }

    /// Bytes of the model file.
    pub fn model_bytes(&self) -> usize {
        self.model_bytes
    }

    /// SHA-256 of the model file.
    pub fn file_digest(&self) -> &[u8; 32] {
        &self.file_digest
    }

    /// The instruction set that our operators run on.
    pub fn isa(&self) -> &'static str {
        crate::plan::isa()
    }

    /// The logits, one per label, of pixels that are preprocessed already.
    ///
    /// # Errors
    /// When the pixels are not of the model's input size, or the model fails.
    pub fn logits(&self, pixels: &Pixels) -> Result<Vec<f32>> {
        let (width, height) = (
            usize::from(self.card.preprocess.width),
            usize::from(self.card.preprocess.height),
        );
        if (pixels.width, pixels.height) != (width, height) {
            return Err(Error::new(format!(
                "the model's input is {width} x {height} pixels, not {} x {}",
                pixels.width, pixels.height
            )));
        }
        pixels.validate()?;
        let (shape, labels) = (input_shape(&self.card), self.card.labels.len());
        self.plan.logits(shape, &pixels.data, labels)
    }

    /// Nanoseconds of each of our operators, summed over `runs` runs.
    pub(crate) fn profile(&self, pixels: &Pixels, runs: usize) -> Result<Vec<u64>> {
        self.plan.profile(&self.input(pixels)?, runs)
    }

    fn input(&self, pixels: &Pixels) -> Result<Tensor> {
        Tensor::from_shape(&input_shape(&self.card), &pixels.data)
            .map_err(|error| Error::new(error.to_string()))
    }

    /// The bytes that each of our operators makes of `pixels`, images in NHWC, by the name of the file's node that they are
    /// the output of. One call at a time.
    ///
    /// # Errors
    /// As for [`Engine::logits`].
    pub fn activations(&self, pixels: &Pixels) -> Result<Vec<(String, Vec<u8>)>> {
        let made = self.plan.activations(self.input(pixels)?)?.into_iter();
        Ok(made
            .map(|(name, bytes)| (name.trim_end_matches(".nhwc").to_owned(), bytes))
            .collect())
    }

    /// Labels pixels that are preprocessed already.
    ///
    /// # Errors
    /// As for [`Engine::logits`].
    pub fn classify_pixels(&self, pixels: &Pixels) -> Result<Classification> {
        let decision = self.card.decision;
        Ok(Classification::new(
            self.logits(pixels)?,
            decision.temperature,
            decision.threshold,
        ))
    }

    /// Labels the picture in the bytes of an image file.
    ///
    /// # Errors
    /// When the picture can't be decoded, or the model fails.
    pub fn classify(&self, image_file: &[u8]) -> Result<Classification> {
        self.classify_pixels(&self.card.preprocess.apply(image_file)?)
    }

    /// Runs the card's probes and compares their logits: to the bit where every node runs in our operators, within a
    /// hundredth of the largest logit otherwise.
    ///
    /// # Errors
    /// When a logit differs more: the model would not give here what it gave where it was made.
    pub fn verify(&self) -> Result<VerifyReport> {
        let exact = self.plan.nodes.tract == 0;
        let mut report = VerifyReport {
            probes: self.card.probes.len(),
            exact,
            largest_difference: 0.0,
            tolerance: 0.0,
        };
        for (index, probe) in self.card.probes.iter().enumerate() {
            let logits = self.logits(&Probe::pixels(probe.seed, &self.card.preprocess))?;
            let largest = probe
                .logits
                .iter()
                .fold(0f32, |largest, logit| largest.max(logit.abs()));
            let tolerance = if exact {
                0.0
            } else {
                PROBE_TOLERANCE * largest
            };
            report.tolerance = report.tolerance.max(tolerance);
            for (label, (got, expected)) in logits.iter().zip(&probe.logits).enumerate() {
                let difference = (got - expected).abs();
                report.largest_difference = report.largest_difference.max(difference);
                if got.to_bits() != expected.to_bits() && (exact || difference > tolerance) {
                    return Err(Error::new(format!(
                        "probe {index}: logit {label} is {got}, but was {expected} where the model was made"
                    ))
                    .hint("this build or this processor computes something else; do not use the model here"));
                }
            }
        }
        Ok(report)
    }
}
