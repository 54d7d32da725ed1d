//! `bench --compare`: other runtimes on the same model, in turns with ours.
//!
//! Each runs in a process of its own, `device/peers/peer.py`, whose README has the protocol. Processor speed wanders on
//! shared machines, so each turn is short, all take turns many times, and a turn counts only where a loop that needs
//! nothing but registers ran at its full speed just before and after.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use graft_engine::bench::{Gate, Latency, Subject};
use graft_shared::error::{Context, Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Turns of each runtime.
const ROUNDS: usize = 24;
/// Runs in one turn.
const RUNS: usize = 8;
/// With fewer turns that count, all do.
const FEWEST: usize = 4;

/// One runtime's figures, in milliseconds; of processor time with one thread, of wall time with more.
#[derive(Debug, Serialize)]
pub(crate) struct Peer {
    pub(crate) runtime: String,
    pub(crate) version: String,
    /// What it ran.
    pub(crate) model: String,
    pub(crate) load_milliseconds: f64,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) milliseconds: Latency,
    /// Our median divided by this one's.
    pub(crate) ratio: f64,
    /// Turns that counted.
    pub(crate) rounds: usize,
}

/// Times `model` in `runtimes` beside ours.
///
/// # Errors
/// When the model can't be run here, or the other runtimes are not set up. One that can't run the model is left out with
/// a warning.
pub(crate) fn compare(model: &Path, threads: usize, runtimes: &[String]) -> Result<Vec<Peer>> {
    let ours = Subject::open(model, threads)?;
    let mut processes = vec![];
    for runtime in runtimes {
        match Process::start(runtime, model, threads) {
            Ok(process) => processes.push(process),
            Err(error) => crate::say(&format!("warning: left out: {}", error.line())),
        }
    }
    let mut our_times = Times::default();
    let mut times: Vec<Times> = processes.iter().map(|_| Times::default()).collect();
    let mut gate = Gate::default();
    for _ in 0..ROUNDS {
        let samples = our_times.turn(&mut gate, || {
            let samples = ours.sample(RUNS)?;
            Ok(samples
                .iter()
                .map(|sample| match sample.cpu {
                    Some(cpu) if threads == 1 => cpu,
                    _ => sample.wall,
                })
                .collect())
        });
        samples?;
        for (process, times) in processes.iter_mut().zip(&mut times) {
            times.turn(&mut gate, || process.run(threads))?;
        }
    }
    let ours = our_times.latency();
    Ok(processes
        .into_iter()
        .zip(times)
        .map(|(process, times)| {
            let milliseconds = times.latency();
            Peer {
                runtime: process.hello.runtime.clone(),
                version: process.hello.version.clone(),
                model: process.hello.model.clone(),
                load_milliseconds: process.hello.load_milliseconds,
                peak_rss_bytes: process.hello.peak_rss_bytes,
                milliseconds,
                ratio: ours.p50 / milliseconds.p50,
                rounds: times.clean,
            }
        })
        .collect())
}

/// What a runtime says when the model is loaded.
#[derive(Debug, Deserialize)]
struct Hello {
    runtime: String,
    version: String,
    model: String,
    load_milliseconds: f64,
    peak_rss_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Ran {
    milliseconds: Vec<f64>,
    cpu_milliseconds: Vec<f64>,
}

/// A runtime that waits for its turn.
struct Process {
    hello: Hello,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(runtime: &str, model: &Path, threads: usize) -> Result<Process> {
        let peers = peers()?;
        let mut child = Command::new(peers.join("bin/python"))
            .arg(peers.join("peer.py"))
            .arg(runtime)
            .arg(model)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("can't start {runtime}"))
            .map_err(|error| {
                error.hint("run device/peers/setup.sh, which installs the runtimes")
            })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new(format!("can't talk to {runtime}")));
        };
        let mut stdout = BufReader::new(stdout);
        let hello = read(&mut stdout, runtime)?;
        Ok(Process {
            hello,
            child,
            stdin,
            stdout,
        })
    }

    fn run(&mut self, threads: usize) -> Result<Vec<f64>> {
        writeln!(self.stdin, "{RUNS}")
            .with_context(|| format!("{} has gone", self.hello.runtime))?;
        let ran: Ran = read(&mut self.stdout, &self.hello.runtime)?;
        Ok(if threads == 1 {
            ran.cpu_milliseconds
        } else {
            ran.milliseconds
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read<T: DeserializeOwned>(stdout: &mut impl BufRead, runtime: &str) -> Result<T> {
    let mut line = String::new();
    stdout
        .read_line(&mut line)
        .with_context(|| format!("{runtime} says nothing"))?;
    serde_json::from_str(&line)
        .with_context(|| format!("{runtime} can't run the model, or is not installed"))
}

/// Where `device/peers/setup.sh` puts the runtimes.
fn peers() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|cache| !cache.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.ok_or_else(|| Error::new("neither XDG_CACHE_HOME nor HOME is set"))?;
    Ok(cache.join("graft/peers"))
}

/// The times of one runtime.
#[derive(Default)]
struct Times {
    counted: Vec<f64>,
    all: Vec<f64>,
    clean: usize,
}

impl Times {
    fn turn(&mut self, gate: &mut Gate, run: impl FnOnce() -> Result<Vec<f64>>) -> Result<()> {
        let before = gate.open();
        let times = run()?;
        if gate.open() && before {
            self.counted.extend(&times);
            self.clean += 1;
        }
        self.all.extend(times);
        Ok(())
    }

    fn latency(&self) -> Latency {
        Latency::of(if self.clean < FEWEST {
            self.all.clone()
        } else {
            self.counted.clone()
        })
    }
}
