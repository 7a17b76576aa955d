//! `/device/verify`: the page where the user enters or compares the code, and confirms or refuses (RFC 8628 §3.3).

use std::time::{Duration, Instant};

use crate::server::client_address::wide_network;
use crate::server::codes::{BrowserKey, DeviceCodeHash, UserCode};
use crate::server::flow::Confirmed;
use crate::server::http::app::{App, Cause, Handled, LINK_MAC};
use crate::server::http::browser::{FormOrigin, form_origin};
use crate::server::http::reply::{RETRY_AFTER_S, Reply};
use crate::server::http::request::{Params, Request};
use crate::server::login::{Login, UnixMs};
use crate::server::pages::{CodeProblem, Form, Page, texts};
use crate::server::store::StoreError;

/// The values of the form's `action`.
const CONTINUE: &str = "continue";
const DENY: &str = "deny";

/// The form's field that carries its token.
const FORM_TOKEN: &str = "form_token";

/// `GET`: the confirm page if the query names an open login, else the form to enter a code.
pub(super) fn show(app: &App, request: &Request) -> Handled {
    // A malformed query counts as empty: the user can still type the code.
    let params = Params::parse(request.query.as_bytes()).unwrap_or_default();
    let typed = TypedCode::from(&params);
    // Another site's page can load this address as an image or by a script. That must not use up the visitor's budget.
    if typed.text.is_empty() || !request.is_navigation() {
        return Ok(enter_code(app, request, 200, &typed, None));
    }
    match look_up(app, request, &typed) {
        Ok(found) => Ok(confirm_page(app, request, &typed, &found)),
        // With 200: a link with an old code is no error of the person who opens it.
        Err(error) => look_up_failed(app, request, 200, &typed, error),
    }
}

/// `POST`: confirms and redirects to Postiz, or denies. Without an action, as from the form to enter a code: the confirm page.
pub(super) fn submit(app: &App, request: &Request) -> Handled {
    let params = Params::parse(&request.body).unwrap_or_default();
    let typed = TypedCode::from(&params);
    match form_origin(&app.server_url, request) {
        FormOrigin::ThisServer => {}
        FormOrigin::OtherName => {
            let cause = Cause::of_request("other_server_name");
            return Ok(app.error_page(request.id, 400, &Page::Notice(texts::OTHER_NAME), cause));
        }
        FormOrigin::OtherSite => {
            let cause = Cause::of_request("cross_site_request");
            return Ok(app.error_page(request.id, 403, &Page::Notice(texts::CROSS_SITE), cause));
        }
    }
    if typed.text.is_empty() {
        let problem = (CodeProblem::Missing, Cause::of_request("missing_code"));
        return Ok(enter_code(app, request, 400, &typed, Some(problem)));
    }
    let found = match look_up(app, request, &typed) {
        Ok(found) => found,
        Err(error) => return look_up_failed(app, request, 400, &typed, error),
    };
    let login = &found.0;
    let (token, action) = (params.get(FORM_TOKEN), params.get("action"));
    let decided = match (token, action, app.cookies.browser_key(request)) {
        (Some(_), _, None) => {
            let problem = (
                CodeProblem::NoCookie,
                Cause::of_login("missing_cookie", &login.key),
            );
            return Ok(enter_code(app, request, 400, &typed, Some(problem)));
        }
        (Some(token), Some(action @ (CONTINUE | DENY)), Some(browser))
            if app.keys.is_form_token(&browser, token) =>
        {
            decide(app, request, action, login, &browser)?
        }
        // If two tabs were opened without a cookie, the second replaced the cookie of the first one's form.
        (Some(_), Some(_), _) => {
            return Ok(confirm_page(app, request, &typed, &found).because("stale_form_token"));
        }
        _ => return Ok(confirm_page(app, request, &typed, &found)),
    };
    match decided {
        Some(reply) => Ok(reply.about(&login.key)),
        // The login was open a moment ago. It was decided in another tab, or has expired.
        None => {
            let error = LookUpError::NotOpen("login_not_open", Some(login.key.clone()));
            look_up_failed(app, request, 400, &typed, error)
        }
    }
}

/// Confirms or denies the login. `None`: it is not open any more.
fn decide(
    app: &App,
    request: &Request,
    action: &str,
    login: &Login,
    browser: &BrowserKey,
) -> Result<Option<Reply>, StoreError> {
    if action == DENY {
        let denied = app.flow.deny(&login.user_code)?;
        let page = || {
            app.page(200, &Page::Notice(texts::REFUSED))
                .because("access_denied")
        };
        return Ok(denied.then(page));
    }
    let mut slot = None;
    if app.flow.needs_registration(login) {
        // Anybody can start and confirm logins, so registrations have the same limit as starts.
        if let Err(wait) = app.registrations.take(request.client, Instant::now()) {
            let cause = Cause::of_login("too_many_registrations", &login.key);
            let notice = texts::TOO_MANY_CALLBACKS;
            return Ok(Some(app.too_many(request, notice, wait, cause)));
        }
        slot = app.take_postiz_slot();
        if slot.is_none() {
            let cause = Cause::of_login("too_many_requests_to_postiz", &login.key);
            let page = app.error_page(request.id, 503, &Page::Notice(texts::UNAVAILABLE), cause);
            return Ok(Some(page.with("Retry-After", RETRY_AFTER_S)));
        }
    }
    let confirmed = app.flow.confirm(login, browser)?;
    drop(slot);
    Ok(match confirmed {
        Confirmed::Redirect(url) => {
            Some(Reply::redirect(302, &url).with("Set-Cookie", app.cookies.set(browser)))
        }
        Confirmed::NotOpen => None,
        Confirmed::RegistrationFailed(error) => {
            Some(app.postiz_failed(request, &error, &login.key))
        }
    })
}

