//! `graft check`: what is wrong with photos, before anything is trained on them.

use graft_shared::error::Result;

use super::{Done, print, use_threads};
use crate::cli::CheckArguments;
use crate::dataset;
use crate::features;
use crate::progress::Progress;

/// `graft check`. What is found are warnings: it is no failure.
///
/// # Errors
/// When the photos can't be listed.
pub fn run(arguments: &CheckArguments) -> Result<Done> {
    let progress = Progress::new(arguments.quiet);
    use_threads(arguments.threads)?;
    // Without a cache folder every photo is read, as the first time.
    let cache = features::default_dir().ok();
    let dataset = dataset::scan(&arguments.source, cache.as_deref(), &progress)?;
    let check = dataset::check(dataset, &progress)?;
    print(&if arguments.json {
        check.to_json()? + "\n"
    } else {
        check.to_text()
    })?;
    Ok(Done::Fine)
}
