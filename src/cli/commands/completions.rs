//! `completions`: prints a shell's script.

use crate::cli::args::Options;
use crate::cli::completions::{bash, fish, zsh};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

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
