//! What several families of commands use.

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::{Flag, Options, Positional, one, value};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

pub(super) const POST_ID: Positional = one("id", "the post's ID");
pub(super) const INTEGRATION_ID: Positional = one("id", "the channel's ID");

/// Sends a GET for the path of `segments`, and prints the answer.
pub(super) fn print_get(context: &mut Context, segments: &[&str]) -> Result<Exit, CliError> {
    answer_of(context, &Call::get(segments)?)
}

pub(super) fn answer_of(context: &mut Context, call: &Call) -> Result<Exit, CliError> {
    Api::connect(context)?.print(context, call)
}

pub(super) static PAGE: Flag = value("page", "N", "which page, from 1 (default: 1)").short('p');

/// The page number that `flag` names; pages are counted from `first`.
pub(super) fn page<'a>(
    options: &'a Options,
    flag: &'static Flag,
    first: u32,
) -> Result<Option<&'a str>, CliError> {
    let page = options.text(flag)?;
    match page.map(str::parse::<u32>) {
        None => Ok(None),
        Some(Ok(number)) if number >= first => Ok(page),
        Some(_) => {
            let page = page.unwrap_or_default();
            let message = format!("{flag} must be a number from {first}, not `{page}`");
            Err(CliError::usage(message))
        }
    }
}

/// Warns of flags that old documents show and that have no effect. The npm CLI ignores them without a word.
pub(super) fn say_ignored(context: &mut Context, options: &Options, flags: &[&'static Flag]) {
    for flag in flags.iter().filter(|flag| options.has(flag)) {
        let words = format!("{flag} changes nothing: Postiz has no such thing");
        context.output.warn(&words);
    }
}

pub(super) const IGNORED: &str = "accepted and ignored, as in the npm CLI";
