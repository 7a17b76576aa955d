//! The Postiz API: requests with the user's credential, retries, redirects, and what its answers mean.

use std::io::Read;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::{Method, Uri};

use crate::cli::context::{Context, sleep};
use crate::cli::credentials::{API_KEY_VARIABLE, By, DEFAULT_API_URL, SignedIn};
use crate::cli::error::CliError;
use crate::cli::http::{Answer, Http, NoAnswer, Outgoing, Sent};
use crate::cli::json::Json;
use crate::shared::text::printable_cut;

/// The API, as the signed-in user reaches it.
pub(crate) struct Api {
    http: Http,
    pub(crate) signed_in: SignedIn,
}

/// One request to the API.
pub(crate) struct Call {
    method: Method,
    /// Path and query under the API URL, encoded.
    path: String,
    body: Option<String>,
}

impl Call {
    /// A request under `/public/v1`; each of `segments` is one segment of the path, whatever characters it has.
    pub(crate) fn new(method: Method, segments: &[&str]) -> Result<Call, CliError> {
        let mut path = String::from("/public/v1");
        for segment in segments {
            if segment.is_empty() || *segment == "." || *segment == ".." {
                return Err(CliError::usage(format!("`{segment}` is not an ID")));
            }
            path.push('/');
            path.extend(utf8_percent_encode(segment, SEGMENT));
        }
        Ok(Call {
            method,
            path,
            body: None,
        })
    }

    pub(crate) fn get(segments: &[&str]) -> Result<Call, CliError> {
        Call::new(Method::GET, segments)
    }

    /// A request whose path and query the user wrote.
    pub(crate) fn verbatim(method: Method, path: &str, body: Option<String>) -> Call {
        let slash = if path.starts_with('/') { "" } else { "/" };
        Call {
            method,
            path: format!("{slash}{path}"),
            body,
        }
    }

    pub(crate) fn query(mut self, name: &str, value: &str) -> Call {
        self.path
            .push(if self.path.contains('?') { '&' } else { '?' });
        self.path.extend([name, "="]);
        self.path.extend(utf8_percent_encode(value, SEGMENT));
        self
    }

    pub(crate) fn body(mut self, json: impl Into<String>) -> Call {
        self.body = Some(json.into());
        self
    }

