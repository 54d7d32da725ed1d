//! How a program describes itself to a shell and to `man`: `completions` and `man`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use graft_shared::error::{Context, Result};

/// Of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell to complete in
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Of `man`.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Write a page for the program and one for each command to this folder
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// The script that completes `program` in a shell.
#[must_use]
pub fn completions(mut program: Command, arguments: &CompletionsArguments) -> Vec<u8> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, name, &mut script);
    script
}

/// The manual page of `program`, or, where a folder is named, nothing: then the pages are written there.
///
/// # Errors
/// When the folder can't be written to.
pub fn man(program: Command, arguments: &ManArguments) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    if let Some(folder) = &arguments.output {
        fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(program, folder))
            .with_context(|| format!("can't write manual pages to `{}`", folder.display()))?;
    } else {
        clap_mangen::Man::new(program)
            .render(&mut page)
            .context("can't write the manual page")?;
    }
    Ok(page)
}
