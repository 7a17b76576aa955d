//! The Postiz API: requests with the user's credential, what is sent again, and where redirects may lead. What an answer
//! that is no success means is api_error.rs.

use std::io::Read;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Method, Uri};

use crate::cli::api_error;
use crate::cli::context::{Context, sleep};
use crate::cli::credentials::SignedIn;
use crate::cli::error::CliError;
use crate::cli::http::{Answer, Http, NoAnswer, Outgoing, Sent};
use crate::cli::json::Json;
use crate::shared::base_url::BaseUrl;
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
            if matches!(*segment, "" | "." | "..") {
                return Err(CliError::usage(format!("`{segment}` is not an ID")));
            }
            path.push('/');
            path.extend(utf8_percent_encode(segment, SEGMENT));
        }
        Ok(Call::verbatim(method, &path, None))
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
        let separator = if self.path.contains('?') { "&" } else { "?" };
        self.path.extend([separator, name, "="]);
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

    /// Elsewhere, a redirected request would lose its body or change its method.
    fn follows_redirects(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

impl Api {
    /// The API of whoever is signed in.
    pub(crate) fn connect(context: &mut Context) -> Result<Api, CliError> {
        let signed_in = SignedIn::find(context)?;
        let http = Http::connect(&signed_in.api_url, context)?;
        Ok(Api { http, signed_in })
    }

    /// Sends `call`; its answer, if it is a success, is JSON.
    pub(crate) fn json(&self, context: &mut Context, call: &Call) -> Result<Json, CliError> {
        let answer = self.answer(context, call)?;
        api_error::json_of(&answer, &self.signed_in)
    }

    /// Sends `call` and follows it where it may go; any success will do.
    pub(crate) fn answer(&self, context: &mut Context, call: &Call) -> Result<Answer, CliError> {
        let mut uri = self.uri(&call.path)?;
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_with_retries(context, call, &uri)?;
            if answer.is_success() {
                return Ok(answer);
            }
            let target = match answer.header("location") {
                Some(target) if (300..400).contains(&answer.status) => target,
                _ => {
                    let now = context.clock.date();
                    return Err(api_error::of(&answer, &self.signed_in, &context.vars, now));
                }
            };
            match within_origin(&uri, target) {
                Some(next) if call.follows_redirects() => uri = next,
                _ => return Err(redirected(call, &uri, target)),
            }
        }
        Err(redirected(call, &uri, "one place after another"))
    }

    /// Sends `call` as often as it takes and may be sent.
    fn send_with_retries(
        &self,
        context: &mut Context,
        call: &Call,
        uri: &Uri,
    ) -> Result<Answer, CliError> {
        let mut tries = 0;
        loop {
            let sent = self.send_once(call, uri.clone());
            tries += 1;
            let may_try_again = call.is_idempotent() && tries < TRIES;
            match pause_before_retry(&sent, tries, context).filter(|_| may_try_again) {
                Some(pause) => {
                    if sent.as_ref().is_ok_and(|answer| answer.status == 429) {
                        let seconds = pause.as_secs().max(1);
                        let words = format!("Postiz asks to wait {seconds} s");
                        context.output.say(&words);
                    }
                    sleep(context.clock.as_ref(), pause)?;
                }
                None => {
                    return sent
                        .map_err(|no_answer| api_error::unreachable(no_answer, &self.signed_in));
                }
            }
        }
    }

    fn send_once(&self, call: &Call, uri: Uri) -> Result<Answer, NoAnswer> {
        let body = call.body.as_deref();
        self.http.send(Outgoing {
            method: call.method.clone(),
            uri,
            authorization: Some(self.signed_in.secret.expose()),
            content_type: body.map(|_| "application/json"),
            body: body.map_or(Sent::Nothing, |body| Sent::Bytes(body.as_bytes())),
        })
    }

    /// Uploads a stream, once; whatever the answer is.
    pub(crate) fn upload(
        &self,
        content_type: &str,
        reader: &mut dyn Read,
        length: Option<u64>,
    ) -> Result<Answer, CliError> {
        let outgoing = Outgoing {
            method: Method::POST,
            uri: self.uri("/public/v1/upload")?,
            authorization: Some(self.signed_in.secret.expose()),
            content_type: Some(content_type),
            body: Sent::Stream { reader, length },
        };
        let sent = self.http.send(outgoing);
        sent.map_err(|no_answer| api_error::unreachable(no_answer, &self.signed_in))
    }

    fn uri(&self, path: &str) -> Result<Uri, CliError> {
        let whole = format!("{}{path}", self.signed_in.api_url);
        whole.parse().map_err(|_| {
            CliError::usage(format!("`{path}` cannot be part of a URL"))
                .hint("percent-encode blanks and other characters")
        })
    }
}

