//! A trained classifier before export: backbone and head as one folded graph, with what its card will say.

use candle_core::Tensor;
use graft_engine::{Engine, model};
use graft_shared::card::{Card, Decision, Provenance, Quantization, QuantizationKind};
use graft_shared::error::{Context, Result};
use graft_shared::labels::Labels;
use graft_shared::preprocess::{Pixels, Preprocess};

use crate::backbone::Backbone;
use crate::export::{Signature, float_model, int8_model};
use crate::head::Head;
use crate::nn::Graph;
use crate::progress::Progress;
use crate::quantization::{Quantized, Quantizer};
use crate::quantize::{Normalisation, PixelCode, QuantizedGraph, calibrate, fold};
use crate::weight_bits::{Judged, WeightBits};

/// Images that pass through the float graph together.
const BATCH: usize = 16;

/// Backbone and head as one graph, BatchNorm folded.
#[derive(Debug)]
pub struct Classifier<'a> {
    backbone: &'a Backbone,
    graph: Graph,
    preprocess: Preprocess,
    labels: Labels,
    provenance: Provenance,
}

/// Preprocessed photos that the quantizer looks at.
#[derive(Debug)]
pub struct Samples {
    /// The ranges of the activations are taken from these.
    pub calibration: Vec<Pixels>,
    /// Ways to quantize are compared on these.
    pub comparison: Vec<Pixels>,
    /// Labelled photos that decide on the bits of the weights.
    pub judged: Vec<Pixels>,
    /// Their classes.
    pub classes: Vec<usize>,
}

impl Samples {
    fn judged(&self) -> Judged<'_> {
        Judged {
            images: &self.judged,
            classes: &self.classes,
        }
    }
}

/// A graph's bytes with the card that goes with them.
#[derive(Debug)]
pub struct Exported {
    /// The ONNX file without metadata.
    pub graph: Vec<u8>,
    /// Complete but for what is measured later.
    pub card: Card,
}

impl Exported {
    /// The file as it ships.
    ///
    /// # Errors
    /// When the card is over a limit.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        model::attach_card(&self.graph, &self.card)
    }

    /// The device's engine on the file as it ships.
    ///
    /// # Errors
    /// When the engine refuses the file.
    pub fn engine(&self) -> Result<Engine> {
        Engine::from_bytes(&self.to_bytes()?)
            .context("the device's engine refuses the exported file")
    }
}

