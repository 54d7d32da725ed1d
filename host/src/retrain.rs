//! The command line of TensorFlow's `retrain.py`, so that a command in people's notes runs with `graft train` in place of
//! `python retrain.py`: words with underscores, names of old networks, flags that something else has replaced.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use graft_shared::error::{Error, Result};

use crate::backbone::registry;

/// Writes the names of long flags with hyphens, as clap knows them: `--image_dir=a_b` becomes `--image-dir=a_b`.
///
/// What follows `--` is not a flag and stays.
pub fn hyphens(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    arguments
        .into_iter()
        .map(|argument| {
            flags &= argument != OsStr::new("--");
            if flags { hyphen(argument) } else { argument }
        })
        .collect()
}

fn hyphen(argument: OsString) -> OsString {
    if !argument.as_bytes().starts_with(b"--") {
        return argument;
    }
    let mut bytes = argument.into_vec();
    let name = bytes.iter_mut().take_while(|byte| **byte != b'=');
    name.filter(|byte| **byte == b'_')
        .for_each(|byte| *byte = b'-');
    OsString::from_vec(bytes)
}

/// The networks that `--architecture` named (retrain.py of TensorFlow 1.4 to 1.8), and ours of the same weights. Any of
/// them may end in `_quantized`: every model of ours is.
const ARCHITECTURES: [(&str, &str); 8] = [
    ("mobilenet_1.0_224", "mobilenet_v1_1.0_224"),
    ("mobilenet_0.50_160", "mobilenet_v1_0.5_160"),
    ("mobilenet_0.5_160", "mobilenet_v1_0.5_160"),
    ("mobilenet_v1_0.50_160", "mobilenet_v1_0.5_160"),
    ("mobilenet_v1_100_224", "mobilenet_v1_1.0_224"),
    ("mobilenet_v1_050_160", "mobilenet_v1_0.5_160"),
    ("mobilenet_v2_100_224", "mobilenet_v2_1.0_224"),
    ("mobilenet_v2_035_96", "mobilenet_v2_0.35_96"),
];

/// The backbone that an old name of `--architecture` stands for; ours stand for themselves.
///
/// # Errors
/// When there is none of these weights.
pub fn backbone(architecture: &str) -> Result<String> {
    let plain = architecture
        .strip_suffix("_quantized")
        .unwrap_or(architecture);
    let ours = ARCHITECTURES
        .iter()
        .find(|(old, _)| *old == plain)
        .map_or(plain, |(_, ours)| ours);
    let all = registry::all()?;
    if all.iter().any(|spec| spec.name == ours) {
        return Ok(ours.to_owned());
    }
    let names: Vec<_> = all.iter().map(|spec| spec.name.as_str()).collect();
    Err(
        Error::new(format!("no backbone for `--architecture {architecture}`"))
            .hint(format!("--backbone takes: {}", names.join(", "))),
    )
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Nothing, or a value behind `=`.
    Nothing,
    Number,
    Text,
}

const AUGMENTATION: &str =
    "fine-tuning varies the photos by itself; `--set crop_area=0.5` and the like change how much";
const RESUMED: &str = "a run that is interrupted continues with the same `--run DIR`";
const ALL_VALIDATION: &str = "the head is measured on all validation photos";

/// The flags without an effect: name, what follows it, what serves in its place.
const WITHOUT_EFFECT: [(&str, Takes, &str); 15] = [
    ("flip-left-right", Takes::Nothing, AUGMENTATION),
    ("random-crop", Takes::Number, AUGMENTATION),
    ("random-scale", Takes::Number, AUGMENTATION),
    ("random-brightness", Takes::Number, AUGMENTATION),
    (
        "tfhub-module",
        Takes::Text,
        "`--backbone NAME` chooses the pretrained network",
    ),
    (
        "final-tensor-name",
        Takes::Text,
        "the model's output is called `logits`; `graft label` finds it",
    ),
    (
        "saved-model-dir",
        Takes::Text,
        "`--output-graph FILE` writes the model, a single ONNX file",
    ),
    ("intermediate-output-graphs-dir", Takes::Text, RESUMED),
    ("intermediate-store-frequency", Takes::Number, RESUMED),
    ("checkpoint-path", Takes::Text, RESUMED),
    ("eval-step-interval", Takes::Number, ALL_VALIDATION),
    ("validation-batch-size", Takes::Number, ALL_VALIDATION),
    (
        "test-batch-size",
        Takes::Number,
        "the accuracy is measured on all test photos",
    ),
    (
        "print-misclassified-test-images",
        Takes::Nothing,
        "`graft evaluate MODEL RUN/split.tsv --predictions FILE` lists every test photo and what it was taken for",
    ),
    (
        "logging-verbosity",
        Takes::Text,
        "`--quiet` says nothing but errors",
    ),
];

