//! `verify`: the model file is whole, and computes here what it computed where it was made.

use graft_engine::Engine;
use graft_shared::digest::hex;
use graft_shared::error::Result;
use serde_json::json;

use crate::cli::ModelArguments;
use crate::{Outcome, print};

pub(crate) fn run(arguments: &ModelArguments) -> Result<Outcome> {
    let engine = Engine::open(&arguments.model)?;
    let report = engine.verify()?;
    let digest = hex(&engine.card().graph_digest);
    print(&if arguments.json {
        let fields = json!({
            "digest": digest,
            "probes": report.probes,
            "exact": report.exact,
            "largest_difference": report.largest_difference,
            "tolerance": report.tolerance,
        });
        format!("{fields}\n")
    } else {
        let equal = match (report.probes, report.exact) {
            (0, _) => "it has none to compare".to_owned(),
            (_, true) => "equal to the bit".to_owned(),
            (_, false) => format!(
                "within {:.2e}, allowed are {:.2e}",
                report.largest_difference, report.tolerance
            ),
        };
        format!(
            "digest   {digest}: intact\nprobes   {}: {equal}\n",
            report.probes
        )
    })?;
    Ok(Outcome::Done)
}
