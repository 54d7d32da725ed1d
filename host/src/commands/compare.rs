//! `graft compare`: what a new model does better and worse than an old one.

use graft_engine::{Engine, listing};
use graft_shared::error::{Error, Result};

use super::{Done, complain, print, use_threads};
use crate::cli::CompareArguments;
use crate::compare::compare;
use crate::progress::Progress;

/// `graft compare`.
///
/// # Errors
/// What keeps the models from being compared.
pub fn run(arguments: &CompareArguments) -> Result<Done> {
    let progress = Progress::new(arguments.quiet);
    let threads = use_threads(arguments.threads)?;
    let photos = listing::list_split(&arguments.source, &arguments.split)?;
    let old = Engine::open(&arguments.old)?;
    let new = Engine::open(&arguments.new)?;
    let comparison = compare(&old, &new, photos, threads, &progress)?;
    for (path, reason) in &comparison.refused {
        complain(&Error::new(format!("{}: {reason}", path.display())));
    }
    print(&if arguments.json {
        comparison.to_json()? + "\n"
    } else {
        comparison.to_text()
    })?;
    Ok(if comparison.refused.is_empty() {
        Done::Fine
    } else {
        Done::Missed
    })
}
