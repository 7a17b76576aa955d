//! `GET /device/callback`: Postiz sends the browser back, with a code or an error (RFC 6749 §4.1.2).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::server::codes::State;
use crate::server::flow::{Callback, Returning};
use crate::server::http::reply::Reply;
use crate::server::http::request::{Params, Request};
use crate::server::http::verify::{browser_key, old_browser_key};
use crate::server::http::{App, whole_seconds};
use crate::server::pages::Page;
use crate::server::postiz::ExchangeError;
use crate::server::store::StoreError;

/// Exchanges at once, each waiting for Postiz in its connection's thread: there must be room for others.
const EXCHANGES_MAX: u32 = 128;

/// Takes the browser back.
pub(super) fn receive(app: &App, request: &Request) -> Reply {
    // HEAD must be safe (RFC 9110 §9.2.1): a link checker must not spend the code.
    if request.method == "HEAD" {
        return app.page(400, &Page::SessionLost);
    }
    let params = Params::parse(request.query.as_bytes()).unwrap_or_default();
    let Some(from) = returning(app, request, &params) else {
        return app.page(400, &Page::SessionLost);
    };
    // Charged here, since an image on another site's page comes without the cookie.
    if let Err(wait) = app.callbacks.take(request.client, Instant::now()) {
        let retry_after_s = whole_seconds(wait);
        return app
            .page(429, &Page::TooManyCallbacks { retry_after_s })
            .with("Retry-After", retry_after_s);
    }
    match came_back(app, &from, params.given("code"), params.given("error")) {
        Ok(callback) => reply(app, &callback),
        Err(error) => app.store_failed_page(&error),
    }
}

/// Who comes back: nobody without a `state` and the cookie that was set here.
fn returning(app: &App, request: &Request, params: &Params) -> Option<Returning> {
    let state = params.given("state").and_then(State::parse)?;
    let current = browser_key(app, request);
    let has_old_cookie = current.is_none();
    Some(Returning {
        state,
        browser: current.or_else(|| old_browser_key(app, request))?,
        has_old_cookie,
    })
}

fn came_back(
    app: &App,
    from: &Returning,
    code: Option<&str>,
    error: Option<&str>,
) -> Result<Callback, StoreError> {
    match (error, code) {
        (Some(error), _) => app.flow.callback_error(from, error),
        (None, Some(code)) => match Exchanging::begin(&app.exchanges) {
            Some(_exchanging) => app.flow.callback_code(from, code),
            None => Ok(Callback::Busy),
        },
        (None, None) => Ok(Callback::Unknown),
    }
}

/// The query's own words are never shown: a stranger could put any text under this server's name.
fn reply(app: &App, callback: &Callback) -> Reply {
    let (status, page) = match callback {
        Callback::SignedIn => (200, Page::SignedIn),
        Callback::Busy => (200, Page::Finishing),
        Callback::Refused => (400, Page::Refused),
        Callback::Unknown => (400, Page::SessionLost),
        Callback::Over => (400, Page::LoginOver),
        Callback::AuthorizationFailed => (502, Page::AuthorizationFailed),
        Callback::ExchangeFailed(ExchangeError::InvalidGrant) => (502, Page::ExchangeRefused),
        Callback::ExchangeFailed(ExchangeError::InvalidClient) => (502, Page::ServerMisconfigured),
        Callback::ExchangeFailed(ExchangeError::TimedOut) => (504, Page::PostizUnreachable),
        Callback::ExchangeFailed(ExchangeError::Failed(_)) => (502, Page::PostizUnreachable),
    };
    app.page(status, &page)
}

/// One of [`EXCHANGES_MAX`], until it is dropped.
struct Exchanging<'a>(&'a AtomicU32);

impl Exchanging<'_> {
    fn begin(count: &AtomicU32) -> Option<Exchanging<'_>> {
        let (before, exchanging) = (count.fetch_add(1, Ordering::AcqRel), Exchanging(count));
        (before < EXCHANGES_MAX).then_some(exchanging)
    }
}

impl Drop for Exchanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
