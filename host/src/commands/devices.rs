//! `graft devices`: what can be trained on, and why the rest can't be.

use graft_shared::error::Result;

use super::{Done, print};
use crate::cli::DevicesArguments;
use crate::devices::Devices;

/// `graft devices`. A device that can't be used is no failure.
///
/// # Errors
/// When standard output can't be written to.
pub fn run(arguments: &DevicesArguments) -> Result<Done> {
    let devices = Devices::of_this_machine();
    print(&if arguments.json {
        devices.to_json()? + "\n"
    } else {
        devices.to_text()
    })?;
    Ok(Done::Fine)
}
