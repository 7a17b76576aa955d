//! The OAuth clients: one app that was made by hand, and those that register themselves (RFC 7591), with the checks and errors of
//! Postiz.

use std::sync::Mutex;
use std::time::SystemTime;

use ring::digest;
use serde_json::{Value, json};

use super::api;
use super::http::{Request, Response};
use super::oauth::secure_id;

/// Longest `client_name` in characters.
const NAME_CHARACTERS_MAX: usize = 100;

/// An OAuth client.
#[derive(Clone)]
pub struct Client {
    /// `pca_…` of the hand-made app, `pcd_…` of a registered client.
    pub id: String,
    /// The name on the consent page.
    pub name: String,
    /// `None` for a public client, which uses PKCE instead.
    pub secret: Option<String>,
    /// The allowed callbacks, compared as whole strings.
    pub redirect_uris: Vec<String>,
    /// Has it registered itself? Then `redirect_uri` and PKCE are checked.
    pub registered: bool,
}

/// Who may register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Everyone, with any https or loopback callback: the default of a self-hosted Postiz.
    Open,
    /// `DCR_VERIFIED_DOMAINS`: https callbacks on these domains and their subdomains, and loopback.
    VerifiedDomains(Vec<String>),
    /// The same in the first versions with this setting, which refused loopback.
    VerifiedDomainsAlone(Vec<String>),
    /// No one: a version without registration.
    TooOld,
}

/// All clients.
pub struct Clients {
    all: Mutex<Vec<Client>>,
    registration: Mutex<Registration>,
}

impl Clients {
    /// Only the hand-made app, without a callback.
    pub fn new(id: &str, secret: &str) -> Clients {
        let app = Client {
            id: id.to_owned(),
            name: "Postiz CLI".to_owned(),
            secret: Some(secret.to_owned()),
            redirect_uris: vec![String::new()],
            registered: false,
        };
        Clients {
            all: Mutex::new(vec![app]),
            registration: Mutex::new(Registration::Open),
        }
    }

    /// The client of this id.
    pub fn find(&self, id: &str) -> Option<Client> {
        let all = self.all.lock().expect("no handler panics");
        all.iter().find(|c| c.id == id).cloned()
    }

    /// Changes the callback of the hand-made app.
    pub fn set_callback_url(&self, url: &str) {
        let mut all = self.all.lock().expect("no handler panics");
        all[0].redirect_uris = vec![url.to_owned()];
    }

    /// The registered clients, oldest first.
    pub fn registered(&self) -> Vec<Client> {
        let all = self.all.lock().expect("no handler panics");
        all.iter().filter(|c| c.registered).cloned().collect()
    }

    /// Deletes a registered client, as Postiz does after 30 days without an authorization.
    pub fn forget(&self, id: &str) {
        let mut all = self.all.lock().expect("no handler panics");
        all.retain(|c| !c.registered || c.id != id);
    }

    /// Who may register.
    pub fn registration(&self) -> Registration {
        self.registration.lock().expect("no handler panics").clone()
    }

    /// Changes who may register.
    pub fn set_registration(&self, registration: Registration) {
        *self.registration.lock().expect("no handler panics") = registration;
    }

    /// `POST /oauth/register`.
    pub fn register(&self, request: &Request) -> Response {
        let registration = self.registration();
        if registration == Registration::TooOld {
            return api::not_found(request);
        }
        let body = request.json();
        let wrong = wrong_types(&body);
        if !wrong.is_empty() {
            let error = json!({"statusCode": 400, "message": wrong, "error": "Bad Request"});
            return Response::json(400, &error);
        }
        let redirect_uris: Vec<&str> = texts(&body["redirect_uris"]).map(str::trim).collect();
        let refused = redirect_uris
            .iter()
            .find_map(|uri| registration.refusal_reason(uri));
        if let Some(why) = refused {
            return oauth_error("invalid_redirect_uri", &why);
        }
        let mut grants = texts(&body["grant_types"]).peekable();
        if grants.peek().is_some() && !grants.any(|grant| grant == "authorization_code") {
            return oauth_error(
                "invalid_client_metadata",
                "Only the authorization_code grant type is supported",
            );
        }
        let method = body["token_endpoint_auth_method"].as_str();
        let method = method.unwrap_or("client_secret_post");
        let name = body["client_name"].as_str().unwrap_or_default().trim();
        let client = Client {
            id: format!("pcd_{}", secure_id(32)),
            name: if name.is_empty() { "MCP Client" } else { name }.to_owned(),
            secret: (method != "none").then(|| format!("pcs_{}", secure_id(48))),
            redirect_uris: redirect_uris.iter().map(|&u| u.to_owned()).collect(),
            registered: true,
        };
        self.all
            .lock()
            .expect("no handler panics")
            .push(client.clone());
        Response::json(201, &client.registered_as(method))
    }
}

