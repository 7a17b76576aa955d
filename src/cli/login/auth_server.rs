//! The requests to an auth server, and the meaning of its answers (RFC 8628). Waiting between polls is wait.rs.
//!
//! Answers are read leniently, since other servers leave out fields that the RFC and our server have. But no field may be
//! endless, lead the user's browser elsewhere, or send the token over an unencrypted network.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::credentials::{DEFAULT_API_URL, Stored, is_organization_id, is_token};
use crate::cli::error::{Answered, CliError};
use crate::cli::http::{Answer, Http, NoAnswer};
use crate::shared::base_url::BaseUrl;
use crate::shared::hash::sha256_hex;
use crate::shared::percent;
use crate::shared::secret::Secret;
use crate::shared::text::printable_cut;
use crate::shared::wire::{self, DEFAULT_INTERVAL_S};

pub(crate) struct AuthServer {
    http: Http,
    trust: Trust,
}

/// What the user trusts for a login.
pub(crate) struct Trust {
    /// The auth server that the user named.
    pub(crate) server: BaseUrl,
    /// The token may be sent to an API unencrypted.
    pub(crate) allow_http: bool,
}

/// The answer to `POST /device/code` (RFC 8628 §3.2).
pub(crate) struct Codes {
    pub(crate) device_code: Secret<String>,
    pub(crate) user_code: String,
    pub(crate) verification_uri: String,
    /// The same with the code filled in; built here where the server sends none.
    pub(crate) verification_uri_complete: String,
    pub(crate) expires_in: Duration,
    pub(crate) interval: Duration,
    /// The page is not at the auth server's own origin: the user must decide whether to open it.
    pub(crate) is_elsewhere: bool,
}

/// The result of one poll (RFC 8628 §3.5).
pub(crate) enum Poll {
    /// The login is done.
    Granted(Stored),
    /// The user has not confirmed yet.
    Pending,
    /// Not confirmed yet, and polled too often.
    SlowDown,
    /// The user refused.
    Denied,
    /// The codes have expired.
    Expired,
    /// The server does not know the code, or has delivered its token already.
    Unknown,
    /// A success without a usable token.
    NoToken(String),
    /// Any other error of the server's; it ends the login (RFC 8628 §3.5).
    Refused { error: String, description: String },
    /// No answer about the login: the network, a proxy or the server failed.
    Unanswered {
        why: String,
        retry_after: Option<Duration>,
    },
}

/// Names the login as our auth server's log does: the first 8 hex digits of the device code's SHA-256.
pub(super) fn reference(device_code: &Secret<String>) -> String {
    sha256_hex(device_code.expose().as_bytes())[..8].to_owned()
}

impl AuthServer {
    pub(crate) fn connect(trust: Trust, context: &mut Context) -> Result<AuthServer, CliError> {
        let http = Http::connect(&trust.server, context)?;
        Ok(AuthServer { http, trust })
    }

    pub(crate) fn base(&self) -> &BaseUrl {
        &self.trust.server
    }

    /// Starts a login on `machine`, which may be empty. The original Node.js auth server ignores its name.
    pub(super) fn ask_for_codes(&self, machine: &str) -> Result<Codes, CliError> {
        let server = self.base();
        let body = match machine {
            "" => String::new(),
            _ => json!({ "machine": machine }).to_string(),
        };
        let answer = self.post("/device/code", &body).map_err(|no_answer| {
            let hint = "check the network, and --auth-server or POSTIZ_AUTH_SERVER";
            no_answer.error(format!("the auth server at {server}"), hint)
        })?;
        self.read_codes(&answer).map_err(|error| {
            let error = error.answered(error_answer(&answer));
            match request_id(&answer) {
                Some(id) => error.reference(id),
                None => error,
            }
        })
    }

    fn read_codes(&self, answer: &Answer) -> Result<Codes, CliError> {
        let server = self.base();
        let body = answer.json_object();
        if answer.is_success() && body.is_object() {
            return Codes::read(&body, server)
                .map_err(|wrong| self.not_an_auth_server(&format!("its answer {wrong}")));
        }
        match error_of(&body) {
            Some((error, description)) => {
                let reason = Some(description).filter(|text| !text.is_empty());
                let reason = reason.as_ref().unwrap_or(&error);
                let message =
                    format!("the auth server at {server} refused to start a login: {reason}");
                Err(CliError::failed(message)
                    .word(error)
                    .hint("try again in a minute"))
            }
            None if answer.is_unavailable() => {
                Err(answer.unavailable(format!("the auth server at {server}")))
            }
            None => {
                let why = format!("it answered HTTP {} without a code", answer.status);
                Err(self.not_an_auth_server(&why))
            }
        }
    }