/// How long to wait before the same request is worth another try; `None` when it is not.
fn pause_before_retry(
    sent: &Result<Answer, NoAnswer>,
    tries: u32,
    context: &Context,
) -> Option<Duration> {
    let usual = RETRY_PAUSE * tries;
    let answer = match sent {
        Ok(answer) => answer,
        Err(no_answer) => return no_answer.connection.then_some(usual),
    };
    let wanted = answer.retry_after(context.clock.date()).unwrap_or(usual);
    match answer.status {
        // Permanent, though the status does not say so.
        503 if String::from_utf8_lossy(&answer.body).contains(NO_CLIPPING) => None,
        502..=504 => Some(wanted.min(RETRY_PAUSE_MAX)),
        429 if wanted <= RETRY_AFTER_MAX => Some(wanted),
        _ => None,
    }
}

/// Where a redirect from `uri` to `target` leads, if that is within the same origin: the credential goes nowhere else.
fn within_origin(uri: &Uri, target: &str) -> Option<Uri> {
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let absolute = if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else if target.contains("://") {
        target.to_owned()
    } else {
        let folder = uri.path().rsplit_once('/')?.0;
        format!("{scheme}://{authority}{folder}/{target}")
    };
    let next: Uri = absolute.parse().ok()?;
    (origin(&next)? == origin(uri)?).then_some(next)
}

fn origin(uri: &Uri) -> Option<String> {
    let base = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
    BaseUrl::parse(&base).ok().map(|base| base.origin())
}

fn redirected(call: &Call, uri: &Uri, target: &str) -> CliError {
    let (method, target) = (&call.method, printable_cut(target, 200));
    CliError::failed(format!(
        "{method} {uri} was redirected to {target}, which is not followed"
    ))
    .word("redirected")
    .hint("if that is where Postiz lives now, name it in POSTIZ_API_URL or sign in again")
}

/// What may stand unencoded in a segment of a path (RFC 3986 §2.3, the unreserved characters).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a Postiz says that was set up without the service.
const NO_CLIPPING: &str = "Clipping is not available";

/// How often an idempotent request is sent.
const TRIES: u32 = 3;

const REDIRECTS_MAX: u32 = 5;

/// Before the second try; twice that before the third.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause that a 502, 503 or 504 may ask for.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// A 429 that asks for more than this is an error at once.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_within_their_origin() {
        let from: Uri = "https://host/api/public/v1/posts?x=1".parse().unwrap();
        for (target, expected) in [
            ("/a?b=c", Some("https://host/a?b=c")),
            ("b", Some("https://host/api/public/v1/b")),
            ("https://HOST:443/a", Some("https://HOST:443/a")),
            ("//host/a", Some("https://host/a")),
            ("http://host/a", None),
            ("https://host:8443/a", None),
            ("https://host.evil/a", None),
            ("https://user@host/a", None),
            ("//evil/a", None),
            ("file:///etc/passwd", None),
        ] {
            let next = within_origin(&from, target).map(|uri| uri.to_string());
            assert_eq!(next.as_deref(), expected, "{target}");
        }
    }
}
