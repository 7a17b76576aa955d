//! `GET /device/callback`: Postiz sends the browser back, with a code or an error (RFC 6749 §4.1.2).

use crate::server::codes::{BrowserKey, State};
use crate::server::flow::Callback;
use crate::server::http::App;
use crate::server::http::reply::Reply;
use crate::server::http::request::{Params, Request};
use crate::server::http::verify::browser_key;
use crate::server::pages::Page;
use crate::server::postiz::ExchangeError;
use crate::server::store::StoreError;

/// Takes the browser back.
pub(super) fn receive(app: &App, request: &Request) -> Reply {
    // HEAD must be safe (RFC 9110 §9.2.1): a link checker must not spend the code.
    if request.method == "HEAD" {
        return app.page(400, &Page::SessionLost);
    }
    let params = Params::parse(request.query.as_bytes()).unwrap_or_default();
    let given = |name| params.single(name).ok().flatten();
    let (Some(state), Some(browser)) = (
        given("state").and_then(State::parse),
        browser_key(app, request),
    ) else {
        return app.page(400, &Page::SessionLost);
    };
    match came_back(app, &state, &browser, given("code"), given("error")) {
        Ok(callback) => reply(app, &callback),
        Err(error) => app.store_failed_page(&error),
    }
}

fn came_back(
    app: &App,
    state: &State,
    browser: &BrowserKey,
    code: Option<&str>,
    error: Option<&str>,
) -> Result<Callback, StoreError> {
    match (error, code) {
        (Some(error), _) => app.flow.callback_error(state, browser, error),
        (None, Some(code)) => app.flow.callback_code(state, browser, code),
        (None, None) => Ok(Callback::Unknown),
    }
}

/// The query's own words are never shown: a stranger could put any text under this server's name.
fn reply(app: &App, callback: &Callback) -> Reply {
    let (status, page) = match callback {
        Callback::SignedIn => (200, Page::SignedIn),
        Callback::Refused => (400, Page::Refused),
        Callback::Unknown => (400, Page::SessionLost),
        Callback::AuthorizationFailed => (502, Page::AuthorizationFailed),
        Callback::ExchangeFailed(ExchangeError::InvalidGrant) => (502, Page::ExchangeRefused),
        Callback::ExchangeFailed(ExchangeError::InvalidClient) => (502, Page::ServerMisconfigured),
        Callback::ExchangeFailed(ExchangeError::TimedOut) => (504, Page::PostizUnreachable),
        Callback::ExchangeFailed(ExchangeError::Failed(_)) => (502, Page::PostizUnreachable),
    };
    app.page(status, &page)
}