/// A code from the form or the link, not parsed yet.
struct TypedCode<'a> {
    text: &'a str,
    mac: &'a str,
}

impl<'a> From<&'a Params> for TypedCode<'a> {
    fn from(params: &'a Params) -> TypedCode<'a> {
        // The npm CLI's link has `?code=`.
        let text = params.get("user_code").or_else(|| params.get("code"));
        TypedCode {
            text: text.unwrap_or_default(),
            mac: params.get(LINK_MAC).unwrap_or_default(),
        }
    }
}

/// Why a code names no open login.
enum LookUpError {
    /// The reason for the log, and the login if one has the code.
    NotOpen(&'static str, Option<DeviceCodeHash>),
    /// A rate limit is reached: how long to wait, and the reason for the log.
    TooManyTries(Duration, &'static str),
    Failed(StoreError),
}

/// The open login that a code names, within the budget for wrong codes. A link with a valid MAC is no guess. At the ceiling for
/// all addresses, the right code is still accepted from the network that started the login.
fn look_up(
    app: &App,
    request: &Request,
    typed: &TypedCode,
) -> Result<(Login, UnixMs), LookUpError> {
    let (client, now) = (request.client, Instant::now());
    let user_code = UserCode::parse(typed.text);
    let is_link = |code: &UserCode| app.keys.is_link_mac(code, typed.mac);
    let by_link = user_code.as_ref().is_some_and(is_link);
    let ceiling = match by_link {
        true => None,
        false => app
            .guesses
            .check(client, now)
            .map_err(|wait| LookUpError::TooManyTries(wait, "too_many_wrong_codes"))?,
    };
    let found = match user_code {
        Some(code) => app.flow.find(&code).map_err(LookUpError::Failed)?,
        None => None,
    };
    let found = match found {
        Some((login, now)) if login.is_open(now) => Ok((login, now)),
        Some((login, now)) if now >= login.expires_at => Err(("login_expired", Some(login.key))),
        // It was just decided, or its code is being exchanged.
        Some((login, _)) => Err(("login_not_open", Some(login.key))),
        None => Err(("unknown_code", None)),
    };
    let network = wide_network(client).to_string();
    match (found, ceiling) {
        (Ok(found), None) => Ok(found),
        (Ok(found), Some(_)) if found.0.starter.network == network => Ok(found),
        (_, Some(wait)) => {
            app.guesses.charge_at_ceiling(client, now);
            Err(LookUpError::TooManyTries(
                wait,
                "too_many_wrong_codes_total",
            ))
        }
        (Err((reason, login)), None) => {
            // A link with a valid MAC is not charged, even after its login is over.
            if !by_link {
                app.guesses.charge(client, now);
            }
            Err(LookUpError::NotOpen(reason, login))
        }
    }
}

/// The answer to a code that names no open login: the form with this status, or 429.
fn look_up_failed(
    app: &App,
    request: &Request,
    status: u16,
    typed: &TypedCode,
    error: LookUpError,
) -> Handled {
    Ok(match error {
        LookUpError::NotOpen(reason, login) => {
            let login = login.as_ref();
            let problem = (CodeProblem::Unknown, Cause { reason, login });
            enter_code(app, request, status, typed, Some(problem))
        }
        LookUpError::TooManyTries(wait, reason) => {
            let cause = Cause::of_request(reason);
            app.too_many(request, texts::TOO_MANY_TRIES, wait, cause)
        }
        LookUpError::Failed(error) => return Err(error),
    })
}

fn confirm_page(
    app: &App,
    request: &Request,
    typed: &TypedCode,
    (login, now): &(Login, UnixMs),
) -> Reply {
    let who = &login.starter;
    form_page(app, request, typed, (200, None), |form| Page::Confirm {
        form,
        user_code: login.user_code.as_str(),
        client_address: &who.address,
        client_agent: &who.agent,
        machine: &who.machine,
        age: Duration::from_millis(now.saturating_sub(login.created_at)),
    })
    .about(&login.key)
}

fn enter_code(
    app: &App,
    request: &Request,
    status: u16,
    typed: &TypedCode,
    problem: Option<(CodeProblem, Cause)>,
) -> Reply {
    // Only a possible code is shown again: a link can hold any text.
    let code = UserCode::parse(typed.text);
    let (problem, cause) = problem.unzip();
    form_page(app, request, typed, (status, cause), |form| {
        Page::EnterCode {
            form,
            typed: code.as_ref().map_or("", UserCode::as_str),
            problem,
        }
    })
}

/// A page with a form, and the cookie to which the form's token is bound.
fn form_page<'a>(
    app: &App,
    request: &Request,
    typed: &'a TypedCode,
    (status, cause): (u16, Option<Cause>),
    page: impl FnOnce(Form<'a>) -> Page<'a>,
) -> Reply {
    let browser = app
        .cookies
        .browser_key(request)
        .unwrap_or_else(BrowserKey::generate);
    let form = Form {
        token: app.keys.form_token(&browser),
        link_mac: typed.mac,
    };
    let page = page(form);
    let reply = match cause {
        Some(cause) => app.error_page(request.id, status, &page, cause),
        None => app.page(status, &page),
    };
    reply
        .with_form()
        .with("Set-Cookie", app.cookies.set(&browser))
}
