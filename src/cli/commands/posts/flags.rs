//! Flags that several of the posts' commands have.

use serde_json::{Map, Value};

use crate::cli::command::{Flag, Takes, flag, switch, value};
use crate::cli::error::CliError;

pub(super) static NEW_SETTINGS: Flag =
    value("settings", "JSON", "the platform's settings, a JSON object");

pub(super) static SHORT_LINK: Flag = flag(
    "shortLink",
    Takes::YesNo,
    "shorten links (default); --no-shortLink keeps them",
);

pub(super) static DRY_RUN: Flag = switch(
    "dry-run",
    "print the request's body; upload and post nothing",
);

/// The value `text` of `flag` as a JSON object.
pub(super) fn object(flag: &Flag, text: &str) -> Result<Map<String, Value>, CliError> {
    let wrong = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => return Ok(object),
        Ok(_) => format!("{flag} must be a JSON object, like {{\"key\":\"value\"}}"),
        Err(error) => format!("{flag} is not JSON: {error}"),
    };
    Err(CliError::usage(wrong))
}
