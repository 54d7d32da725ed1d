//! `graft-device serve`, started for a test and ended with it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::{Client, Dir, graft_device};

/// A service needs no longer to start, to take a model or to end, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service.
pub(crate) struct Service {
    child: Child,
    said: Receiver<String>,
    /// Where it serves, as it says itself.
    pub(crate) place: String,
}

impl Service {
    /// Serves `model` on loopback, on a port that the system chooses.
    pub(crate) fn start(dir: &Dir, model: &Path) -> Self {
        Self::start_with(dir, model, &["--listen", "127.0.0.1:0"], &[])
    }

    /// Serves with other arguments and variables.
    pub(crate) fn start_with(
        dir: &Dir,
        model: &Path,
        arguments: &[&str],
        variables: &[(&str, &OsStr)],
    ) -> Self {
        let mut command = graft_device(dir)
            .arg("serve")
            .arg(model)
            .args(arguments)
            .into_command();
        command.envs(variables.iter().copied());
        Self::run(command)
    }

    /// Runs a command that becomes a service, and waits until it serves.
    pub(crate) fn run(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut service = Self {
            child,
            said,
            place: String::new(),
        };
        let line = service.wait_for("serving ");
        service.place = line.rsplit_once(" at ").unwrap().1.to_owned();
        service
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.place.strip_prefix("http://").unwrap();
        address.parse().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the service says a line with `part` in it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        let start = Instant::now();
        let mut before = Vec::new();
        while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
            match self.said.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => before.push(line),
                Err(_) => break,
            }
        }
        panic!("the service never said `{part}`, but: {before:#?}");
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the service does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A number of `/proc/PID/status`, such as `VmRSS` in kB.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().trim_start_matches(':').trim();
        number.split(' ').next().unwrap().parse().unwrap()
    }

    /// Files that it has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id()))
            .unwrap()
            .count()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
