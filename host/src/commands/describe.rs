//! `graft completions` and `graft man`: what packages and shells want to know.

use clap::Command;
use graft_cli::describe::{self, CompletionsArguments, ManArguments};
use graft_shared::error::Result;

use super::{Done, print_bytes};

/// `graft completions`.
///
/// # Errors
/// When standard output can't be written to.
pub fn completions(program: Command, arguments: &CompletionsArguments) -> Result<Done> {
    print_bytes(&describe::completions(program, arguments))?;
    Ok(Done::Fine)
}

/// `graft man`.
///
/// # Errors
/// When standard output or the folder can't be written to.
pub fn man(program: Command, arguments: &ManArguments) -> Result<Done> {
    print_bytes(&describe::man(program, arguments)?)?;
    Ok(Done::Fine)
}
