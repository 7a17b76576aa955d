//! Postiz' OAuth flow: sign-in, consent page, token endpoint, approved apps. A code is valid for 10 minutes and works once. Each
//! client and person have one authorization. The clients are in `clients.rs`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use postiz::shared::random;
use serde_json::{Value, json};

use super::clients::{Client, Clients, Registration, base64_decode, s256};
use super::http::{Request, Response};

/// Lifetime of an authorization code.
const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// The cookie with the name of the person who is signed in.
const COOKIE: &str = "auth";
/// Parameters that the consent page copies from its query to its form.
const CARRIED: [&str; 5] = [
    "client_id",
    "state",
    "redirect_uri",
    "code_challenge",
    "code_challenge_method",
];

/// All clients and authorizations.
pub struct OAuth {
    /// Hand-made and registered clients.
    pub clients: Clients,
    /// Does the consent page also offer to connect a self-hosted instance, as the cloud's does?
    pub offers_relay: Mutex<bool>,
    /// By client and person: a new consent overwrites the old one, as in Postiz.
    authorizations: Mutex<HashMap<(String, Holder), Authorization>>,
}

/// On whose behalf a client acts.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Holder {
    Person(String),
    /// A self-hosted instance that is connected through this Postiz, identified by its code.
    Instance(String),
}

/// A person's consent for one client.
struct Authorization {
    code: Option<Code>,
    access_token: Option<String>,
}

/// A code, and what its exchange must contain.
struct Code {
    text: String,
    expires: Instant,
    bound: Bound,
}

/// What the authorization request binds its code to; nothing for the hand-made app.
#[derive(Clone, Default)]
struct Bound {
    code_challenge: Option<String>,
    redirect_uri: Option<String>,
}

impl OAuth {
    /// One hand-made app, without authorizations.
    pub fn new(client_id: &str, client_secret: &str) -> OAuth {
        OAuth {
            clients: Clients::new(client_id, client_secret),
            offers_relay: Mutex::default(),
            authorizations: Mutex::default(),
        }
    }

    /// The person of this access token. A self-hosted instance's token has none: it is valid only for MCP.
    pub fn person_of(&self, access_token: &str) -> Option<String> {
        let all = self.authorizations.lock().expect("no handler panics");
        let holds = |a: &Authorization| a.access_token.as_deref() == Some(access_token);
        let ((_, holder), _) = all.iter().find(|(_, a)| holds(a))?;
        match holder {
            Holder::Person(person) => Some(person.clone()),
            Holder::Instance(_) => None,
        }
    }

    /// `GET /oauth/authorize`: the consent page. A person who is signed out is redirected to the sign-in with the query but without
    /// the path, and returns to this page only if `returnUrl` has its path.
    pub fn consent_page(&self, request: &Request) -> Response {
        let Some(person) = request.cookie(COOKIE) else {
            let query = request.target.split_once('?').map_or("", |(_, q)| q);
            return Response::redirect(302, &format!("/auth?{query}"));
        };
        let client = match self.check_request(|name| request.query(name)) {
            Ok((client, _)) => client,
            Err(why) => return Response::html(400, page(why, "")),
        };
        let field = |name: &&str| {
            let value = escape(&request.query(name).filter(|v| !v.is_empty())?);
            Some(format!(
                "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">"
            ))
        };
        let fields: String = CARRIED.iter().filter_map(field).collect();
        let relay = if client.registered && *self.offers_relay.lock().expect("no handler panics") {
            " <button name=\"action\" value=\"self-hosted\">Use a self-hosted instance</button>"
        } else {
            ""
        };
        let (person, name) = (escape(person), escape(&client.name));
        let body = format!(
            "<p>{name} wants to act for <b>{person}</b>.</p>\
             <form method=\"post\" action=\"/oauth/authorize\">{fields}\
             <button name=\"action\" value=\"approve\">Authorize</button> \
             <button name=\"action\" value=\"deny\">Deny</button>{relay}</form>"
        );
        Response::html(200, page(&format!("Authorize {name}?"), &body))
    }

    /// `POST /oauth/authorize`: redirects the browser to the client's callback with a code, or with a denial.
    pub fn decide(&self, request: &Request) -> Response {
        let Some(person) = request.cookie(COOKIE) else {
            return Response::redirect(302, "/auth");
        };
        let (client, bound) = match self.check_request(|name| request.form(name)) {
            Ok(found) => found,
            Err(why) => return Response::html(400, page(why, "")),
        };
        // A hand-made app's callback is fixed, and `redirect_uri` in the request is ignored.
        let mut url = bound
            .redirect_uri
            .clone()
            .unwrap_or_else(|| client.redirect_uris[0].clone());
        let outcome = match request.form("action").as_deref() {
            Some("deny") => "error=access_denied".to_owned(),
            Some("self-hosted") if *self.offers_relay.lock().expect("no handler panics") => {
                let code = format!("psc_{}", secure_id(32));
                self.keep(&client.id, Holder::Instance(code.clone()), &code, bound);
                format!("code={code}")
            }
            _ => {
                let code = secure_id(32);
                self.keep(&client.id, Holder::Person(person.to_owned()), &code, bound);
                format!("code={code}")
            }
        };
        url += if url.contains('?') { "&" } else { "?" };
        url += &outcome;
        if let Some(state) = request.form("state").filter(|s| !s.is_empty()) {
            url += &format!("&state={}", encode(&state));
        }
        Response::redirect(302, &url)
    }

