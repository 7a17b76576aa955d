//! The client of Postiz: registers OAuth clients, builds the authorize URL, and exchanges codes for tokens.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Uri;

use crate::server::codes::State;
use crate::server::config::{Config, OAuthApp};
use crate::server::counts::{Outcome, RequestCounts};
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client::{self, Outbound, Proxies};
use crate::shared::percent;
use crate::shared::pkce;
use crate::shared::secret::Secret;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Longest token that is accepted.
const TOKEN_CHARACTERS_MAX: usize = 4_096;

/// The Postiz that users log in to.
pub(crate) struct Postiz {
    agent: Agent,
    timeout: Duration,
    proxies: Arc<Proxies>,
    frontend_url: BaseUrl,
    api_url: BaseUrl,
    /// `None`: each login registers its own client.
    app: Option<OAuthApp>,
    redirect_uri: String,
    pub(crate) requests: RequestCounts,
}

/// An OAuth client that was registered at Postiz for one login (RFC 7591): a public client with PKCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OAuthClient {
    pub id: String,
    /// The PKCE verifier (RFC 7636).
    pub verifier: Secret<String>,
    /// The registered callback. The exchange must send exactly this one.
    pub redirect_uri: String,
}

/// The name under Settings > Approved Apps, where the machine's name follows.
const CLIENT_NAME: &str = "Postiz CLI";

/// How codes begin that Postiz' cloud issues for a self-hosted instance. They work for MCP only.
const RELAYED_CODE_PREFIX: &str = "psc_";
/// How tokens begin that it issues for such a code.
const RELAYED_TOKEN_PREFIX: &str = "psh_";

/// The result of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The token: 1 to 4,096 visible ASCII characters.
    pub access_token: Secret<String>,
    pub organization_id: Option<String>,
    pub scope: Option<String>,
}

/// Why a request to Postiz failed. The texts are for the log only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PostizError {
    /// Postiz refused the authorization code (`invalid_grant`): it was used before, or has expired.
    InvalidGrant,
    /// Postiz refused this server (`invalid_client`): its client ID or secret is wrong.
    InvalidClient,
    /// Postiz refused to register the client.
    Unregistered(String),
    /// What answers at POSTIZ_API_URL is not Postiz' API.
    NotPostiz(String),
    /// The certificate of POSTIZ_API_URL is not trusted.
    Untrusted(String),
    /// The user chose a self-hosted instance on the consent page of Postiz' cloud. Its code and token work for MCP only.
    Relayed,
    /// Postiz did not answer within this time.
    TimedOut(Duration),
    /// Postiz could not be reached, or its answer is invalid.
    Failed(String),
}

impl PostizError {
    /// The reason in the log and the metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            PostizError::InvalidGrant => "invalid_grant",
            PostizError::InvalidClient => "invalid_client",
            PostizError::Unregistered(_) => "registration_refused",
            PostizError::NotPostiz(_) => "not_postiz",
            PostizError::Untrusted(_) => "certificate_not_trusted",
            PostizError::Relayed => "relayed_code",
            PostizError::TimedOut(_) => "postiz_timeout",
            PostizError::Failed(_) => "postiz_failed",
        }
    }

    /// Whether only this server's operator can fix the cause.
    pub(crate) fn is_misconfiguration(&self) -> bool {
        matches!(
            self,
            PostizError::InvalidClient
                | PostizError::Unregistered(_)
                | PostizError::NotPostiz(_)
                | PostizError::Untrusted(_)
        )
    }
}

impl fmt::Display for PostizError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PostizError::InvalidGrant => f.write_str("Postiz refused the authorization code (invalid_grant)"),
            PostizError::InvalidClient => f.write_str(
                "Postiz refused this server (invalid_client): check POSTIZ_OAUTH_CLIENT_ID and POSTIZ_OAUTH_CLIENT_SECRET",
            ),
            PostizError::Unregistered(cause) => {
                write!(f, "Postiz registers no client for this server, so it needs an OAuth app (POSTIZ_OAUTH_CLIENT_ID): {cause}")
            }
            PostizError::Relayed => {
                f.write_str("the user chose a self-hosted instance, whose codes (psc_) and tokens (psh_) work for MCP alone")
            }
            PostizError::NotPostiz(cause) => {
                write!(f, "{cause}; POSTIZ_API_URL must name Postiz' API (a self-hosted one: https://host/api)")
            }
            PostizError::Untrusted(cause) => f.write_str(cause),
            PostizError::TimedOut(timeout) => write!(f, "Postiz did not answer within {} s", timeout.as_secs()),
            PostizError::Failed(cause) => f.write_str(cause),
        }
    }
}

