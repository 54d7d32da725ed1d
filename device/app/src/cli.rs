//! The command line: what can be typed.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use graft_cli::describe::{CompletionsArguments, ManArguments};

/// The formats that this build reads, beside the version.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (reads JPEG, PNG, WebP, GIF, BMP and TIFF)"
);

/// Labels pictures on the board with a model that `graft train` made.
#[derive(Debug, Parser)]
#[command(name = "graft-device", version = VERSION, max_term_width = 100, after_help = "\
Examples:
  graft-device label flowers.onnx photo.jpg
  graft-device eval flowers.onnx photos/
  graft-device info flowers.onnx

Exit codes: 0 all done, 1 some inputs failed, 2 could not run.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Label pictures
    Label(LabelArguments),
    /// Measure accuracy on pictures whose labels are known
    Eval(EvalArguments),
    /// Write what the model sees of each picture
    Preprocess(PreprocessArguments),
    /// Show what the model is and how it runs here
    Info(ModelArguments),
    /// Measure latency and memory
    Bench(BenchArguments),
    /// Check the model file and that it computes what it should here
    Verify(ModelArguments),
    /// Label pictures that come over HTTP, from a camera or into a folder
    Serve(Box<ServeArguments>),
    /// Print the script that completes commands in a shell: for packages
    #[command(hide = true)]
    Completions(CompletionsArguments),
    /// Print the manual page, or write one for each command: for packages
    #[command(hide = true)]
    Man(ManArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft-device label flowers.onnx photo.jpg
  graft-device label flowers.onnx photos/ --json --top 3
  graft-device label flowers.onnx photos/ --csv --output labels.csv --resume
  camera-still | graft-device label flowers.onnx -
  find / -name '*.jpg' | graft-device label flowers.onnx --paths-from -")]
pub(crate) struct LabelArguments {
    /// The model file
    pub(crate) model: PathBuf,

    /// Image files, folders, or `-` for the bytes of one image on standard input
    #[arg(value_name = "PATH", required_unless_present = "paths_from")]
    pub(crate) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) label: graft_cli::label::LabelArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft-device eval flowers.onnx photos/          a folder for each label
  graft-device eval flowers.onnx split.tsv        its test rows
  graft-device eval flowers.onnx photos/ --json --predictions predictions.tsv")]
pub(crate) struct EvalArguments {
    /// The model file
    pub(crate) model: PathBuf,

    /// A folder of label folders, or a TSV with the columns `path`, `label` and, if wanted, `split`
    #[arg(value_name = "DIR|LIST.tsv")]
    pub(crate) source: PathBuf,

    /// The rows of a TSV with a `split` column to take
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub(crate) split: String,

    /// Write each picture's label, prediction and score to this TSV
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: Option<PathBuf>,

    /// Pictures in work at once [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  graft-device preprocess flowers.onnx photo.jpg --output seen/    writes seen/photo.jpg.png")]
pub(crate) struct PreprocessArguments {
    /// The model file
    pub(crate) model: PathBuf,

    /// Image files, folders, or `-` for the bytes of one image on standard input
    #[arg(value_name = "PATH", required_unless_present = "paths_from")]
    pub(crate) paths: Vec<PathBuf>,

    /// Read paths from a file, one a line; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) paths_from: Option<PathBuf>,

    /// The folder to write PNG files to, each named after its picture
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// The model file
    pub(crate) model: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft-device bench flowers.onnx --threads 4
  graft-device bench flowers.onnx --compare onnxruntime,litert")]
pub(crate) struct BenchArguments {
    /// The model file
    pub(crate) model: PathBuf,

    /// Threads that share the work of each picture
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,

    /// Inferences to time
    #[arg(long, value_name = "N", default_value = "50")]
    pub(crate) runs: NonZeroUsize,

    /// Print the time of each layer too
    #[arg(long)]
    pub(crate) layers: bool,

    /// Other runtimes to time in turns with this one: onnxruntime, openvino, litert, ncnn, rten;
    /// device/peers/setup.sh installs them
    #[arg(long, value_name = "RUNTIMES", value_delimiter = ',')]
    pub(crate) compare: Vec<String>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  graft-device serve flowers.onnx
  curl --data-binary @photo.jpg http://127.0.0.1:8080/v1/label
  graft-device serve flowers.onnx --listen 0.0.0.0:8080 --state .")]
pub(crate) struct ServeArguments {
    /// The model file; a new one in its place is taken while the service runs
    pub(crate) model: Option<PathBuf>,

    /// Read what is not typed from this TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where to listen: ADDR:PORT or unix:PATH [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,

    /// The file with the token that clients show [default: `token` in the state folder, where others can connect]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// The folder that the service may write to [default: systemd's]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Labels to answer with where a request does not say [default: 5]
    #[arg(long, value_name = "K")]
    pub(crate) top: Option<NonZeroUsize>,

    /// Score from 0 to 1 below which the label is unknown [default: the model's]
    #[arg(long, value_name = "SCORE", value_parser = graft_cli::fraction::<f32>)]
    pub(crate) threshold: Option<f32>,

    /// Pictures in work at once [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Label the frames of this camera, such as /dev/video0
    #[arg(long, value_name = "DEVICE", group = "source", help_heading = "Source")]
    pub(crate) camera: Option<PathBuf>,

    /// The size of the camera's frames in pixels [default: 640x480]
    #[arg(long, value_name = "WxH", help_heading = "Source")]
    pub(crate) camera_size: Option<String>,

    /// Label the frames that this command writes to its output
    #[arg(
        long,
        value_name = "COMMAND",
        group = "source",
        help_heading = "Source"
    )]
    pub(crate) command: Option<String>,

    /// Label the frames on standard input
    #[arg(long, group = "source", help_heading = "Source")]
    pub(crate) stdin: bool,

    /// Label the pictures that appear in this folder
    #[arg(long, value_name = "DIR", group = "source", help_heading = "Source")]
    pub(crate) watch: Option<PathBuf>,

    /// What frames are: mjpeg or rgb24:WIDTHxHEIGHT [default: mjpeg]
    #[arg(long, value_name = "KIND", help_heading = "Source")]
    pub(crate) frames: Option<String>,

    /// Look at this part of each frame only, in pixels
    #[arg(long, value_name = "X,Y,W,H", help_heading = "Source")]
    pub(crate) region: Option<String>,

    /// Average scores over about so many seconds
    #[arg(long, value_name = "SECONDS", help_heading = "Source")]
    pub(crate) smooth: Option<f32>,

    /// Take over another label when it has lasted so long
    #[arg(long, value_name = "SECONDS", help_heading = "Source")]
    pub(crate) hold: Option<f32>,

    /// Write a JSON line for each change of the label to this file; `-` is standard output
    #[arg(long, value_name = "FILE", help_heading = "Where labels go")]
    pub(crate) lines: Option<PathBuf>,

    /// Lines, webhook and MQTT for each frame, not each change
    #[arg(long, help_heading = "Where labels go")]
    pub(crate) every_frame: bool,

    /// Run this command when the label changes; it has GRAFT_LABEL, GRAFT_PREVIOUS and GRAFT_SCORE
    #[arg(long, value_name = "COMMAND", help_heading = "Where labels go")]
    pub(crate) on_change: Option<String>,

    /// POST each change to this http:// address
    #[arg(long, value_name = "URL", help_heading = "Where labels go")]
    pub(crate) webhook: Option<String>,

    /// Publish each change at this MQTT broker, mqtt://[USER@]HOST[:PORT][/PREFIX], and show it in Home Assistant
    #[arg(long, value_name = "URL", help_heading = "Where labels go")]
    pub(crate) mqtt: Option<String>,

    /// The file with the password for the MQTT broker
    #[arg(long, value_name = "FILE", help_heading = "Where labels go")]
    pub(crate) mqtt_password_file: Option<PathBuf>,

    /// Keep frames with a best score below this in the state folder, for the next training
    #[arg(long, value_name = "SCORE", value_parser = graft_cli::fraction::<f32>, help_heading = "Where labels go")]
    pub(crate) spool_below: Option<f32>,
}
