//! What the service counts, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::serve::Service;
use crate::serve::sink::Sink;

/// Upper bounds of the histogram of times, in seconds.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A number that goes up.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn add(&self, more: i64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn sub(&self, less: i64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each of [`BOUNDS`], and one for what is above.
    counts: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = BOUNDS.partition_point(|&bound| bound < seconds);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.microseconds
            .fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }
}

/// All that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Answers by path and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    pub(crate) connections: Gauge,
    pub(crate) labelled: Counter,
    pub(crate) refused: Counter,
    pub(crate) label_time: Histogram,
    pub(crate) reloaded: Counter,
    pub(crate) reload_failed: Counter,
}

impl Metrics {
    /// An answer went out.
    pub(crate) fn answered(&self, path: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((path, status)).or_default() += 1;
    }

    /// All of it, as text.
    pub(crate) fn text(&self, service: &Service) -> String {
        let mut text = Text::default();
        text.head("graft_requests_total", "counter", "Answers to requests.");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((path, status), count) in &*requests {
            let labels = format!("{{path=\"{path}\",status=\"{status}\"}}");
            text.value("graft_requests_total", &labels, *count as f64);
        }
        drop(requests);
        text.head(
            "graft_pictures_total",
            "counter",
            "Pictures by what became of them.",
        );
        for (outcome, counter) in [("labelled", &self.labelled), ("refused", &self.refused)] {
            let labels = format!("{{outcome=\"{outcome}\"}}");
            text.value("graft_pictures_total", &labels, counter.get() as f64);
        }
        text.histogram(
            "graft_label_seconds",
            "Time from the queue's end to a label.",
            &self.label_time,
        );
        text.one(
            "graft_queue_length",
            "gauge",
            "Pictures that wait for the engine.",
            service.queue.depth() as f64,
        );
        let connections = self.connections.get();
        text.one(
            "graft_connections",
            "gauge",
            "Open connections.",
            connections as f64,
        );
        text.head(
            "graft_reloads_total",
            "counter",
            "New model files by what became of them.",
        );
        for (outcome, counter) in [("taken", &self.reloaded), ("refused", &self.reload_failed)] {
            let labels = format!("{{outcome=\"{outcome}\"}}");
            text.value("graft_reloads_total", &labels, counter.get() as f64);
        }
        if let Some(latest) = &service.latest {
            let (seen, dropped) = (latest.seen.get() as f64, latest.dropped.get() as f64);
            text.one(
                "graft_frames_total",
                "counter",
                "Frames that the source gave.",
                seen,
            );
            let help = "Frames that the engine had no time for.";
            text.one("graft_frames_dropped_total", "counter", help, dropped);
        }
        if !service.sinks.is_empty() {
            text.head(
                "graft_events_lost_total",
                "counter",
                "Labels that a sink had no room for.",
            );
        }
        for sink in &service.sinks {
            let labels = format!("{{sink=\"{}\"}}", sink.name);
            text.value("graft_events_lost_total", &labels, sink.lost.get() as f64);
        }
        let counted =
            |sink: &Sink| Some((format!("{{sink=\"{}\"}}", sink.name), sink.counts.clone()?));
        let counted: Vec<_> = service.sinks.iter().filter_map(counted).collect();
        if !counted.is_empty() {
            let help = "Labels that the other side has taken.";
            text.head("graft_events_sent_total", "counter", help);
        }
        for (labels, counts) in &counted {
            text.value("graft_events_sent_total", labels, counts.sent.get() as f64);
        }
        if !counted.is_empty() {
            let help = "Labels that wait for the other side.";
            text.head("graft_events_waiting", "gauge", help);
        }
        for (labels, counts) in &counted {
            text.value("graft_events_waiting", labels, counts.waiting.get() as f64);
        }
        if let Some(model) = service.models.current() {
            text.head("graft_model_info", "gauge", "The model that answers.");
            text.value(
                "graft_model_info",
                &format!("{{version=\"{}\"}}", model.version),
                1.0,
            );
        }
        if let Some(bytes) = resident_bytes() {
            text.one(
                "process_resident_memory_bytes",
                "gauge",
                "Memory in use.",
                bytes as f64,
            );
        }
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        self.value(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut total = 0;
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&histogram.counts) {
            total += count.load(Ordering::Relaxed);
            let labels = format!("{{le=\"{bound}\"}}");
            self.value(&format!("{name}_bucket"), &labels, total as f64);
        }
        let sum = histogram.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        self.value(&format!("{name}_sum"), "", sum);
        self.value(&format!("{name}_count"), "", total as f64);
    }
}

/// `VmRSS` of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1_024)
}
