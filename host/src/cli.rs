//! The command line: what can be typed.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use graft_cli::describe::{CompletionsArguments, ManArguments};
use graft_cli::fraction;
use graft_shared::error::Result;

use crate::backbone::Source;
use crate::dataset::GroupBy;
use crate::fine_tune::DeviceName;
use crate::retrain::{self, WithoutEffect};
use crate::train::FitName;
use crate::weight_bits::WeightBits;

/// Puts your own image classifier on a small board: trains it from a folder of photos, one sub-folder per label.
#[derive(Debug, Parser)]
#[command(
    name = "graft",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  graft demo                        sample photos fetched, trained, labelled
  graft train photos/               photos/<label>/*.jpg to runs/photos-1/model.onnx
  graft label photo.jpg             with the newest run
  graft evaluate model.onnx photos/

Exit codes: 0 all done; 1 some inputs failed, or a gate was missed and nothing was exported; 2 could not run."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train on a folder of photos and export an int8 model
    Train(Box<TrainArguments>),
    /// Look for what is wrong with photos before training on them
    Check(CheckArguments),
    /// Measure a model on pictures whose labels are known, its float twin beside it
    Evaluate(EvaluateArguments),
    /// Say which pictures a new model labels better, and which worse, than an old one
    Compare(CompareArguments),
    /// Label pictures
    Label(LabelArguments),
    /// List the pretrained backbones, or fetch the weights of one
    #[command(subcommand)]
    Backbones(BackbonesCommand),
    /// Bring a model to a board, through ssh, and serve it there
    Deploy(DeployArguments),
    /// List what can be trained on, and why the rest can't be
    Devices(DevicesArguments),
    /// Fetch sample photos, train on them and label photos that training has not seen
    Demo(DemoArguments),
    /// Print the script that completes commands in a shell
    #[command(after_help = "\
Example:
  graft completions bash > ~/.local/share/bash-completion/completions/graft")]
    Completions(CompletionsArguments),
    /// Print the manual page, or write one for each command
    #[command(after_help = "\
Examples:
  graft man | man -l -
  graft man --output ~/.local/share/man/man1")]
    Man(ManArguments),
}

/// Of `graft train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft train photos/                      one folder for each label
  graft train list.tsv                     columns path, label and, if wanted, split
  graft train photos/ --min-accuracy 0.9   exit 1 and export nothing below 90 %

The words of TensorFlow's retrain.py are understood too: --image_dir, --how_many_training_steps and the others.")]
pub struct TrainArguments {
    /// A folder of label folders, or a TSV with the columns `path`, `label` and, if wanted, `split`
    #[arg(value_name = "DIR|LIST.tsv", required_unless_present = "image_dir")]
    source: Option<PathBuf>,

    /// As the first argument
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "source")]
    image_dir: Option<PathBuf>,

    /// The run folder, new or unfinished [default: runs/<folder>-<n>]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,

    /// Go on where the fine-tuning in --run stopped
    #[arg(long, requires = "run")]
    pub resume: bool,

    /// Which pretrained backbone to start from (`graft backbones list`)
    #[arg(long, value_name = "NAME", default_value = crate::train::DEFAULT_BACKBONE)]
    backbone: String,

    /// Weights of your own: a safetensors file, or hf:OWNER/NAME/FILE
    #[arg(long, value_name = "SOURCE")]
    pub weights: Option<Source>,

    /// Begin with the weights of an earlier run: its model file
    #[arg(long, value_name = "MODEL", conflicts_with = "weights")]
    pub from: Option<PathBuf>,

    /// As --backbone, by the names that retrain.py used
    #[arg(long, value_name = "NAME", hide = true, conflicts_with = "backbone")]
    architecture: Option<String>,

    /// Side of the model's input in pixels [default: the backbone's own]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(32..=1024))]
    pub image_size: Option<u16>,

    /// What to train: head, fast, balanced or best
    #[arg(
        long,
        value_enum,
        default_value = "balanced",
        hide_possible_values = true
    )]
    pub recipe: Recipe,

    /// Time for fine-tuning, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub time_budget: Option<Duration>,

    /// Passes over the photos in fine-tuning [default: the recipe's]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,

    /// As --epochs, in steps
    #[arg(long, value_name = "N", hide = true, conflicts_with = "epochs")]
    pub how_many_training_steps: Option<usize>,

    /// Photos in a step of fine-tuning
    #[arg(long, value_name = "N", hide = true)]
    pub train_batch_size: Option<usize>,

    /// Highest learning rate of fine-tuning
    #[arg(long, value_name = "RATE", hide = true)]
    pub learning_rate: Option<f64>,

    /// What to fine-tune on: auto, cpu or cuda
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,

    /// Any setting of fine-tuning, as settings.toml names it
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,

    /// Write event files for TensorBoard here
    #[arg(long, value_name = "DIR")]
    pub summaries_dir: Option<PathBuf>,

    /// How a photo becomes the model's input: crop, pad or squash
    #[arg(long, value_enum, default_value = "crop", hide_possible_values = true)]
    pub fit: FitName,

    /// Percent of each label's photos that measure the final accuracy
    #[arg(long, value_name = "N", default_value = "10")]
    pub testing_percentage: u32,

    /// Percent of each label's photos that settings are picked on
    #[arg(long, value_name = "N", default_value = "10")]
    pub validation_percentage: u32,

    /// What stays on one side of the split: folder or exif-burst
    #[arg(long, value_enum, value_name = "WHAT", hide_possible_values = true)]
    pub group_by: Option<GroupBy>,

    /// Export nothing below this int8 accuracy on the test photos
    #[arg(long, value_name = "FRACTION", value_parser = fraction::<f64>)]
    pub min_accuracy: Option<f64>,

    /// Export nothing when int8 loses more accuracy to float
    #[arg(long, value_name = "FRACTION", value_parser = fraction::<f64>)]
    pub max_drop: Option<f64>,

    /// Bits of the weights: auto, 8 or 7
    #[arg(
        long,
        value_name = "BITS",
        value_enum,
        hide_possible_values = true,
        default_value = "auto"
    )]
    pub weight_bits: WeightBits,

    /// Write the int8 model here too
    #[arg(long, value_name = "FILE")]
    pub output_graph: Option<PathBuf>,

    /// Write the labels here too, one a line in output order
    #[arg(long, value_name = "FILE")]
    pub output_labels: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) common: CommonArguments,

    /// Print the figures as one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub(crate) retrain: WithoutEffect,
}

impl TrainArguments {
    /// The folder or the list of photos.
    #[must_use]
    pub fn source(&self) -> &Path {
        let source = self.source.as_deref().or(self.image_dir.as_deref());
        // The parser asks for one of the two.
        source.unwrap_or(Path::new("."))
    }

    /// The name of the backbone, by whichever word it was given.
    ///
    /// # Errors
    /// When an old name stands for none of ours.
    pub fn backbone(&self) -> Result<String> {
        let old = self.architecture.as_deref();
        old.map_or_else(|| Ok(self.backbone.clone()), retrain::backbone)
    }

    /// As if only the source, the run folder and the common arguments had been typed.
    pub(crate) fn of(source: PathBuf, run: PathBuf, common: CommonArguments) -> Self {
        Self {
            source: Some(source),
            image_dir: None,
            run: Some(run),
            backbone: crate::train::DEFAULT_BACKBONE.to_owned(),
            architecture: None,
            image_size: None,
            weights: None,
            recipe: Recipe::Head,
            from: None,
            resume: false,
            time_budget: None,
            epochs: None,
            how_many_training_steps: None,
            train_batch_size: None,
            learning_rate: None,
            device: DeviceName::Auto,
            set: Vec::new(),
            summaries_dir: None,
            fit: FitName::Crop,
            testing_percentage: 10,
            validation_percentage: 10,
            group_by: None,
            min_accuracy: None,
            max_drop: None,
            weight_bits: WeightBits::Auto,
            output_graph: None,
            output_labels: None,
            common,
            json: false,
            retrain: WithoutEffect::default(),
        }
    }
}

/// What every command that trains takes.
#[derive(Debug, Args)]
pub(crate) struct CommonArguments {
    /// Cache of bottlenecks [default: in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) bottleneck_dir: Option<PathBuf>,

    /// Cache of pretrained weights [default: in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) model_dir: Option<PathBuf>,

    /// Fetch nothing: use what the caches hold
    #[arg(long)]
    pub(crate) offline: bool,

    /// The seed of all randomness
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) seed: u64,

    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Say nothing on stderr but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Recipe {
    /// The head on frozen bottlenecks, to convergence.
    Head,
    /// Fine-tuning, the quickest.
    Fast,
    /// Fine-tuning, for most uses.
    Balanced,
    /// Fine-tuning, the most accurate.
    Best,
}

impl Recipe {
    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Head => "head",
            Recipe::Fast => "fast",
            Recipe::Balanced => "balanced",
            Recipe::Best => "best",
        }
    }
}

/// Of `graft check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Finds files that can't be used, tiny and blurred photos, labels with few photos, duplicates and near-duplicates, \
duplicates under two labels, and leaks between the sides of a given split. Findings are warnings: exit 0.")]
pub struct CheckArguments {
    /// A folder of label folders, or a TSV with the columns `path`, `label` and, if wanted, `split`
    #[arg(value_name = "DIR|LIST.tsv")]
    pub source: PathBuf,

    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Say nothing on stderr but errors
    #[arg(long, short)]
    pub quiet: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Of `graft evaluate`; as `graft-device eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft evaluate runs/photos-1/model.onnx photos/                      a folder for each label
  graft evaluate runs/photos-1/model.onnx runs/photos-1/split.tsv      its test rows")]
pub struct EvaluateArguments {
    /// The model file
    pub model: PathBuf,

    /// A folder of label folders, or a TSV with the columns `path`, `label` and, if wanted, `split`
    #[arg(value_name = "DIR|LIST.tsv")]
    pub source: PathBuf,

    /// The rows of a TSV with a `split` column to take
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub split: String,

    /// Write each picture's label, prediction and score to this TSV
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,

    /// Exit 1 below this accuracy of the model, from 0 to 1
    #[arg(long, value_name = "FRACTION", value_parser = fraction::<f64>)]
    pub min_accuracy: Option<f64>,

    /// Exit 1 when int8 loses more accuracy to float than this, from 0 to 1
    #[arg(long, value_name = "FRACTION", value_parser = fraction::<f64>)]
    pub max_drop: Option<f64>,

    #[command(flatten)]
    pub(crate) common: CommonArguments,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Of `graft compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft compare runs/photos-1/model.onnx runs/photos-2/model.onnx held-out/
  graft compare old.onnx new.onnx runs/photos-2/split.tsv      its test rows

Take pictures that neither model was trained on. Labels are compared by name: a model is wrong about a picture whose \
label it does not have; the figures for the labels that both have stand below. A p of McNemar's test below 0.05 says \
that chance alone hardly makes such a difference.")]
pub struct CompareArguments {
    /// The old model file
    #[arg(value_name = "OLD.onnx")]
    pub old: PathBuf,

    /// The new model file
    #[arg(value_name = "NEW.onnx")]
    pub new: PathBuf,

    /// A folder of label folders, or a TSV with the columns `path`, `label` and, if wanted, `split`
    #[arg(value_name = "DIR|LIST.tsv")]
    pub source: PathBuf,

    /// The rows of a TSV with a `split` column to take
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub split: String,

    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Say nothing on stderr but errors
    #[arg(long, short)]
    pub quiet: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Of `graft label`; as `graft-device label`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft label photo.jpg                         with the newest finished run below `runs`
  graft label flowers.onnx photos/ --json --top 3
  graft label photos/ --csv --output labels.csv --resume")]
pub struct LabelArguments {
    /// A model file if the first is one, then image files, folders, or `-` for the bytes of one image
    #[arg(value_name = "MODEL.onnx|PATH", required_unless_present = "paths_from")]
    pub paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) label: graft_cli::label::LabelArguments,
}

/// Of `graft backbones`.
#[derive(Debug, Subcommand)]
pub enum BackbonesCommand {
    /// What there is, what it costs, and whether its weights are in the cache
    List {
        /// Cache of pretrained weights [default: in the user's cache folder]
        #[arg(long, value_name = "DIR")]
        model_dir: Option<PathBuf>,

        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Put the weights of a backbone into the cache
    #[command(after_help = "\
Examples:
  graft backbones fetch efficientnet_lite2
  graft backbones fetch mobilenet_v2_1.0_224 --from model.safetensors")]
    Fetch {
        /// Its name
        name: String,

        /// Take the weights from here; they must be those that the registry knows
        #[arg(long, value_name = "SOURCE")]
        from: Option<Source>,

        /// Cache of pretrained weights [default: in the user's cache folder]
        #[arg(long, value_name = "DIR")]
        model_dir: Option<PathBuf>,

        /// Never use the network
        #[arg(long)]
        offline: bool,
    },
}

/// Of `graft deploy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft deploy pi@raspberrypi.local runs/photos-1/model.onnx
  graft deploy root@10.0.0.7 model.onnx --ssh-option Port=2222 --photo cat.jpg

The board is asked what it is; the package is installed, the model's probes are computed there, and the service is started
with it. Until the probes have passed the board serves what it did before.")]
pub struct DeployArguments {
    /// The board, as `ssh` takes it: [USER@]HOST. The user is root, or may run `sudo` without a password
    pub host: String,

    /// The model file
    pub model: PathBuf,

    /// The Debian package to install [default: the one that device/package/build made]
    #[arg(long, value_name = "FILE.deb")]
    pub package: Option<PathBuf>,

    /// A photo to label there [default: a test photo of the model's run]
    #[arg(long, value_name = "PHOTO")]
    pub photo: Option<PathBuf>,

    /// An option for ssh's -o, such as Port=2222; may be repeated
    #[arg(long, value_name = "OPTION")]
    pub ssh_option: Vec<String>,

    /// Say nothing of what is done
    #[arg(long)]
    pub quiet: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Of `graft devices`.
#[derive(Debug, Args)]
pub struct DevicesArguments {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Of `graft demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// The folder for the sample photos and the run
    #[arg(long, value_name = "DIR", default_value = "graft-demo")]
    pub folder: PathBuf,

    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// A time such as `90s`, `10m` or `2h`; without a unit it is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let unit = match unit {
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time: s, m and h are")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a number and a unit are wanted, such as 10m".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

/// `NAME=VALUE`.
fn setting(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.replace('-', "_"), value.to_owned()))
        .ok_or_else(|| "NAME=VALUE is wanted".to_owned())
}
