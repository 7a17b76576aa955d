//! The commands, one file a family: read the options, do it, print the result.

pub(crate) mod analytics;
pub(crate) mod api;
pub(crate) mod auth;
pub(crate) mod completions;
pub(crate) mod integrations;
pub(crate) mod posts;
pub(crate) mod upload;

use crate::cli::api::{Api, Call};
use crate::cli::command::{Positional, one};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

const POST_ID: Positional = one("id", "the post's ID");
const INTEGRATION_ID: Positional = one("id", "the channel's ID");

/// Sends `call` and prints the answer: what most commands come down to.
fn answer_of(context: &mut Context, call: &Call) -> Result<Exit, CliError> {
    let api = Api::connect(context)?;
    let json = api.json(context, call)?;
    context.output.json(&json)?;
    Ok(Exit::Done)
}
