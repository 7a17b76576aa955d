//! Postiz, as this server meets it: the page where the user authorises, and the exchange of a code for a token.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Uri;

use crate::server::codes::State;
use crate::server::config::Config;
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client::{self, ClientSettings, Outbound, Proxies};
use crate::shared::secret::Secret;

/// Longest time for one exchange, the connection included.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Longest token that is taken.
const TOKEN_CHARACTERS_MAX: usize = 4_096;

/// What stays as it is in a query value (RFC 3986 §2.3).
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The Postiz that this server logs people in to.
pub struct Postiz {
    agent: Agent,
    proxies: Arc<Proxies>,
    frontend_url: BaseUrl,
    token_url: String,
    client_id: String,
    client_secret: Secret<String>,
}

/// What an exchange yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token: 1 to 4,096 visible ASCII characters.
    pub access_token: Secret<String>,
    /// The organisation that it belongs to.
    pub organization_id: Option<String>,
    /// What it may do.
    pub scope: Option<String>,
}

/// Why an exchange yielded nothing. The texts are for the log: no browser ever sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeError {
    /// Postiz refused the authorization code (`invalid_grant`): it was used, or is too old.
    InvalidGrant,
    /// Postiz refused this server (`invalid_client`): its client ID or secret is wrong.
    InvalidClient,
    /// Postiz did not answer in time.
    TimedOut,
    /// Postiz could not be reached, or its answer makes no sense.
    Failed(String),
}

/// Why [`Postiz::probe`] found no Postiz that knows this server.
pub enum ProbeError {
    /// What answers is something else.
    NotPostiz(String),
    /// It does not answer, or refuses this server.
    Exchange(ExchangeError),
}

impl From<ExchangeError> for ProbeError {
    fn from(error: ExchangeError) -> ProbeError {
        ProbeError::Exchange(error)
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::InvalidGrant => f.write_str("Postiz refused the authorization code (invalid_grant)"),
            ExchangeError::InvalidClient => f.write_str(
                "Postiz refused this server (invalid_client): check POSTIZ_OAUTH_CLIENT_ID and POSTIZ_OAUTH_CLIENT_SECRET",
            ),
            ExchangeError::TimedOut => write!(f, "Postiz did not answer within {} s", EXCHANGE_TIMEOUT.as_secs()),
            ExchangeError::Failed(cause) => f.write_str(cause),
        }
    }
}

/// The body of the exchange, in the order Postiz documents it.
#[derive(Serialize)]
struct ExchangeRequest<'a> {
    grant_type: &'static str,
    code: &'a str,
    client_id: &'a str,
    client_secret: &'a str,
}

impl Postiz {
    /// The Postiz whose pages are under `frontend_url` and whose API is under `api_url`, for the OAuth app `client_id`.
    pub fn new(
        frontend_url: BaseUrl,
        api_url: &BaseUrl,
        client_id: String,
        client_secret: Secret<String>,
    ) -> Postiz {
        let settings = ClientSettings {
            user_agent: concat!("postiz-auth-server/", env!("CARGO_PKG_VERSION")),
            connect_timeout: EXCHANGE_TIMEOUT,
            total_timeout: Some(EXCHANGE_TIMEOUT),
        };
        // A server with problems there has not started.
        let outbound = Outbound::new(&http_client::environment, api_url.is_https());
        let proxies = Arc::clone(&outbound.proxies);
        let agent = http_client::agent(&settings, outbound);
        let token_url = format!("{api_url}/oauth/token");
        Postiz {
            agent,
            proxies,
            frontend_url,
            token_url,
            client_id,
            client_secret,
        }
    }

    /// The Postiz of a configuration.
    pub fn of(config: &Config) -> Postiz {
        Postiz::new(
            config.frontend_url.clone(),
            &config.api_url,
            config.client_id.clone(),
            config.client_secret.clone(),
        )
    }

    /// Where the browser goes to authorise (RFC 6749 §4.1.1). A person who is signed out loses Postiz' consent page unless
    /// `returnUrl` leads back to it: Postiz keeps the query, drops the path, and goes there after the sign-in.
    pub fn authorize_url(&self, state: &State) -> String {
        let client_id = utf8_percent_encode(&self.client_id, QUERY_VALUE);
        let url = format!(
            "{}/oauth/authorize?client_id={client_id}&response_type=code&state={}",
            self.frontend_url,
            state.expose()
        );
        let return_url = utf8_percent_encode(&url, QUERY_VALUE);
        format!("{url}&returnUrl={return_url}")
    }

