//! The table of routes: which request goes to which handler.

use std::time::Duration;

use crate::server::http::reply::Reply;
use crate::server::http::request::Request;
use crate::server::http::{App, callback, device_code, service, token, verify};
use crate::server::store::StoreError;

const METADATA: &str = "/.well-known/oauth-authorization-server";

/// The answer to `request`, with the name of its route for the log: never the path itself, which may hold anything.
pub(super) fn answer(app: &App, request: &Request) -> (&'static str, Reply) {
    let path = local_path(app, &request.path);
    // HEAD is GET without the body (RFC 9110 §9.3.2), which tiny_http leaves away.
    let method = if request.method == "HEAD" {
        "GET"
    } else {
        request.method.as_str()
    };
    match (method, path) {
        ("POST", "/device/code") => ("/device/code", device_code::start_one(app, request)),
        ("POST", "/device/token") => ("/device/token", token::poll(app, request)),
        ("GET", "/device/verify") => ("/device/verify", verify::show(app, request)),
        ("POST", "/device/verify") => ("/device/verify", verify::submit(app, request)),
        ("GET", "/device/callback") => ("/device/callback", callback::receive(app, request)),
        ("GET", "/health") => ("/health", service::health()),
        ("GET", "/ready") => ("/ready", service::ready(app)),
        ("GET", METADATA) => (METADATA, service::metadata(app)),
        ("GET", "/") => (
            "/",
            Reply::redirect(&format!("{}/device/verify", app.server_url.path())),
        ),
        (_, "/device/code") => ("/device/code", method_not_allowed("POST")),
        (_, "/device/token") => ("/device/token", method_not_allowed("POST")),
        (_, "/device/verify") => ("/device/verify", method_not_allowed("GET, HEAD, POST")),
        (_, "/device/callback") => ("/device/callback", method_not_allowed("GET, HEAD")),
        (_, "/health") => ("/health", method_not_allowed("GET, HEAD")),
        (_, "/ready") => ("/ready", method_not_allowed("GET, HEAD")),
        (_, METADATA) => (METADATA, method_not_allowed("GET, HEAD")),
        (_, "/") => ("/", method_not_allowed("GET, HEAD")),
        _ => ("none", not_found(app, request)),
    }
}

/// How a request is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Right away: it needs nothing but this process.
    AtOnce,
    /// With all others of its kind that wait at this moment: one statement answers them all.
    Together(Kind),
    /// In a thread of its own: it may take a while, and others must not wait for that.
    Aside,
}

/// The requests of programs, which may come in crowds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `POST /device/code`.
    Start,
    /// `POST /device/token`.
    Poll,
}

/// How to serve `request`.
pub(super) fn manner(app: &App, request: &Request) -> Manner {
    match (request.method.as_str(), local_path(app, &request.path)) {
        ("POST", "/device/code") => Manner::Together(Kind::Start),
        ("POST", "/device/token") => Manner::Together(Kind::Poll),
        (_, "/device/verify" | "/device/callback" | "/ready") => Manner::Aside,
        _ => Manner::AtOnce,
    }
}

/// Answers requests of one kind together, in order. `None` where one is to be answered by itself.
pub(super) fn answer_together(app: &App, kind: Kind, requests: &[Request]) -> Vec<Option<Reply>> {
    match kind {
        Kind::Start => device_code::start(app, requests)
            .into_iter()
            .map(Some)
            .collect(),
        Kind::Poll => token::look(app, requests),
    }
}

impl Kind {
    /// Its name for the log.
    pub(super) fn route(self) -> &'static str {
        match self {
            Kind::Start => "/device/code",
            Kind::Poll => "/device/token",
        }
    }
}

/// Does this request wait for Postiz?
pub(super) fn is_callback(app: &App, path: &str) -> bool {
    local_path(app, path) == "/device/callback"
}

/// How long a handler may take before its client is answered in its place. Readiness is promised within 2 s; a callback waits
/// for Postiz, and for a store that was away; all else may have to wait for its turn to write to a busy disk, and is no
/// sooner told that the store does not answer.
pub(super) fn patience(app: &App, path: &str) -> Duration {
    Duration::from_secs(match local_path(app, path) {
        "/ready" => 2,
        "/device/callback" => 43,
        _ => 5,
    })
}

/// The answer to a request that cannot be served now, and why not.
pub(super) fn unavailable(app: &App, path: &str, why: &str) -> Reply {
    let error = StoreError::Unavailable(why.to_owned());
    match local_path(app, path) {
        "/ready" => service::unavailable(),
        "/device/verify" | "/device/callback" => app.store_failed_page(&error),
        _ => app.store_failed(&error),
    }
}

/// `path` without SERVER_URL's own: a proxy in front may strip it or not.
fn local_path<'a>(app: &App, path: &'a str) -> &'a str {
    let base = app.server_url.path();
    if base.is_empty() {
        return path;
    }
    // RFC 8414 §3.1: the well-known part goes between the host and the path.
    if path.strip_prefix(METADATA) == Some(base) {
        return METADATA;
    }
    match path.strip_prefix(base) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

fn method_not_allowed(allow: &'static str) -> Reply {
    Reply::plain_error(405, "method_not_allowed").with("Allow", allow)
}

/// JSON for programs, as the contract says; a browser that got lost gets a page.
fn not_found(app: &App, request: &Request) -> Reply {
    let wants_html = request
        .header("accept")
        .is_some_and(|accept| accept.contains("text/html"));
    match wants_html {
        true => app.page(404, &crate::server::pages::Page::NotFound),
        false => Reply::plain_error(404, "not_found"),
    }
}
