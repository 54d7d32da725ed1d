//! The registry of pretrained backbones: `models/backbones.toml`, built into the program.

use graft_shared::error::{Context, Error, Result};
use serde::Deserialize;

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
    /// Name of the weights file in the cache.
    pub file: String,
    /// SHA-256 of the weights file, lowercase hexadecimal.
    pub sha256: String,
    /// Where the weights come from, in the order in which they are tried; empty where the user brings the file.
    #[serde(default)]
    pub sources: Vec<Source>,
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
    /// MobileNet, version 2.
    MobilenetV2 {
        /// Factor on all channels; on those of the last convolution only where it is above 1.
        width: f64,
    },
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

/// Where convolutions put their zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingRule {
    /// TensorFlow's SAME: an odd one out goes to the bottom and the right.
    Same,
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
            assert_eq!(spec.sha256.len(), 64, "{}", spec.name);
            assert!(
                spec.sha256
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            );
            assert!(!spec.file.contains(['/', '\\']), "{}", spec.file);
            assert!(spec.crop_pct > 0.0 && spec.crop_pct <= 1.0);
            assert!(spec.std.iter().all(|&std| std > 0.0));
            assert_eq!(find(&spec.name).unwrap().sha256, spec.sha256);
        }
        let unique: std::collections::BTreeSet<_> =
            backbones.iter().map(|spec| &spec.name).collect();
        assert_eq!(unique.len(), backbones.len());
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