    /// May it be sent again when its answer was lost (RFC 9110 §9.2.2)?
    fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE
        )
    }

    fn follows_redirects(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

impl Api {
    /// The API of whoever is signed in.
    pub(crate) fn connect(context: &Context) -> Result<Api, CliError> {
        let signed_in = SignedIn::find(context)?;
        Ok(Api {
            http: Http::new(&signed_in.api_url, &context.vars),
            signed_in,
        })
    }

    /// Sends `call`; its answer, if it is a success, is JSON.
    pub(crate) fn json(&self, context: &mut Context, call: &Call) -> Result<Json, CliError> {
        let answer = self.answer(context, call)?;
        self.json_of(&answer)
    }

    /// Sends `call`; any success will do.
    pub(crate) fn answer(&self, context: &mut Context, call: &Call) -> Result<Answer, CliError> {
        let answer = self.send(context, call)?;
        if answer.is_success() {
            Ok(answer)
        } else {
            Err(self.refusal(&answer, context))
        }
    }

    /// Uploads a stream, once.
    pub(crate) fn upload(
        &self,
        content_type: &str,
        reader: &mut dyn Read,
        length: Option<u64>,
    ) -> Result<Answer, NoAnswer> {
        let path = "/public/v1/upload";
        self.http.send(Outgoing {
            method: Method::POST,
            uri: self.uri(path).map_err(no_uri)?,
            authorization: Some(self.signed_in.secret.expose()),
            content_type: Some(content_type),
            body: Sent::Stream { reader, length },
        })
    }

    /// Sends `call`, and follows it where it may go.
    fn send(&self, context: &mut Context, call: &Call) -> Result<Answer, CliError> {
        let mut path = call.path.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_with_retries(context, call, &path)?;
            let target = match answer.header("location") {
                Some(target) if (300..400).contains(&answer.status) => target,
                _ => return Ok(answer),
            };
            match self.same_origin(&path, target) {
                Some(next) if call.follows_redirects() => path = next,
                _ => return Err(self.redirected(call, target)),
            }
        }
        Err(self.redirected(call, "one place after another"))
    }

    /// Sends `call` as often as it takes and may be sent.
    fn send_with_retries(
        &self,
        context: &mut Context,
        call: &Call,
        path: &str,
    ) -> Result<Answer, CliError> {
        let mut tries = 0;
        loop {
            let sent = self.send_once(call, path);
            tries += 1;
            let pause = match call.is_idempotent() && tries < TRIES {
                true => pause_before_retry(&sent, tries, context),
                false => None,
            };
            match pause {
                Some(pause) => sleep(context.clock.as_ref(), pause)?,
                None => return sent.map_err(|no_answer| self.unreachable(no_answer)),
            }
        }
    }

    fn send_once(&self, call: &Call, path: &str) -> Result<Answer, NoAnswer> {
        self.http.send(Outgoing {
            method: call.method.clone(),
            uri: self.uri(path).map_err(no_uri)?,
            authorization: Some(self.signed_in.secret.expose()),
            content_type: call.body.as_ref().map(|_| "application/json"),
            body: call
                .body
                .as_ref()
                .map_or(Sent::Nothing, |body| Sent::Bytes(body.as_bytes())),
        })
    }

    /// The whole address of `path`.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, CliError> {
        // After a redirect within the origin, the path is one under the host, not under the API URL.
        let text = match path.strip_prefix(FROM_ROOT) {
            Some(path) => format!("{}{path}", self.signed_in.api_url.origin()),
            None => format!("{}{path}", self.signed_in.api_url),
        };
        text.parse().map_err(|_| {
            CliError::usage(format!("`{path}` cannot be part of a URL"))
                .hint("percent-encode blanks and other characters")
        })
    }

    /// `target` of a redirect as a path for [`Api::uri`], if it stays within the origin.
    fn same_origin(&self, path: &str, target: &str) -> Option<String> {
        let origin = self.signed_in.api_url.origin();
        let now = self.uri(path).ok()?;
        let absolute = match target {
            _ if target.starts_with("//") => format!("{}:{target}", now.scheme_str()?),
            _ if target.starts_with('/') => format!("{origin}{target}"),
            _ if target.contains("://") => target.to_owned(),
            _ => format!("{origin}{}/{target}", now.path().rsplit_once('/')?.0),
        };
        let next: Uri = absolute.parse().ok()?;
        let base = crate::shared::base_url::BaseUrl::parse(&format!(
            "{}://{}",
            next.scheme_str()?,
            next.authority()?
        ))
        .ok()?;
        (base.origin() == origin).then(|| {
            format!(
                "{FROM_ROOT}{}",
                next.path_and_query().map_or("/", |path| path.as_str())
            )
        })
    }

    fn redirected(&self, call: &Call, target: &str) -> CliError {
        let target = printable_cut(target, 200);
        CliError::failed(format!(
            "{} {} was redirected to {target}, which is not followed",
            call.method,
            self.shown(&call.path)
        ))
        .word("redirected")
        .hint("if that is where Postiz lives now, name it in POSTIZ_API_URL or sign in again")
    }

    /// There was no answer.
    pub(crate) fn unreachable(&self, no_answer: NoAnswer) -> CliError {
        let message = format!("cannot reach {}: {}", self.signed_in.api_url, no_answer.why);
        CliError::failed(message).word("unreachable").hint(
            no_answer
                .hint
                .unwrap_or("check the network and the API URL"),
        )
    }

    /// The JSON of a success.
    pub(crate) fn json_of(&self, answer: &Answer) -> Result<Json, CliError> {
        if answer.body.trim_ascii().is_empty() {
            return Ok(Json::null());
        }
        if answer.is_html() {
            let message = format!(
                "{} answered with a web page instead of JSON",
                self.signed_in.api_url
            );
            return Err(self.with_api_hint(CliError::failed(message).word("not_json")));
        }
        let text = str::from_utf8(&answer.body).map_err(|_| "it is not valid UTF-8".to_owned());
        text.and_then(Json::parse).map_err(|wrong| {
            CliError::failed(format!(
                "the answer of {} is not JSON: {wrong}",
                self.signed_in.api_url
            ))
            .word("not_json")
            .hint("the request itself succeeded; look at its result in Postiz before you repeat it")
        })
    }

    /// An answer that is no success, as its user should read it.
    pub(crate) fn refusal(&self, answer: &Answer, context: &Context) -> CliError {
        let said = message_of(answer);
        let status = answer.status;
        let reason = match &said {
            Some(said) => format!("{said} (HTTP {status})"),
            None if answer.is_html() => {
                format!("HTTP {status} with a web page instead of an answer")
            }
            None => format!("HTTP {status} without a reason"),
        };
        let said = said.unwrap_or_default();
        match status {
            401 if is_about_something_else(&said) => {
                let hint = if said.contains("subscription") {
                    "the credentials are fine, but the organisation has no active plan: see Postiz under Settings > Billing"
                } else {
                    "the credentials are fine: reconnect the channel in Postiz"
                };
                CliError::failed(format!("Postiz refused: {reason}")).hint(hint)
            }
            401 => self.refused_credentials(&reason, context),
            402 => CliError::failed(format!("Postiz wants a bigger plan: {reason}"))
                .hint(self.billing_hint(answer)),
            403 => CliError::failed(format!("Postiz does not allow it: {reason}")),
            404 if is_a_missing_route(answer, &said) => self.with_api_hint(CliError::failed(
                format!("{} has no such path: {reason}", self.signed_in.api_url),
            )),
            404 => CliError::failed(format!("not found: {reason}")),
            429 => CliError::failed(format!("too many requests: {reason}"))
                .hint(wait_hint(answer.retry_after(context.clock.date()))),
            500.. => CliError::failed(format!("Postiz failed: {reason}"))
                .hint("try again later, or look into the log of a Postiz of your own"),
            _ if answer.is_html() => {
                self.with_api_hint(CliError::failed(format!("Postiz refused: {reason}")))
            }
            _ => CliError::failed(format!("Postiz refused: {reason}")),
        }
    }

    fn refused_credentials(&self, reason: &str, context: &Context) -> CliError {
        let error = CliError::refused(format!("Postiz refused the credentials: {reason}"));
        match &self.signed_in.by {
            By::ApiKey => {
                error.hint("check POSTIZ_API_KEY and POSTIZ_API_URL, or run `postiz auth:login`")
            }
            By::Login { .. } => {
                let ignored = if context.vars.is_set(API_KEY_VARIABLE) {
                    "; POSTIZ_API_KEY is set, but the stored login comes first"
                } else {
                    ""
                };
                error.hint(format!("run `postiz auth:login`: a later login on another machine may have ended this one{ignored}"))
            }
        }
    }

    fn billing_hint(&self, answer: &Answer) -> String {
        let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
        match body.as_ref().and_then(|body| body["url"].as_str()) {
            Some(url) => printable_cut(url, 300),
            None => "see Postiz under Settings > Billing".to_owned(),
        }
    }

    /// The most common mistake of people with a Postiz of their own.
    fn with_api_hint(&self, error: CliError) -> CliError {
        let url = &self.signed_in.api_url;
        if url.as_str() == DEFAULT_API_URL || url.path().ends_with("/api") {
            return error.hint("check the API URL: `postiz auth:status` shows it");
        }
        let setting = match self.signed_in.by {
            By::ApiKey => "POSTIZ_API_URL",
            By::Login { .. } => "the auth server's POSTIZ_API_URL",
        };
        error.hint(format!(
            "a self-hosted Postiz usually has its API under /api: try {url}/api as {setting}"
        ))
    }

    fn shown(&self, path: &str) -> String {
        format!("{}{path}", self.signed_in.api_url)
    }
}

