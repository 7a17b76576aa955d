//! The Postiz API: sends calls with the user's credential, retries them, and follows redirects within the API's origin.
//! api_error.rs turns answers that are not a success into words.

use std::io::Read;
use std::time::Duration;

use ureq::http::{Method, Uri};

use crate::cli::api_error;
use crate::cli::call::Call;
use crate::cli::context::{Context, sleep};
use crate::cli::error::{CliError, Exit};
use crate::cli::http::{
    Answer, Http, NoAnswer, Outgoing, Pace, RequestBody, is_idempotent, is_read,
};
use crate::cli::json::Json;
use crate::cli::signed_in::SignedIn;
use crate::cli::unanswered::{self, Remembered};
use crate::shared::base_url::BaseUrl;
use crate::shared::text::printable_cut;

/// The API, as the signed-in user reaches it.
pub(crate) struct Api {
    http: Http,
    pub(crate) signed_in: SignedIn,
}

impl Api {
    pub(crate) fn connect(context: &mut Context) -> Result<Api, CliError> {
        let mut signed_in = SignedIn::find(context)?;
        // Documents show the API's URL with this path.
        signed_in.api_url = signed_in.api_url.without_end("/public/v1");
        let http = Http::connect(&signed_in.api_url, context)?;
        Ok(Api { http, signed_in })
    }

    /// Sends `call`: the JSON of its success.
    pub(crate) fn json(&self, context: &mut Context, call: &Call) -> Result<Json, CliError> {
        let answer = self.answer(context, call)?;
        let json = api_error::json_of(&answer, call, &self.signed_in);
        self.remember_unknown(context, call, json)
    }

    /// Sends `call`, with retries and redirects: the answer of its success. A call that was sent before and got no answer is
    /// refused, unless `--again` allows it.
    pub(crate) fn answer(&self, context: &mut Context, call: &Call) -> Result<Answer, CliError> {
        if let Some(remembered) = Remembered::of(context, call, &self.signed_in) {
            match context.common.again {
                true => remembered.forget(context),
                false => remembered.refuse_repeat(context, call)?,
            }
        }
        let answer = self.follow(context, call);
        self.remember_unknown(context, call, answer)
    }

    /// Sends `call` and prints the JSON of its success.
    pub(crate) fn print(&self, context: &mut Context, call: &Call) -> Result<Exit, CliError> {
        let json = self.json(context, call)?;
        let printed = context.output.json(&json);
        self.printed(context, call, printed)
    }

    /// The end of a command whose `call` succeeded, after its result was `printed`.
    pub(crate) fn printed(
        &self,
        context: &Context,
        call: &Call,
        printed: Result<(), CliError>,
    ) -> Result<Exit, CliError> {
        let printed = printed.map_err(|error| unprinted(call, error));
        self.remember_unknown(context, call, printed)?;
        Ok(Exit::Done)
    }

    fn remember_unknown<T>(
        &self,
        context: &Context,
        call: &Call,
        result: Result<T, CliError>,
    ) -> Result<T, CliError> {
        if result
            .as_ref()
            .is_err_and(|error| error.exit == Exit::Unknown)
            && let Some(remembered) = Remembered::of(context, call, &self.signed_in)
        {
            remembered.keep(context);
        }
        result
    }

