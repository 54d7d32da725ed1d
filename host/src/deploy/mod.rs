//! A model and the program for it -> a board that serves it, step by step through `ssh`.
//!
//! | module | duty |
//! |---|---|
//! | `board` | what the board is |
//! | `ssh` | commands run there |
//! | `package` | which Debian package it needs, and where that is here |

mod board;
mod package;
mod ssh;

use std::fs;
use std::path::{Path, PathBuf};

use graft_engine::{Engine, listing};
use graft_shared::digest::hex;
use graft_shared::error::{Context, Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::board::Board;
use self::ssh::{Input, Remote};
use crate::progress::Progress;
use crate::run;

/// The model that the service reads.
const MODEL: &str = "/var/lib/graft-device/model.onnx";
/// Digits of the file's digest that name its version.
const VERSION_DIGITS: usize = 12;

/// What goes where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `[USER@]HOST`.
    pub host: String,
    /// The model file.
    pub model: PathBuf,
    /// The Debian package; `None` looks for the one that was built.
    pub package: Option<PathBuf>,
    /// A photo to label there; `None` takes one that the model was tested with, if its run folder is beside it.
    pub photo: Option<PathBuf>,
    /// For the `-o` of `ssh`.
    pub ssh_options: Vec<String>,
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Deployed {
    /// `[USER@]HOST`.
    pub host: String,
    /// What it is.
    #[serde(flatten)]
    pub board: Board,
    /// The program's name and version there.
    pub program: String,
    /// The version of the model, as the service's answers name it.
    pub model_version: String,
    /// What the model's probes gave there.
    pub probes: Probes,
    /// What the service says of itself when it is ready; none where systemd does not run.
    pub service: Option<String>,
    /// The photo that was labelled there.
    pub photo: Option<Labelled>,
}

/// What `graft-device verify --json` says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probes {
    /// How many there are.
    pub probes: usize,
    /// Whether all of their logits are equal to the bit.
    pub exact: bool,
}

/// What `graft-device label --json` says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Labelled {
    /// The label; `None` is unknown.
    pub label: Option<String>,
    /// Its score.
    pub score: f64,
    /// How long it took.
    pub milliseconds: f64,
}

/// Installs the package on the board, proves the model there, puts it in the place of the one before, and starts the service.
/// Until the model is proven the board serves what it did before.
///
/// # Errors
/// When a step fails; its name is in the message.
pub fn deploy(plan: &Plan, progress: &Progress) -> Result<Deployed> {
    let engine = Engine::open(&plan.model)?;
    let mut model_version = hex(engine.file_digest());
    model_version.truncate(VERSION_DIGITS);
    let photo = match &plan.photo {
        Some(photo) => Some(photo.clone()),
        None => tested_photo(&plan.model),
    };

    let remote = Remote::new(&plan.host, &plan.ssh_options)?;
    let said = remote.run("sh -s", Input::Text(board::SCRIPT))?;
    let board = Board::read(&said).with_context(|| format!("can't deploy to {}", plan.host))?;
    progress.say(&describe(&board));
    let steps = Steps {
        remote: &remote,
        board: &board,
        folder: folder(&remote)
            .with_context(|| format!("{} makes no temporary folder", plan.host))?,
    };
    let deployed = install(plan, &steps, progress, photo.as_deref());
    // What is left there when this fails too goes when the board starts anew.
    let cleared = steps.run("clear up", &format!("rm -rf {}", steps.folder));
    let done = deployed?;
    cleared?;
    Ok(Deployed {
        host: plan.host.clone(),
        board,
        program: done.program,
        model_version,
        probes: done.probes,
        service: done.service,
        photo: done.photo,
    })
}

/// Makes a folder there, whose path means the same to every shell.
fn folder(remote: &Remote) -> Result<String> {
    let said = remote.run("mktemp -d", Input::Text(""))?;
    let folder = said.trim();
    if !board::is_plain(folder) {
        return Err(Error::new(format!("its path is `{folder}`")));
    }
    Ok(folder.to_owned())
}

/// What a board is asked to do.
struct Steps<'a> {
    remote: &'a Remote,
    board: &'a Board,
    /// An empty folder of ours there.
    folder: String,
}