    /// Returns the requesting client, and what its code is bound to. A registered client must name one of its callbacks, and a public
    /// one must use PKCE.
    fn check_request(
        &self,
        value: impl Fn(&str) -> Option<String>,
    ) -> Result<(Client, Bound), &'static str> {
        let value = |name: &str| value(name).filter(|v| !v.is_empty());
        let id = value("client_id").unwrap_or_default();
        let client = self.clients.find(&id).ok_or("Invalid client_id")?;
        if !client.registered {
            return Ok((client, Bound::default()));
        }
        let bound = Bound {
            code_challenge: value("code_challenge"),
            redirect_uri: value("redirect_uri"),
        };
        let is_own = |uri: &String| client.redirect_uris.contains(uri);
        if !bound.redirect_uri.as_ref().is_some_and(is_own) {
            return Err("Invalid redirect_uri");
        }
        if client.secret.is_none() && bound.code_challenge.is_none() {
            return Err("code_challenge is required for this client");
        }
        let method = value("code_challenge_method");
        if bound.code_challenge.is_some() && method.is_some_and(|method| method != "S256") {
            return Err("Only the S256 code_challenge_method is supported");
        }
        Ok((client, bound))
    }

    /// Issues a code of the hand-made app `client_id` for `person`. It invalidates the earlier code and token of both.
    pub fn consent(&self, client_id: &str, person: &str) -> String {
        let code = secure_id(32);
        let holder = Holder::Person(person.to_owned());
        self.keep(client_id, holder, &code, Bound::default());
        code
    }

    fn keep(&self, client_id: &str, holder: Holder, code: &str, bound: Bound) {
        let code = Code {
            text: code.to_owned(),
            expires: Instant::now() + CODE_LIFETIME,
            bound,
        };
        let authorization = Authorization {
            code: Some(code),
            access_token: None,
        };
        let mut all = self.authorizations.lock().expect("no handler panics");
        all.insert((client_id.to_owned(), holder), authorization);
    }

    /// Expires all codes that were issued so far.
    pub fn expire_codes(&self) {
        let mut all = self.authorizations.lock().expect("no handler panics");
        let codes = all.values_mut().filter_map(|a| a.code.as_mut());
        codes.for_each(|code| code.expires = Instant::now());
    }

    /// Exchanges a code of the hand-made app without a request.
    pub fn token_for_code(&self, client_id: &str, code: &str) -> String {
        let answer = self.redeem(client_id, code, None, None);
        let answer: Value = serde_json::from_slice(&answer.body).expect("it was written as JSON");
        let token = answer["access_token"].as_str();
        token.expect("the code is fresh").to_owned()
    }

    /// `POST /oauth/token`: exchanges a code for a token. The checks are in Postiz' order.
    pub fn exchange(&self, request: &Request) -> Response {
        let body = request.json();
        let field = |name: &str| body[name].as_str();
        let mut required = vec!["grant_type", "code", "client_id"];
        if self.clients.registration() == Registration::TooOld {
            required.push("client_secret");
        }
        if let Some(name) = required.iter().find(|n| !body[**n].is_string()) {
            let message = format!("{name} must be a string");
            let error = json!({"statusCode": 400, "message": [message], "error": "Bad Request"});
            return Response::json(400, &error);
        }
        if field("grant_type") != Some("authorization_code") {
            return Response::json(400, &json!({"error": "unsupported_grant_type"}));
        }
        let id = field("client_id").unwrap_or_default();
        let basic = basic_secret(request, id);
        let secret = field("client_secret").or(basic.as_deref());
        let client = self.clients.find(id);
        let known = client.filter(|c| c.secret.is_none() || c.secret.as_deref() == secret);
        if known.is_none() {
            return Response::json(401, &json!({"error": "invalid_client"}));
        }
        let code = field("code").unwrap_or_default();
        self.redeem(id, code, field("code_verifier"), field("redirect_uri"))
    }

    fn redeem(
        &self,
        client_id: &str,
        code: &str,
        verifier: Option<&str>,
        redirect_uri: Option<&str>,
    ) -> Response {
        let mut all = self.authorizations.lock().expect("no handler panics");
        let holds = |a: &Authorization| a.code.as_ref().is_some_and(|c| c.text == code);
        let found = all
            .iter_mut()
            .find(|((client, _), a)| client == client_id && holds(a));
        let Some(((_, holder), authorization)) = found else {
            return Response::json(400, &json!({"error": "invalid_grant"}));
        };
        let refused = authorization
            .code
            .as_ref()
            .and_then(|code| code.refusal_reason(verifier, redirect_uri));
        if let Some(why) = refused {
            let error = json!({"error": "invalid_grant", "error_description": why});
            return Response::json(400, &error);
        }
        let (prefix, mut answer) = match holder {
            Holder::Person(person) => (
                "pos_",
                json!({"id": organization_of(person), "cus": null, "access_token": null}),
            ),
            Holder::Instance(_) => ("psh_", json!({"access_token": null})),
        };
        let token = format!("{prefix}{}", secure_id(40));
        answer["access_token"] = json!(token);
        answer["token_type"] = json!("bearer");
        answer["scope"] = json!("mcp:read mcp:write");
        authorization.code = None;
        authorization.access_token = Some(token);
        Response::json(201, &answer)
    }

    /// Id and name of each client that `person` has authorized, sorted by name, as in Settings > Approved Apps.
    pub fn approved_apps(&self, person: &str) -> Vec<(String, String)> {
        let all = self.authorizations.lock().expect("no handler panics");
        let theirs = |((_, holder), a): &(&(String, Holder), &Authorization)| {
            *holder == Holder::Person(person.to_owned()) && a.access_token.is_some()
        };
        let named =
            |((id, _), _): (&(String, Holder), _)| Some((id.clone(), self.clients.find(id)?.name));
        let mut apps: Vec<_> = all.iter().filter(theirs).filter_map(named).collect();
        apps.sort_by(|a, b| a.1.cmp(&b.1));
        apps
    }

    /// `GET /settings/approved-apps`: the person's authorized clients, with a button to revoke each.
    pub fn approved_apps_page(&self, request: &Request) -> Response {
        let Some(person) = request.cookie(COOKIE) else {
            return Response::redirect(302, "/auth");
        };
        let row = |(id, name): &(String, String)| {
            let name = escape(name);
            format!("<p><button name=\"client_id\" value=\"{id}\">Revoke {name}</button></p>")
        };
        let rows: String = self.approved_apps(person).iter().map(row).collect();
        let body =
            format!("<form method=\"post\" action=\"/settings/approved-apps\">{rows}</form>");
        Response::html(200, page("Approved Apps", &body))
    }

    /// `POST /settings/approved-apps`: revokes the authorization of one client.
    pub fn revoke(&self, request: &Request) -> Response {
        if let (Some(person), Some(client_id)) = (request.cookie(COOKIE), request.form("client_id"))
        {
            let mut all = self.authorizations.lock().expect("no handler panics");
            all.remove(&(client_id, Holder::Person(person.to_owned())));
        }
        Response::redirect(302, "/settings/approved-apps")
    }
}

