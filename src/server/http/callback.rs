//! `GET /device/callback`: Postiz sends the browser back, with a code or an error (RFC 6749 §4.1.2).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::server::codes::State;
use crate::server::flow::{Callback, Returning};
use crate::server::http::reply::Reply;
use crate::server::http::request::{Params, Request};
use crate::server::http::verify::{browser_key, old_browser_key, too_many_sign_ins};
use crate::server::http::{App, Handled};
use crate::server::pages::Page;
use crate::server::postiz::PostizError;
use crate::server::store::StoreError;

/// Requests at once that wait for Postiz, each in its connection's thread: there must be room for others.
const WAITING_MAX: u32 = 128;

/// Takes the browser back.
pub(super) fn receive(app: &App, request: &Request) -> Handled {
    let lost = || Ok(app.page(400, &Page::SessionLost));
    // HEAD must be safe (RFC 9110 §9.2.1): a link checker must not spend the code.
    if request.method == "HEAD" {
        return lost();
    }
    let params = Params::parse(request.query.as_bytes()).unwrap_or_default();
    let state = params.given("state").and_then(State::parse);
    let browsers = [browser_key(app, request), old_browser_key(app, request)];
    let (Some(state), true) = (state, browsers.iter().any(Option::is_some)) else {
        return lost();
    };
    // Charged here, since an image on another site's page comes without the cookie.
    if let Err(wait) = app.callbacks.take(request.client, Instant::now()) {
        return Ok(too_many_sign_ins(app, wait));
    }
    for (browser, is_old_cookie) in browsers.into_iter().zip([false, true]) {
        let Some(browser) = browser else { continue };
        let from = Returning {
            state: state.clone(),
            browser,
            is_old_cookie,
        };
        match came_back(app, &from, params.given("code"), params.given("error"))? {
            Callback::Unknown => {}
            callback => return Ok(reply(app, &callback)),
        }
    }
    lost()
}

fn came_back(
    app: &App,
    from: &Returning,
    code: Option<&str>,
    error: Option<&str>,
) -> Result<Callback, StoreError> {
    match (error, code) {
        (Some(error), _) => app.flow.callback_error(from, error),
        (None, Some(code)) => match WaitsForPostiz::begin(&app.waiting) {
            Some(_waits) => app.flow.callback_code(from, code),
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
        Callback::ExchangeFailed(error) => failed_page(error),
    };
    app.page(status, &page)
}

/// What a person is told when Postiz gave nothing.
pub(super) fn failed_page(error: &PostizError) -> (u16, Page<'static>) {
    match error {
        PostizError::InvalidGrant => (502, Page::ExchangeRefused),
        PostizError::InvalidClient => (502, Page::ServerMisconfigured),
        PostizError::Unregistered(_) => (502, Page::Unregistered),
        PostizError::Relayed => (502, Page::Relayed),
        PostizError::TimedOut(_) => (504, Page::PostizUnreachable),
        PostizError::Failed(_) => (502, Page::PostizUnreachable),
    }
}

/// One of [`WAITING_MAX`], until it is dropped.
pub(super) struct WaitsForPostiz<'a>(&'a AtomicU32);

impl WaitsForPostiz<'_> {
    pub(super) fn begin(count: &AtomicU32) -> Option<WaitsForPostiz<'_>> {
        let (before, waits) = (count.fetch_add(1, Ordering::AcqRel), WaitsForPostiz(count));
        (before < WAITING_MAX).then_some(waits)
    }
}

impl Drop for WaitsForPostiz<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
