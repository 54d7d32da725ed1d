//! `bench`: latency and memory here.

use graft_engine::bench::{Bench, bench};
use graft_shared::error::{Context, Result};
use serde::Serialize;

use crate::cli::BenchArguments;
use crate::compare::{Peer, compare};
use crate::{Outcome, print};

/// The figures, with those of other runtimes.
#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    ours: Bench,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<Peer>,
}

pub(crate) fn run(arguments: &BenchArguments) -> Result<Outcome> {
    let threads = arguments.threads.get();
    let figures = Figures {
        ours: bench(&arguments.model, threads, arguments.runs.get())?,
        peers: if arguments.compare.is_empty() {
            vec![]
        } else {
            compare(&arguments.model, threads, &arguments.compare)?
        },
    };
    print(&if arguments.json {
        let json = serde_json::to_string(&figures).context("can't write the figures as JSON")?;
        format!("{json}\n")
    } else {
        let layers = if arguments.layers {
            layers(&figures.ours)
        } else {
            String::new()
        };
        layers + &text(&figures.ours) + &table(&figures.peers)
    })?;
    Ok(Outcome::Done)
}

/// One line for each of our operators.
fn layers(figures: &Bench) -> String {
    let rate = |macs: u64, milliseconds: f64| match macs {
        0 => String::new(),
        macs => format!("{:.1}", macs as f64 / milliseconds / 1e6),
    };
    let lines = figures.layers.iter().map(|layer| {
        format!(
            "{:>9.1} {:>7}  {:<18}{}\n",
            layer.milliseconds * 1e3,
            rate(layer.macs, layer.milliseconds),
            layer.operator,
            layer.name
        )
    });
    let header = format!("{:>9} {:>7}  {:<18}node\n", "us", "GMAC/s", "operator");
    header + &lines.collect::<String>()
}

/// One line for each other runtime, as Markdown.
fn table(peers: &[Peer]) -> String {
    if peers.is_empty() {
        return String::new();
    }
    let lines = peers.iter().map(|peer| {
        format!(
            "| {} {} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |\n",
            peer.runtime,
            peer.version,
            peer.model,
            peer.milliseconds.min,
            peer.milliseconds.p50,
            peer.ratio,
            peer.load_milliseconds,
            peer.peak_rss_bytes as f64 / 1e6
        )
    });
    let header = "\n| runtime | runs | min ms | median ms | ours / its | load ms | peak MB |\n|---|---|---|---|---|---|---|\n";
    header.to_owned() + &lines.collect::<String>()
}

fn text(figures: &Bench) -> String {
    let times = &figures.milliseconds;
    let cpu = figures.cpu_milliseconds.map_or_else(String::new, |cpu| {
        format!("processor time   median {:.2} ms\n", cpu.p50)
    });
    let memory = figures.peak_rss_bytes.map_or_else(String::new, |bytes| {
        format!(", at most {:.1} MB of memory", bytes as f64 / 1e6)
    });
    format!(
        "{} runs on {} threads, {}\n\
         latency          median {:.2} ms   (min {:.2}, 90 % {:.2}, 99 % {:.2}, mean {:.2})\n\
         {cpu}\
         cold start       {:.1} ms from the file to the first answer\n\
         model            {:.2} MB, {:.1} million multiply-adds{memory}\n",
        figures.runs,
        figures.threads,
        figures.isa,
        times.p50,
        times.min,
        times.p90,
        times.p99,
        times.mean,
        figures.cold_start_milliseconds,
        figures.model_bytes as f64 / 1e6,
        figures.macs as f64 / 1e6,
    )
}
