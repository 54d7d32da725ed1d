//! `bench`: latency and memory here.

use graft_engine::bench::{Bench, bench};
use graft_shared::error::Result;

use crate::cli::BenchArguments;
use crate::{Outcome, print};

pub(crate) fn run(arguments: &BenchArguments) -> Result<Outcome> {
    let figures = bench(
        &arguments.model,
        arguments.threads.get(),
        arguments.runs.get(),
    )?;
    print(&if arguments.json {
        format!("{}\n", figures.to_json()?)
    } else {
        text(&figures)
    })?;
    Ok(Outcome::Done)
}

fn text(figures: &Bench) -> String {
    let times = &figures.milliseconds;
    let cpu = figures.cpu_milliseconds.map_or_else(String::new, |cpu| {
        format!("processor time   median {:.2} ms\n", cpu.p50)
    });
    let memory = figures.peak_rss_bytes.map_or_else(String::new, |bytes| {
        format!(", at most {:.1} MB of memory", bytes as f64 / 1e6)
    });
    let layers: String = figures
        .layers
        .iter()
        .map(|layer| {
            let rate = layer.macs as f64 / layer.milliseconds / 1e6;
            format!(
                "{:>9.1} us {:>7} GMAC/s  {:<18}{}\n",
                layer.milliseconds * 1e3,
                if layer.macs == 0 {
                    "-".to_owned()
                } else {
                    format!("{rate:.1}")
                },
                layer.operator,
                layer.name
            )
        })
        .collect();
    format!(
        "{layers}{} runs on {} threads, {}\n\
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
