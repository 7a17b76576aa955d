//! The requests of a direct login to Postiz: it registers a client (RFC 7591), builds the consent page's address, and
//! exchanges the code with PKCE (RFC 6749 §4.1, RFC 7636). direct.rs calls these in order.

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::credentials::{Stored, is_organization_id, is_sendable, is_token};
use crate::cli::error::{CliError, RUN_AGAIN};
use crate::cli::http::{Answer, Http};
use crate::shared::base_url::BaseUrl;
use crate::shared::percent;
use crate::shared::pkce;
use crate::shared::secret::Secret;
use crate::shared::text::printable_cut;

/// A Postiz: its API, and its pages.
pub(super) struct Postiz {
    http: Http,
    pub(super) api_url: BaseUrl,
    frontend_url: BaseUrl,
}

/// The authorization request of one login (RFC 6749 §4.1.1), and the verifier of its exchange.
pub(super) struct LoginRequest {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) state: String,
    pub(super) verifier: Secret<String>,
}

impl Postiz {
    pub(super) fn connect(
        api_url: BaseUrl,
        frontend_url: BaseUrl,
        context: &mut Context,
    ) -> Result<Postiz, CliError> {
        Ok(Postiz {
            http: Http::connect(&api_url, context)?,
            api_url,
            frontend_url,
        })
    }

    /// Registers a public client with this one callback: its ID.
    pub(super) fn register(&self, name: &str, redirect_uri: &str) -> Result<String, CliError> {
        let answer = self.post(
            "/oauth/register",
            &json!({
                "redirect_uris": [redirect_uri],
                "client_name": name,
                "token_endpoint_auth_method": "none",
            }),
        )?;
        let body = answer.json_object();
        match body["client_id"].as_str() {
            Some(id) if answer.is_success() && is_client_id(id) => Ok(id.to_owned()),
            _ => Err(self.registration_error(&answer, &body)),
        }
    }

    fn registration_error(&self, answer: &Answer, body: &Value) -> CliError {
        let api_url = &self.api_url;
        let refused = |how: &str| {
            let reason = reason_in(body);
            CliError::failed(format!("the Postiz at {api_url} {how}: {reason}"))
                .word("registration_refused")
                .hint(WAYS)
        };
        match (answer.status, body["error"].as_str()) {
            (404, _) if !body.is_null() => CliError::failed(format!(
                "the Postiz at {api_url} is too old to sign in to directly: that came after v2.23.0"
            ))
            .word("too_old")
            .hint(WAYS),
            (400, Some("invalid_redirect_uri")) => {
                refused("takes no login from this machine (DCR_VERIFIED_DOMAINS is set there)")
            }
            (400..=499, Some(_)) => refused("refused to register this machine"),
            _ => self.unexpected(answer),
        }
    }

    /// Does Postiz still know this client? A token request with a code that was never issued tells, and changes nothing.
    pub(super) fn knows(&self, client_id: &str) -> Result<bool, CliError> {
        let answer = self.post(
            "/oauth/token",
            &json!({"grant_type": "authorization_code", "code": "none", "client_id": client_id}),
        )?;
        Ok(answer.json_object()["error"] == "invalid_grant")
    }

    /// The address of the consent page (RFC 6749 §4.1.1). `returnUrl` leads back to it after a sign-in, for which Postiz keeps
    /// the query alone.
    pub(super) fn consent_url(&self, request: &LoginRequest) -> String {
        let encoded = percent::encode;
        let url = format!(
            "{}/oauth/authorize?client_id={}&response_type=code&state={}&redirect_uri={}&code_challenge={}\
             &code_challenge_method=S256",
            self.frontend_url,
            encoded(&request.client_id),
            encoded(&request.state),
            encoded(&request.redirect_uri),
            pkce::challenge(&request.verifier),
        );
        let return_url = encoded(&url);
        format!("{url}&returnUrl={return_url}")
    }

