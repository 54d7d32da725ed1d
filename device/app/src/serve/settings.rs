//! What the service is told: the configuration file, and the command line above it.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use graft_shared::error::{Context, Error, Result};
use serde::Deserialize;

use super::listen::Address;
use super::model::Ask;
use super::sink::Wanted;
use super::sink::mqtt::Mqtt;
use super::sink::spool::Spool;
use super::source::Region;
use super::source::camera::Camera;
use super::source::frames::Kind;
use super::steady::Steadiness;
use crate::cli::ServeArguments;
use crate::systemd::state_directory;

/// Where the service listens unless it is told.
const USUAL_ADDRESS: &str = "127.0.0.1:8080";

/// Bytes of pictures to keep for the next training unless it is told: 100 megabytes.
const USUAL_SPOOL_MEGABYTES: u64 = 100;
/// Pictures to keep in an hour unless it is told.
const USUAL_SPOOL_PER_HOUR: u32 = 60;
/// The folder in the state folder where they are kept.
const SPOOL_FOLDER: &str = "unsure";

/// The keys of the configuration file; a flag of the same name goes first.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    model: Option<PathBuf>,
    listen: Option<String>,
    token_file: Option<PathBuf>,
    state: Option<PathBuf>,
    threads: Option<NonZeroUsize>,
    threshold: Option<f32>,
    top: Option<NonZeroUsize>,
    camera: Option<PathBuf>,
    camera_size: Option<String>,
    command: Option<String>,
    frames: Option<String>,
    watch: Option<PathBuf>,
    region: Option<String>,
    smooth: Option<f32>,
    hold: Option<f32>,
    lines: Option<PathBuf>,
    every_frame: Option<bool>,
    on_change: Option<String>,
    webhook: Option<String>,
    mqtt: Option<String>,
    mqtt_password_file: Option<PathBuf>,
    spool_below: Option<f32>,
    spool_megabytes: Option<u64>,
    spool_per_hour: Option<u32>,
}

/// How to serve.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The model file.
    pub(crate) model: PathBuf,
    pub(crate) listen: Address,
    /// The file with the token that clients must show.
    pub(crate) token_file: Option<PathBuf>,
    /// The folder that the service may write to.
    pub(crate) state: Option<PathBuf>,
    /// Pictures in work at once.
    pub(crate) threads: usize,
    /// How pictures are asked about where a request does not say.
    pub(crate) ask: Ask,
    pub(crate) source: Option<Source>,
    /// A rectangle of each frame; `None` takes the whole.
    pub(crate) region: Option<Region>,
    pub(crate) steadiness: Steadiness,
    /// The file that JSON lines are added to, or `-`.
    pub(crate) lines: Option<PathBuf>,
    /// Which events lines, webhook and MQTT get.
    pub(crate) wanted: Wanted,
    pub(crate) on_change: Option<String>,
    pub(crate) webhook: Option<String>,
    pub(crate) mqtt: Option<Mqtt>,
    pub(crate) spool: Option<Spool>,
}

/// Where pictures come from beside HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Camera(Camera),
    Command(String, Kind),
    Stdin(Kind),
    Folder(PathBuf),
}

impl Settings {
    /// # Errors
    /// When the configuration file can't be read or has a key that there is not, a value makes no sense, or something
    /// needed is missing.
    pub(crate) fn read(typed: &ServeArguments) -> Result<Self> {
        let file = match &typed.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let model = typed.model.clone().or(file.model).ok_or_else(|| {
            Error::new("no model to serve")
                .hint("name the model file after `serve`, or as `model` in the configuration file")
        })?;
        let listen = typed.listen.clone().or(file.listen);
        let state = typed.state.clone().or(file.state).or_else(state_directory);
        let ask = Ask {
            top: typed.top.or(file.top).map(Into::into),
            threshold: fraction("threshold", typed.threshold.or(file.threshold))?,
        };
        let kind = match typed.frames.clone().or(file.frames) {
            Some(kind) => kind.parse()?,
            None => Kind::default(),
        };
        let size = typed.camera_size.clone().or(file.camera_size);
        let size = size
            .map(|size| size.parse())
            .transpose()?
            .unwrap_or_default();
        let camera = |path| Source::Camera(Camera { path, size });
        // What is typed takes the place of whatever source the file names.
        let source = if let Some(path) = &typed.camera {
            Some(camera(path.clone()))
        } else if let Some(line) = &typed.command {
            Some(Source::Command(line.clone(), kind))
        } else if let Some(folder) = &typed.watch {
            Some(Source::Folder(folder.clone()))
        } else if typed.stdin {
            Some(Source::Stdin(kind))
        } else {
            let named = [
                file.camera.map(camera),
                file.command.map(|line| Source::Command(line, kind)),
                file.watch.map(Source::Folder),
            ];
            let mut named = named.into_iter().flatten();
            let source = named.next();
            if named.next().is_some() {
                return Err(Error::new(
                    "of `camera`, `command` and `watch` more than one is there: one source is possible",
                ));
            }
            source
        };
        let region = typed.region.clone().or(file.region);
        let below = fraction("spool_below", typed.spool_below.or(file.spool_below))?;
        let spool = match (below, &state) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(
                    Error::new("no folder to keep pictures in").hint("name one with --state")
                );
            }
            (Some(below), Some(state)) => Some(Spool {
                folder: state.join(SPOOL_FOLDER),
                below,
                bytes: file
                    .spool_megabytes
                    .unwrap_or(USUAL_SPOOL_MEGABYTES)
                    .saturating_mul(1_000_000),
                per_hour: file.spool_per_hour.unwrap_or(USUAL_SPOOL_PER_HOUR),
            }),
        };
        let mqtt = match (typed.mqtt.clone().or(file.mqtt), &state) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(Error::new(
                    "no folder for events to wait in while the MQTT broker is away",
                )
                .hint("name one with --state"));
            }
            (Some(url), Some(state)) => Some(Mqtt {
                url,
                password_file: typed.mqtt_password_file.clone().or(file.mqtt_password_file),
                state: state.clone(),
            }),
        };
        Ok(Self {
            model,
            listen: listen.as_deref().unwrap_or(USUAL_ADDRESS).parse()?,
            token_file: typed.token_file.clone().or(file.token_file),
            state,
            threads: typed.threads.or(file.threads).map_or(1, Into::into),
            ask,
            source,
            region: region.map(|region| region.parse()).transpose()?,
            steadiness: Steadiness {
                smooth: seconds("smooth", typed.smooth.or(file.smooth))?,
                hold: seconds("hold", typed.hold.or(file.hold))?,
            },
            lines: typed.lines.clone().or(file.lines),
            wanted: if typed.every_frame || file.every_frame.unwrap_or(false) {
                Wanted::All
            } else {
                Wanted::Changes
            },
            on_change: typed.on_change.clone().or(file.on_change),
            webhook: typed.webhook.clone().or(file.webhook),
            mqtt,
            spool,
        })
    }
}

fn fraction(name: &str, value: Option<f32>) -> Result<Option<f32>> {
    match value {
        Some(value) if !(0.0..=1.0).contains(&value) => Err(Error::new(format!(
            "`{name}` is {value}, not a number from 0 to 1"
        ))),
        value => Ok(value),
    }
}

fn seconds(name: &str, value: Option<f32>) -> Result<Duration> {
    Duration::try_from_secs_f32(value.unwrap_or(0.0))
        .with_context(|| format!("`{name}` is no number of seconds"))
}

fn read(path: &Path) -> Result<File> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("can't read the configuration `{}`", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("the configuration `{}` is wrong", path.display()))
}