    fn not_an_auth_server(&self, why: &str) -> CliError {
        let message = format!("{} does not look like an auth server: {why}", self.base());
        CliError::failed(message)
            .word("not_an_auth_server")
            .hint("check --auth-server or POSTIZ_AUTH_SERVER")
    }

    /// Polls once. An answer that is not a success comes with the result.
    pub(crate) fn poll(
        &self,
        device_code: &Secret<String>,
        now: SystemTime,
    ) -> (Poll, Option<Answered>) {
        let body = json!({ "device_code": device_code.expose() }).to_string();
        match self.post("/device/token", &body) {
            Ok(answer) => (self.trust.read_poll(&answer, now), error_answer(&answer)),
            Err(no_answer) => {
                let poll = Poll::Unanswered {
                    why: no_answer.why,
                    retry_after: None,
                };
                (poll, None)
            }
        }
    }

    fn post(&self, path: &str, json: &str) -> Result<Answer, NoAnswer> {
        self.http.post(&format!("{}{path}", self.base()), json)
    }
}

impl Codes {
    /// Reads `body`, the answer of the server at `server`. The error says what is wrong with it.
    fn read(body: &Value, server: &BaseUrl) -> Result<Codes, String> {
        let text = |name: &str, max: usize| match body[name].as_str() {
            Some(text) if text.chars().count() > max => {
                Err(format!("has a {name} of more than {max} characters"))
            }
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(format!("has no {name}")),
        };
        let user_code = text("user_code", USER_CODE_CHARACTERS_MAX)?;
        let verification_uri = text("verification_uri", URL_CHARACTERS_MAX)?;
        // No server may send the browser to `file:` or `javascript:`.
        let page =
            origin(&verification_uri).ok_or("has a verification_uri that is no web address")?;
        let complete = match body["verification_uri_complete"].as_str() {
            None | Some("") => with_code(&verification_uri, &user_code),
            Some(_) => text("verification_uri_complete", URL_CHARACTERS_MAX)?,
        };
        let complete_page = origin(&complete);
        let server = server.origin();
        // The address that is opened must lead where the shown one does, or to the auth server.
        if complete_page.as_ref() != Some(&page) && complete_page.as_ref() != Some(&server) {
            return Err("has a verification_uri_complete that leads elsewhere".to_owned());
        }
        Ok(Codes {
            device_code: Secret::new(text("device_code", DEVICE_CODE_CHARACTERS_MAX)?),
            is_elsewhere: page != server,
            user_code,
            verification_uri,
            verification_uri_complete: complete,
            expires_in: seconds(&body["expires_in"], 1.0..=86_400.0).unwrap_or(DEFAULT_LIFETIME),
            interval: seconds(&body["interval"], 1.0..=300.0).unwrap_or(DEFAULT_INTERVAL),
        })
    }
}

/// A number of seconds within `range`. A number as text does not count.
fn seconds(value: &Value, range: std::ops::RangeInclusive<f64>) -> Option<Duration> {
    let seconds = value.as_f64().filter(|seconds| range.contains(seconds))?;
    Some(Duration::from_secs_f64(seconds))
}

fn origin(address: &str) -> Option<String> {
    BaseUrl::origin_of(&address.parse().ok()?)
}

/// The complete address where the server sends none: the one that the npm CLI opens.
fn with_code(address: &str, user_code: &str) -> String {
    let separator = if address.contains('?') { '&' } else { '?' };
    let encoded = percent::encode(user_code);
    format!("{address}{separator}code={encoded}")
}

impl Trust {
    fn read_poll(&self, answer: &Answer, now: SystemTime) -> Poll {
        let body = answer.json_object();
        if let Some((error, description)) = error_of(&body) {
            match error.as_str() {
                wire::error::AUTHORIZATION_PENDING => return Poll::Pending,
                wire::error::SLOW_DOWN => return Poll::SlowDown,
                // A failing server knows nothing about the login, whatever its body says.
                _ if answer.is_unavailable() => {}
                wire::error::ACCESS_DENIED => return Poll::Denied,
                wire::error::EXPIRED_TOKEN => return Poll::Expired,
                wire::error::INVALID_DEVICE_CODE | wire::error::INVALID_GRANT => {
                    return Poll::Unknown;
                }
                _ => return Poll::Refused { error, description },
            }
        }
        if answer.is_success() && body.is_object() {
            return self.read_grant(&body);
        }
        Poll::Unanswered {
            why: format!("it answered HTTP {}", answer.status),
            retry_after: answer.retry_after(now),
        }
    }

