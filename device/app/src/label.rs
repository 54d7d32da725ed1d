//! `label`: which label each picture has.

use graft_cli::label;
use graft_engine::Engine;
use graft_shared::error::Result;

use crate::cli::LabelArguments;
use crate::{Outcome, say};

pub(crate) fn run(arguments: &LabelArguments) -> Result<Outcome> {
    let engine = Engine::open(&arguments.model)?;
    let failures = label::run(&engine, &arguments.paths, &arguments.label, &mut say)?;
    Ok(Outcome::of(failures))
}