impl Postiz {
    pub(crate) fn new(config: &Config, server_url: &BaseUrl) -> Postiz {
        let user_agent = concat!("postiz-auth-server/", env!("CARGO_PKG_VERSION"));
        let timeout = config.times.postiz;
        // Config::from_vars has checked these variables.
        let outbound = Outbound::new(&http_client::environment, config.api_url.is_https());
        Postiz {
            proxies: Arc::clone(&outbound.proxies),
            agent: outbound.client(user_agent, timeout, Some(timeout)),
            timeout,
            frontend_url: config.frontend_url.clone(),
            api_url: config.api_url.clone(),
            app: config.oauth_app.clone(),
            redirect_uri: format!("{server_url}/device/callback"),
            requests: RequestCounts::default(),
        }
    }

    /// Whether there is an OAuth app, so that logins need no registered clients.
    pub(crate) fn has_app(&self) -> bool {
        self.app.is_some()
    }

    /// Registers a client for one login (RFC 7591 §3.1). `machine` may be empty.
    pub(crate) fn register(&self, machine: &str) -> Result<OAuthClient, PostizError> {
        let name = match machine {
            "" => CLIENT_NAME.to_owned(),
            machine => format!("{CLIENT_NAME} on {machine}"),
        };
        let client = json!({
            "redirect_uris": [self.redirect_uri],
            "client_name": name,
            "token_endpoint_auth_method": "none",
        });
        let register = || self.registered(self.post_registration(&client)?);
        self.count_result("registration", register)
    }

    fn registered(&self, (status, answer): (u16, Value)) -> Result<OAuthClient, PostizError> {
        match answer["client_id"].as_str() {
            Some(id) if (200..300).contains(&status) && is_token_or_id(id) => Ok(OAuthClient {
                id: id.to_owned(),
                verifier: pkce::verifier(),
                redirect_uri: self.redirect_uri.clone(),
            }),
            _ => {
                let what = mask_long_tokens(&format!("{status} {answer}"));
                let what = format!("POST {}/oauth/register answered {what}", self.api_url);
                Err(match status {
                    400 | 404 => PostizError::Unregistered(what),
                    _ => PostizError::Failed(what),
                })
            }
        }
    }

