//! `graft`: parses the arguments and runs the one command they name.
//!
//! Exit codes: 0 all done, 1 some inputs failed or a gate was missed, 2 could not run.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use graft::cli::{Cli, Command};
use graft::commands::{self, Done};
use graft::retrain;

fn main() -> ExitCode {
    let done = match Cli::parse_from(retrain::hyphens(std::env::args_os())).command {
        Command::Train(arguments) => commands::train::run(*arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Evaluate(arguments) => commands::evaluate::run(&arguments),
        Command::Compare(arguments) => commands::compare::run(&arguments),
        Command::Label(arguments) => commands::label::run(&arguments),
        Command::Backbones(arguments) => commands::backbones::run(&arguments),
        Command::Deploy(arguments) => commands::deploy::run(&arguments),
        Command::Devices(arguments) => commands::devices::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(arguments),
        Command::Completions(arguments) => {
            commands::describe::completions(Cli::command(), &arguments)
        }
        Command::Man(arguments) => commands::describe::man(Cli::command(), &arguments),
    };
    match done {
        Ok(Done::Fine) => ExitCode::SUCCESS,
        Ok(Done::Missed) => ExitCode::from(1),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // When stderr is closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "{}", error.report());
            ExitCode::from(2)
        }
    }
}
