//! How fast a model runs here: latency, processor time, cold start, memory.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use graft_shared::card::Probe;
use graft_shared::error::{Context, Error, Result};
use graft_shared::preprocess::Pixels;
use serde::Serialize;

use crate::Engine;

/// Runs before the first one that counts, on each thread.
const WARM_UP: usize = 3;

/// What was measured, under the names of `bench --json`. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bench {
    /// The instruction set that our operators ran on.
    pub isa: String,
    /// Threads that labelled pictures at the same time, each its own.
    pub threads: usize,
    /// Pictures that were timed, on all threads together.
    pub runs: usize,
    /// Wall time from preprocessed pixels to logits.
    pub milliseconds: Latency,
    /// Processor time of the same; absent where the system does not tell.
    pub cpu_milliseconds: Option<CpuLatency>,
    /// From opening the model file to the first logits.
    pub cold_start_milliseconds: f64,
    /// The most memory that the process has held; absent where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// Bytes of the model file.
    pub model_bytes: usize,
    /// Multiply-adds of one picture in our operators.
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

/// Opens the model at `path` and labels a generated picture `runs` times on each of `threads` threads.
///
/// # Errors
/// When the model can't be opened or run, or `threads` or `runs` is 0.
pub fn bench(path: &Path, threads: usize, runs: usize) -> Result<Bench> {
    if threads == 0 || runs == 0 {
        return Err(Error::new("at least one thread and one run are needed"));
    }
    let start = Instant::now();
    let engine = Engine::open(path)?;
    let opened = start.elapsed();
    let pixels = Probe::pixels(0, &engine.card().preprocess);
    let start = Instant::now();
    engine.logits(&pixels)?;
    let cold_start = opened + start.elapsed();

    let samples = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| time(&engine, &pixels, runs)))
            .collect();
        let mut samples = vec![];
        for worker in workers {
            samples.extend(
                worker
                    .join()
                    .map_err(|_| Error::new("a thread that labelled pictures panicked"))??,
            );
        }
        Ok::<_, Error>(samples)
    })?;
    let mut wall: Vec<f64> = samples.iter().map(|sample| sample.wall).collect();
    wall.sort_by(f64::total_cmp);
    let cpu: Option<Vec<f64>> = samples.iter().map(|sample| sample.cpu).collect();
    let cpu_milliseconds = cpu.map(|mut cpu| {
        cpu.sort_by(f64::total_cmp);
        CpuLatency {
            p50: percentile(&cpu, 50),
        }
    });
    Ok(Bench {
        isa: engine.isa().to_owned(),
        threads,
        runs: samples.len(),
        milliseconds: Latency {
            min: percentile(&wall, 0),
            p50: percentile(&wall, 50),
            p90: percentile(&wall, 90),
            p99: percentile(&wall, 99),
            mean: wall.iter().sum::<f64>() / wall.len() as f64,
        },
        cpu_milliseconds,
        cold_start_milliseconds: cold_start.as_secs_f64() * 1e3,
        peak_rss_bytes: peak_rss_bytes(),
        model_bytes: engine.model_bytes(),
        macs: engine.macs(),
    })
}

impl Bench {
    /// The figures as one JSON object.
    ///
    /// # Errors
    /// None that measured figures can cause.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("can't write the figures as JSON")
    }
}

/// Milliseconds of one run.
struct Sample {
    wall: f64,
    cpu: Option<f64>,
}

fn time(engine: &Engine, pixels: &Pixels, runs: usize) -> Result<Vec<Sample>> {
    for _ in 0..WARM_UP {
        engine.logits(pixels)?;
    }
    (0..runs)
        .map(|_| {
            let cpu_before = thread_nanoseconds();
            let start = Instant::now();
            engine.logits(pixels)?;
            let wall = start.elapsed().as_secs_f64() * 1e3;
            let cpu = thread_nanoseconds()
                .zip(cpu_before)
                .map(|(after, before)| (after - before) as f64 / 1e6);
            Ok(Sample { wall, cpu })
        })
        .collect()
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