impl Client {
    /// The answer to the registration.
    fn registered_as(&self, method: &str) -> Value {
        let mut answer = json!({ "client_id": self.id });
        if let Some(secret) = &self.secret {
            answer["client_secret"] = json!(secret);
            answer["client_secret_expires_at"] = json!(0);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        answer["client_id_issued_at"] = json!(now.unwrap_or_default().as_secs());
        answer["client_name"] = json!(self.name);
        answer["redirect_uris"] = json!(self.redirect_uris);
        answer["token_endpoint_auth_method"] = json!(method);
        answer["grant_types"] = json!(["authorization_code"]);
        answer["response_types"] = json!(["code"]);
        answer["scope"] = json!("mcp:read mcp:write");
        answer
    }
}

impl Registration {
    /// The reason to refuse this callback, if there is one.
    fn refusal_reason(&self, uri: &str) -> Option<String> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Some(format!("Invalid redirect_uri: {uri}"));
        };
        let host = host_of(rest);
        let is_loopback = ["localhost", "127.0.0.1", "[::1]"].contains(&host.as_str());
        if scheme != "https" && !(scheme == "http" && is_loopback) {
            return Some(
                "redirect_uris must use https (http is allowed for loopback only)".to_owned(),
            );
        }
        let (domains, loopback) = match self {
            Registration::VerifiedDomains(domains) => (domains, true),
            Registration::VerifiedDomainsAlone(domains) => (domains, false),
            Registration::Open | Registration::TooOld => return None,
        };
        let is_below = |domain: &String| host == *domain || host.ends_with(&format!(".{domain}"));
        let is_verified = domains.iter().any(is_below) || is_loopback && loopback;
        (!is_verified).then(|| format!("redirect_uri host \"{host}\" is not a verified domain"))
    }
}

/// The messages of Postiz' framework about a body whose fields have wrong types.
fn wrong_types(body: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    match &body["redirect_uris"] {
        Value::Array(uris) if uris.is_empty() => {
            wrong.push("redirect_uris should not be empty".to_owned())
        }
        Value::Array(uris) if uris.iter().all(Value::is_string) => {}
        Value::Array(_) => wrong.push("each value in redirect_uris must be a string".to_owned()),
        _ => wrong.push("redirect_uris must be an array".to_owned()),
    }
    match &body["client_name"] {
        Value::Null => {}
        Value::String(name) if name.chars().count() <= NAME_CHARACTERS_MAX => {}
        Value::String(_) => wrong.push(format!(
            "client_name must be shorter than or equal to {NAME_CHARACTERS_MAX} characters"
        )),
        _ => wrong.push("client_name must be a string".to_owned()),
    }
    let methods = ["none", "client_secret_post", "client_secret_basic"];
    match &body["token_endpoint_auth_method"] {
        Value::Null => {}
        Value::String(method) if methods.contains(&method.as_str()) => {}
        _ => wrong.push(format!(
            "token_endpoint_auth_method must be one of the following values: {}",
            methods.join(", ")
        )),
    }
    wrong
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// The host of a URL, given the text after its `://`.
fn host_of(rest: &str) -> String {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    authority[..end].to_ascii_lowercase()
}

fn oauth_error(error: &str, description: &str) -> Response {
    let body = json!({"error": error, "error_description": description});
    Response::json(400, &body)
}

/// The challenge of a verifier (RFC 7636 §4.2).
pub fn s256(verifier: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
    let mut text = String::new();
    for chunk in hash.as_ref().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..=chunk.len() {
            let six = bits >> (18 - 6 * letter) & 63;
            text.push(char::from(LETTERS[six as usize]));
        }
    }
    text
}

/// The text of a `Basic` credential.
pub fn base64_decode(text: &str) -> Option<String> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.trim_end_matches('=').chars() {
        bits = bits << 6 | u32::try_from(LETTERS.find(letter)?).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 255).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}
