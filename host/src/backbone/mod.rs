//! Pretrained backbones: what there is, where the weights come from, and the graph that they fill.

mod blocks;
mod builder;
mod checkpoint;
mod efficientnet_lite;
mod inception_v3;
mod mobilenet;
mod mobilenet_v3;
mod mobilenet_v4;
pub mod registry;
mod resnet;
pub mod sources;
pub mod weights;

use candle_core::{Device, Tensor};
use graft_shared::digest::sha256;
use graft_shared::error::{Context, Error, Result};
use graft_shared::preprocess::{Filter, Fit, Pixels, Preprocess};

use crate::head::Head;
use crate::nn::{Graph, Linear, Node, Op};
use builder::{Builder, Tensors};
use registry::Architecture;
pub use registry::BackboneSpec;
pub use sources::Source;
pub use weights::FetchOptions;

/// A pretrained network, ready to run.
#[derive(Clone, Debug)]
pub struct Backbone {
    /// Its name in the registry.
    pub name: String,
    /// All nodes, up to and with the classifier that it was trained with; to the bottleneck where the weights have none.
    pub graph: Graph,
    /// Index of the node whose output `[n, bottleneck_len]` feeds a classifier.
    pub bottleneck: usize,
    /// Values of a bottleneck.
    pub bottleneck_len: usize,
    /// Height and width of the input in pixels that the graph is built for.
    pub input_size: usize,
    /// SHA-256 of the weights file.
    pub weights_digest: [u8; 32],
    /// Its entry in the registry.
    pub spec: BackboneSpec,
}

/// Loads a backbone of the registry; weights that are not in the cache are fetched first.
///
/// `input_size` is the height and width in pixels, `None` for what the backbone was trained at: SAME padding depends on
/// it, so that a graph is right for one size only.
///
/// # Errors
/// An unknown name, weights that can't be had, and a weights file that does not fit the architecture.
pub fn load(name: &str, input_size: Option<usize>, options: &FetchOptions) -> Result<Backbone> {
    let spec = registry::find(name)?;
    let input_size = input_size.unwrap_or(spec.input_size);
    let (tensors, digest, origin) = match &options.own {
        Some(source) => {
            let bytes = source.read(options.offline)?;
            let tensors = checkpoint::from_safetensors(&bytes)
                .with_context(|| format!("reading the tensors of {source}"))
                .map_err(|error| error.hint("weights of your own come as a safetensors file"))?;
            (tensors, sha256(&bytes), source.to_string())
        }
        None => {
            let file = weights::fetch(&spec, options)?;
            let origin = file.path.display().to_string();
            (checkpoint::read(&file.path)?, file.digest, origin)
        }
    };
    let graph = build(&spec, &tensors, input_size)
        .with_context(|| format!("building `{name}` from {origin}"))?;
    Backbone::new(graph, input_size, digest, spec)
}

fn build(spec: &BackboneSpec, tensors: &dyn Tensors, input_size: usize) -> Result<Graph> {
    let builder = Builder::new(tensors, input_size, spec.padding);
    match spec.architecture {
        Architecture::EfficientnetLite { width, depth } => {
            efficientnet_lite::build(width, depth, builder)
        }
        Architecture::MobilenetV1 { width } => mobilenet::build_v1(width, builder),
        Architecture::MobilenetV2 { width } => mobilenet::build_v2(width, builder),
        Architecture::MobilenetV2Timm { width, depth } => {
            mobilenet::build_v2_timm(width, depth, builder)
        }
        Architecture::MobilenetV3 { size, width } => mobilenet_v3::build(size, width, builder),
        Architecture::MobilenetV4ConvSmall => mobilenet_v4::build_conv_small(builder),
        Architecture::Resnet { layers } => resnet::build(layers, builder),
        Architecture::InceptionV3 => inception_v3::build(builder),
    }
}

impl Backbone {
    fn new(
        graph: Graph,
        input_size: usize,
        weights_digest: [u8; 32],
        spec: BackboneSpec,
    ) -> Result<Backbone> {
        let last = graph.nodes.len().saturating_sub(1);
        let bottleneck = match graph.nodes.last() {
            Some(Node {
                op: Op::Linear(_),
                inputs,
                ..
            }) => inputs.first().copied().unwrap_or(0),
            _ => last,
        };
        let bottleneck_len = graph.channels(bottleneck)?;
        Ok(Backbone {
            name: spec.name.clone(),
            graph,
            bottleneck,
            bottleneck_len,
            input_size,
            weights_digest,
            spec,
        })
    }

    /// The graph with `head` in the place of the classifier that the backbone may have.
    #[must_use]
    pub fn with_head(&self, head: &Head) -> Graph {
        let mut graph = self.graph.clone();
        graph.nodes.truncate(self.bottleneck + 1);
        graph.nodes.push(Node {
            name: "classifier".to_owned(),
            op: Op::Linear(Linear {
                weight: head.weight.clone(),
                bias: head.bias.clone(),
            }),
            inputs: vec![self.bottleneck],
        });
        graph
    }