    /// Exchanges an authorization code for the login (RFC 6749 §4.1.3).
    pub(super) fn exchange(
        &self,
        code: &Secret<String>,
        request: &LoginRequest,
    ) -> Result<Stored, CliError> {
        if code.expose().starts_with(RELAYED_CODE) {
            return Err(relayed());
        }
        let answer = self.post(
            "/oauth/token",
            &json!({
                "grant_type": "authorization_code",
                "code": code.expose(),
                "client_id": request.client_id,
                "code_verifier": request.verifier.expose(),
                "redirect_uri": request.redirect_uri,
            }),
        )?;
        let body = answer.json_object();
        if !answer.is_success() {
            return Err(self.exchange_error(&answer, &body));
        }
        match body["access_token"].as_str() {
            Some(token) if token.starts_with(RELAYED_TOKEN) => Err(relayed()),
            Some(token) if is_token(token) => Ok(Stored {
                access_token: Secret::new(token.to_owned()),
                api_url: Some(self.api_url.to_string()),
                organization_id: body.get("id").filter(|id| is_organization_id(id)).cloned(),
            }),
            _ => Err(CliError::failed(
                "Postiz said the login is done, but sent no usable access token",
            )
            .word("no_token")
            .hint(RUN_AGAIN)),
        }
    }

    fn exchange_error(&self, answer: &Answer, body: &Value) -> CliError {
        match body["error"].as_str() {
            Some("invalid_client") => {
                CliError::failed("Postiz does not know this machine's client any more")
                    .word("invalid_client")
                    .hint("run `postiz auth:login --direct --new-client`")
            }
            Some(error) if answer.status < 500 => CliError::failed(format!(
                "Postiz refused the code that it gave: {}",
                reason_in(body)
            ))
            .word(printable_cut(error, 100))
            .hint(RUN_AGAIN),
            _ => self.unexpected(answer),
        }
    }

    fn post(&self, path: &str, body: &Value) -> Result<Answer, CliError> {
        let api_url = &self.api_url;
        let sent = self
            .http
            .post(&format!("{api_url}{path}"), &body.to_string());
        sent.map_err(|no_answer| {
            let hint = "check the network, and POSTIZ_API_URL";
            no_answer.error(format!("Postiz at {api_url}"), hint)
        })
    }

    /// The error for an answer that is not Postiz' own: Postiz fails, or the address is something else's.
    fn unexpected(&self, answer: &Answer) -> CliError {
        let (api_url, status) = (&self.api_url, answer.status);
        if answer.is_unavailable() {
            return answer.unavailable(format!("the Postiz at {api_url}"));
        }
        CliError::failed(format!(
            "{api_url} does not look like Postiz' API: it answered HTTP {status}"
        ))
        .word("not_postiz")
        .hint("check POSTIZ_API_URL: a self-hosted Postiz usually wants https://host/api")
    }
}

/// The error for a code or token that the cloud relays from a self-hosted Postiz, which the user chose on the consent page.
fn relayed() -> CliError {
    CliError::failed("a self-hosted instance was chosen on the consent page: such a login works for MCP alone, not here")
        .word("self_hosted_relay")
        .hint(
            "run `postiz auth:login` again and allow it there without choosing one; for a Postiz of your own, set POSTIZ_API_URL to \
             its https://host/api",
        )
}

/// The reason in an error: `error_description`, else `message`, and the error's code.
fn reason_in(body: &Value) -> String {
    let error = printable_cut(body["error"].as_str().unwrap_or_default(), 100);
    let message = match (&body["error_description"], &body["message"]) {
        (Value::String(text), _) | (_, Value::String(text)) => text.clone(),
        (_, Value::Array(list)) => {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            texts.join("; ")
        }
        _ => return error,
    };
    format!("{} ({error})", printable_cut(&message, 300))
}

fn is_client_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= ID_BYTES_MAX && is_sendable(id)
}

/// The prefixes of codes and tokens that the cloud relays from a self-hosted Postiz.
const RELAYED_CODE: &str = "psc_";
const RELAYED_TOKEN: &str = "psh_";

/// Longest client ID: longer than any of Postiz.
const ID_BYTES_MAX: usize = 256;

/// The hint where direct login is impossible.
pub(super) const WAYS: &str = "three ways work: a Postiz newer than v2.23.0 and a browser on this machine; \
    `postiz auth:login --auth-server URL` with an auth server for your Postiz; or POSTIZ_API_KEY set to a key from Settings > Public API";
