//! The registry of pretrained backbones: `models/backbones.toml`, built into the program.

use graft_shared::error::{Context, Error, Result};
use serde::Deserialize;

use super::mobilenet_v3;
use super::sources::Source;

const REGISTRY: &str = include_str!("../../../models/backbones.toml");

/// What is known of a pretrained backbone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSpec {
    /// Its name, as `--backbone` takes it.
    pub name: String,
    /// Which graph the weights fill.
    pub architecture: Architecture,
    /// Licence of the weights (SPDX).
    pub licence: String,
    /// Height and width in pixels that it was trained at.
    pub input_size: usize,
    /// Multiply-adds for one image, in millions.
    pub mmacs: f64,
    /// Published accuracy on ImageNet's validation set, in percent.
    pub top1: f64,
    /// Mean per channel (red, green, blue), in pixel units.
    pub mean: [f32; 3],
    /// Standard deviation per channel, in pixel units.
    pub std: [f32; 3],
    /// Share of the resized picture's side that the central crop keeps.
    pub crop_pct: f32,
    /// Filter that pictures are resized with.
    pub interpolation: Interpolation,
    /// Where convolutions put their zeros.
    pub padding: PaddingRule,
    /// The weights file that accuracy and card speak of; none where this program has never seen it.
    pub weights: Option<Weights>,
    /// What `--weights` takes where no file is pinned: safetensors on the Hub, as their publisher names them.
    pub published: Option<String>,
    /// Where the weights come from, in the order in which they are tried; empty where the user brings the file.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// A weights file of known content.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Its name in the cache.
    pub file: String,
    /// SHA-256 of its bytes, lowercase hexadecimal.
    pub sha256: String,
}

/// The graphs that can be built: a family and how its member is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(tag = "family", rename_all = "snake_case", deny_unknown_fields)]
pub enum Architecture {
    /// EfficientNet-Lite.
    EfficientnetLite {
        /// Factor on the blocks' channels.
        width: f64,
        /// Factor on the repeats of each stage but the first and the last.
        depth: f64,
    },
    /// MobileNet, version 1.
    MobilenetV1 {
        /// Factor on all channels.
        width: f64,
    },
    /// MobileNet, version 2, BatchNorm folded.
    MobilenetV2 {
        /// Factor on all channels; on those of the last convolution only where it is above 1.
        width: f64,
    },
    /// MobileNet, version 2, by timm's names.
    MobilenetV2Timm {
        /// As above; those of stem and last convolution stay as they are where `depth` is above 1.
        width: f64,
        /// Factor on the repeats of each stage but the first and the last.
        depth: f64,
    },
    /// MobileNet, version 3.
    MobilenetV3 {
        /// Which of the two.
        size: mobilenet_v3::Size,
        /// Factor on all channels but the bottleneck's.
        width: f64,
    },
    /// MobileNet, version 4, Conv-S.
    MobilenetV4ConvSmall,
    /// ResNet.
    Resnet {
        /// 18, 34 or 50.
        layers: usize,
    },
    /// Inception, version 3.
    InceptionV3,
}

/// How pictures are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Linear in both directions.
    Bilinear,
    /// Cubic in both directions.
    Bicubic,
}

/// The board that a backbone is good on, and all that are faster; Raspberry Pis stand for their like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Cortex-A53 at 1 GHz: no dot products, one instruction at a time.
    Zero2W,
    /// Cortex-A72 at 1.8 GHz: no dot products.
    Pi4,
    /// Cortex-A76 at 2.4 GHz: dot products.
    Pi5,
}

impl Board {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Board::Zero2W => "Zero 2 W",
            Board::Pi4 => "Pi 4",
            Board::Pi5 => "Pi 5",
        }
    }

    /// Millions of multiply-adds in a quarter of a second on one core: 0.3 instructions for each of them without dot
    /// products and 0.14 with (docs/benchmarks.md), and 1, 1.5 and 1.5 instructions in a cycle.
    fn affordable(self) -> f64 {
        match self {
            Board::Zero2W => 830.0,
            Board::Pi4 => 2250.0,
            Board::Pi5 => 6400.0,
        }
    }
}

impl BackboneSpec {
    /// The smallest board that should label four pictures in a second on one core; an estimate, no board was timed. `None`
    /// where none does.
    #[must_use]
    pub fn smallest_board(&self) -> Option<Board> {
        [Board::Zero2W, Board::Pi4, Board::Pi5]
            .into_iter()
            .find(|board| self.mmacs <= board.affordable())
    }
}

/// Where convolutions put their zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingRule {
    /// TensorFlow's SAME: an odd one out goes to the bottom and the right.
    Same,
    /// Half the kernel on every side.
    Symmetric,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    backbone: Vec<BackboneSpec>,
}

/// All backbones, in the registry's order.
///
/// # Errors
/// A registry that does not parse; the one that is built in does.
pub fn all() -> Result<Vec<BackboneSpec>> {
    parse(REGISTRY)
}

/// The backbone of that name.
///
/// # Errors
/// An unknown name; the hint lists the known ones.
pub fn find(name: &str) -> Result<BackboneSpec> {
    let backbones = all()?;
    let names: Vec<String> = backbones.iter().map(|spec| spec.name.clone()).collect();
    backbones
        .into_iter()
        .find(|spec| spec.name == name)
        .ok_or_else(|| {
            Error::new(format!("there is no backbone `{name}`"))
                .hint(format!("the backbones are: {}", names.join(", ")))
        })
}

fn parse(text: &str) -> Result<Vec<BackboneSpec>> {
    let registry: Registry = toml::from_str(text).context("reading the registry of backbones")?;
    Ok(registry.backbone)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn built_in_registry_is_complete() {
        let backbones = all().unwrap();
        assert!(!backbones.is_empty());
        for spec in &backbones {
            if let Some(Weights { file, sha256 }) = &spec.weights {
                assert_eq!(sha256.len(), 64, "{}", spec.name);
                assert!(
                    sha256
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
                );
                assert!(!file.contains(['/', '\\']), "{file}");
            } else {
                assert!(spec.sources.is_empty(), "{} has no hash", spec.name);
                let published = spec.published.as_ref().unwrap();
                published.parse::<Source>().unwrap();
            }
            assert!(spec.crop_pct > 0.0 && spec.crop_pct <= 1.0);
            assert!(spec.std.iter().all(|&std| std > 0.0));
            assert_eq!(find(&spec.name).unwrap().mmacs, spec.mmacs);
        }
        let unique: std::collections::BTreeSet<_> =
            backbones.iter().map(|spec| &spec.name).collect();
        assert_eq!(unique.len(), backbones.len());
    }

    #[test]
    fn larger_backbones_are_good_on_larger_boards() {
        let board = |name: &str| find(name).unwrap().smallest_board();
        assert_eq!(board("efficientnet_lite0"), Some(Board::Zero2W));
        assert_eq!(board("resnet18"), Some(Board::Pi4));
        assert_eq!(board("inception_v3"), Some(Board::Pi5));
    }

    #[test]
    fn unknown_name_lists_the_known_ones() {
        let report = find("inception_v9").unwrap_err().report();
        assert!(report.contains("inception_v9"), "{report}");
        assert!(report.contains("efficientnet_lite0"), "{report}");
    }

    #[test]
    fn unknown_field_is_refused() {
        let text = REGISTRY.replacen("licence", "license", 1);
        let report = parse(&text).unwrap_err().report();
        assert!(report.contains("license"), "{report}");
    }
}