    fn follow(&self, context: &mut Context, call: &Call) -> Result<Answer, CliError> {
        let mut uri = self.uri(&call.path)?;
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_with_retries(context, call, &uri)?;
            if answer.is_success() {
                return Ok(answer);
            }
            let target = match answer.header("location") {
                Some(target) if (300..400).contains(&answer.status) => target,
                _ => return Err(self.refused(context, call, &answer)),
            };
            match within_origin(&uri, target) {
                _ if api_error::leads_to_sign_in(target) => {
                    return Err(api_error::not_the_api(&answer, target, &self.signed_in));
                }
                // Another request would lose its body or change its method (RFC 9110 §15.4).
                Some(next) if is_read(&call.method) => uri = next,
                _ => return Err(redirected(call, &uri, target)),
            }
        }
        Err(redirected(call, &uri, "one target after another"))
    }

    /// The error for an answer that is not a success.
    pub(crate) fn refused(&self, context: &Context, call: &Call, answer: &Answer) -> CliError {
        api_error::of(answer, call, &self.signed_in, context)
    }

    /// Sends `call` until it is answered or must not be sent again. Once a try has left the outcome unknown, the error of a
    /// later try does not make it known.
    fn send_with_retries(
        &self,
        context: &mut Context,
        call: &Call,
        uri: &Uri,
    ) -> Result<Answer, CliError> {
        let (mut tries, mut is_unknown) = (0, false);
        loop {
            let sent = self.send_once(context, call, uri.clone());
            tries += 1;
            is_unknown |= leaves_outcome_unknown(call, &sent);
            let goes_on = match &sent {
                Ok(answer) => self.waits_after(context, call, answer, tries)?,
                Err(no_answer) => {
                    let may_repeat =
                        no_answer.is_retryable && is_idempotent(&call.method) && !call.once;
                    let goes_on = may_repeat && tries < TRIES;
                    if goes_on {
                        let words = format!("{}; trying again …", no_answer.why);
                        context.output.waiting(&words);
                        sleep(context.clock.as_ref(), RETRY_PAUSE * tries)?;
                    }
                    goes_on
                }
            };
            if goes_on {
                continue;
            }
            let error = match sent {
                Ok(answer) if answer.is_success() || !is_unknown => return Ok(answer),
                Ok(answer) => self.refused(context, call, &answer),
                Err(no_answer) if !is_unknown => {
                    return Err(api_error::unreachable(no_answer, &self.signed_in));
                }
                Err(no_answer) => {
                    let words = format!(
                        "no answer from {}: {}",
                        self.signed_in.api_url, no_answer.why
                    );
                    CliError::failed(words)
                }
            };
            let mut unknown = unanswered::outcome_unknown(call, &error.message);
            unknown.answered = error.answered;
            return Err(unknown);
        }
    }

    fn send_once(&self, context: &mut Context, call: &Call, uri: Uri) -> Result<Answer, NoAnswer> {
        let body = call.body.as_deref();
        let outgoing = Outgoing {
            method: call.method.clone(),
            uri,
            authorization: Some(self.signed_in.secret.expose()),
            content_type: body.map(|_| "application/json"),
            body: RequestBody::Bytes(body.unwrap_or_default().as_bytes()),
            pace: call.pace,
        };
        let words = format!("Waiting for {} …", self.signed_in.api_url);
        context
            .output
            .while_waiting(&words, || self.http.send(outgoing))
    }

    /// Waits before a retry; `false` when there is to be none.
    pub(crate) fn waits_after(
        &self,
        context: &mut Context,
        call: &Call,
        answer: &Answer,
        tries: u32,
    ) -> Result<bool, CliError> {
        let Some(pause) = pause_after_answer(call, answer, tries, context) else {
            return Ok(false);
        };
        let (status, seconds) = (answer.status, pause.as_secs().max(1));
        let output = &mut context.output;
        match answer.retry_after(context.clock.date()) {
            _ if status != 429 => {
                output.waiting(&format!("HTTP {status}; trying again in {seconds} s …"));
            }
            Some(_) => output.say(&format!("Postiz asks to wait {seconds} s")),
            None => output.say(&format!("too many requests: trying again in {seconds} s")),
        }
        sleep(context.clock.as_ref(), pause)?;
        Ok(true)
    }

    /// Sends a form to `POST /upload`, without retries.
    pub(crate) fn upload(
        &self,
        content_type: &str,
        reader: &mut dyn Read,
        length: Option<u64>,
    ) -> Result<Answer, NoAnswer> {
        let uri = self
            .uri("/public/v1/upload")
            .map_err(|_| NoAnswer::not_sent("its URL cannot be used"))?;
        self.http.send(Outgoing {
            method: Method::POST,
            uri,
            authorization: Some(self.signed_in.secret.expose()),
            content_type: Some(content_type),
            body: RequestBody::Stream { reader, length },
            pace: Pace::Slow,
        })
    }

    fn uri(&self, path: &str) -> Result<Uri, CliError> {
        let whole = format!("{}{path}", self.signed_in.api_url);
        whole.parse().map_err(|_| {
            CliError::usage(format!("`{path}` cannot be part of a URL"))
                .hint("percent-encode blanks and other characters")
        })
    }
}

/// The error for a result that could not be printed. What `call` changed in Postiz stays changed.
fn unprinted(call: &Call, error: CliError) -> CliError {
    if is_read(&call.method) {
        return error;
    }
    let why = match error.exit {
        Exit::Done => "its result could not be printed: the reader of stdout has gone",
        _ => &error.message,
    };
    unanswered::outcome_unknown(call, &format!("it was answered, but {why}"))
}

/// Was the request sent without an answer that says what came of it?
pub(crate) fn leaves_outcome_unknown(call: &Call, sent: &Result<Answer, NoAnswer>) -> bool {
    match sent {
        _ if is_read(&call.method) => false,
        Err(no_answer) => no_answer.may_be_done,
        // A gateway got no answer. An idempotent request is retried, so that its last answer counts.
        Ok(answer) => {
            !is_idempotent(&call.method) && matches!(answer.status, 502 | 504 | 520 | 524)
        }
    }
}

/// The pause before the next try of `call`; `None` when there is to be none.
fn pause_after_answer(
    call: &Call,
    answer: &Answer,
    tries: u32,
    context: &Context,
) -> Option<Duration> {
    if tries >= TRIES {
        return None;
    }
    let usual = RETRY_PAUSE * tries;
    let may_repeat = is_idempotent(&call.method);
    let wanted = answer.retry_after(context.clock.date());
    match (answer.status, wanted) {
        // This 503 is permanent.
        (503, _) if answer.says("Clipping is not available") => None,
        (502..=504, _) if may_repeat => Some(wanted.unwrap_or(usual).min(RETRY_PAUSE_MAX)),
        // A request that got a 429 was not processed, so that a POST may be retried too.
        (429, Some(wanted)) => (wanted <= RETRY_AFTER_MAX).then_some(wanted),
        (429, None) => (tries == 1).then_some(RETRY_AFTER_USUAL),
        _ => None,
    }
}

/// Where a redirect from `uri` to `target` leads; `None` for another origin, which must not get the credential.
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
    (BaseUrl::origin_of(&next)? == BaseUrl::origin_of(uri)?).then_some(next)
}

fn redirected(call: &Call, uri: &Uri, target: &str) -> CliError {
    let (method, target) = (&call.method, printable_cut(target, 200));
    CliError::failed(format!(
        "{method} {uri} was redirected to {target}, which is not followed"
    ))
    .word("redirected")
    .hint("if that is where Postiz lives now, name it in POSTIZ_API_URL or sign in again")
}

const TRIES: u32 = 3;

const REDIRECTS_MAX: u32 = 5;

/// The pause before the second try; the third waits twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause that a 502, 503 or 504 may ask for.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The pause after a 429 that names none.
const RETRY_AFTER_USUAL: Duration = Duration::from_secs(5);

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
