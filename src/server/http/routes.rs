//! The table of routes. 404, 405, OPTIONS, timeouts and the form of errors follow from it.

use std::time::Duration;

use crate::server::http::app::{App, Cause, Handled};
use crate::server::http::reply::Reply;
use crate::server::http::request::Request;
use crate::server::http::{callback, device_code, service, token, verify};
use crate::server::pages::{Page, texts};
use crate::server::times::Times;

pub(crate) struct Route {
    method: &'static str,
    path: &'static str,
    handler: fn(&App, &Request) -> Handled,
    timeout: Timeout,
    audience: Audience,
}

/// A route's timeout, as one of the server's times.
type Timeout = fn(&Times) -> Duration;

/// Who sends requests to a route, which decides the form of its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// A client of the device flow.
    Program,
    /// A browser.
    Person,
    /// A load balancer or container engine.
    Monitor,
}

const VERIFY: &str = "/device/verify";
const METADATA: &str = "/.well-known/oauth-authorization-server";

const HANDLER: Timeout = |times| times.handler;
const MONITOR: Timeout = |times| times.monitor_handler;
const CALLBACK: Timeout = |times| times.callback_handler;

/// The table. The watchdog answers for a handler that exceeds its timeout.
const ROUTES: [Route; 9] = {
    use Audience::{Monitor, Person, Program};
    [
        row("POST", "/device/code", device_code::start, HANDLER, Program),
        row("POST", "/device/token", token::poll, HANDLER, Program),
        row("GET", VERIFY, verify::show, HANDLER, Person),
        row("POST", VERIFY, verify::submit, HANDLER, Person),
        row(
            "GET",
            "/device/callback",
            callback::receive,
            CALLBACK,
            Person,
        ),
        row("GET", "/health", service::health, MONITOR, Monitor),
        row("GET", "/ready", service::ready, MONITOR, Monitor),
        row("GET", METADATA, service::metadata, HANDLER, Program),
        row("GET", "/", service::home, HANDLER, Person),
    ]
};

const fn row(
    method: &'static str,
    path: &'static str,
    handler: fn(&App, &Request) -> Handled,
    timeout: Timeout,
    audience: Audience,
) -> Route {
    Route {
        method,
        path,
        handler,
        timeout,
        audience,
    }
}

/// A request's route.
#[derive(Clone, Copy)]
pub(crate) enum Routed {
    Row(&'static Route),
    /// OPTIONS on this path.
    Options(&'static str),
    /// Another method than this path's.
    WrongMethod(&'static str),
    /// This path, with surplus slashes.
    SurplusSlashes(&'static str),
    Nothing,
}

impl Routed {
    pub(crate) fn of(app: &App, request: &Request) -> Routed {
        // HEAD is GET without the body (RFC 9110 §9.3.2), which the writer leaves out.
        let method = match request.method.as_str() {
            "HEAD" => "GET",
            method => method,
        };
        let path = local_path(app, &request.path);
        let mut rows = ROUTES.iter().filter(|route| route.path == path);
        let same_method = rows.clone().find(|route| route.method == method);
        match same_method.or_else(|| rows.next()) {
            Some(row) if row.method == method => Routed::Row(row),
            Some(row) if method == "OPTIONS" => Routed::Options(row.path),
            Some(row) => Routed::WrongMethod(row.path),
            None if method == "GET" => match known_without_slashes(app, &request.path) {
                Some(path) => Routed::SurplusSlashes(path),
                None => Routed::Nothing,
            },
            None => Routed::Nothing,
        }
    }

    pub(super) fn handle(&self, app: &App, request: &Request) -> Handled {
        Ok(match *self {
            Routed::Row(row) => return (row.handler)(app, request),
            Routed::Options(path) => Reply::no_content().with("Allow", allow(path)),
            Routed::WrongMethod(path) => {
                Reply::plain_error(405, "method_not_allowed").with("Allow", allow(path))
            }
            Routed::SurplusSlashes(path) => {
                let query = match request.query.as_str() {
                    "" => String::new(),
                    query => format!("?{query}"),
                };
                Reply::redirect(308, &format!("{}{path}{query}", app.server_url.path()))
            }
            Routed::Nothing => not_found(app, request),
        })
    }

    /// The route's name for the log and the metrics: a path of the table, not the request's, which may hold anything.
    pub(super) fn name(&self) -> &'static str {
        match *self {
            Routed::Row(row) => row.path,
            Routed::Options(path) | Routed::WrongMethod(path) | Routed::SurplusSlashes(path) => {
                path
            }
            Routed::Nothing => "none",
        }
    }

    pub(crate) fn timeout(&self, app: &App) -> Duration {
        let Routed::Row(row) = self else {
            return app.times.handler;
        };
        let timeout = (row.timeout)(&app.times);
        match row.method == "POST" && row.path == VERIFY && !app.flow.has_app() {
            true => timeout + app.times.registration,
            false => timeout,
        }
    }

    pub(super) fn audience(&self) -> Audience {
        match *self {
            Routed::Row(row) => row.audience,
            _ => Audience::Program,
        }
    }
}

/// `path` without SERVER_URL's path, which a proxy may have stripped already.
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

/// The path in the table that `path` is without doubled and trailing slashes.
fn known_without_slashes(app: &App, path: &str) -> Option<&'static str> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let single: String = segments.flat_map(|segment| ["/", segment]).collect();
    let single = if single.is_empty() { "/" } else { &single };
    let local = local_path(app, single);
    let mut paths = ROUTES.iter().map(|route| route.path);
    paths.find(|path| *path == local)
}

/// The methods of a path, as `Allow` lists them.
fn allow(path: &str) -> String {
    let methods = ROUTES.iter().filter(|route| route.path == path);
    let methods = methods.map(|route| match route.method {
        "GET" => "GET, HEAD",
        method => method,
    });
    methods.collect::<Vec<_>>().join(", ")
}

/// 404: a page for browsers, JSON for others.
fn not_found(app: &App, request: &Request) -> Reply {
    match request.accepts_html() {
        true => app.error_page(
            request.id,
            404,
            &Page::Notice(texts::NOT_FOUND),
            Cause::of_request("not_found"),
        ),
        false => Reply::plain_error(404, "not_found"),
    }
}
