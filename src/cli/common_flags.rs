//! The flags that every command has, and what they say.

use std::ffi::OsString;
use std::time::Duration;

use crate::cli::command::{AGAIN, JSON_ERRORS, Options, TIMEOUT};
use crate::cli::context::{AnswerTimeout, Common, Vars};
use crate::cli::error::CliError;

impl Common {
    /// Reads the flags, and the variables that stand for them.
    pub(crate) fn read(options: &Options, vars: &Vars) -> Result<Common, CliError> {
        let timeout = match (options.text(&TIMEOUT)?, vars.text(TIMEOUT_VARIABLE)) {
            (Some(text), _) => answer_timeout("--timeout", text)?,
            (None, Some(text)) => answer_timeout(TIMEOUT_VARIABLE, &text)?,
            (None, None) => AnswerTimeout::Usual,
        };
        Ok(Common {
            timeout,
            again: options.has(&AGAIN),
            asked: options.identity(),
        })
    }
}

/// Does the command line ask for errors as JSON? Known before it is read, since reading it may be what fails.
pub(crate) fn wants_json_errors(arguments: &[OsString]) -> bool {
    let mut flags = arguments.iter().take_while(|word| *word != "--");
    let long = format!("--{}", JSON_ERRORS.long);
    flags.any(|word| *word == *long || word == "--jsonErrors")
}

fn answer_timeout(name: &str, text: &str) -> Result<AnswerTimeout, CliError> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds >= 0.0);
    let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match limit {
        Some(Duration::ZERO) => Ok(AnswerTimeout::Never),
        Some(limit) => Ok(AnswerTimeout::After(limit)),
        None => Err(CliError::usage(format!(
            "{name} must be a number of seconds (0: no limit), not `{text}`"
        ))),
    }
}

const TIMEOUT_VARIABLE: &str = "POSTIZ_TIMEOUT";
