//! `completions`: prints a shell's script.

use crate::cli::command::{Command, Options, one};
use crate::cli::completions::{bash, fish, zsh};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

pub(crate) static COMPLETIONS: Command = Command {
    name: "completions",
    about: "print a script that completes commands and flags",
    positionals: &[one("shell", "bash, zsh or fish")],
    flags: &[],
    notes: "",
    examples: &["eval \"$(postiz completions bash)\""],
    run: print,
};

pub(crate) fn print(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let script = match options.positional(0)? {
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        other => {
            return Err(CliError::usage(format!(
                "`{other}` is not one of bash, zsh and fish"
            )));
        }
    };
    context.output.verbatim(&script)?;
    Ok(Exit::Done)
}