    /// How images are prepared for this backbone: its input size, crop_pct and interpolation, large JPEGs by DCT scaling.
    ///
    /// # Errors
    /// An input size that no model file can have.
    pub fn preprocess(&self) -> Result<Preprocess> {
        let size = u16::try_from(self.input_size)
            .with_context(|| format!("input size of {} pixels", self.input_size))?;
        let preprocess = Preprocess {
            width: size,
            height: size,
            fit: Fit::Crop {
                crop_pct: self.spec.crop_pct,
            },
            filter: match self.spec.interpolation {
                registry::Interpolation::Bilinear => Filter::Bilinear,
                registry::Interpolation::Bicubic => Filter::Bicubic,
            },
            dct_scaling: true,
        };
        preprocess.validate()?;
        Ok(preprocess)
    }

    /// Pictures as the graph's input: `(pixel - mean) / std`, f32 `[n, 3, input_size, input_size]`.
    ///
    /// # Errors
    /// No pictures, or one that is not of the backbone's input size.
    pub fn normalise(&self, pictures: &[Pixels]) -> Result<Tensor> {
        let size = self.input_size;
        let area = size * size;
        let mut values = vec![0.0_f32; pictures.len() * 3 * area];
        for (picture, planes) in pictures.iter().zip(values.chunks_exact_mut(3 * area)) {
            if (picture.width, picture.height) != (size, size) || picture.data.len() != 3 * area {
                return Err(Error::new(format!(
                    "a picture of {}x{} pixels for `{}`, which is built for {size}x{size}",
                    picture.width, picture.height, self.name
                )));
            }
            for (channel, plane) in planes.chunks_exact_mut(area).enumerate() {
                let (mean, std) = (self.spec.mean[channel], self.spec.std[channel]);
                for (value, pixel) in plane.iter_mut().zip(picture.data.chunks_exact(3)) {
                    *value = (f32::from(pixel[channel]) - mean) / std;
                }
            }
        }
        Tensor::from_vec(values, (pictures.len(), 3, size, size), &Device::Cpu)
            .context("preparing the backbone's input")
    }

    /// Bottlenecks of pictures, `[n, bottleneck_len]`.
    ///
    /// # Errors
    /// As [`Backbone::normalise`].
    pub fn bottlenecks(&self, pictures: &[Pixels]) -> Result<Tensor> {
        let input = self.normalise(pictures)?;
        self.graph
            .forward_to(self.bottleneck, &input, &mut |_, _| Ok(()))
    }
}

/// A backbone for tests, small enough to run thousands of times.
#[cfg(test)]
pub(crate) mod testing {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::nn::testing::pseudo_random;
    use crate::nn::{Activation, Conv, Function, Linear, Padding, Pool, PoolKind};
    use builder::Shape;

    /// One convolution for inputs of 16 pixels, bottlenecks of 5 values.
    pub(crate) fn tiny() -> Backbone {
        let conv = Conv {
            weight: pseudo_random(&[5, 3, 3, 3], 1),
            bias: None,
            batch_norm: None,
            stride: 2,
            padding: Padding::same(16, 16, 3, 2),
            groups: 1,
            activation: Activation::Relu6,
        };
        let classifier = Linear {
            weight: pseudo_random(&[2, 5], 2),
            bias: pseudo_random(&[2], 3),
        };
        let ops = [
            Op::Input,
            Op::Conv(conv),
            Op::GlobalAveragePool,
            Op::Linear(classifier),
        ];
        let nodes = ops
            .into_iter()
            .enumerate()
            .map(|(index, op)| Node {
                name: format!("node{index}"),
                op,
                inputs: index.checked_sub(1).into_iter().collect(),
            })
            .collect();
        let spec = registry::all().unwrap().remove(0);
        Backbone::new(Graph { nodes }, 16, [0; 32], spec).unwrap()
    }

