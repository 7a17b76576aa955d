//! `/device/verify`: the page where the user enters or compares the code, and confirms or refuses (RFC 8628 §3.3).

use std::time::Instant;

use crate::server::codes::{BrowserKey, UserCode};
use crate::server::flow::{Confirmed, LIFETIME};
use crate::server::http::reply::Reply;
use crate::server::http::request::{Params, Request};
use crate::server::http::{App, whole_seconds};
use crate::server::pages::{CodeProblem, Page};
use crate::server::store::PendingRequest;
use crate::shared::text::printable_cut;

/// What is shown of a code that is none, in characters: enough to see what went wrong.
const TYPED_CHARACTERS_MAX: usize = 40;

/// `GET`: the form, and who asked where the query names a live login.
pub(super) fn show(app: &App, request: &Request) -> Reply {
    // What cannot be read is as good as not there: the user can still type the code.
    let params = Params::parse(request.query.as_bytes()).unwrap_or_default();
    let given = |name| params.single(name).ok().flatten();
    // The npm CLI opens `?code=`.
    let Some(typed) = given("user_code").or_else(|| given("code")) else {
        return app.page(
            200,
            &Page::EnterCode {
                typed: "",
                problem: None,
            },
        );
    };
    match look_up(app, request, typed) {
        Ok((user_code, found)) => app.page(200, &confirm_page(&user_code, &found)),
        // Whoever comes with a code has done nothing wrong yet, so this is a form like any other.
        Err(Miss::Unknown) => enter_again(app, 200, typed, CodeProblem::Unknown),
        Err(Miss::Answered(reply)) => reply,
    }
}

/// `POST`: go on to Postiz, or refuse.
pub(super) fn submit(app: &App, request: &Request) -> Reply {
    if is_cross_site(app, request) {
        return app.page(403, &Page::CrossSite);
    }
    let params = Params::parse(&request.body).unwrap_or_default();
    let given = |name| params.single(name).ok().flatten();
    let Some(typed) = given("user_code") else {
        return enter_again(app, 400, "", CodeProblem::Missing);
    };
    let (user_code, _) = match look_up(app, request, typed) {
        Ok(found) => found,
        Err(Miss::Unknown) => return enter_again(app, 400, typed, CodeProblem::Unknown),
        Err(Miss::Answered(reply)) => return reply,
    };
    let decided = match given("action") {
        Some("deny") => app
            .flow
            .refuse(&user_code)
            .map(|refused| refused.then(|| app.page(200, &Page::Refused))),
        _ => app
            .flow
            .confirm(&user_code, browser_key(app, request))
            .map(|confirmed| confirmed.map(|confirmed| go_to_postiz(app, &confirmed))),
    };
    match decided {
        Ok(Some(reply)) => reply,
        // It was there a moment ago: decided elsewhere, or expired.
        Ok(None) => enter_again(app, 400, typed, CodeProblem::Unknown),
        Err(error) => app.store_failed_page(&error),
    }
}

/// The key in the browser's cookie, if it has one.
pub(super) fn browser_key(app: &App, request: &Request) -> Option<BrowserKey> {
    request.cookie(cookie_name(app)).and_then(BrowserKey::parse)
}

/// Why a typed code leads nowhere.
enum Miss {
    Unknown,
    Answered(Reply),
}

/// The live login that `typed` names, within the budget for wrong codes.
fn look_up(app: &App, request: &Request, typed: &str) -> Result<(UserCode, PendingRequest), Miss> {
    let now = Instant::now();
    if let Err(wait) = app.guesses.check(request.client, now) {
        let retry_after_s = whole_seconds(wait);
        app.log.warn(
            "too_many_wrong_codes",
            &[("client", &request.client.to_string())],
        );
        let page = app
            .page(429, &Page::TooManyTries { retry_after_s })
            .with("Retry-After", retry_after_s);
        return Err(Miss::Answered(page));
    }
    let Some(user_code) = UserCode::parse(typed) else {
        app.guesses.wrong(request.client, now);
        return Err(Miss::Unknown);
    };
    match app.flow.find(&user_code) {
        Ok(Some(found)) => Ok((user_code, found)),
        Ok(None) => {
            app.guesses.wrong(request.client, now);
            Err(Miss::Unknown)
        }
        Err(error) => Err(Miss::Answered(app.store_failed_page(&error))),
    }
}

fn confirm_page<'a>(user_code: &'a UserCode, found: &'a PendingRequest) -> Page<'a> {
    Page::Confirm {
        user_code: user_code.as_str(),
        client_address: &found.client_address,
        client_agent: &found.client_agent,
        age: found.age,
    }
}

fn enter_again(app: &App, status: u16, typed: &str, problem: CodeProblem) -> Reply {
    let normalized = UserCode::parse(typed).map(|code| code.as_str().to_owned());
    let typed = normalized.unwrap_or_else(|| printable_cut(typed.trim(), TYPED_CHARACTERS_MAX));
    app.page(
        status,
        &Page::EnterCode {
            typed: &typed,
            problem: Some(problem),
        },
    )
}

/// Ties the login to this browser and sends it to Postiz.
fn go_to_postiz(app: &App, confirmed: &Confirmed) -> Reply {
    let cookie = format!(
        "{}={}; HttpOnly; SameSite=Lax; Path={}/device; Max-Age={}{}",
        cookie_name(app),
        confirmed.browser_key.expose(),
        app.server_url.path(),
        LIFETIME.as_secs(),
        if app.server_url.is_https() {
            "; Secure"
        } else {
            ""
        },
    );
    Reply::redirect(&confirmed.authorize_url).with("Set-Cookie", cookie)
}

/// With https, a prefix that keeps plain-http pages of the same host from setting it (RFC 6265bis §4.1.3).
fn cookie_name(app: &App) -> &'static str {
    if app.server_url.is_https() {
        "__Secure-postiz_login"
    } else {
        "postiz_login"
    }
}

/// Was the form sent by another site's page? `Sec-Fetch-Site` decides, where the browser knows it; else `Origin`, where
/// `null` or none says nothing (some browsers send it so from our own page).
fn is_cross_site(app: &App, request: &Request) -> bool {
    match (request.header("sec-fetch-site"), request.header("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, None | Some("null")) => false,
        (None, Some(origin)) => !origin.eq_ignore_ascii_case(&app.server_url.origin()),
    }
}
