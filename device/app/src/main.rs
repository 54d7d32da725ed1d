//! `graft-device`: labels pictures on the board. Parses the arguments and runs the one command they name.
//!
//! Exit codes: 0 all done, 1 some inputs failed (each is named on standard error), 2 could not run.

mod bench;
mod children;
mod cli;
mod clock;
mod compare;
mod eval;
mod info;
mod label;
#[cfg(target_arch = "arm")]
#[allow(unsafe_code)]
mod oldest;
mod preprocess;
mod serve;
mod systemd;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use graft_cli::describe;
use graft_shared::error::{Error, Result};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Label(arguments) => label::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Preprocess(arguments) => preprocess::run(&arguments),
        Command::Info(arguments) => info::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Completions(arguments) => {
            print_bytes(&describe::completions(Cli::command(), &arguments))
        }
        Command::Man(arguments) => {
            describe::man(Cli::command(), &arguments).and_then(|page| print_bytes(&page))
        }
    };
    match done {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

/// How a command that could run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Some inputs failed, each reported when it did.
    SomeFailed,
}

impl Outcome {
    fn of(failures: usize) -> Self {
        if failures == 0 {
            Self::Done
        } else {
            Self::SomeFailed
        }
    }
}

/// Says on standard error what went wrong.
fn report(error: &Error) {
    say(&error.report());
}

/// Writes a line to standard error; when that is closed there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes text to standard output.
fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes()).map(|_| ())
}

fn print_bytes(bytes: &[u8]) -> Result<Outcome> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| Error::new("can't write to standard output").source(error))?;
    Ok(Outcome::Done)
}
