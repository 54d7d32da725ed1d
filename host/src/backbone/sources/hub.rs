//! Weights on the Hugging Face Hub, or on the mirror that `HF_ENDPOINT` names; kept in the Hub's own cache below `HF_HOME`.

use std::fs::File;
use std::panic::catch_unwind;

use graft_shared::error::{Context, Error, Result};
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use super::read_limited;

/// The bytes of `file` in the model repository `repo` (`owner/name`) at `revision` (a branch, a tag or a commit).
///
/// With `offline`, or with `HF_HUB_OFFLINE=1` in the environment, from the Hub's cache or not at all.
///
/// # Errors
/// No network, no such repository, file or revision.
pub(super) fn read(repo: &str, file: &str, revision: &str, offline: bool) -> Result<Vec<u8>> {
    let hub_repo = Repo::with_revision(repo.into(), RepoType::Model, revision.into());
    let failed = || format!("fetching {file} of {repo} at {revision} from the Hugging Face Hub");
    let path = if offline || is_offline() {
        Cache::from_env()
            .repo(hub_repo)
            .get(file)
            .ok_or_else(|| {
                Error::new("it is not in the Hub's cache, and the network is not to be used")
                    .hint("run once without --offline and HF_HUB_OFFLINE")
            })
            .with_context(failed)?
    } else {
        // The client asserts what a server should have answered.
        catch_unwind(|| {
            let mut api = ApiBuilder::from_env().with_progress(false);
            if let Ok(token) = std::env::var("HF_TOKEN") {
                api = api.with_token(Some(token));
            }
            api.build()?
                .repo(hub_repo)
                .get(file)
        })
        .map_err(|_| Error::new("the server's answer makes no sense"))
        .and_then(|path| path.context("the file can't be had"))
        .with_context(failed)
        .map_err(|error| {
            error.hint("is there a network, and are repository, file and revision spelled right? Private ones need HF_TOKEN")
        })?
    };
    File::open(&path)
        .context("it can't be opened")
        .and_then(read_limited)
        .with_context(|| format!("reading {}", path.display()))
}

/// Whether the environment forbids the network, as the Hub's own tools read it.
fn is_offline() -> bool {
    std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| {
        ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
    })
}
