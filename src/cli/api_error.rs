//! Answers that are no success, in words that their user can act on: Postiz' own, a proxy's, and none at all.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::cli::context::Vars;
use crate::cli::credentials::{API_KEY_VARIABLE, By, DEFAULT_API_URL, SignedIn};
use crate::cli::error::CliError;
use crate::cli::http::{Answer, NoAnswer};
use crate::cli::json::Json;
use crate::shared::text::printable_cut;

/// What an answer that is no success means.
pub(crate) fn of(answer: &Answer, by: &SignedIn, vars: &Vars, now: SystemTime) -> CliError {
    let said = message_of(answer);
    let reason = reason(answer, said.as_deref());
    let said = said.unwrap_or_default();
    let api_url = &by.api_url;
    let refused = CliError::failed(format!("Postiz refused: {reason}"));
    match answer.status {
        401 if said.contains(NO_SUBSCRIPTION) => refused.hint(
            "the credentials are fine, but the organisation has no active plan: see Settings > Billing in Postiz",
        ),
        401 if said.contains(CHANNEL_DISCONNECTED) => {
            refused.hint("the credentials are fine: reconnect the channel in Postiz")
        }
        401 => refused_credentials(&reason, by, vars),
        402 => CliError::failed(format!("Postiz wants a bigger plan: {reason}"))
            .hint(where_to_pay(answer)),
        403 => CliError::failed(format!("Postiz does not allow it: {reason}")),
        404 if is_missing_path(answer, &said) => {
            let message = format!("{api_url} has no such path: {reason}");
            with_api_hint(CliError::failed(message), by)
        }
        404 => CliError::failed(format!("not found: {reason}")),
        413 => refused.hint("it is larger than Postiz, or a proxy in front of it, takes"),
        429 => CliError::failed(format!("too many requests: {reason}"))
            .hint(when_to_try_again(answer.retry_after(now))),
        500.. => CliError::failed(format!("Postiz failed: {reason}"))
            .hint("try again later; a Postiz of your own has more in its log"),
        _ if answer.is_html() => with_api_hint(refused, by),
        _ => refused,
    }
}

/// There was no answer.
pub(crate) fn unreachable(no_answer: NoAnswer, by: &SignedIn) -> CliError {
    let message = format!("cannot reach {}: {}", by.api_url, no_answer.why);
    let hint = no_answer
        .hint
        .unwrap_or("check the network and the API URL");
    CliError::failed(message).word("unreachable").hint(hint)
}

/// The JSON of a success.
pub(crate) fn json_of(answer: &Answer, by: &SignedIn) -> Result<Json, CliError> {
    let api_url = &by.api_url;
    if answer.body.trim_ascii().is_empty() {
        return Ok(Json::null());
    }
    if answer.is_html() {
        let message = format!("{api_url} answered with a web page instead of JSON");
        let error = CliError::failed(message).word("not_json");
        return Err(with_api_hint(error, by));
    }
    let text = str::from_utf8(&answer.body).map_err(|_| "it is not valid UTF-8".to_owned());
    text.and_then(Json::parse).map_err(|wrong| {
        CliError::failed(format!("the answer of {api_url} is not JSON: {wrong}"))
            .word("not_json")
            .hint("the request itself succeeded; look at its result in Postiz before you repeat it")
    })
}

fn reason(answer: &Answer, said: Option<&str>) -> String {
    let status = answer.status;
    match said {
        Some(said) => format!("{said} (HTTP {status})"),
        None if answer.is_html() => format!("HTTP {status} with a web page instead of an answer"),
        None => format!("HTTP {status} without a reason"),
    }
}

/// What the API says went wrong: its error bodies come in five shapes.
fn message_of(answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.trim();
    if text.is_empty() || answer.is_html() {
        return None;
    }
    let Ok(body) = serde_json::from_str::<Value>(text) else {
        // A proxy's plain text, or a body that was cut off.
        return Some(printable_cut(text, MESSAGE_CHARACTERS_MAX));
    };
    let fields = ["error_description", "message", "msg", "error"];
    let said = fields.iter().find_map(|field| words(&body[*field]));
    // A body of another shape is shown as it is: better than to keep it back.
    let said = said.unwrap_or_else(|| body.to_string());
    Some(printable_cut(&said, MESSAGE_CHARACTERS_MAX))
}

fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().filter_map(words).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Value::Object(fields) => {
            let inner = ["message", "msg"].iter().find_map(|name| fields.get(*name));
            inner.and_then(words).or_else(|| Some(value.to_string()))
        }
        _ => None,
    }
}

fn refused_credentials(reason: &str, by: &SignedIn, vars: &Vars) -> CliError {
    let error = CliError::refused(format!("Postiz refused the credentials: {reason}"));
    match &by.by {
        By::ApiKey => {
            error.hint("check POSTIZ_API_KEY and POSTIZ_API_URL, or run `postiz auth:login`")
        }
        By::Login { .. } => {
            // Postiz keeps one login of an account for an app.
            let hint =
                "run `postiz auth:login`: a later login on another machine may have ended this one";
            let ignored = if vars.is_set(API_KEY_VARIABLE) {
                "; POSTIZ_API_KEY is set, but the stored login comes first"
            } else {
                ""
            };
            error.hint(format!("{hint}{ignored}"))
        }
    }
}

fn where_to_pay(answer: &Answer) -> String {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    match body.as_ref().and_then(|body| body["url"].as_str()) {
        Some(url) => printable_cut(url, MESSAGE_CHARACTERS_MAX),
        None => "see Settings > Billing in Postiz".to_owned(),
    }
}

/// A 404 for a path that this server does not have, rather than for an ID: Postiz itself speaks of IDs in `msg`.
fn is_missing_path(answer: &Answer, said: &str) -> bool {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let speaks_of_an_id = body.is_some_and(|body| body["msg"].is_string());
    said.starts_with("Cannot ") || !(speaks_of_an_id || said.contains("not found"))
}

/// The most common mistake of people with a Postiz of their own.
fn with_api_hint(error: CliError, by: &SignedIn) -> CliError {
    let url = &by.api_url;
    if url.as_str() == DEFAULT_API_URL || url.path().ends_with("/api") {
        return error.hint("check the API URL: `postiz auth:status` shows it");
    }
    let setting = match by.by {
        By::ApiKey => "POSTIZ_API_URL",
        By::Login { .. } => "the auth server's POSTIZ_API_URL",
    };
    error.hint(format!(
        "a self-hosted Postiz usually has its API under /api: try {url}/api as {setting}"
    ))
}

fn when_to_try_again(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(wait) => format!("try again in {} s", wait.as_secs().max(1)),
        None => "Postiz allows so many posts an hour: try again later".to_owned(),
    }
}

/// 401s that are not about the credentials, in Postiz' own words.
const NO_SUBSCRIPTION: &str = "No subscription";
const CHANNEL_DISCONNECTED: &str = "Channel disconnected";

/// As much of the API's own words as one line bears.
const MESSAGE_CHARACTERS_MAX: usize = 500;