    /// Exchanges an authorization code for a token (RFC 6749 §4.1.3).
    pub fn exchange(&self, code: &str) -> Result<Grant, ExchangeError> {
        let request = ExchangeRequest {
            grant_type: "authorization_code",
            code,
            client_id: &self.client_id,
            client_secret: self.client_secret.expose(),
        };
        // The HTTP client looks names up in a thread, and panics where it gets none.
        let post = || self.post(&self.token_url, &request);
        let posted = catch_unwind(AssertUnwindSafe(post));
        let no_thread = |_| {
            Err(ExchangeError::Failed(
                "no answer: out of threads".to_owned(),
            ))
        };
        let (status, body) = posted.unwrap_or_else(no_thread)?;
        understand(status, &body).map_err(|error| self.without_secrets(error, code))
    }

    /// Is it a Postiz, and does it know this OAuth app? If so, does it register clients? It is asked in a way that changes
    /// nothing: for a code that was never given, and for a client that no Postiz registers.
    pub fn probe(&self) -> Result<bool, ProbeError> {
        match self.exchange("no-code") {
            Ok(_) | Err(ExchangeError::InvalidGrant) => {}
            Err(ExchangeError::Failed(what))
                if what.starts_with("Postiz answered")
                    && !what.starts_with("Postiz answered 5") =>
            {
                return Err(ProbeError::NotPostiz(what));
            }
            Err(error) => return Err(error.into()),
        }
        let url = self.token_url.replace("/oauth/token", "/oauth/register");
        let client = json!({"redirect_uris": ["none:"], "token_endpoint_auth_method": "unknown"});
        Ok(self.post(&url, &client)?.0 != 404)
    }

    fn post(&self, url: &str, body: &impl Serialize) -> Result<(u16, Vec<u8>), ExchangeError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ExchangeError::Failed(error.to_string()))?;
        let sent = self
            .agent
            .post(url)
            .header("content-type", "application/json")
            .send(&body);
        let failed = |error| no_answer(url, error);
        let mut answer = sent.map_err(failed)?;
        let status = answer.status().as_u16();
        let read = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec();
        let body = read.map_err(failed)?;
        self.check_proxy(status, &body)?;
        Ok((status, body))
    }

    /// An error where the answer is that of a proxy that refuses.
    fn check_proxy(&self, status: u16, body: &[u8]) -> Result<(), ExchangeError> {
        let Ok(uri) = self.token_url.parse::<Uri>() else {
            return Ok(());
        };
        let is_json = serde_json::from_slice::<Value>(body).is_ok();
        match http_client::refused_by_proxy(&self.proxies, &uri, status, is_json) {
            Some(refusal) => Err(ExchangeError::Failed(format!(
                "no answer from {uri}: {refusal}"
            ))),
            None => Ok(()),
        }
    }

    /// An upstream that is broken may echo what it was sent, and its words end up in the log.
    fn without_secrets(&self, error: ExchangeError, code: &str) -> ExchangeError {
        let ExchangeError::Failed(text) = error else {
            return error;
        };
        let text = text
            .replace(self.client_secret.expose(), MASK)
            .replace(code, MASK);
        ExchangeError::Failed(mask_what_looks_secret(&text))
    }
}

/// What stands for a secret in a log.
const MASK: &str = "[secret]";

/// Masks what may be a code, a key or a token: 20 characters and more in a row, with digits among them.
fn mask_what_looks_secret(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mask = |word: &str| {
        if word.len() >= 20 && word.contains(|c: char| c.is_ascii_digit()) {
            MASK
        } else {
            word
        }
        .to_owned()
    };
    let mut masked = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word_end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        masked.push_str(&mask(&rest[..word_end]));
        let gap_end = rest[word_end..]
            .find(is_part)
            .map_or(rest.len(), |at| word_end + at);
        masked.push_str(&rest[word_end..gap_end]);
        rest = &rest[gap_end..];
    }
    masked
}

