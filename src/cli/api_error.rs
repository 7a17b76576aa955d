//! Turns answers that are not a success into words that the user can act on: Postiz' own, a proxy's, and a missing one.

use std::time::Duration;

use serde_json::Value;

use ureq::http::Method;

use crate::cli::call::Call;
use crate::cli::context::{Context, Vars};
use crate::cli::credentials::DEFAULT_API_URL;
use crate::cli::error::{Answered, CliError};
use crate::cli::http::{Answer, NoAnswer, is_read};
use crate::cli::json::Json;
use crate::cli::signed_in::{API_KEY_VARIABLE, SignInMethod, SignedIn};
use crate::cli::unanswered;
use crate::shared::text::printable_cut;

/// The error for an answer to `call` that is not a success.
pub(crate) fn of(
    answer: &Answer,
    call: &Call,
    signed_in: &SignedIn,
    context: &Context,
) -> CliError {
    let said = message_of(answer);
    let channel = channel(answer, call, said.as_deref());
    let mut error = in_words(
        answer,
        said.as_deref(),
        channel.as_deref(),
        signed_in,
        context,
    );
    let below = call.path.strip_prefix("/public/v1/");
    match (answer.status, below) {
        (401 | 403 | 404, None) if !call.path.starts_with("/api/") => {
            error = error.hint(format!(
                "the public API is under /public/v1: try /public/v1{}",
                call.path
            ));
        }
        (404, Some(below)) if is_missing_route(said.as_deref()) => {
            if let Some(version) = needed_version(&call.method, below) {
                error = error.hint(format!(
                    "this needs Postiz {version}, and {} is older",
                    signed_in.api_url
                ));
            }
        }
        _ => {}
    }
    error.answered(Some(Answered {
        status: answer.status,
        channel,
        body: answer.body.clone(),
    }))
}

fn in_words(
    answer: &Answer,
    said: Option<&str>,
    channel: Option<&str>,
    signed_in: &SignedIn,
    context: &Context,
) -> CliError {
    let reason = reason(answer, said);
    let said = said.unwrap_or_default();
    let api_url = &signed_in.api_url;
    let refused = CliError::failed(match channel {
        Some(channel) => format!("Postiz refused the post for {channel}: {reason}"),
        None => format!("Postiz refused: {reason}"),
    });
    match answer.status {
        401 if said.contains(NO_SUBSCRIPTION) => refused.hint(
            "the credentials are fine, but the organisation has no active plan: see Settings > Billing in Postiz",
        ),
        401 if said.contains(CHANNEL_DISCONNECTED) => {
            refused.hint("the credentials are fine: reconnect the channel in Postiz")
        }
        401 => refused_credentials(&reason, signed_in, &context.vars),
        402 => CliError::failed(format!("Postiz wants a bigger plan: {reason}"))
            .hint(where_to_pay(answer)),
        403 if answer.is_html() => {
            let message = format!("a firewall in front of {api_url} refused the request: {reason}");
            CliError::failed(message)
                .hint("it is not Postiz that refuses: ask the firewall's administrator to let the API through")
        }
        403 => CliError::failed(format!("Postiz does not allow it: {reason}")),
        404 if is_missing_path(answer, said) => {
            let message = format!("{api_url} has no such path: {reason}");
            with_api_hint(CliError::failed(message), signed_in)
        }
        404 => CliError::failed(format!("not found: {reason}")),
        413 => refused.hint("it is larger than Postiz, or a proxy in front of it, takes"),
        429 => CliError::failed(format!("too many requests: {reason}"))
            .hint(when_to_try_again(answer.retry_after(context.clock.date()))),
        500.. => CliError::failed(format!("Postiz failed: {reason}"))
            .hint("try again later; a Postiz of your own has more in its log"),
        _ if answer.is_html() => with_api_hint(refused, signed_in),
        _ => refused,
    }
}

/// The channel that a 400 is about. Postiz names it, or its place among the posts of the request (`posts.1.settings …`).
fn channel(answer: &Answer, call: &Call, said: Option<&str>) -> Option<String> {
    if answer.status != 400 {
        return None;
    }
    let body = answer.json_object();
    let text = |field: &str| body[field].as_str().filter(|text| !text.is_empty());
    match (text("name"), text("provider")) {
        (Some(name), Some(provider)) => Some(format!("{name} ({provider})")),
        (None, Some(provider)) => Some(provider.to_owned()),
        _ => {
            let (_, rest) = said?.split_once("posts.")?;
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            call.channel_of_post(digits.parse().ok()?)
        }
    }
}

/// Does Postiz' router say that it does not have the path?
fn is_missing_route(said: Option<&str>) -> bool {
    said.is_some_and(|said| said.starts_with("Cannot "))
}

/// The version of Postiz that added the path `below` /public/v1, where that is known.
fn needed_version(method: &Method, below: &str) -> Option<&'static str> {
    let path = below.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    let version = match (method.as_str(), &segments[..]) {
        (_, ["me" | "media" | "clipping", ..] | ["posts", _, "settings"]) => "newer than v2.23.0",
        (_, ["groups"]) => "v2.21.9 or newer",
        (_, ["posts", _, "status"]) => "v2.21.7 or newer",
        (_, ["social", ..]) | ("DELETE", ["integrations", ..]) => "v2.20.0 or newer",
        (_, ["notifications"] | ["posts", "group", _]) => "v2.18.0 or newer",
        _ => return None,
    };
    Some(version)
}

