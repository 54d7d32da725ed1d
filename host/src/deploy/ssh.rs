//! The machine's own `ssh`, so that its keys, agent and configuration hold: one connection for all commands.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use graft_shared::error::{Context, Error, Result};
use tempfile::TempDir;

/// What `ssh` ends with when it did not get through, instead of the command's own status.
const NOT_THROUGH: i32 = 255;

/// A machine that commands can be run on.
#[derive(Debug)]
pub(super) struct Remote {
    host: String,
    options: Vec<String>,
    /// Holds the socket of the connection that all commands share.
    folder: TempDir,
}

/// What a command reads.
pub(super) enum Input<'a> {
    Text(&'a str),
    File(&'a Path),
}

impl Remote {
    /// `host` is what `ssh` takes, such as `pi@board.local`; `options` go to its `-o`. Nothing is connected yet.
    ///
    /// # Errors
    /// When `host` is none, or no temporary folder can be made.
    pub(super) fn new(host: &str, options: &[String]) -> Result<Self> {
        if host.is_empty() || host.starts_with('-') {
            return Err(Error::new(format!("`{host}` is no machine"))
                .hint("write [USER@]HOST, such as pi@raspberrypi.local"));
        }
        Ok(Self {
            host: host.to_owned(),
            options: options.to_vec(),
            folder: tempfile::tempdir().context("can't make a temporary folder")?,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Runs a command in the user's shell there; gives what it printed.
    ///
    /// # Errors
    /// When the machine can't be reached or the command fails: what it complained of is the cause.
    pub(super) fn run(&self, command: &str, input: Input<'_>) -> Result<String> {
        let mut child = self
            .ssh()
            .arg("--")
            .arg(&self.host)
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                Error::new("can't start `ssh`")
                    .source(error)
                    .hint("install it: apt-get install openssh-client")
            })?;
        let fed = thread::scope(|scope| {
            let feeder = feeder(&mut child, input)?;
            let feeder = scope.spawn(feeder);
            let output = child.wait_with_output().context("can't wait for `ssh`")?;
            // A command that reads no more closes its input, and says why itself.
            let fed = feeder.join().unwrap_or(Ok(()));
            Ok::<_, Error>((output, fed))
        });
        let (output, fed) = fed?;
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.code() == Some(NOT_THROUGH) {
            return Err(Error::new(format!("can't reach {} by ssh", self.host))
                .source(Error::new(complaint))
                .hint(format!("see that `ssh {}` gets through", self.host)));
        }
        if !output.status.success() {
            let what = if complaint.is_empty() {
                output.status.to_string()
            } else {
                complaint
            };
            return Err(Error::new(what));
        }
        fed.context("can't send to it")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        let socket = self.folder.path().join("socket");
        command
            .arg("-o")
            .arg(format!("ControlPath={}", socket.display()));
        command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60"]);
        command.args(["-o", "ConnectTimeout=15", "-T"]);
        command.args(self.options.iter().flat_map(|option| ["-o", option]));
        command
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Where there is no connection there is nothing to end.
        let ended = self
            .ssh()
            .args(["-O", "exit", "--", &self.host])
            .stderr(Stdio::null())
            .status();
        drop(ended);
    }
}

/// What writes the input while the output is read.
fn feeder<'a>(
    child: &mut Child,
    input: Input<'a>,
) -> Result<impl FnOnce() -> io::Result<()> + Send + use<'a>> {
    let mut stdin = child.stdin.take().context("`ssh` has no input")?;
    let mut file = match input {
        Input::File(path) => {
            Some(File::open(path).with_context(|| format!("can't read `{}`", path.display()))?)
        }
        Input::Text(_) => None,
    };
    Ok(move || match (&mut file, input) {
        (Some(file), _) => io::copy(file, &mut stdin).map(|_| ()),
        (None, Input::Text(text)) => stdin.write_all(text.as_bytes()),
        (None, Input::File(_)) => Ok(()),
    })
}
