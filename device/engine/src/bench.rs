//! How fast a model runs here: latency, processor time, cold start, memory, layer by layer.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::thread;
use std::time::Instant;

use graft_shared::card::Probe;
use graft_shared::error::{Context, Error, Result};
use graft_shared::preprocess::Pixels;
use serde::Serialize;

use crate::bare::Graph;
use crate::engine::Engine;
use crate::model;
use crate::plan::NodeReport;

/// Runs before the first one that counts.
const WARM_UP: usize = 3;
/// A sample counts where the gate ran within this factor of its best time just before and after.
const GATE_SLACK: f64 = 1.05;
/// Turns of the gate's loop: about a tenth of a millisecond.
const GATE_TURNS: u64 = 100_000;

/// What was measured, under the names of `bench --json`. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bench {
    /// The instruction set that our operators ran on.
    pub isa: String,
    /// Threads that shared the work of each picture.
    pub threads: usize,
    /// Runs that were timed.
    pub runs: usize,
    /// Wall time from preprocessed pixels to logits.
    pub milliseconds: Latency,
    /// Processor time of the calling thread in the same; absent where the system does not tell.
    pub cpu_milliseconds: Option<CpuLatency>,
    /// From opening the model file to the first logits.
    pub cold_start_milliseconds: f64,
    /// The most memory that the process has held; absent where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// Bytes of the model file.
    pub model_bytes: usize,
    /// Multiply-adds of one picture in our operators.
    pub macs: u64,
    /// Each of our operators, in the order of execution.
    pub layers: Vec<Layer>,
}

/// One of our operators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    /// The node's name.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// Mean wall time of a run.
    pub milliseconds: f64,
    /// Multiply-adds of a run.
    pub macs: u64,
}

/// Wall times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// The fastest run.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// 90 % of the runs are as fast.
    pub p90: f64,
    /// 99 % of the runs are as fast.
    pub p99: f64,
    /// The mean.
    pub mean: f64,
}

/// Processor times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CpuLatency {
    /// The median.
    pub p50: f64,
}

/// A model file with what is shown to it: with a card or without.
#[derive(Debug)]
pub enum Subject {
    /// A model of graft's, and preprocessed pixels.
    Model(Box<Engine>, Pixels),
    /// Any other ONNX file.
    Graph(Graph),
}

impl Subject {
    /// Opens `path` for as many `threads` to share the work of each picture.
    ///
    /// # Errors
    /// When it can't be opened, or `threads` is 0.
    pub fn open(path: &Path, threads: usize) -> Result<Subject> {
        if threads == 0 {
            return Err(Error::new("at least one thread is needed"));
        }
        let place = || format!("can't open the model {}", path.display());
        let bytes = model::read(path).with_context(place)?;
        match Engine::of(bytes.clone(), threads) {
            Ok(engine) => {
                let pixels = Probe::pixels(0, &engine.card().preprocess);
                Ok(Subject::Model(Box::new(engine), pixels))
            }
            Err(_) if !model::mentions_card(&bytes) => {
                let graph = Graph::new(bytes, threads).with_context(place)?;
                Ok(Subject::Graph(graph))
            }
            Err(error) => Err(error).with_context(place),
        }
    }

    /// One inference.
    ///
    /// # Errors
    /// When the model fails.
    pub fn run(&self) -> Result<()> {
        match self {
            Subject::Model(engine, pixels) => engine.logits(pixels).map(drop),
            Subject::Graph(graph) => graph.run().map(drop),
        }
    }

    /// Times `runs` inferences after a few that do not count.
    ///
    /// # Errors
    /// When the model fails.
    pub fn sample(&self, runs: usize) -> Result<Vec<Sample>> {
        for _ in 0..WARM_UP {
            self.run()?;
        }
        (0..runs)
            .map(|_| {
                let cpu_before = thread_nanoseconds();
                let start = Instant::now();
                self.run()?;
                let wall = start.elapsed().as_secs_f64() * 1e3;
                let cpu = thread_nanoseconds()
                    .zip(cpu_before)
                    .map(|(after, before)| (after - before) as f64 / 1e6);
                Ok(Sample { wall, cpu })
            })
            .collect()
    }

    /// Which nodes run in our operators.
    pub fn nodes(&self) -> &NodeReport {
        match self {
            Subject::Model(engine, _) => engine.nodes(),
            Subject::Graph(graph) => graph.nodes(),
        }
    }

