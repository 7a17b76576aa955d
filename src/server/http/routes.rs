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
        ("POST", "/device/code") => ("/device/code", device_code::start(app, request)),
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

/// May this request take as long as Postiz does? Then it must not hold a worker that polls need.
pub(super) fn may_be_slow(app: &App, path: &str) -> bool {
    local_path(app, path) == "/device/callback"
}

/// How long a handler may take before its client is answered in its place. Readiness is promised within 2 s; all else may
/// have to wait for its turn to write to a busy disk, and is no sooner told that the store does not answer.
pub(super) fn patience(app: &App, path: &str) -> Duration {
    Duration::from_secs(match local_path(app, path) {
        "/ready" => 2,
        _ => 5,
    })
}

/// The answer to a request whose handler hangs: the store does not answer.
pub(super) fn overdue(app: &App, path: &str) -> Reply {
    let hangs = StoreError::Unavailable("it does not answer".to_owned());
    match local_path(app, path) {
        "/ready" => service::unavailable(),
        "/device/verify" => app.store_failed_page(&hangs),
        _ => app.store_failed(&hangs),
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
