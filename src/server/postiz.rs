//! Postiz, as this server meets it: the registration of a client, the page where the user authorises, and the exchange of a
//! code for a token.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Uri;

use crate::server::codes::State;
use crate::server::config::{Config, OAuthApp};
use crate::server::counts::{Outcome, RequestCounts};
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client::{self, ClientSettings, Outbound, Proxies};
use crate::shared::percent;
use crate::shared::pkce;
use crate::shared::secret::Secret;

/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Longest token that is taken.
const TOKEN_CHARACTERS_MAX: usize = 4_096;

/// The Postiz that this server logs people in to.
pub struct Postiz {
    agent: Agent,
    timeout: Duration,
    proxies: Arc<Proxies>,
    frontend_url: BaseUrl,
    api_url: BaseUrl,
    /// `None`: each login registers a client of its own.
    app: Option<OAuthApp>,
    /// Where Postiz sends browsers back to.
    redirect_uri: String,
    /// How many requests it was sent, and how they ended.
    pub(crate) requests: RequestCounts,
}

/// A client that was registered at Postiz for one login (RFC 7591): a public one, bound to this server by its verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its public name.
    pub id: String,
    /// Proves that a code was asked for here (RFC 7636).
    pub verifier: Secret<String>,
    /// The callback that it was registered with, which Postiz compares as a whole.
    pub redirect_uri: String,
}

/// The name that people read under Settings > Approved Apps; the machine's follows.
const CLIENT_NAME: &str = "Postiz CLI";

/// How the codes and tokens begin that Postiz' cloud gives for a self-hosted instance: they work for MCP alone.
const RELAYED: [&str; 2] = ["psc_", "psh_"];

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

/// Why Postiz gave nothing. The texts are for the log: no browser ever sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostizError {
    /// Postiz refused the authorization code (`invalid_grant`): it was used, or is too old.
    InvalidGrant,
    /// Postiz refused this server (`invalid_client`): its client ID or secret is wrong.
    InvalidClient,
    /// Postiz registers no clients, or not this one.
    Unregistered(String),
    /// What answers at POSTIZ_API_URL is not Postiz' API.
    NotPostiz(String),
    /// The certificate of POSTIZ_API_URL is not trusted.
    Untrusted(String),
    /// The user chose a self-hosted instance on the consent page of Postiz' cloud: what that gives works for MCP alone.
    Relayed,
    /// Postiz did not answer within this time.
    TimedOut(Duration),
    /// Postiz could not be reached, or its answer makes no sense.
    Failed(String),
}

/// Why [`Postiz::probe`] found no Postiz that people can sign in to from this server.
pub enum ProbeError {
    /// What answers is something else.
    NotPostiz(String),
    /// It does not answer, or refuses this server.
    Postiz(PostizError),
}

impl From<PostizError> for ProbeError {
    fn from(error: PostizError) -> ProbeError {
        ProbeError::Postiz(error)
    }
}

impl PostizError {
    /// Its word for the log and the metrics.
    pub fn reason(&self) -> &'static str {
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

    /// Whether only this server's operator can mend the cause.
    pub fn is_misconfiguration(&self) -> bool {
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

/// The body of the exchange, in the order Postiz documents it.
#[derive(Serialize)]
struct ExchangeRequest<'a> {
    grant_type: &'static str,
    code: &'a str,
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_verifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect_uri: Option<&'a str>,
}

impl Postiz {
    /// The Postiz of a configuration, for the server at `server_url`.
    pub fn new(config: &Config, server_url: &BaseUrl) -> Postiz {
        let settings = ClientSettings {
            user_agent: concat!("postiz-auth-server/", env!("CARGO_PKG_VERSION")),
            connect_timeout: config.times.postiz,
            total_timeout: Some(config.times.postiz),
        };
        // A server with problems there has not started.
        let outbound = Outbound::new(&http_client::environment, config.api_url.is_https());
        Postiz {
            proxies: Arc::clone(&outbound.proxies),
            agent: http_client::agent(&settings, outbound),
            timeout: config.times.postiz,
            frontend_url: config.frontend_url.clone(),
            api_url: config.api_url.clone(),
            app: config.oauth_app.clone(),
            redirect_uri: format!("{server_url}/device/callback"),
            requests: RequestCounts::default(),
        }
    }