    /// Every operator that a backbone may have, for inputs of 16 pixels, bottlenecks of 5 values.
    pub(crate) fn every_operator() -> Backbone {
        let anything = builder::testing::Anything {
            without_classifier: true,
            ..Default::default()
        };
        let mut builder = Builder::new(&anything, 16, registry::PaddingRule::Symmetric);
        let conv = |builder: &mut Builder, name: &str, shape, activation| {
            let shift = builder::Shift::Bias;
            builder.conv(name, name, shift, shape, activation).unwrap();
        };
        let pool = |kind, stride| Pool {
            kind,
            kernel: 3,
            stride,
            padding: Padding::symmetric(1),
        };
        conv(
            &mut builder,
            "stem",
            Shape::dense(8, 3, 1),
            Activation::Relu,
        );
        builder.pool("largest", pool(PoolKind::Max, 2));
        let input = builder.tip();
        conv(
            &mut builder,
            "row",
            Shape::rectangular(8, 1, 7),
            Activation::None,
        );
        builder.function("swish", Function::HardSwish);
        let left = builder.tip();
        builder.go_to(input);
        builder.pool("mean", pool(PoolKind::Average, 1));
        conv(
            &mut builder,
            "column",
            Shape::rectangular(8, 7, 1),
            Activation::Relu6,
        );
        let right = builder.tip();
        builder.concat("both", &[left, right]);
        let image = builder.tip();
        builder.squeeze("squeeze");
        conv(
            &mut builder,
            "gate",
            Shape::dense(16, 1, 1),
            Activation::None,
        );
        builder.function("sigmoid", Function::HardSigmoid);
        builder.multiply_channels("excite", image);
        let excited = builder.tip();
        conv(
            &mut builder,
            "depthwise",
            Shape::depthwise(16, 3, 1),
            Activation::None,
        );
        builder.add("add", excited, Activation::Relu);
        builder.squeeze("pool");
        conv(
            &mut builder,
            "head",
            Shape::dense(5, 1, 1),
            Activation::None,
        );
        builder.function("head.swish", Function::HardSwish);
        let graph = builder.finish_pooled("classifier").unwrap();
        let spec = registry::all().unwrap().remove(0);
        Backbone::new(graph, 16, [0; 32], spec).unwrap()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use super::builder::testing::Anything;
    use super::*;

    /// Multiply-adds of one image: every weight of a layer once for each pixel that the layer puts out.
    fn multiply_adds(graph: &Graph, size: usize) -> f64 {
        let input = Tensor::zeros((1, 3, size, size), candle_core::DType::F32, &Device::Cpu);
        let mut sum = 0;
        graph
            .forward(&input.unwrap(), &mut |node, output| {
                sum += match &graph.nodes[node].op {
                    Op::Conv(conv) => {
                        conv.weight.elem_count() * output.dim(2).unwrap() * output.dim(3).unwrap()
                    }
                    Op::Linear(linear) => linear.weight.elem_count(),
                    _ => 0,
                };
                Ok(())
            })
            .unwrap();
        sum as f64
    }

    #[test]
    fn every_backbone_of_the_registry_is_built_and_costs_what_is_said() {
        for spec in registry::all().unwrap() {
            let graph = build(&spec, &Anything::default(), spec.input_size).unwrap();
            let mmacs = multiply_adds(&graph, spec.input_size) / 1e6;
            let said = spec.mmacs;
            assert!(
                (mmacs - said).abs() <= 0.5,
                "{}: {mmacs}, not {said}",
                spec.name
            );
        }
    }

    #[test]
    fn weights_of_ones_own_come_from_a_safetensors_file_with_or_without_a_classifier() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.safetensors");
        let options = FetchOptions {
            model_dir: Some(folder.path().join("cache")),
            offline: true,
            own: Some(path.display().to_string().parse().unwrap()),
        };
        let load = || load("mobilenet_v2_0.35_96", Some(32), &options);
        let input = Tensor::ones((1, 3, 32, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
        for without_classifier in [false, true] {
            let anything = Anything {
                without_classifier,
                ..Anything::default()
            };
            let spec = registry::find("mobilenet_v2_0.35_96").unwrap();
            build(&spec, &anything, 32).unwrap();
            let tensors: HashMap<String, Tensor> = anything.asked_for.into_inner();
            std::fs::write(&path, safetensors::serialize(&tensors, None).unwrap()).unwrap();
            let backbone = load().unwrap();
            assert_eq!(
                backbone.weights_digest,
                sha256(&std::fs::read(&path).unwrap())
            );
            assert_eq!(backbone.bottleneck_len, 1280);
            let output = backbone.graph.forward(&input, &mut |_, _| Ok(())).unwrap();
            let outputs = if without_classifier { 1280 } else { 1000 };
            assert_eq!(output.dims(), [1, outputs]);
        }
        std::fs::write(&path, b"something else").unwrap();
        let report = load().unwrap_err().report();
        assert!(
            report.contains("mine.safetensors") && report.contains("hint: "),
            "{report}"
        );
        assert!(!folder.path().join("cache").exists());
    }

    #[test]
    fn pixels_become_planes_in_units_of_std() {
        let backbone = testing::tiny();
        let mut picture = Pixels {
            width: 16,
            height: 16,
            data: vec![127; 16 * 16 * 3],
        };
        picture.data[..3].copy_from_slice(&[255, 0, 63]);
        let planes = backbone.normalise(&[picture.clone()]).unwrap();
        assert_eq!(planes.dims(), [1, 3, 16, 16]);
        let values = planes.flatten_from(2).unwrap().squeeze(0).unwrap();
        let values = values.to_vec2::<f32>().unwrap();
        let first: Vec<f32> = values.iter().map(|plane| plane[0]).collect();
        assert_eq!(first, [1.0, -127.0 / 128.0, -0.5]);
        assert!(
            values
                .iter()
                .all(|plane| plane[1..].iter().all(|&value| value == 0.0))
        );

        picture.width = 15;
        let report = backbone.normalise(&[picture]).unwrap_err().report();
        assert!(report.contains("15x16"), "{report}");
    }
}