/// Does a redirect lead to the sign-in page? Postiz answers so outside its API.
pub(crate) fn leads_to_sign_in(target: &str) -> bool {
    let path = match target.split_once("//") {
        // A URL with a host.
        Some(("" | "http:" | "https:", rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        _ => target,
    };
    let first = path.trim_start_matches('/').split(['/', '?', '#']).next();
    first == Some("auth")
}

/// The error where Postiz' pages answered instead of its API.
pub(crate) fn not_the_api(answer: &Answer, target: &str, signed_in: &SignedIn) -> CliError {
    let message = format!(
        "{} answered with its sign-in page instead of the API (HTTP {} to {})",
        signed_in.api_url,
        answer.status,
        printable_cut(target, 200)
    );
    with_api_hint(CliError::failed(message).word("not_the_api"), signed_in)
}

/// The error where there was no answer.
pub(crate) fn unreachable(no_answer: NoAnswer, signed_in: &SignedIn) -> CliError {
    no_answer.error(&signed_in.api_url, "check the network and the API URL")
}

/// The JSON of a success.
pub(crate) fn json_of(
    answer: &Answer,
    call: &Call,
    signed_in: &SignedIn,
) -> Result<Json, CliError> {
    let api_url = &signed_in.api_url;
    if answer.body.trim_ascii().is_empty() {
        return Ok(Json::null());
    }
    if answer.is_html() {
        let message = format!("{api_url} answered with a web page instead of JSON");
        let error = CliError::failed(message).word("not_json");
        return Err(with_api_hint(error, signed_in));
    }
    let text = str::from_utf8(&answer.body).map_err(|_| match answer.header("content-encoding") {
        Some(coding) => format!("it is compressed ({coding}), which nobody asked for"),
        None => "it is not valid UTF-8".to_owned(),
    });
    text.and_then(Json::parse).map_err(|wrong| {
        let message = format!("the answer of {api_url} is not JSON: {wrong}");
        if is_read(&call.method) {
            return CliError::failed(message).word("not_json");
        }
        unanswered::outcome_unknown(call, &message)
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

/// The API's own words for what went wrong. Its error bodies come in five shapes.
fn message_of(answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.trim();
    if text.is_empty() || answer.is_html() {
        return None;
    }
    let Ok(body) = serde_json::from_str::<Value>(text) else {
        // A proxy's plain text, or a body that was cut short.
        return Some(printable_cut(text, MESSAGE_CHARACTERS_MAX));
    };
    let fields = ["error_description", "message", "msg", "error"];
    let said = fields.iter().find_map(|field| words(&body[*field]));
    // A body of another shape is shown as it is.
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

fn refused_credentials(reason: &str, signed_in: &SignedIn, vars: &Vars) -> CliError {
    let error = CliError::refused(format!("Postiz refused the credentials: {reason}"));
    match &signed_in.method {
        SignInMethod::ApiKey => {
            error.hint("check POSTIZ_API_KEY and POSTIZ_API_URL, or run `postiz auth:login`")
        }
        SignInMethod::Login { .. } => {
            // Postiz keeps one login per account and app.
            let hint =
                "run `postiz auth:login`: a later login on another machine may have ended this one";
            error.hint(match vars.is_set(API_KEY_VARIABLE) {
                true => format!("{hint}; POSTIZ_API_KEY is set, but the stored login comes first"),
                false => hint.to_owned(),
            })
        }
    }
}

fn where_to_pay(answer: &Answer) -> String {
    match answer.json_object()["url"].as_str() {
        Some(url) => printable_cut(url, MESSAGE_CHARACTERS_MAX),
        None => "see Settings > Billing in Postiz".to_owned(),
    }
}

/// Is a 404 about the path rather than about an ID? Postiz' own words about an ID are in `msg`.
fn is_missing_path(answer: &Answer, said: &str) -> bool {
    let speaks_of_an_id = answer.json_object()["msg"].is_string();
    said.starts_with("Cannot ") || !(speaks_of_an_id || said.contains("not found"))
}

/// The hint for the most common mistake with a self-hosted Postiz.
fn with_api_hint(error: CliError, signed_in: &SignedIn) -> CliError {
    let url = &signed_in.api_url;
    if url.as_str() == DEFAULT_API_URL || url.path().ends_with("/api") {
        return error.hint("check the API URL: `postiz auth:status` shows it");
    }
    let setting = match signed_in.method {
        SignInMethod::ApiKey => "POSTIZ_API_URL",
        SignInMethod::Login { .. } => "the auth server's POSTIZ_API_URL",
    };
    error.hint(format!(
        "a self-hosted Postiz usually has its API under /api: try {url}/api as {setting}"
    ))
}

fn when_to_try_again(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(wait) => format!("try again in {} s", wait.as_secs().max(1)),
        None => "try again later: Postiz takes 30 new posts an hour unless it is set up otherwise"
            .to_owned(),
    }
}

/// Postiz' own words in a 401 that is not about the credentials.
const NO_SUBSCRIPTION: &str = "No subscription";
const CHANNEL_DISCONNECTED: &str = "Channel disconnected";

/// Longest message of the API that is shown.
const MESSAGE_CHARACTERS_MAX: usize = 500;