impl Code {
    /// The reason to refuse an exchange with this code, if there is one.
    fn refusal_reason(
        &self,
        verifier: Option<&str>,
        redirect_uri: Option<&str>,
    ) -> Option<&'static str> {
        if self.expires <= Instant::now() {
            return Some("Code has expired");
        }
        if let Some(challenge) = &self.bound.code_challenge {
            match verifier {
                None | Some("") => return Some("code_verifier is required"),
                Some(verifier) if s256(verifier) != *challenge => {
                    return Some("Invalid code_verifier");
                }
                Some(_) => {}
            }
        }
        if self.bound.redirect_uri.is_some() && self.bound.redirect_uri.as_deref() != redirect_uri {
            return Some("redirect_uri does not match the authorization request");
        }
        None
    }
}

/// The secret in `Authorization: Basic`, if the client id in it is this one.
fn basic_secret(request: &Request, client_id: &str) -> Option<String> {
    let pair = base64_decode(request.header("authorization")?.strip_prefix("Basic ")?)?;
    let (id, secret) = pair.split_once(':')?;
    (id == client_id).then(|| secret.to_owned())
}

/// The organisation of a person. Here each person has one.
pub fn organization_of(person: &str) -> String {
    format!("org-{person}")
}

/// `GET /auth`: the sign-in form.
pub fn sign_in_page(request: &Request) -> Response {
    let return_url = escape(&request.query("returnUrl").unwrap_or_default());
    let body = format!(
        "<form method=\"post\" action=\"/auth\">\
         <input type=\"hidden\" name=\"returnUrl\" value=\"{return_url}\">\
         <label>Name <input name=\"person\" value=\"ada\"></label> \
         <button>Sign in</button></form>"
    );
    Response::html(200, page("Sign in to Postiz", &body))
}

/// `POST /auth`: signs the person in and redirects to `returnUrl`, or to the home page.
pub fn sign_in(request: &Request, own_url: &str) -> Response {
    let person = request.form("person").unwrap_or_default();
    if person.is_empty()
        || !person
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    {
        return Response::html(400, page("That is no name", ""));
    }
    let return_url = request.form("returnUrl").unwrap_or_default();
    let home = format!("{own_url}/");
    let next = if return_url.starts_with(&home) {
        &return_url
    } else {
        &home
    };
    let cookie = format!("{COOKIE}={person}; Path=/; HttpOnly; SameSite=Lax");
    Response::redirect(302, next).with_header("Set-Cookie", &cookie)
}

/// A minimal page.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><h1>{title}</h1>{body}<p><small>This is a stand-in for Postiz.</small></p></html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Random letters and digits, as in Postiz' codes and tokens.
pub fn secure_id(letters: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..letters)
        .map(|_| char::from(random::letter(alphabet)))
        .collect()
}