    fn read_grant(&self, body: &Value) -> Poll {
        let no_token = |why: &str| Poll::NoToken(why.to_owned());
        let token = match &body["access_token"] {
            Value::String(token) if !token.is_empty() => token,
            _ => return no_token("it sent no access token"),
        };
        if !is_token(token) {
            return no_token("its access token holds characters that cannot be sent");
        }
        let api_url = match body["api_url"].as_str() {
            None | Some("") => DEFAULT_API_URL,
            Some(url) => url,
        };
        if let Err(why) = self.check_api_url(api_url) {
            return Poll::NoToken(why);
        }
        let organization_id = body.get("organization_id");
        if !organization_id.is_none_or(is_organization_id) {
            return no_token("its organization_id is no ID");
        }
        Poll::Granted(Stored {
            access_token: Secret::new(token.clone()),
            api_url: Some(api_url.to_owned()),
            organization_id: organization_id.cloned(),
        })
    }

    /// May the token be sent to `api_url`? Plain http must stay on this machine or on the auth server's host.
    fn check_api_url(&self, api_url: &str) -> Result<(), String> {
        let parsed = BaseUrl::parse(api_url).ok();
        let url = parsed
            .filter(|url| url.as_str().len() <= URL_CHARACTERS_MAX)
            .ok_or("its api_url is not a URL")?;
        let is_its_own_host = url.host().eq_ignore_ascii_case(self.server.host());
        if url.is_https() || url.is_loopback() || is_its_own_host || self.allow_http {
            return Ok(());
        }
        let shown = printable_cut(url.as_str(), 200);
        Err(format!(
            "its api_url {shown} is not encrypted: others on the network could read the token (--allow-http takes it)"
        ))
    }
}

/// The answer for `--json-errors`, unless it is a success, whose body may hold a device code or a token.
fn error_answer(answer: &Answer) -> Option<Answered> {
    (!answer.is_success()).then(|| Answered {
        status: answer.status,
        channel: None,
        body: answer.body.iter().copied().take(ERROR_BYTES_MAX).collect(),
    })
}

/// The ID by which the auth server's log names the request.
fn request_id(answer: &Answer) -> Option<String> {
    let id = answer.header("x-request-id")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_id = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain);
    is_id.then(|| id.to_owned())
}

/// The fields `error` and `error_description`, cut short.
fn error_of(body: &Value) -> Option<(String, String)> {
    let error = body["error"].as_str().filter(|error| !error.is_empty())?;
    let description = body["error_description"].as_str().unwrap_or_default();
    Some((printable_cut(error, 100), printable_cut(description, 300)))
}

/// RFC 8628 §3.2.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(DEFAULT_INTERVAL_S);

/// The lifetime of codes where the server names none: what servers usually give.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(900);

/// Longest user code: longer than people compare or type.
const USER_CODE_CHARACTERS_MAX: usize = 64;

/// Longest address: what browsers and servers support everywhere.
const URL_CHARACTERS_MAX: usize = 2048;

/// Longest device code: each poll sends it, and the file of a started login holds it.
const DEVICE_CODE_CHARACTERS_MAX: usize = 1024;

