//! A backbone as an earlier run left it: where `--from` begins.

use std::fs;
use std::path::Path;

use graft_engine::model::Model;
use graft_shared::digest::sha256;
use graft_shared::error::{Context, Error, Result};

use crate::backbone::Backbone;
use crate::nn::{Weights, read_lists};
use crate::run::names;

/// `backbone` with the weights that the run of `model`, a model file in its run folder, ended with.
///
/// # Errors
/// A file that is no model, one of another backbone, and a run folder without the weights of a fine-tuning.
pub fn continued(mut backbone: Backbone, model: &Path) -> Result<Backbone> {
    let bytes = fs::read(model).with_context(|| format!("can't read `{}`", model.display()))?;
    let trained = Model::parse(&bytes)
        .with_context(|| format!("`{}`", model.display()))?
        .card
        .provenance
        .backbone;
    if trained != backbone.name {
        return Err(Error::new(format!(
            "`{}` was trained from the backbone `{trained}`, not `{}`",
            model.display(),
            backbone.name
        ))
        .hint(format!("give `--backbone {trained}` too")));
    }
    let path = model
        .parent()
        .unwrap_or(Path::new("."))
        .join(names::WEIGHTS);
    let bytes = fs::read(&path)
        .with_context(|| {
            format!(
                "can't read `{}`, the weights of the earlier run",
                path.display()
            )
        })
        .map_err(|error| {
            error.hint(
                "`--from` takes the model of a fine-tuned run where it lies, in its run folder",
            )
        })?;
    backbone.graph.nodes.truncate(backbone.bottleneck + 1);
    let mut weights = Weights::of(&backbone.graph)?;
    read_lists(&bytes, weights.lists_mut())
        .with_context(|| format!("the weights in `{}`", path.display()))?;
    backbone.graph = weights.fill(&backbone.graph)?;
    backbone.weights_digest = sha256(&bytes);
    Ok(backbone)
}