/// How long to wait before the same request is worth another try; `None` when it is not.
fn pause_before_retry(
    sent: &Result<Answer, NoAnswer>,
    tries: u32,
    context: &mut Context,
) -> Option<Duration> {
    let usual = RETRY_PAUSE * tries;
    match sent {
        Err(no_answer) => no_answer.connection.then_some(usual),
        Ok(answer) => {
            let wanted = answer.retry_after(context.clock.date()).unwrap_or(usual);
            match answer.status {
                502..=504 => Some(wanted.min(RETRY_PAUSE_MAX)),
                429 if wanted <= RETRY_AFTER_MAX => {
                    context.output.say(&format!(
                        "Postiz asks to wait {} s",
                        wanted.as_secs().max(1)
                    ));
                    Some(wanted)
                }
                _ => None,
            }
        }
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
        return Some(printable_cut(text, 200));
    };
    let fields = ["error_description", "message", "msg", "error"];
    let said = fields.iter().find_map(|field| words(&body[*field]));
    // A body of another shape is shown as it is: better than to keep it back.
    Some(printable_cut(
        &said.unwrap_or_else(|| body.to_string()),
        MESSAGE_CHARACTERS_MAX,
    ))
}

fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().filter_map(words).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Value::Object(fields) => {
            let inner = ["message", "msg"]
                .iter()
                .find_map(|name| fields.get(*name).and_then(words));
            Some(inner.unwrap_or_else(|| value.to_string()))
        }
        _ => None,
    }
}

/// A 401 that is not about the credentials.
fn is_about_something_else(said: &str) -> bool {
    said.contains("subscription") || said.contains("Channel disconnected")
}

/// A 404 for a path that this server does not have, rather than for an ID: Postiz itself speaks of IDs in `msg`.
fn is_a_missing_route(answer: &Answer, said: &str) -> bool {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let speaks_of_an_id = body.is_some_and(|body| body["msg"].is_string());
    said.starts_with("Cannot ") || !(speaks_of_an_id || said.contains("not found"))
}

fn wait_hint(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(wait) => format!("try again in {} s", wait.as_secs().max(1)),
        None => "Postiz allows a limited number of posts an hour: try again later".to_owned(),
    }
}

fn no_uri(error: CliError) -> NoAnswer {
    NoAnswer {
        why: error.message,
        hint: None,
        connection: false,
    }
}

/// What may stand unencoded in a segment of a path (RFC 3986 §3.3, the unreserved characters).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// How often an idempotent request is sent.
const TRIES: u32 = 3;

const REDIRECTS_MAX: u32 = 5;

/// Before the second try; twice that before the third.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause that a 502, 503 or 504 may ask for.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// A 429 that asks for more than this is an error at once.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// As much of the API's own words as one line bears.
const MESSAGE_CHARACTERS_MAX: usize = 500;

/// Marks a path that counts from the host's root.
const FROM_ROOT: &str = "root:";
