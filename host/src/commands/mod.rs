//! What each command does with its arguments.

pub mod backbones;
pub mod check;
pub mod compare;
pub mod demo;
pub mod deploy;
pub mod describe;
pub mod devices;
pub mod evaluate;
pub mod label;
pub mod train;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use graft_shared::error::{Context, Error, Result};

use crate::backbone::FetchOptions;
use crate::cli::CommonArguments;
use crate::features;

/// How a command that could run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All of it.
    Fine,
    /// Some inputs failed, or a gate was missed; what and why is on stderr.
    Missed,
}

fn bottleneck_dir(common: &CommonArguments) -> Result<PathBuf> {
    common
        .bottleneck_dir
        .clone()
        .map_or_else(features::default_dir, Ok)
}

/// Sizes the pool that all computing shares.
fn use_threads(threads: Option<NonZeroUsize>) -> Result<usize> {
    let threads = graft_cli::threads(threads);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("can't start the threads")?;
    Ok(threads)
}

/// Where pretrained weights come from.
fn weights(common: &CommonArguments) -> FetchOptions {
    FetchOptions {
        model_dir: common.model_dir.clone(),
        offline: common.offline,
        own: None,
    }
}

fn complain(error: &Error) {
    say(&error.report());
}

fn say(line: &str) {
    // When stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context("can't write to standard output")
}
