//! How Postiz signs people in and lets apps act for them: sign-in, consent page, token endpoint.
//! Told from its source: its codes live 10 minutes and work once, and it keeps one authorization for each person and app.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use postiz::shared::random;
use serde_json::{Value, json};

use super::http::{Request, Response};

/// How long an authorization code can be exchanged.
const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// Holds the name of the person who is signed in.
const COOKIE: &str = "auth";

/// The one OAuth app of this Postiz, and who lets it act for them.
pub struct OAuth {
    /// Public name of the app.
    pub client_id: String,
    /// What the app proves itself with.
    pub client_secret: String,
    /// Where browsers are sent after the consent page: the registered address, whatever a request says.
    pub callback_url: Mutex<String>,
    /// By person: consent overwrites what was there, as Postiz does.
    authorizations: Mutex<HashMap<String, Authorization>>,
}

/// What one person has allowed.
struct Authorization {
    code: Option<(String, Instant)>,
    access_token: Option<String>,
}

impl OAuth {
    /// An app that nobody has allowed anything yet.
    pub fn new(client_id: &str, client_secret: &str) -> OAuth {
        OAuth {
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            callback_url: Mutex::default(),
            authorizations: Mutex::default(),
        }
    }

    /// Who holds this access token?
    pub fn person_of(&self, access_token: &str) -> Option<String> {
        let all = self.authorizations.lock().expect("no handler panics");
        let holds = |a: &Authorization| a.access_token.as_deref() == Some(access_token);
        all.iter().find(|(_, a)| holds(a)).map(|(p, _)| p.clone())
    }

    /// `GET /oauth/authorize`: asks whether the app may act for the person. Somebody who is signed out is sent to the
    /// sign-in with the query but without the path: this page is lost to them unless `returnUrl` says it again.
    pub fn consent_page(&self, request: &Request) -> Response {
        let Some(person) = request.cookie(COOKIE) else {
            let query = request.target.split_once('?').map_or("", |(_, q)| q);
            return Response::redirect(302, &format!("/auth?{query}"));
        };
        if request.query("client_id").as_deref() != Some(&self.client_id) {
            return Response::html(400, page("Invalid client_id", ""));
        }
        let state = escape(&request.query("state").unwrap_or_default());
        let (person, client_id) = (escape(person), &self.client_id);
        let body = format!(
            "<p>Postiz CLI wants to act for <b>{person}</b>.</p>\
             <form method=\"post\" action=\"/oauth/authorize\">\
             <input type=\"hidden\" name=\"client_id\" value=\"{client_id}\">\
             <input type=\"hidden\" name=\"state\" value=\"{state}\">\
             <button name=\"action\" value=\"approve\">Authorize</button> \
             <button name=\"action\" value=\"deny\">Deny</button></form>"
        );
        Response::html(200, page("Authorize Postiz CLI?", &body))
    }

    /// `POST /oauth/authorize`: sends the browser back to the app with a code, or with a denial.
    pub fn decide(&self, request: &Request) -> Response {
        let Some(person) = request.cookie(COOKIE) else {
            return Response::redirect(302, "/auth");
        };
        if request.form("client_id").as_deref() != Some(&self.client_id) {
            return Response::html(400, page("Invalid client_id", ""));
        }
        let outcome = match request.form("action").as_deref() {
            Some("deny") => "error=access_denied".to_owned(),
            _ => format!("code={}", self.consent(person)),
        };
        let mut url = self.callback_url.lock().expect("no handler panics").clone();
        url += if url.contains('?') { "&" } else { "?" };
        url += &outcome;
        if let Some(state) = request.form("state").filter(|s| !s.is_empty()) {
            url += &format!("&state={}", encode(&state));
        }
        Response::redirect(302, &url)
    }

    /// A fresh code for `person`, whose earlier code and token end here.
    pub fn consent(&self, person: &str) -> String {
        let code = secure_id(32);
        let authorization = Authorization {
            code: Some((code.clone(), Instant::now() + CODE_LIFETIME)),
            access_token: None,
        };
        let mut all = self.authorizations.lock().expect("no handler panics");
        all.insert(person.to_owned(), authorization);
        code
    }

    /// The token for a code, without an app that asks for it.
    pub fn token_for_code(&self, code: &str) -> String {
        let answer: Value =
            serde_json::from_slice(&self.redeem(code).body).expect("it was written as JSON");
        let token = answer["access_token"].as_str();
        token.expect("the code is fresh").to_owned()
    }

    /// `POST /oauth/token`: a token for a code. Its checks come in Postiz' order.
    pub fn exchange(&self, request: &Request) -> Response {
        let body = request.json();
        let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let required = ["grant_type", "code", "client_id", "client_secret"];
        if let Some(name) = required.iter().find(|n| !body[**n].is_string()) {
            let message = format!("{name} must be a string");
            let error = json!({"statusCode": 400, "message": [message], "error": "Bad Request"});
            return Response::json(400, &error);
        }
        if field("grant_type") != "authorization_code" {
            return Response::json(400, &json!({"error": "unsupported_grant_type"}));
        }
        let app = (self.client_id.clone(), self.client_secret.clone());
        if (field("client_id"), field("client_secret")) != app {
            return Response::json(401, &json!({"error": "invalid_client"}));
        }
        self.redeem(&field("code"))
    }

    fn redeem(&self, code: &str) -> Response {
        let mut all = self.authorizations.lock().expect("no handler panics");
        let holds = |a: &Authorization| a.code.as_ref().is_some_and(|(c, _)| c == code);
        let Some((person, authorization)) = all.iter_mut().find(|(_, a)| holds(a)) else {
            return Response::json(400, &json!({"error": "invalid_grant"}));
        };
        let expires = authorization.code.as_ref().map(|(_, at)| *at);
        if expires < Some(Instant::now()) {
            let error = json!({"error": "invalid_grant", "error_description": "Code has expired"});
            return Response::json(400, &error);
        }
        let token = format!("pos_{}", secure_id(40));
        authorization.code = None;
        authorization.access_token = Some(token.clone());
        let answer = json!({
            "id": organization_of(person), "cus": null, "access_token": token,
            "token_type": "bearer", "scope": "mcp:read mcp:write",
        });
        Response::json(201, &answer)
    }
}

/// The organisation that a person works for: here everybody has their own.
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

/// `POST /auth`: signs the person in and goes to `returnUrl`, or to the home page.
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

fn secure_id(letters: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..letters)
        .map(|_| char::from(random::letter(alphabet)))
        .collect()
}
