//! `GET /device/callback`: Postiz sends the browser back, with a code or an error (RFC 6749 §4.1.2).

use std::time::Instant;

use crate::server::codes::State;
use crate::server::flow::{Callback, Returned, Returning};
use crate::server::http::app::{App, Handled, Why, postiz_failure};
use crate::server::http::reply::Reply;
use crate::server::http::request::{Params, Request};
use crate::server::pages::Page;
use crate::server::store::StoreError;

/// Receives the browser from Postiz.
pub(super) fn receive(app: &App, request: &Request) -> Handled {
    let reject = |reason| {
        let why = Why::of_request(reason);
        Ok(app.refuse(request.id, 400, &Page::SessionLost, why))
    };
    // HEAD must be safe (RFC 9110 §9.2.1): a link checker must not spend the code.
    if request.method == "HEAD" {
        return reject("head_request");
    }
    let params = Params::parse(request.query.as_bytes()).unwrap_or_default();
    let Some(state) = params.given("state").and_then(State::parse) else {
        return reject("missing_state");
    };
    let browsers = [
        app.cookies.browser_key(request),
        app.cookies.old_browser_key(request),
    ];
    if browsers.iter().all(Option::is_none) {
        return reject("missing_cookie");
    }
    // Charged here, since an image on another site's page comes without the cookie.
    if let Err(wait) = app.callbacks.take(request.client, Instant::now()) {
        return Ok(app.too_many_sign_ins(request, wait, "too_many_callbacks"));
    }
    let mut rejected = None;
    for (browser, is_old_cookie) in browsers.into_iter().zip([false, true]) {
        let Some(browser) = browser else { continue };
        let from = Returning {
            state: state.clone(),
            browser,
            is_old_cookie,
        };
        let returned = came_back(app, &from, params.given("code"), params.given("error"))?;
        match returned.callback {
            // Another login's cookie must not hide that of this one.
            Callback::Rejected(_) => rejected = rejected.or(Some(returned)),
            _ => return Ok(reply(app, request, &returned)),
        }
    }
    match rejected {
        Some(returned) => Ok(reply(app, request, &returned)),
        None => reject("missing_cookie"),
    }
}

fn came_back(
    app: &App,
    from: &Returning,
    code: Option<&str>,
    error: Option<&str>,
) -> Result<Returned, StoreError> {
    let unchanged = |callback| Ok(Returned::nowhere(callback));
    match (error, code) {
        (Some(error), _) => app.flow.callback_error(from, error),
        (None, Some(code)) => match app.wait_for_postiz() {
            Some(_waits) => app.flow.callback_code(from, code),
            None => unchanged(Callback::Busy),
        },
        (None, None) => unchanged(Callback::Rejected("missing_code")),
    }
}

/// The query's own words are never shown: a stranger could put any text under this server's name.
fn reply(app: &App, request: &Request, returned: &Returned) -> Reply {
    let login = returned.login.as_ref();
    let page = |page| {
        let page = app.page(200, &page);
        match login {
            Some(login) => page.about(login),
            None => page,
        }
    };
    let (status, refusal, reason) = match &returned.callback {
        Callback::SignedIn => return page(Page::SignedIn),
        Callback::Busy => return page(Page::Finishing),
        Callback::Refused => (400, Page::Refused, "access_denied"),
        Callback::Rejected(reason) => (400, Page::SessionLost, *reason),
        Callback::Over => (400, Page::LoginOver, "too_many_refused_codes"),
        Callback::AuthorizationFailed => (502, Page::AuthorizationFailed, "authorization_failed"),
        Callback::ExchangeFailed(error) => postiz_failure(error),
    };
    app.refuse(request.id, status, &refusal, Why { reason, login })
}