    fn post_registration(&self, client: &Value) -> Result<(u16, Value), PostizError> {
        let (status, body) = self.post("/oauth/register", client)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// The authorize URL (RFC 6749 §4.1.1) for `client`, or else for the app. After a sign-in Postiz returns to its consent page
    /// only by `returnUrl`: without that it keeps the query, but drops the path.
    pub(crate) fn authorize_url(&self, state: &State, client: Option<&OAuthClient>) -> String {
        let encoded = percent::encode;
        let app_id = self.app.as_ref().map_or("", |app| &app.id);
        let mut url = format!(
            "{}/oauth/authorize?client_id={}&response_type=code&state={}",
            self.frontend_url,
            encoded(client.map_or(app_id, |client| &client.id)),
            state.expose()
        );
        if let Some(client) = client {
            url += &format!(
                "&redirect_uri={}&code_challenge={}&code_challenge_method=S256",
                encoded(&client.redirect_uri),
                pkce::challenge(&client.verifier)
            );
        }
        let return_url = encoded(&url);
        format!("{url}&returnUrl={return_url}")
    }

    /// Exchanges an authorization code of `client`, or else of the app, for a token (RFC 6749 §4.1.3).
    pub(crate) fn exchange(
        &self,
        code: &str,
        client: Option<&OAuthClient>,
    ) -> Result<Grant, PostizError> {
        if code.starts_with(RELAYED_CODE_PREFIX) {
            return Err(PostizError::Relayed);
        }
        let mut request = json!({ "grant_type": "authorization_code", "code": code });
        let secret = match (client, &self.app) {
            (Some(client), _) => {
                request["client_id"] = client.id.as_str().into();
                request["code_verifier"] = client.verifier.expose().as_str().into();
                request["redirect_uri"] = client.redirect_uri.as_str().into();
                &client.verifier
            }
            (None, Some(app)) => {
                request["client_id"] = app.id.as_str().into();
                request["client_secret"] = app.secret.expose().as_str().into();
                &app.secret
            }
            // The login was confirmed by an instance that has an app.
            (None, None) => return Err(PostizError::InvalidClient),
        };
        let exchange = || {
            let (status, body) = self.post("/oauth/token", &request)?;
            parse_grant(status, &body)
        };
        self.count_result("exchange", exchange)
            .map_err(|error| mask_secrets(&[code, secret.expose()], error))
    }

    /// Sends a request, and counts it by its result.
    fn count_result<T>(
        &self,
        request: &'static str,
        send: impl FnOnce() -> Result<T, PostizError>,
    ) -> Result<T, PostizError> {
        let sent_at = Instant::now();
        let answer = send();
        let result = answer.as_ref().map_or_else(PostizError::reason, |_| "ok");
        let outcome = Outcome { status: 0, result };
        self.requests.add(request, outcome, sent_at.elapsed());
        answer
    }

    /// Checks that this is a Postiz which knows the OAuth app or, without one, registers clients. Returns whether it registers
    /// clients. Changes nothing: it exchanges an invalid code, and registers a client with an invalid grant type.
    pub(crate) fn probe(&self) -> Result<bool, PostizError> {
        let unknown_client = OAuthClient {
            id: "none".to_owned(),
            verifier: pkce::verifier(),
            redirect_uri: self.redirect_uri.clone(),
        };
        let client = Some(&unknown_client).filter(|_| !self.has_app());
        match (self.exchange("no-code", client), client) {
            (Ok(_) | Err(PostizError::InvalidGrant), _) => {}
            (Err(PostizError::InvalidClient), Some(_)) => {}
            // A Postiz that is too old to register clients requires a client_secret.
            (Err(PostizError::Failed(what)), Some(_))
                if what.starts_with("Postiz answered 400 {") => {}
            (Err(PostizError::Failed(what)), _)
                if what.starts_with("Postiz answered")
                    && !what.starts_with("Postiz answered 5") =>
            {
                return Err(PostizError::NotPostiz(what));
            }
            (Err(error), _) => return Err(error),
        }
        let registration = self.post_registration(&json!({
            "redirect_uris": [self.redirect_uri],
            "grant_types": ["none"],
            "token_endpoint_auth_method": "none",
        }));
        // A Postiz answered the exchange, so POSTIZ_API_URL is right, whatever answers here.
        let (status, answer) = registration.map_err(|error| match error {
            PostizError::NotPostiz(what) => PostizError::Failed(what),
            error => error,
        })?;
        if self.has_app() {
            return Ok(status != 404);
        }
        let refused = match (status, answer["error"].as_str()) {
            (404, _) => {
                "this Postiz is too old to register clients (POST /oauth/register)".to_owned()
            }
            (400, Some("invalid_redirect_uri")) => {
                format!("it refuses the callback {}", self.redirect_uri)
            }
            (400, _) => return Ok(true),
            _ => {
                return Err(PostizError::Failed(format!(
                    "POST {}/oauth/register answered {status}",
                    self.api_url
                )));
            }
        };
        Err(PostizError::Unregistered(refused))
    }

    /// Posts JSON to a path below POSTIZ_API_URL. Returns status and body of the answer.
    fn post(&self, path: &str, body: &Value) -> Result<(u16, Vec<u8>), PostizError> {
        let url = format!("{}{path}", self.api_url);
        // The HTTP client resolves names in a thread, and panics if it cannot start one.
        let posted = catch_unwind(AssertUnwindSafe(|| {
            self.send(&url, body.to_string().as_bytes())
        }));
        let no_thread = |_| Err(PostizError::Failed("no answer: out of threads".to_owned()));
        posted.unwrap_or_else(no_thread)
    }

    fn send(&self, url: &str, body: &[u8]) -> Result<(u16, Vec<u8>), PostizError> {
        let sent = self
            .agent
            .post(url)
            .header("content-type", "application/json")
            .send(body);
        let failed = |error| request_error(url, error, self.timeout);
        let mut answer = sent.map_err(failed)?;
        let status = answer.status().as_u16();
        if let Some(target) = redirect_target(&answer) {
            let cause =
                format!("{url} is redirected ({status}) to {target}, which is not followed");
            return Err(PostizError::NotPostiz(cause));
        }
        let read = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec();
        let body = read.map_err(failed)?;
        let is_json = serde_json::from_slice::<Value>(&body).is_ok();
        let refused = |uri| http_client::refused_by_proxy(&self.proxies, uri, status, is_json);
        match url.parse::<Uri>().ok().as_ref().and_then(refused) {
            Some(refusal) => {
                let cause = format!("no answer from {url}: {refusal}");
                Err(PostizError::Failed(cause))
            }
            None => Ok((status, body)),
        }
    }
}

/// Masks secrets in an error's text, which goes to the log: a broken upstream may echo the request.
fn mask_secrets(secrets: &[&str], error: PostizError) -> PostizError {
    let masked = |text: String| {
        let mask = |text: String, secret: &&str| text.replace(secret, MASK);
        mask_long_tokens(&secrets.iter().fold(text, mask))
    };
    match error {
        PostizError::Failed(text) => PostizError::Failed(masked(text)),
        PostizError::NotPostiz(text) => PostizError::NotPostiz(masked(text)),
        error => error,
    }
}

/// Replaces a secret in the log.
const MASK: &str = "[secret]";

/// Masks what may be a code, a key or a token: words of at least 20 characters with a digit.
fn mask_long_tokens(text: &str) -> String {
    let is_gap = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-');
    let masked = text.split_inclusive(is_gap).map(|piece| {
        let word = piece.trim_end_matches(is_gap);
        match word.len() >= 20 && word.contains(|c: char| c.is_ascii_digit()) {
            true => piece.replace(word, MASK),
            false => piece.to_owned(),
        }
    });
    masked.collect()
}

/// Parses the answer to an exchange.
fn parse_grant(status: u16, body: &[u8]) -> Result<Grant, PostizError> {
    let text = |what: &str| format!("Postiz answered {status} {what}");
    let failed = |what: &str| match status {
        404 | 405 => PostizError::NotPostiz(text(what)),
        _ => PostizError::Failed(text(what)),
    };
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        let start = String::from_utf8_lossy(&body[..body.len().min(1_000)]);
        let what = format!("and no JSON: {start}");
        return Err(match status {
            200..300 => PostizError::NotPostiz(text(&what)),
            _ => failed(&what),
        });
    };
    if !(200..300).contains(&status) {
        return Err(match answer["error"].as_str() {
            Some("invalid_grant") => PostizError::InvalidGrant,
            Some("invalid_client") => PostizError::InvalidClient,
            // The body of an error contains no token.
            _ => failed(&format!("{answer}")),
        });
    }
    match answer["access_token"].as_str() {
        Some(token) if token.starts_with(RELAYED_TOKEN_PREFIX) => Err(PostizError::Relayed),
        Some(token) if is_token_or_id(token) => Ok(Grant {
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

/// Whether `text` has the form of a token or a client ID: 1 to 4,096 visible ASCII characters.
fn is_token_or_id(text: &str) -> bool {
    (1..=TOKEN_CHARACTERS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where a redirect leads: scheme, host and path. A user's password and the query are left out.
fn redirect_target(answer: &ureq::http::Response<ureq::Body>) -> Option<String> {
    let location = answer.headers().get("location")?;
    let target = match Uri::try_from(location.as_bytes()) {
        Err(_) => "a Location that is not a URL".to_owned(),
        Ok(uri) => {
            let scheme = uri.scheme_str().map(|scheme| format!("{scheme}://"));
            let port = uri.port_u16().map(|port| format!(":{port}"));
            let (host, path) = (uri.host().unwrap_or_default(), uri.path());
            [scheme.as_deref(), Some(host), port.as_deref(), Some(path)]
                .into_iter()
                .flatten()
                .collect()
        }
    };
    answer.status().is_redirection().then_some(target)
}

fn request_error(url: &str, error: ureq::Error, timeout: Duration) -> PostizError {
    let why = match &error {
        ureq::Error::Timeout(_) => return PostizError::TimedOut(timeout),
        ureq::Error::BodyExceedsLimit(limit) => format!("more than {limit} bytes"),
        other => match http_client::tls_error(other) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                return PostizError::Untrusted(format!(
                    "no answer from {url}: its certificate is not trusted: {}; \
                     SSL_CERT_FILE, SSL_CERT_DIR or NODE_EXTRA_CA_CERTS names the root of a private authority",
                    http_client::distrust(reason)
                ));
            }
            _ => match http_client::proxy_error(other) {
                Some(proxy) => proxy.to_string(),
                None => other.to_string(),
            },
        },
    };
    PostizError::Failed(format!("no answer from {url}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorize_url_has_itself_as_return_url() {
        let config = Config::from_vars([
            ("POSTIZ_FRONTEND_URL", "https://p.example/x"),
            ("POSTIZ_OAUTH_CLIENT_ID", "a b&c"),
            ("POSTIZ_OAUTH_CLIENT_SECRET", "s"),
        ]);
        let server_url = BaseUrl::parse("https://auth.example").unwrap();
        let postiz = Postiz::new(&config.unwrap(), &server_url);
        let client = OAuthClient {
            id: "pcd_1".to_owned(),
            verifier: Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned()),
            redirect_uri: "https://auth.example/device/callback".to_owned(),
        };
        let state = State::from_mac("0123456789abcdef".repeat(4));
        for (client, id, more) in [
            (None, "a%20b%26c", ""),
            (
                Some(&client),
                "pcd_1",
                "&redirect_uri=https%3A%2F%2Fauth.example%2Fdevice%2Fcallback\
                 &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256",
            ),
        ] {
            let url = postiz.authorize_url(&state, client);
            let (before, after) = url.split_once("&returnUrl=").unwrap();
            let expected = format!(
                "https://p.example/x/oauth/authorize?client_id={id}&response_type=code&state={}{more}",
                state.expose()
            );
            assert_eq!(before, expected);
            let decoded = percent_encoding::percent_decode_str(after).decode_utf8();
            assert_eq!(decoded.unwrap(), expected);
        }
    }

    #[test]
    fn long_tokens_are_masked() {
        let state = State::from_mac("0123456789abcdef".repeat(4));
        let text = format!(
            "<p>code=abc&state={} invalid_redirect_uri_mismatch at 10:20:30</p>",
            state.expose()
        );
        let masked = "<p>code=abc&state=[secret] invalid_redirect_uri_mismatch at 10:20:30</p>";
        assert_eq!(mask_long_tokens(&text), masked);
    }

    #[test]
    fn parse_grant_accepts_only_tokens() {
        let grant = parse_grant(
            201,
            br#"{"id":"org","cus":"c","access_token":"pos_x","token_type":"bearer"}"#,
        )
        .unwrap();
        assert_eq!(grant.access_token.expose(), "pos_x");
        assert_eq!(grant.organization_id.as_deref(), Some("org"));
        assert_eq!(grant.scope, None);
        let error = |status, body: &str| parse_grant(status, body.as_bytes()).unwrap_err();
        assert_eq!(
            error(400, r#"{"error":"invalid_grant"}"#),
            PostizError::InvalidGrant
        );
        assert_eq!(
            error(401, r#"{"error":"invalid_client"}"#),
            PostizError::InvalidClient
        );
        for (status, body) in [
            (
                400,
                r#"{"statusCode":400,"message":["x"],"error":"Bad Request"}"#,
            ),
            (500, "{}"),
            (302, "{}"),
            (403, "<html>"),
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
                matches!(error(status, body), PostizError::Failed(_)),
                "{status} {body}"
            );
        }
        for (status, body) in [(200, "<html>"), (200, ""), (404, "{}"), (405, "<html>")] {
            assert!(
                matches!(error(status, body), PostizError::NotPostiz(_)),
                "{status} {body}"
            );
        }
        assert_eq!(
            error(201, r#"{"access_token":"psh_x"}"#),
            PostizError::Relayed
        );
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(4_097));
        assert!(matches!(error(200, &long), PostizError::Failed(_)));
    }
}