/// Longest body of an error for `--json-errors`: errors of OAuth (RFC 6749 §5.2) are far shorter.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// Longest request ID: a UUID has 36 bytes, and a SHA-256 in hex 64.
const REQUEST_ID_BYTES_MAX: usize = 64;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ureq::http::HeaderMap;

    pub(crate) fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn poll(status: u16, body: &str) -> Poll {
        trust().read_poll(&answer(status, body), SystemTime::UNIX_EPOCH)
    }

    fn trust() -> Trust {
        Trust {
            server: BaseUrl::parse("https://a").unwrap(),
            allow_http: false,
        }
    }

    fn codes(more: &str) -> Codes {
        let text = format!(
            r#"{{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://a/v"{more}}}"#
        );
        Codes::read(&serde_json::from_str(&text).unwrap(), &trust().server).unwrap()
    }

    #[test]
    fn interval_is_five_seconds_unless_the_server_names_a_sensible_one() {
        for more in [
            "",
            r#","interval":null"#,
            r#","interval":0"#,
            r#","interval":"5""#,
            r#","interval":1e9"#,
            r#","interval":-1"#,
            r#","interval":0.2"#,
        ] {
            assert_eq!(codes(more).interval, Duration::from_secs(5), "{more}");
        }
        assert_eq!(codes(r#","interval":7"#).interval, Duration::from_secs(7));
        assert_eq!(
            codes(r#","interval":300"#).interval,
            Duration::from_secs(300)
        );
    }

    #[test]
    fn complete_address_is_built_where_there_is_none() {
        assert_eq!(
            codes("").verification_uri_complete,
            "https://a/v?code=WDJB-MJHT"
        );
        assert_eq!(
            codes(r#","verification_uri_complete":"https://a/v?user_code=X""#)
                .verification_uri_complete,
            "https://a/v?user_code=X"
        );
        assert_eq!(
            codes(r#","verification_uri_complete":"""#).verification_uri_complete,
            "https://a/v?code=WDJB-MJHT"
        );
        assert_eq!(
            with_code("https://a/v?lang=de", "a b$(x)"),
            "https://a/v?lang=de&code=a%20b%24%28x%29"
        );
    }

    #[test]
    fn answer_without_codes_names_what_is_missing() {
        for (body, wrong) in [
            ("{}", "has no user_code"),
            (
                r#"{"user_code":"A","verification_uri":""}"#,
                "has no verification_uri",
            ),
            (
                r#"{"user_code":"A","verification_uri":"file:///etc/passwd"}"#,
                "has a verification_uri that is no web address",
            ),
            (
                r#"{"user_code":"A","verification_uri":"https://a"}"#,
                "has no device_code",
            ),
        ] {
            let read = Codes::read(&serde_json::from_str(body).unwrap(), &trust().server);
            assert_eq!(read.err().as_deref(), Some(wrong), "{body}");
        }
    }

    /// The opened page is the auth server's. Another page is only shown, so that the user sees where it leads.
    #[test]
    fn verification_uri_elsewhere_is_only_shown() {
        for (page, complete, is_elsewhere) in [
            ("https://a/v", "https://A:443/v?x", Some(false)),
            ("https://a/v", "https://a/elsewhere", Some(false)),
            ("https://public/v", "https://public/v?x", Some(true)),
            ("https://public/v", "https://a/v?x", Some(true)),
            ("http://a/v", "http://a/v?x", Some(true)),
            ("https://a/v", "https://evil/v", None),
            ("https://a/v", "https://a@evil/v", None),
            ("https://a/v", "https://a:8443/v", None),
            ("https://a/v", "http://a/v", None),
            ("https://a/v", "https://a.evil/v", None),
            ("https://public/v", "https://evil/v", None),
            ("https://a/v", "javascript:alert(1)", None),
            ("https://a/v", "//a/v", None),
        ] {
            let body = json!({
                "device_code": "d", "user_code": "A",
                "verification_uri": page, "verification_uri_complete": complete,
            });
            let read = Codes::read(&body, &trust().server).ok();
            let read = read.map(|codes| codes.is_elsewhere);
            assert_eq!(read, is_elsewhere, "{page} {complete}");
        }
    }

    #[test]
    fn code_and_address_lengths_are_limited() {
        for (name, max) in [
            ("user_code", 64),
            ("verification_uri", 2048),
            ("verification_uri_complete", 2048),
            ("device_code", 1024),
        ] {
            for (length, fits) in [(max, true), (max + 1, false), (5_000_000, false)] {
                let mut body = json!({
                    "device_code": "d", "user_code": "A",
                    "verification_uri": "https://a/", "verification_uri_complete": "https://a/",
                });
                let start = body[name].as_str().unwrap().to_owned();
                body[name] = format!("{start}{}", "x".repeat(length - start.len())).into();
                let read = Codes::read(&body, &trust().server);
                assert_eq!(read.is_ok(), fits, "{name} {length}");
            }
        }
    }

    /// The token is encrypted, stays on this machine, or goes to the auth server's host, which has it already.
    #[test]
    fn api_url_over_plain_http_is_refused() {
        for (api_url, fits) in [
            ("https://elsewhere/api", true),
            ("http://127.0.0.1:3000", true),
            ("http://localhost/api", true),
            ("http://[::1]:1", true),
            ("http://A:3000/api", true),
            ("http://elsewhere/api", false),
            ("http://10.0.0.1", false),
            ("http://localhost.evil", false),
            ("http://a.evil", false),
            ("http://a@evil", false),
            ("ftp://a", false),
        ] {
            for allow_http in [false, true] {
                let trust = Trust {
                    allow_http,
                    ..trust()
                };
                let allowed =
                    fits || allow_http && api_url.starts_with("http:") && !api_url.contains('@');
                assert_eq!(
                    trust.check_api_url(api_url).is_ok(),
                    allowed,
                    "{api_url} {allow_http}"
                );
            }
        }
        let long = format!("https://a/{}", "x".repeat(3000));
        assert!(trust().check_api_url(&long).is_err());
    }

    #[test]
    fn organization_id_is_short_text_or_a_number() {
        let long = format!("\"{}\"", "x".repeat(256));
        for (id, fits) in [
            ("null", true),
            ("7", true),
            ("\"org\"", true),
            (long.as_str(), true),
            ("{}", false),
            ("[1]", false),
            ("true", false),
        ] {
            let granted = poll(
                200,
                &format!(r#"{{"access_token":"t","organization_id":{id}}}"#),
            );
            assert_eq!(matches!(granted, Poll::Granted(_)), fits, "{id}");
        }
        let longer = "x".repeat(257);
        let body = format!(r#"{{"access_token":"t","organization_id":"{longer}"}}"#);
        assert!(matches!(poll(200, &body), Poll::NoToken(_)));
    }

    /// The errors of RFC 8628 §3.5; and 5xx, 429 and HTML in the middle of a login.
    #[test]
    fn poll_answers_are_distinguished() {
        assert!(matches!(
            poll(400, r#"{"error":"authorization_pending"}"#),
            Poll::Pending
        ));
        assert!(matches!(
            poll(200, r#"{"error":"authorization_pending"}"#),
            Poll::Pending
        ));
        assert!(matches!(
            poll(429, r#"{"error":"slow_down"}"#),
            Poll::SlowDown
        ));
        assert!(matches!(
            poll(400, r#"{"error":"access_denied"}"#),
            Poll::Denied
        ));
        assert!(matches!(
            poll(400, r#"{"error":"expired_token"}"#),
            Poll::Expired
        ));
        assert!(matches!(
            poll(400, r#"{"error":"invalid_grant"}"#),
            Poll::Unknown
        ));
        assert!(matches!(
            poll(400, r#"{"error":"invalid_device_code"}"#),
            Poll::Unknown
        ));
        assert!(matches!(
            poll(
                401,
                r#"{"error":"invalid_client","error_description":"no"}"#
            ),
            Poll::Refused { .. }
        ));
        for (status, body) in [
            (500, r#"{"error":"server_error"}"#),
            (502, "<html>"),
            (200, "<html>captive portal"),
            (403, "<h1>Forbidden"),
            (403, r#"{"message":"blocked"}"#),
            (429, r#"{"message":"slow"}"#),
            (200, "null"),
            (503, ""),
        ] {
            assert!(
                matches!(poll(status, body), Poll::Unanswered { .. }),
                "{status} {body}"
            );
        }
        for body in [
            "{}",
            r#"{"access_token":null}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":"a\nb"}"#,
            r#"{"access_token":"a","api_url":"nonsense"}"#,
        ] {
            assert!(matches!(poll(200, body), Poll::NoToken(_)), "{body}");
        }
    }

    /// Unknown fields and `token_type` do not matter.
    #[test]
    fn grant_of_the_reference_server_is_understood() {
        let Poll::Granted(stored) = poll(200, r#"{"access_token":"pos_a","x":1}"#) else {
            panic!("no grant");
        };
        assert_eq!(stored.api_url.as_deref(), Some("https://api.postiz.com"));
        assert!(stored.organization_id.is_none());
        let Poll::Granted(stored) = poll(
            201,
            r#"{"access_token":"pos_a","token_type":"BEARER","api_url":"https://h/api/","organization_id":7}"#,
        ) else {
            panic!("no grant");
        };
        assert_eq!(stored.api_url.as_deref(), Some("https://h/api/"));
        assert_eq!(stored.organization_id, Some(7.into()));
    }

    #[test]
    fn retry_after_is_parsed_in_both_forms() {
        let mut reply = answer(503, "");
        reply.headers.insert("retry-after", "7".parse().unwrap());
        assert_eq!(
            reply.retry_after(SystemTime::UNIX_EPOCH),
            Some(Duration::from_secs(7))
        );
        reply.headers.insert(
            "retry-after",
            "Thu, 01 Jan 1970 00:00:09 GMT".parse().unwrap(),
        );
        assert_eq!(
            reply.retry_after(SystemTime::UNIX_EPOCH),
            Some(Duration::from_secs(9))
        );
        reply.headers.insert("retry-after", "soon".parse().unwrap());
        assert_eq!(reply.retry_after(SystemTime::UNIX_EPOCH), None);
    }
}
