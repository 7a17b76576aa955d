//! The commands, one file a family: read the options, do it, print the result.

pub(crate) mod analytics;
pub(crate) mod api;
pub(crate) mod auth;
pub(crate) mod clipping;
pub(crate) mod completions;
pub(crate) mod integrations;
pub(crate) mod man;
pub(crate) mod media;
pub(crate) mod notifications;
pub(crate) mod posts;
pub(crate) mod skill;
pub(crate) mod upload;

use crate::cli::api::{Api, Call};
use crate::cli::command::{Flag, Options, Positional, one};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

const POST_ID: Positional = one("id", "the post's ID");
const INTEGRATION_ID: Positional = one("id", "the channel's ID");

/// Sends `call` and prints the answer: what most commands come down to.
fn answer_of(context: &mut Context, call: &Call) -> Result<Exit, CliError> {
    Api::connect(context)?.print(context, call)
}

/// The page that `flag` asks for, of pages that are counted from `first`.
fn page<'a>(
    options: &'a Options,
    flag: &'static Flag,
    first: u32,
) -> Result<Option<&'a str>, CliError> {
    let page = options.text(flag)?;
    match page.map(str::parse::<u32>) {
        None => Ok(None),
        Some(Ok(number)) if number >= first => Ok(page),
        Some(_) => {
            let (name, page) = (flag.long, page.unwrap_or_default());
            let message = format!("--{name} must be a number from {first}, not `{page}`");
            Err(CliError::usage(message))
        }
    }
}
