//! `GET /device/callback`: Postiz sends the browser back, with a code or an error (RFC 6749 §4.1.2).

use std::time::Instant;

use crate::server::codes::State;
use crate::server::flow::{Callback, CallbackResult, ReturningBrowser};
use crate::server::http::app::{App, Cause, Handled, postiz_failure};
use crate::server::http::reply::Reply;
use crate::server::http::request::{Params, Request};
use crate::server::pages::{Page, texts};
use crate::server::store::StoreError;

pub(super) fn receive(app: &App, request: &Request) -> Handled {
    let reject = |reason| {
        let cause = Cause::of_request(reason);
        Ok(app.error_page(request.id, 400, &Page::Notice(texts::SESSION_LOST), cause))
    };
    // HEAD must be safe (RFC 9110 §9.2.1): a link checker must not use up the code.
    if request.method == "HEAD" {
        return reject("head_request");
    }
    let params = Params::parse(request.query.as_bytes()).unwrap_or_default();
    let Some(state) = params.get("state") else {
        return reject("missing_state");
    };
    let Some(state) = State::parse(state) else {
        return reject("unknown_state");
    };
    let browsers = [
        app.cookies.browser_key(request),
        app.cookies.old_browser_key(request),
    ];
    if browsers.iter().all(Option::is_none) {
        return reject("missing_cookie");
    }
    // Charged only with a cookie: another site's pages can cause requests without it.
    if let Err(wait) = app.callbacks.take(request.client, Instant::now()) {
        let cause = Cause::of_request("too_many_callbacks");
        return Ok(app.too_many(request, texts::TOO_MANY_CALLBACKS, wait, cause));
    }
    let mut rejected = None;
    for (browser, is_old_cookie) in browsers.into_iter().zip([false, true]) {
        let Some(browser) = browser else { continue };
        let returning = ReturningBrowser {
            state: state.clone(),
            browser,
            is_old_cookie,
        };
        let result = run(app, &returning, params.get("code"), params.get("error"))?;
        match result.1 {
            // The first cookie may be of another login, so the second is tried as well.
            Callback::Rejected(_) => rejected = rejected.or(Some(result)),
            _ => return Ok(reply(app, request, &result)),
        }
    }
    match rejected {
        Some(result) => Ok(reply(app, request, &result)),
        None => reject("missing_cookie"),
    }
}

fn run(
    app: &App,
    returning: &ReturningBrowser,
    code: Option<&str>,
    error: Option<&str>,
) -> Result<CallbackResult, StoreError> {
    let callback = match (error, code) {
        (Some(error), _) => return app.flow.callback_error(returning, error),
        (None, Some(code)) => match app.take_postiz_slot() {
            Some(_slot) => return app.flow.callback_code(returning, code),
            None => Callback::Busy,
        },
        (None, None) => Callback::Rejected("missing_code"),
    };
    Ok((None, callback))
}

/// The page for the browser. It never shows text of the query, which anybody can write.
fn reply(app: &App, request: &Request, (login, callback): &CallbackResult) -> Reply {
    let login = login.as_ref();
    let success = |notice| app.page(200, &Page::Notice(notice)).about(login);
    let (status, notice, reason) = match callback {
        Callback::SignedIn => return success(texts::SIGNED_IN),
        Callback::Busy => return success(texts::FINISHING),
        Callback::Refused => (400, texts::REFUSED, "access_denied"),
        Callback::Rejected(reason) => (400, texts::SESSION_LOST, *reason),
        Callback::Over => (400, texts::LOGIN_OVER, "too_many_refused_codes"),
        Callback::AuthorizationFailed => (502, texts::AUTHORIZATION_FAILED, "authorization_failed"),
        Callback::ExchangeFailed(error) => postiz_failure(error),
    };
    let page = Page::Notice(notice);
    app.error_page(request.id, status, &page, Cause { reason, login })
}