    fn macs(&self) -> u64 {
        match self {
            Subject::Model(engine, _) => engine.macs(),
            Subject::Graph(graph) => graph.macs(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Subject::Model(engine, _) => engine.model_bytes(),
            Subject::Graph(graph) => graph.bytes(),
        }
    }

    fn layers(&self, runs: usize) -> Result<Vec<Layer>> {
        let times = match self {
            Subject::Model(engine, pixels) => engine.profile(pixels, runs)?,
            Subject::Graph(graph) => graph.profile(runs)?,
        };
        let nodes = self
            .nodes()
            .list
            .iter()
            .filter(|node| node.kernel != "tract");
        Ok(nodes
            .zip(times)
            .map(|(node, nanoseconds)| Layer {
                name: node.name.clone(),
                operator: node.operator.clone(),
                milliseconds: nanoseconds as f64 / 1e6 / runs as f64,
                macs: node.macs,
            })
            .collect())
    }
}

/// Opens the model at `path` and runs it `runs` times on a generated picture, whose work `threads` threads share.
///
/// # Errors
/// When the model can't be opened or run, or `threads` or `runs` is 0.
pub fn bench(path: &Path, threads: usize, runs: usize) -> Result<Bench> {
    if runs == 0 {
        return Err(Error::new("at least one run is needed"));
    }
    let start = Instant::now();
    let subject = Subject::open(path, threads)?;
    subject.run()?;
    let cold_start = start.elapsed();
    let peak_rss_bytes = peak_rss_bytes();
    let samples = subject.sample(runs)?;
    let cpu: Option<Vec<f64>> = samples.iter().map(|sample| sample.cpu).collect();
    Ok(Bench {
        isa: crate::plan::isa().to_owned(),
        threads,
        runs: samples.len(),
        milliseconds: Latency::of(samples.iter().map(|sample| sample.wall).collect()),
        cpu_milliseconds: cpu.map(|cpu| CpuLatency {
            p50: Latency::of(cpu).p50,
        }),
        cold_start_milliseconds: cold_start.as_secs_f64() * 1e3,
        peak_rss_bytes,
        model_bytes: subject.bytes(),
        macs: subject.macs(),
        layers: subject.layers(runs)?,
    })
}

impl Latency {
    /// Of at least one time.
    #[must_use]
    pub fn of(mut times: Vec<f64>) -> Latency {
        times.sort_by(f64::total_cmp);
        Latency {
            min: percentile(&times, 0),
            p50: percentile(&times, 50),
            p90: percentile(&times, 90),
            p99: percentile(&times, 99),
            mean: times.iter().sum::<f64>() / times.len() as f64,
        }
    }
}

/// Milliseconds of one run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Wall time.
    pub wall: f64,
    /// Processor time of the calling thread, where the system tells.
    pub cpu: Option<f64>,
}

/// A loop that needs nothing but registers: where it is slow, the processor was, and what was timed beside it does not
/// count.
#[derive(Debug, Default)]
pub struct Gate {
    best: Option<f64>,
}

impl Gate {
    /// Whether the processor ran at its full speed just now, as far as is known yet.
    pub fn open(&mut self) -> bool {
        let start = Instant::now();
        let mut state = black_box(1u64);
        for _ in 0..GATE_TURNS {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
        }
        black_box(state);
        let time = start.elapsed().as_secs_f64();
        let best = self.best.map_or(time, |best| best.min(time));
        self.best = Some(best);
        time <= best * GATE_SLACK
    }
}

/// The smallest value that `percent` of the values do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Processor time of this thread so far.
fn thread_nanoseconds() -> Option<u64> {
    // The kernel brings the figure up to date when the thread gives way.
    thread::yield_now();
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The most memory that this process has held, in bytes; `None` where the system does not tell.
#[must_use]
pub fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        let at = |percent| percentile(&values, percent);
        assert_eq!((at(0), at(50), at(90), at(99)), (1.0, 100.0, 180.0, 198.0));
        assert_eq!(percentile(&[7.0], 99), 7.0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_tells_memory_and_processor_time() {
        assert!(peak_rss_bytes().unwrap() > 100_000);
        let before = thread_nanoseconds().unwrap();
        let start = Instant::now();
        while start.elapsed().as_millis() < 20 {}
        assert!(thread_nanoseconds().unwrap() > before);
    }
}
