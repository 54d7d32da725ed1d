//! The command line: what can be typed.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::backbone::Source;
use crate::train::FitName;

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
    Train(TrainArguments),
    /// Measure a model on pictures whose labels are known, its float twin beside it
    Evaluate(EvaluateArguments),
    /// Label pictures
    Label(LabelArguments),
    /// List the pretrained backbones, or fetch the weights of one
    #[command(subcommand)]
    Backbones(BackbonesCommand),
    /// Fetch sample photos, train on them and label photos that training has not seen
    Demo(DemoArguments),
}

/// Of `graft train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft train photos/                      one folder for each label
  graft train list.tsv                     columns path, label and, if wanted, split
  graft train photos/ --min-accuracy 0.9   exit 1 and export nothing below 90 %")]
pub struct TrainArguments {
    /// A folder of label folders, or a TSV with the columns `path`, `label` and, if wanted, `split`
    #[arg(value_name = "DIR|LIST.tsv")]
    pub source: PathBuf,

    /// The run folder; an unfinished one is continued [default: runs/<folder>-<n>]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,

    /// Which pretrained backbone to start from (`graft backbones list`)
    #[arg(long, value_name = "NAME", default_value = crate::train::DEFAULT_BACKBONE)]
    pub backbone: String,

    /// Weights of your own for this backbone: a safetensors file here or on the Hugging Face Hub
    #[arg(long, value_name = "FILE|hf:OWNER/NAME/FILE[@REVISION]")]
    pub weights: Option<Source>,

    /// What to train
    #[arg(long, value_enum, default_value = "head")]
    pub recipe: Recipe,

    /// How a photo is brought to the model's square input
    #[arg(long, value_enum, default_value = "crop")]
    pub fit: FitName,

    /// Part of each label's photos put aside to measure the final accuracy, in percent
    #[arg(long, value_name = "PERCENT", default_value = "10")]
    pub testing_percentage: u32,

    /// Part of each label's photos put aside to pick settings on, in percent
    #[arg(long, value_name = "PERCENT", default_value = "10")]
    pub validation_percentage: u32,

    /// Export nothing below this accuracy of the int8 model on the test photos, from 0 to 1
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    pub min_accuracy: Option<f64>,

    /// Export nothing when int8 loses more accuracy to float than this, from 0 to 1
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    pub max_drop: Option<f64>,

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
}

impl TrainArguments {
    /// As if only the source, the run folder and the common arguments had been typed.
    pub(crate) fn of(source: PathBuf, run: PathBuf, common: CommonArguments) -> Self {
        Self {
            source,
            run: Some(run),
            backbone: crate::train::DEFAULT_BACKBONE.to_owned(),
            weights: None,
            recipe: Recipe::Head,
            fit: FitName::Crop,
            testing_percentage: 10,
            validation_percentage: 10,
            min_accuracy: None,
            max_drop: None,
            output_graph: None,
            output_labels: None,
            common,
            json: false,
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
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    pub min_accuracy: Option<f64>,

    /// Exit 1 when int8 loses more accuracy to float than this, from 0 to 1
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    pub max_drop: Option<f64>,

    #[command(flatten)]
    pub(crate) common: CommonArguments,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Of `graft label`; as `graft-device label`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft label photo.jpg                         with the newest finished run below `runs`
  graft label flowers.onnx photos/ --json --top 3")]
pub struct LabelArguments {
    /// A model file if the first is one, then image files, folders, or `-` for the bytes of one image
    #[arg(value_name = "[MODEL.onnx] PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// Labels to print for each picture
    #[arg(long, value_name = "K", default_value = "5")]
    pub top: NonZeroUsize,

    /// Score from 0 to 1 below which the label is unknown [default: the model's]
    #[arg(long, value_name = "SCORE", value_parser = fraction)]
    pub threshold: Option<f64>,

    /// Pictures in work at once [default: one for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
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
        #[arg(long, value_name = "FILE|hf:OWNER/NAME/FILE[@REVISION]")]
        from: Option<Source>,

        /// Cache of pretrained weights [default: in the user's cache folder]
        #[arg(long, value_name = "DIR")]
        model_dir: Option<PathBuf>,

        /// Never use the network
        #[arg(long)]
        offline: bool,
    },
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

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err(format!(
            "`{text}` is not a number from 0 to 1 (90 % is 0.9)"
        )),
    }
}