    /// Is there an OAuth app, so that logins need no clients of their own?
    pub fn has_app(&self) -> bool {
        self.app.is_some()
    }

    /// Registers a client for one login that was started on `machine`, if that is known (RFC 7591 §3.1).
    pub fn register(&self, machine: &str) -> Result<Client, PostizError> {
        let name = match machine {
            "" => CLIENT_NAME.to_owned(),
            machine => format!("{CLIENT_NAME} on {machine}"),
        };
        self.counted("registration", || self.register_as(&name))
    }

    fn register_as(&self, name: &str) -> Result<Client, PostizError> {
        let (status, answer) = self.ask_to_register(&json!({
            "redirect_uris": [self.redirect_uri],
            "client_name": name,
            "token_endpoint_auth_method": "none",
        }))?;
        match answer["client_id"].as_str() {
            Some(id) if (200..300).contains(&status) && is_token(id) => Ok(Client {
                id: id.to_owned(),
                verifier: pkce::verifier(),
                redirect_uri: self.redirect_uri.clone(),
            }),
            _ => {
                let what = mask_what_looks_secret(&format!("{status} {answer}"));
                let what = format!("POST {}/oauth/register is answered {what}", self.api_url);
                Err(match status {
                    400 | 404 => PostizError::Unregistered(what),
                    _ => PostizError::Failed(what),
                })
            }
        }
    }

    fn ask_to_register(&self, client: &Value) -> Result<(u16, Value), PostizError> {
        let (status, body) = self.post("/oauth/register", client)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// Where the browser goes to authorise (RFC 6749 §4.1.1) the login's own client, or the app. A person who is signed out
    /// loses Postiz' consent page unless `returnUrl` leads back to it: Postiz keeps the query, drops the path, and goes there
    /// after the sign-in.
    pub fn authorize_url(&self, state: &State, client: Option<&Client>) -> String {
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

    /// Exchanges an authorization code of the login's own client, or of the app, for a token (RFC 6749 §4.1.3).
    pub fn exchange(&self, code: &str, client: Option<&Client>) -> Result<Grant, PostizError> {
        if code.starts_with(RELAYED[0]) {
            return Err(PostizError::Relayed);
        }
        let mut request = ExchangeRequest {
            grant_type: "authorization_code",
            code,
            client_id: "",
            client_secret: None,
            code_verifier: None,
            redirect_uri: None,
        };
        match (client, &self.app) {
            (Some(client), _) => {
                request.client_id = &client.id;
                request.code_verifier = Some(client.verifier.expose());
                request.redirect_uri = Some(&client.redirect_uri);
            }
            (None, Some(app)) => {
                request.client_id = &app.id;
                request.client_secret = Some(app.secret.expose());
            }
            // Another instance, which has an app, has confirmed the login.
            (None, None) => return Err(PostizError::InvalidClient),
        }
        let exchange = || {
            let (status, body) = self.post("/oauth/token", &request)?;
            understand(status, &body)
        };
        let secrets = [Some(code), request.client_secret, request.code_verifier];
        self.counted("exchange", exchange)
            .map_err(|error| without(&secrets, error))
    }

    /// Counts a request by its result.
    fn counted<T>(
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

    /// Is it a Postiz, does it know the OAuth app, and does it register clients? Without an app it must. It is asked in a way
    /// that changes nothing: for a code that was never given, and for a client whose only grant type no Postiz registers.
    pub fn probe(&self) -> Result<bool, ProbeError> {
        let nobody = Client {
            id: "none".to_owned(),
            verifier: pkce::verifier(),
            redirect_uri: self.redirect_uri.clone(),
        };
        let client = Some(&nobody).filter(|_| !self.has_app());
        match (self.exchange("no-code", client), client) {
            (Ok(_) | Err(PostizError::InvalidGrant), _) => {}
            (Err(PostizError::InvalidClient), Some(_)) => {}
            // One that is too old to register clients wants a client_secret first.
            (Err(PostizError::Failed(what)), Some(_))
                if what.starts_with("Postiz answered 400 {") => {}
            (Err(PostizError::NotPostiz(what)), _) => return Err(ProbeError::NotPostiz(what)),
            (Err(PostizError::Failed(what)), _)
                if what.starts_with("Postiz answered")
                    && !what.starts_with("Postiz answered 5") =>
            {
                return Err(ProbeError::NotPostiz(what));
            }
            (Err(error), _) => return Err(error.into()),
        }
        let (status, answer) = self.ask_to_register(&json!({
            "redirect_uris": [self.redirect_uri],
            "grant_types": ["none"],
            "token_endpoint_auth_method": "none",
        }))?;
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
                    "POST {}/oauth/register is answered {status}",
                    self.api_url
                ))
                .into());
            }
        };
        Err(PostizError::Unregistered(refused).into())
    }

    /// Status and body of the answer to a request below the API's URL.
    fn post(&self, path: &str, body: &impl Serialize) -> Result<(u16, Vec<u8>), PostizError> {
        let url = format!("{}{path}", self.api_url);
        let body =
            serde_json::to_vec(body).map_err(|error| PostizError::Failed(error.to_string()))?;
        // The HTTP client looks names up in a thread, and panics where it gets none.
        let posted = catch_unwind(AssertUnwindSafe(|| self.send(&url, &body)));
        let no_thread = |_| Err(PostizError::Failed("no answer: out of threads".to_owned()));
        posted.unwrap_or_else(no_thread)
    }

    fn send(&self, url: &str, body: &[u8]) -> Result<(u16, Vec<u8>), PostizError> {
        let sent = self
            .agent
            .post(url)
            .header("content-type", "application/json")
            .send(body);
        let failed = |error| no_answer(url, error, self.timeout);
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
        self.check_proxy(url, status, &body)?;
        Ok((status, body))
    }

    /// An error where the answer is that of a proxy that refuses.
    fn check_proxy(&self, url: &str, status: u16, body: &[u8]) -> Result<(), PostizError> {
        let Ok(uri) = url.parse::<Uri>() else {
            return Ok(());
        };
        let is_json = serde_json::from_slice::<Value>(body).is_ok();
        match http_client::refused_by_proxy(&self.proxies, &uri, status, is_json) {
            Some(refusal) => Err(PostizError::Failed(format!(
                "no answer from {uri}: {refusal}"
            ))),
            None => Ok(()),
        }
    }
}

