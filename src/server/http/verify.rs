//! `/device/verify`: the page where the user enters or compares the code, and confirms or refuses (RFC 8628 §3.3).

use std::time::{Duration, Instant};

use crate::server::client_address::wide_network;
use crate::server::codes::{BrowserKey, DeviceCodeHash, UserCode};
use crate::server::flow::Confirmed;
use crate::server::http::app::{App, Handled, LINK_MAC, Why};
use crate::server::http::browser::{PageOf, page_of};
use crate::server::http::reply::{RETRY_AFTER_S, Reply, whole_seconds};
use crate::server::http::request::{Params, Request};
use crate::server::login::{Login, UnixMs};
use crate::server::pages::{CodeProblem, Form, Page};
use crate::server::store::StoreError;

/// The form's field that carries its token.
const FORM_TOKEN: &str = "form_token";

/// `GET`: the form, and who asked where the query names a live login.
pub(super) fn show(app: &App, request: &Request) -> Handled {
    // What cannot be read is as good as not there: the user can still type the code.
    let params = Params::parse(request.query.as_bytes()).unwrap_or_default();
    let typed = Typed::from(&params);
    // An image or a script's request on another page looks nothing up, so that it uses up nothing of its visitor's.
    if typed.text.is_empty() || !request.is_navigation() {
        return Ok(enter_code(app, request, 200, &typed, None));
    }
    Ok(match look_up(app, request, &typed) {
        Ok(found) => confirm_page(app, request, &typed, &found),
        // A person who comes with a code has done nothing wrong yet, so this is a form like any other.
        Err(miss) => return missed(app, request, 200, &typed, miss),
    })
}

/// `POST`: go on to Postiz, or refuse. Without an action, as the form to type the code into sends it: the page that shows
/// who asks.
pub(super) fn submit(app: &App, request: &Request) -> Handled {
    let params = Params::parse(&request.body).unwrap_or_default();
    let typed = Typed::from(&params);
    match page_of(&app.server_url, request) {
        PageOf::ThisServer => {}
        PageOf::OtherName => {
            let why = Why::of_request("other_server_name");
            return Ok(app.refuse(request.id, 400, &Page::OtherName, why));
        }
        PageOf::OtherSite => {
            let why = Why::of_request("cross_site_request");
            return Ok(app.refuse(request.id, 403, &Page::CrossSite, why));
        }
    }
    if typed.text.is_empty() {
        let problem = (CodeProblem::Missing, Why::of_request("missing_code"));
        return Ok(enter_code(app, request, 400, &typed, Some(problem)));
    }
    let found = match look_up(app, request, &typed) {
        Ok(found) => found,
        Err(miss) => return missed(app, request, 400, &typed, miss),
    };
    let login = &found.0;
    let (token, action) = (params.given(FORM_TOKEN), params.given("action"));
    let decided = match (token, action, app.cookies.browser_key(request)) {
        (Some(_), _, None) => {
            let problem = (
                CodeProblem::NoCookie,
                Why::of_login("missing_cookie", &login.key),
            );
            return Ok(enter_code(app, request, 400, &typed, Some(problem)));
        }
        (Some(token), Some(action), Some(browser)) if app.keys.is_form_token(&browser, token) => {
            decide(app, request, action, login, &browser)?
        }
        // Of two tabs that had no cookie, the first one's form has the token of a cookie that the second one replaced.
        (Some(_), Some(_), _) => {
            return Ok(confirm_page(app, request, &typed, &found).because("stale_form_token"));
        }
        _ => return Ok(confirm_page(app, request, &typed, &found)),
    };
    // It was open a moment ago: decided elsewhere, or expired.
    let gone = || missed(app, request, 400, &typed, Miss::Over(login.key.clone()));
    decided.map_or_else(gone, |reply| Ok(reply.about(&login.key)))
}

/// The user goes on, or refuses. `None`: the login does not wait for its user any more.
fn decide(
    app: &App,
    request: &Request,
    action: &str,
    login: &Login,
    browser: &BrowserKey,
) -> Result<Option<Reply>, StoreError> {
    if action == "deny" {
        let refused = app.flow.refuse(&login.user_code)?;
        let page = || app.page(200, &Page::Refused).because("access_denied");
        return Ok(refused.then(page));
    }
    let mut waits = None;
    if app.flow.must_register(login) {
        // A stranger can start logins and confirm them: as many clients are registered as logins may be started.
        if let Err(wait) = app.registrations.take(request.client, Instant::now()) {
            let reply = app.too_many_sign_ins(request, wait, "too_many_registrations");
            return Ok(Some(reply));
        }
        waits = app.wait_for_postiz();
        if waits.is_none() {
            let why = Why::of_login("too_many_requests_to_postiz", &login.key);
            let page = app.refuse(request.id, 503, &Page::Unavailable, why);
            return Ok(Some(page.with("Retry-After", RETRY_AFTER_S)));
        }
    }
    let confirmed = app.flow.confirm(login, browser)?;
    drop(waits);
    Ok(match confirmed {
        Confirmed::GoOn(url) => {
            Some(Reply::redirect(302, &url).with("Set-Cookie", app.cookies.set(browser)))
        }
        Confirmed::Gone => None,
        Confirmed::RegistrationFailed(error) => {
            Some(app.postiz_failed(request, &error, &login.key))
        }
    })
}