impl Steps<'_> {
    /// Runs a command; `what` it is for is said when it fails.
    fn run(&self, what: &str, command: &str) -> Result<String> {
        self.send(what, command, Input::Text(""))
    }

    /// Runs commands as root.
    fn run_as_root(&self, what: &str, commands: &str) -> Result<String> {
        let sudo = if self.board.sudo { "sudo -n " } else { "" };
        self.run(what, &format!("{sudo}sh -ec '{commands}'"))
    }

    /// Copies a file into the board's folder; gives its place there.
    fn copy(&self, file: &Path, name: &str) -> Result<String> {
        let place = format!("{}/{name}", self.folder);
        let what = format!("put {}", file.display());
        self.send(&what, &format!("cat >{place}"), Input::File(file))?;
        Ok(place)
    }

    /// Runs a command of `graft-device` that prints one JSON object.
    fn json<T: DeserializeOwned>(&self, what: &str, command: &str) -> Result<T> {
        let said = self.run(what, &format!("graft-device {command} --json"))?;
        serde_json::from_str(&said)
            .with_context(|| format!("what {} said makes no sense: {said}", self.remote.host()))
    }

    fn send(&self, what: &str, command: &str, input: Input<'_>) -> Result<String> {
        let sent = self.remote.run(command, input);
        sent.with_context(|| format!("can't {what} on {}", self.remote.host()))
    }
}

/// What the steps brought.
struct Done {
    program: String,
    probes: Probes,
    service: Option<String>,
    photo: Option<Labelled>,
}

fn install(
    plan: &Plan,
    steps: &Steps<'_>,
    progress: &Progress,
    photo: Option<&Path>,
) -> Result<Done> {
    let package = match &plan.package {
        Some(package) => package.clone(),
        None => package::built(&steps.board.architecture)?,
    };
    steps.board.has_room(size(&package)?, size(&plan.model)?)?;

    progress.say(&format!("installing {}", name(&package)));
    let copied = steps.copy(&package, "graft-device.deb")?;
    let install =
        format!("DEBIAN_FRONTEND=noninteractive dpkg --force-confold --install {copied} >&2");
    steps.run_as_root("install the package", &install)?;
    let program = steps.run("run graft-device", "graft-device --version")?;

    progress.say(&format!("proving {}", name(&plan.model)));
    let model = steps.copy(&plan.model, "model.onnx")?;
    let probes = steps.json("prove the model", &format!("verify {model}"))?;
    let labelled = match photo {
        None => None,
        Some(photo) => {
            let copied = steps.copy(photo, "photo")?;
            Some(steps.json("label the photo", &format!("label {model} {copied}"))?)
        }
    };

    // The bytes are on the disk before they take the place of the ones before.
    let place = format!(
        "install -o graft-device -g graft-device -m 640 {model} {MODEL}.new; \
         sync {MODEL}.new; mv {MODEL}.new {MODEL}; sync $(dirname {MODEL})"
    );
    steps.run_as_root("put the model in its place", &place)?;
    let service = if steps.board.systemd {
        progress.say("starting the service");
        let start = steps.run_as_root("start the service", "systemctl restart graft-device");
        start.map_err(|error| error.hint("read `journalctl -u graft-device` there"))?;
        let status = "systemctl show graft-device --property=StatusText --value";
        let status = steps.run("ask the service", status)?;
        Some(status.trim().to_owned())
    } else {
        None
    };
    Ok(Done {
        program: program.lines().next().unwrap_or_default().to_owned(),
        probes,
        service,
        photo: labelled,
    })
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn size(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path);
    Ok(metadata
        .with_context(|| format!("can't read `{}`", path.display()))?
        .len())
}

/// One of the photos that the model's run kept for testing.
fn tested_photo(model: &Path) -> Option<PathBuf> {
    let split = model.parent()?.join(run::names::SPLIT);
    let photos = listing::list_split(&split, "test").ok()?;
    photos
        .into_iter()
        .map(|photo| photo.path)
        .find(|path| path.is_file())
}

fn describe(board: &Board) -> String {
    let Board {
        architecture,
        memory_bytes,
        free_bytes,
        ..
    } = board;
    let name = board.board.as_deref().unwrap_or(&board.machine);
    let system = board.system.as_deref().unwrap_or("an unknown system");
    let (memory, free) = (memory_bytes / 1_000_000, free_bytes / 1_000_000);
    format!("{name}: {system}, {architecture}, {memory} MB of memory, {free} MB free")
}

impl Deployed {
    /// One JSON object.
    ///
    /// # Errors
    /// None is known.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("can't write the result as JSON")
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let equal = if self.probes.exact {
            "equal to the bit"
        } else {
            "within their tolerance"
        };
        let mut text = format!(
            "board    {}, {}\nprogram  {}\nmodel    version {}\nprobes   {}: {equal}\n",
            self.host,
            self.board.architecture,
            self.program,
            self.model_version,
            self.probes.probes,
        );
        if let Some(photo) = &self.photo {
            let label = photo.label.as_deref().unwrap_or("unknown");
            text += &format!(
                "photo    {label} (score = {:.5}), {:.1} ms\n",
                photo.score, photo.milliseconds
            );
        }
        let service = match &self.service {
            Some(status) => status,
            None => "not started: systemd does not run there",
        };
        text + &format!("service  {service}\n")
    }
}