/// An upstream that is broken may echo what it was sent, and its words end up in the log.
fn without(secrets: &[Option<&str>], error: PostizError) -> PostizError {
    let masked = |text: String| {
        let mask = |text: String, secret: &&str| text.replace(secret, MASK);
        mask_what_looks_secret(&secrets.iter().flatten().fold(text, mask))
    };
    match error {
        PostizError::Failed(text) => PostizError::Failed(masked(text)),
        PostizError::NotPostiz(text) => PostizError::NotPostiz(masked(text)),
        error => error,
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
fn understand(status: u16, body: &[u8]) -> Result<Grant, PostizError> {
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
            // An error's body holds no token.
            _ => failed(&format!("{answer}")),
        });
    }
    match answer["access_token"].as_str() {
        Some(token) if token.starts_with(RELAYED[1]) => Err(PostizError::Relayed),
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

/// Where a redirect leads, without the query: scheme, host and path.
fn redirect_target(answer: &ureq::http::Response<ureq::Body>) -> Option<String> {
    let location = answer.headers().get("location")?;
    let location = location.to_str().unwrap_or("an address that is no text");
    let end = location.find(['?', '#']).unwrap_or(location.len());
    (answer.status().is_redirection()).then(|| location[..end].to_owned())
}

fn no_answer(url: &str, error: ureq::Error, timeout: Duration) -> PostizError {
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
    fn the_return_url_is_the_whole_url_once() {
        let config = Config::from_vars([
            ("POSTIZ_FRONTEND_URL", "https://p.example/x"),
            ("POSTIZ_OAUTH_CLIENT_ID", "a b&c"),
            ("POSTIZ_OAUTH_CLIENT_SECRET", "s"),
        ]);
        let server_url = BaseUrl::parse("https://auth.example").unwrap();
        let postiz = Postiz::new(&config.unwrap(), &server_url);
        let client = Client {
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
