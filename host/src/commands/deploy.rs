//! `graft deploy`: a model to a board that serves it.

use graft_shared::error::Result;

use super::{Done, print};
use crate::cli::DeployArguments;
use crate::deploy::{Plan, deploy};
use crate::progress::Progress;

/// `graft deploy`.
///
/// # Errors
/// What keeps the board from serving the model.
pub fn run(arguments: &DeployArguments) -> Result<Done> {
    let plan = Plan {
        host: arguments.host.clone(),
        model: arguments.model.clone(),
        package: arguments.package.clone(),
        photo: arguments.photo.clone(),
        ssh_options: arguments.ssh_option.clone(),
    };
    let deployed = deploy(&plan, &Progress::new(arguments.quiet))?;
    print(&if arguments.json {
        deployed.to_json()? + "\n"
    } else {
        deployed.to_text()
    })?;
    Ok(Done::Fine)
}