/// Flags without an effect: each is accepted, in no help text, and gives a warning that says what replaces it.
#[derive(Debug, Default)]
pub struct WithoutEffect {
    warnings: Vec<String>,
}

impl WithoutEffect {
    /// A warning for each that was typed.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Args for WithoutEffect {
    fn augment_args(mut command: Command) -> Command {
        for (name, takes, _) in WITHOUT_EFFECT {
            let flag = Arg::new(name).long(name).hide(true);
            command = command.arg(
                match takes {
                    Takes::Nothing => flag
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value("true"),
                    Takes::Number => flag
                        .value_parser(value_parser!(f64))
                        .allow_negative_numbers(true),
                    Takes::Text => flag,
                }
                // As in retrain.py the last one counts.
                .action(ArgAction::Set)
                .overrides_with(name),
            );
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for WithoutEffect {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = WITHOUT_EFFECT
            .iter()
            .filter(|(name, ..)| matches.contains_id(name));
        Ok(Self {
            warnings: typed
                .map(|(name, _, instead)| format!("--{name} has no effect: {instead}"))
                .collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::cli::{Cli, Command, TrainArguments};
    use clap::Parser;

    fn parse(line: &str) -> Result<TrainArguments, clap::Error> {
        let arguments = ["graft", "train"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(hyphens(arguments.map(OsString::from)))?.command {
            Command::Train(arguments) => Ok(*arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_get_hyphens_and_values_stay() {
        let typed = ["a_b", "--c_d", "--e_f=g_h", "-i_j", "--", "--k_l"].map(OsString::from);
        let expected = ["a_b", "--c-d", "--e-f=g_h", "-i_j", "--", "--k_l"].map(OsString::from);
        assert_eq!(hyphens(typed), expected);
    }

    #[test]
    fn every_word_of_retrain_py_is_understood_in_both_spellings() {
        for (underscores, equals) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut line = String::from(
                "--image_dir=flower_photos --bottleneck_dir=a_b --model_dir=c --output_graph=d --output_labels=e \
                 --testing_percentage=15 --validation_percentage=20 --architecture=efficientnet_lite0",
            );
            for (name, takes, _) in WITHOUT_EFFECT {
                line += &match takes {
                    Takes::Nothing => format!(" --{}", name.replace('-', "_")),
                    Takes::Number => format!(" --{}=-1", name.replace('-', "_")),
                    Takes::Text => format!(" --{}=x_y", name.replace('-', "_")),
                };
            }
            if !underscores {
                let hyphened = hyphens(line.split(' ').map(OsString::from));
                let hyphened: Vec<_> = hyphened.iter().map(|word| word.to_str().unwrap()).collect();
                line = hyphened.join(" ");
            }
            if !equals {
                line = line.replace('=', " ");
            }
            let parsed = parse(&line).unwrap();
            assert_eq!(parsed.source().to_str(), Some("flower_photos"));
            let common = &parsed.common;
            assert_eq!(
                common.bottleneck_dir.as_deref().unwrap().to_str(),
                Some("a_b")
            );
            assert_eq!(common.model_dir.as_deref().unwrap().to_str(), Some("c"));
            assert_eq!(parsed.output_graph.as_deref().unwrap().to_str(), Some("d"));
            assert_eq!(parsed.output_labels.as_deref().unwrap().to_str(), Some("e"));
            assert_eq!(
                (parsed.testing_percentage, parsed.validation_percentage),
                (15, 20)
            );
            assert_eq!(parsed.backbone().unwrap(), "efficientnet_lite0");
            assert_eq!(parsed.retrain.warnings().len(), WITHOUT_EFFECT.len());
        }
    }

    #[test]
    fn what_is_no_flag_or_no_number_stays_an_error() {
        for line in [
            "photos --bottelneck_dir x",
            "photos --learning_rate fast",
            "photos --image_dir other",
            "photos --architecture a --backbone b",
            "--seed 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn networks_without_our_weights_are_refused_with_a_list() {
        for name in ["mobilenet_v1_025_96", "mobilenet_0.25_128_quantized"] {
            let report = backbone(name).unwrap_err().report();
            assert!(
                report.contains(name) && report.contains("efficientnet_lite0"),
                "{report}"
            );
        }
        for (name, ours) in [
            ("efficientnet_lite0_quantized", "efficientnet_lite0"),
            ("inception_v3", "inception_v3"),
        ] {
            assert_eq!(backbone(name).unwrap(), ours);
        }
    }
}