/// The grant in Postiz' answer, if it is one.
fn understand(status: u16, body: &[u8]) -> Result<Grant, ExchangeError> {
    let failed = |what: &str| ExchangeError::Failed(format!("Postiz answered {status} {what}"));
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return Err(failed(&format!(
            "and no JSON: {}",
            String::from_utf8_lossy(&body[..body.len().min(1_000)])
        )));
    };
    if !(200..300).contains(&status) {
        return Err(match answer["error"].as_str() {
            Some("invalid_grant") => ExchangeError::InvalidGrant,
            Some("invalid_client") => ExchangeError::InvalidClient,
            // An error's body holds no token.
            _ => failed(&format!("{answer}")),
        });
    }
    match answer["access_token"].as_str() {
        Some(token) if is_token(token) => Ok(Grant {
            access_token: Secret::new(token.to_owned()),
            organization_id: answer["id"].as_str().map(str::to_owned),
            scope: answer["scope"].as_str().map(str::to_owned),
        }),
        Some(_) => Err(failed(
            "with an access_token that is not 1 to 4096 visible ASCII characters",
        )),
        None => Err(failed("without an access_token")),
    }
}

fn is_token(text: &str) -> bool {
    (1..=TOKEN_CHARACTERS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn no_answer(url: &str, error: ureq::Error) -> ExchangeError {
    let why = match &error {
        ureq::Error::Timeout(_) => return ExchangeError::TimedOut,
        ureq::Error::BodyExceedsLimit(limit) => format!("more than {limit} bytes"),
        other => match http_client::tls_error(other) {
            Some(rustls::Error::InvalidCertificate(reason)) => format!(
                "its certificate is not trusted: {}; \
                 SSL_CERT_FILE, SSL_CERT_DIR or NODE_EXTRA_CA_CERTS names the root of a private authority",
                http_client::distrust(reason)
            ),
            _ => match http_client::proxy_error(other) {
                Some(proxy) => proxy.to_string(),
                None => other.to_string(),
            },
        },
    };
    ExchangeError::Failed(format!("no answer from {url}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_return_url_is_the_whole_url_once() {
        let url = |text| BaseUrl::parse(text).unwrap();
        let secret = Secret::new("s".to_owned());
        let postiz = Postiz::new(
            url("https://p.example/x"),
            &url("http://api.example"),
            "a b&c".to_owned(),
            secret,
        );
        let state = State::from_mac("0123456789abcdef".repeat(4));
        let (plain, return_url) = (postiz.authorize_url(&state), "&returnUrl=");
        let (before, after) = plain.split_once(return_url).unwrap();
        let expected = format!(
            "https://p.example/x/oauth/authorize?client_id=a%20b%26c&response_type=code&state={}",
            state.expose()
        );
        assert_eq!(before, expected);
        assert_eq!(
            percent_encoding::percent_decode_str(after)
                .decode_utf8()
                .unwrap(),
            expected
        );
    }

    #[test]
    fn what_looks_secret_is_masked() {
        let state = State::from_mac("0123456789abcdef".repeat(4));
        let text = format!(
            "<p>code=abc&state={} invalid_redirect_uri_mismatch at 10:20:30</p>",
            state.expose()
        );
        let masked = "<p>code=abc&state=[secret] invalid_redirect_uri_mismatch at 10:20:30</p>";
        assert_eq!(mask_what_looks_secret(&text), masked);
    }

    #[test]
    fn answers_are_understood() {
        let grant = understand(
            201,
            br#"{"id":"org","cus":"c","access_token":"pos_x","token_type":"bearer"}"#,
        )
        .unwrap();
        assert_eq!(grant.access_token.expose(), "pos_x");
        assert_eq!(grant.organization_id.as_deref(), Some("org"));
        assert_eq!(grant.scope, None);
        let error = |status, body: &str| understand(status, body.as_bytes()).unwrap_err();
        assert_eq!(
            error(400, r#"{"error":"invalid_grant"}"#),
            ExchangeError::InvalidGrant
        );
        assert_eq!(
            error(401, r#"{"error":"invalid_client"}"#),
            ExchangeError::InvalidClient
        );
        for (status, body) in [
            (
                400,
                r#"{"statusCode":400,"message":["x"],"error":"Bad Request"}"#,
            ),
            (500, "{}"),
            (302, "{}"),
            (200, "<html>"),
            (200, ""),
            (201, "{}"),
            (200, "[]"),
            (200, "null"),
            (200, r#"{"access_token":null}"#),
            (200, r#"{"access_token":""}"#),
            (200, r#"{"access_token":12345}"#),
            (200, r#"{"access_token":{"a":1}}"#),
            (200, r#"{"access_token":"a\u0000b"}"#),
            (200, r#"{"access_token":"a b"}"#),
            (200, r#"{"access_token":"pös"}"#),
        ] {
            assert!(
                matches!(error(status, body), ExchangeError::Failed(_)),
                "{status} {body}"
            );
        }
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(4_097));
        assert!(matches!(error(200, &long), ExchangeError::Failed(_)));
    }
}