impl<'a> Classifier<'a> {
    /// Puts `head` on the bottlenecks, in the place of the classifier that the backbone may have, and folds BatchNorm.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn new(
        backbone: &'a Backbone,
        head: &Head,
        preprocess: Preprocess,
        labels: Labels,
        provenance: Provenance,
    ) -> Result<Self> {
        Ok(Self {
            backbone,
            graph: fold(&backbone.with_head(head)).context("folding BatchNorm")?,
            preprocess,
            labels,
            provenance,
        })
    }

    /// The float file.
    ///
    /// # Errors
    /// When the graph can't be written.
    pub fn export_float(&self) -> Result<Exported> {
        let graph = float_model(&self.graph, self.normalisation(), self.signature())
            .context("writing the float graph")?;
        let kind = Quantization {
            arithmetic: graft_shared::card::ARITHMETIC,
            kind: QuantizationKind::Float,
            weight_bits: 32,
            calibration_images: 0,
            calibration_method: String::new(),
        };
        Ok(Exported {
            graph,
            card: self.card(kind),
        })
    }

    /// The int8 file: channels scaled and ranges picked as loses least in the device's engine on the comparison images,
    /// beside the float graph's logits; weights of as many bits as `weight_bits` says.
    ///
    /// # Errors
    /// When an activation or weight can't be quantized.
    pub fn export_int8(
        &self,
        samples: &Samples,
        weight_bits: WeightBits,
        progress: &Progress,
    ) -> Result<(Exported, Quantized)> {
        let Samples {
            calibration,
            comparison,
            ..
        } = samples;
        let stage = progress.stage("calibrating", 2 * calibration.len() + comparison.len());
        let batches: Vec<Tensor> = calibration
            .chunks(BATCH)
            .map(|batch| self.backbone.normalise(batch))
            .collect::<Result<_>>()?;
        let seen = calibrate(&self.graph, &batches, &|images| stage.advance(images))?;
        drop(batches);
        let mut float = Vec::with_capacity(comparison.len());
        for batch in comparison.chunks(BATCH) {
            let logits = self
                .graph
                .forward(&self.backbone.normalise(batch)?, &mut |_, _| Ok(()))?;
            float.extend(logits.to_vec2::<f32>().context("the float logits")?);
            stage.advance(batch.len());
        }
        stage.finish();

        let export = |graph: &QuantizedGraph, method: &str, bits: u8| Exported {
            graph: int8_model(graph, self.signature()),
            card: self.card(Quantization {
                arithmetic: graft_shared::card::ARITHMETIC,
                kind: QuantizationKind::Int8,
                weight_bits: bits,
                calibration_images: calibration.len() as u32,
                calibration_method: method.to_owned(),
            }),
        };
        let quantizer = Quantizer {
            graph: &self.graph,
            seen: &seen,
            input: PixelCode::new(self.normalisation()),
            engine: &|graph| export(graph, "", 8).engine(),
            comparison,
            float: &float,
            normalise: &|pictures| self.backbone.normalise(pictures),
        };
        let quantized = quantizer.run(samples.judged(), weight_bits, progress)?;
        let exported = export(
            &quantized.graph,
            &quantized.summary.range,
            quantized.weight_bits.bits(),
        );
        Ok((exported, quantized))
    }

    fn signature(&self) -> Signature {
        Signature {
            height: usize::from(self.preprocess.height),
            width: usize::from(self.preprocess.width),
            classes: self.labels.len(),
        }
    }

    fn card(&self, quantization: Quantization) -> Card {
        Card {
            labels: self.labels.clone(),
            preprocess: self.preprocess,
            quantization,
            decision: Decision {
                temperature: 1.0,
                threshold: 0.0,
            },
            metrics: None,
            probes: Vec::new(),
            provenance: self.provenance.clone(),
            graph_digest: [0; 32],
        }
    }

    fn normalisation(&self) -> Normalisation {
        Normalisation {
            mean: self.backbone.spec.mean,
            std: self.backbone.spec.std,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::backbone::testing;
    use crate::nn::testing::pseudo_random;
    use crate::quantization::distance;

    fn provenance() -> Provenance {
        Provenance {
            manifest_digest: [0; 32],
            backbone: "tiny".into(),
            backbone_digest: [0; 32],
            recipe: "head".into(),
            seed: 0,
            settings: Vec::new(),
            graft_version: String::new(),
            created: 0,
        }
    }

    fn pictures(range: std::ops::Range<usize>) -> Vec<Pixels> {
        let picture = |number| Pixels {
            width: 16,
            height: 16,
            data: (0..16 * 16 * 3)
                .map(|i| (i * (number + 3) * (i / 48 + 1) % 256) as u8)
                .collect(),
        };
        range.map(picture).collect()
    }

    /// Normalisations on and off the integer grid, weights with and without a classifier of their own, every operator.
    #[test]
    fn every_node_of_the_int8_file_runs_in_the_engines_own_operators() {
        let head = Head {
            weight: pseudo_random(&[3, 5], 7),
            bias: pseudo_random(&[3], 8),
        };
        let labels = Labels::new(["a", "b", "c"].map(String::from).to_vec()).unwrap();
        let mut without_classifier = testing::tiny();
        let nodes = &mut without_classifier.graph.nodes;
        nodes.truncate(without_classifier.bottleneck + 1);
        for (mut backbone, mean, std, most) in [
            (testing::tiny(), [127.0; 3], [128.0; 3], 1e-3),
            (without_classifier.clone(), [127.5; 3], [127.5; 3], 1e-3),
            (
                without_classifier,
                [123.675, 116.28, 103.53],
                [58.395, 57.12, 57.375],
                1e-3,
            ),
            (testing::every_operator(), [127.5; 3], [127.5; 3], 1e-2),
        ] {
            (backbone.spec.mean, backbone.spec.std) = (mean, std);
            let classifier = Classifier::new(
                &backbone,
                &head,
                backbone.preprocess().unwrap(),
                labels.clone(),
                provenance(),
            )
            .unwrap();
            let samples = Samples {
                calibration: pictures(0..8),
                comparison: pictures(8..12),
                judged: pictures(8..12),
                classes: vec![0, 1, 2, 0],
            };
            let quiet = Progress::new(true);
            let (int8, quantized) = classifier
                .export_int8(&samples, WeightBits::Eight, &quiet)
                .unwrap();
            let bits = |bits| {
                let (exported, quantized) = classifier.export_int8(&samples, bits, &quiet).unwrap();
                let choice = &quantized.weight_bits;
                (
                    exported.card.quantization.weight_bits,
                    choice.seven == choice.of,
                )
            };
            assert_eq!(bits(WeightBits::Seven), (7, true));
            let (weight_bits, all) = bits(WeightBits::Auto);
            assert_eq!(weight_bits == 7, all);
            // Every operator but the input and what only drops dimensions has its noise measured.
            assert!(quantized.layers.len() + 2 >= quantized.graph.nodes.len());
            for layer in &quantized.layers {
                let noise = layer.after.decibels();
                assert!(noise > 10.0, "{}: {noise} dB", layer.name);
            }
            let engine = int8.engine().unwrap();
            let report = engine.nodes();
            assert_eq!(report.tract, 0, "{:?}", report.tract_operators);
            let float = classifier.export_float().unwrap().engine().unwrap();
            let float: Vec<Vec<f32>> = pictures(12..20)
                .iter()
                .map(|picture| float.logits(picture).unwrap())
                .collect();
            let loss = distance(&engine, &pictures(12..20), &float).unwrap();
            assert!(loss < most, "mean {mean:?}: {loss}");
        }
    }
}
