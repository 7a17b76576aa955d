//! The platform's settings of a post, as flags give them.

use serde_json::{Map, Value};

use crate::cli::command::{Flag, Takes, flag};
use crate::cli::error::CliError;

pub(super) static NEW_SETTINGS: Flag = flag(
    "settings",
    None,
    Takes::Value("JSON"),
    "the platform's settings, a JSON object",
);

/// `text` as a JSON object.
pub(super) fn object(flag: &Flag, text: &str) -> Result<Map<String, Value>, CliError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(CliError::usage(format!(
            "--{} must be a JSON object, like {{\"key\":\"value\"}}",
            flag.long
        ))),
        Err(error) => Err(CliError::usage(format!(
            "--{} is not JSON: {error}",
            flag.long
        ))),
    }
}