/// A code as somebody typed it, or as a link brought it.
struct Typed<'a> {
    text: &'a str,
    mac: &'a str,
}

impl<'a> From<&'a Params> for Typed<'a> {
    fn from(params: &'a Params) -> Typed<'a> {
        // The npm CLI opens `?code=`.
        let text = params.given("user_code").or_else(|| params.given("code"));
        Typed {
            text: text.unwrap_or_default(),
            mac: params.given(LINK_MAC).unwrap_or_default(),
        }
    }
}

/// Why a typed code leads nowhere.
enum Miss {
    /// No login has it, or its login was decided.
    Unknown,
    /// This login was decided a moment ago, or has expired.
    Over(DeviceCodeHash),
    /// How long to wait, and the log's word for the budget that is spent.
    TooManyTries(Duration, &'static str),
    Failed(StoreError),
}

/// The live login that a code names, within the budget for wrong codes. This server's own link is no guess. At
/// the ceiling for all addresses the right code still counts from the network that started its login.
fn look_up(app: &App, request: &Request, typed: &Typed) -> Result<(Login, UnixMs), Miss> {
    let (client, now) = (request.client, Instant::now());
    let user_code = UserCode::parse(typed.text);
    let is_link = |code: &UserCode| app.keys.is_link_mac(code, typed.mac);
    let by_link = user_code.as_ref().is_some_and(is_link);
    let ceiling = match by_link {
        true => None,
        false => app
            .guesses
            .check(client, now)
            .map_err(|wait| Miss::TooManyTries(wait, "too_many_wrong_codes"))?,
    };
    let found = match user_code {
        Some(code) => app.flow.find(&code).map_err(Miss::Failed)?,
        None => None,
    };
    let (found, miss) = match found {
        Some((login, now)) if login.is_open(now) => (Some((login, now)), Miss::Unknown),
        Some((login, _)) => (None, Miss::Over(login.key)),
        None => (None, Miss::Unknown),
    };
    let network = wide_network(client).to_string();
    match (found, ceiling) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(_)) if found.0.starter.network == network => Ok(found),
        (_, Some(wait)) => {
            app.guesses.wrong_at_ceiling(client, now);
            Err(Miss::TooManyTries(wait, "too_many_wrong_codes_total"))
        }
        // A link of ours whose login is over is no guess, however often it comes.
        (None, None) if by_link => Err(miss),
        (None, None) => {
            app.guesses.wrong(client, now);
            Err(miss)
        }
    }
}

/// The answer to a code that leads nowhere: the form again, with this status, or a pause.
fn missed(app: &App, request: &Request, status: u16, typed: &Typed, miss: Miss) -> Handled {
    let unknown = |why| {
        let problem = Some((CodeProblem::Unknown, why));
        enter_code(app, request, status, typed, problem)
    };
    Ok(match miss {
        Miss::Unknown => unknown(Why::of_request("unknown_code")),
        Miss::Over(login) => unknown(Why::of_login("login_over", &login)),
        Miss::TooManyTries(wait, reason) => {
            let retry_after_s = whole_seconds(wait);
            let page = Page::TooManyTries { retry_after_s };
            app.refuse(request.id, 429, &page, Why::of_request(reason))
                .with("Retry-After", retry_after_s)
        }
        Miss::Failed(error) => return Err(error),
    })
}

fn confirm_page(
    app: &App,
    request: &Request,
    typed: &Typed,
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
    typed: &Typed,
    problem: Option<(CodeProblem, Why)>,
) -> Reply {
    // What cannot be a code is not shown again: it may be any text, which a stranger's link put there.
    let code = UserCode::parse(typed.text);
    let (problem, why) = problem.unzip();
    form_page(app, request, typed, (status, why), |form| Page::EnterCode {
        form,
        typed: code.as_ref().map_or("", UserCode::as_str),
        problem,
    })
}

/// A page with a form, and the cookie that the form's token is tied to.
fn form_page<'a>(
    app: &App,
    request: &Request,
    typed: &'a Typed,
    (status, why): (u16, Option<Why>),
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
    let reply = match why {
        Some(why) => app.refuse(request.id, status, &page, why),
        None => app.page(status, &page),
    };
    reply
        .with_form()
        .with("Set-Cookie", app.cookies.set(&browser))
}
