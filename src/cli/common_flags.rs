//! Reads the flags that every command has.

use std::ffi::OsString;
use std::time::Duration;

use crate::cli::command::{AGAIN, JSON_ERRORS, Options, TIMEOUT};
use crate::cli::context::{AnswerTimeout, CommonFlags, Vars};
use crate::cli::error::CliError;

impl CommonFlags {
    /// Reads the flags, and the variable that `--timeout` overrides.
    pub(crate) fn read(options: &Options, vars: &Vars) -> Result<CommonFlags, CliError> {
        let timeout = match (options.text(&TIMEOUT)?, vars.text(TIMEOUT_VARIABLE)) {
            (Some(text), _) => answer_timeout("--timeout", text)?,
            (None, Some(text)) => answer_timeout(TIMEOUT_VARIABLE, &text)?,
            (None, None) => AnswerTimeout::Usual,
        };
        Ok(CommonFlags {
            timeout,
            again: options.has(&AGAIN),
            identity: options.identity(),
        })
    }
}

/// Does the command line ask for errors as JSON? It is searched before it is parsed, since parsing it may fail.
pub(crate) fn wants_json_errors(arguments: &[OsString]) -> bool {
    let mut flags = arguments.iter().take_while(|word| *word != "--");
    let long = JSON_ERRORS.to_string();
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
