//! Signs in through an auth server (RFC 8628 §3): shows the code and the page's address, and waits until the user has confirmed
//! the code. It runs in one call, or for agents in two (`--start`, `--finish`), which keep the device code in a file.

use serde_json::json;

use crate::cli::command::{AS_JSON, Options};
use crate::cli::context::{Context, sleep};
use crate::cli::credentials::{self, Stored};
use crate::cli::error::{CliError, Exit};
use crate::cli::json_file::JsonFile;
use crate::cli::login::auth_server::{AuthServer, Codes, Trust, reference};
use crate::cli::login::flags::{ALLOW_HTTP, AUTH_SERVER, NO_WAIT, QR};
use crate::cli::login::keep::keep;
use crate::cli::login::machine::machine_name;
use crate::cli::login::show::{
    ignore_closed, open_browser, show_event, warn_if_not_encrypted, with_countdown,
};
use crate::cli::login::started_login::StartedLogin;
use crate::cli::login::wait::{Wait, wait_for_token};
use crate::cli::qr;
use crate::cli::signed_in::{AUTH_SERVER_VARIABLE, url_of_setting};
use crate::shared::base_url::BaseUrl;
use crate::shared::secret::Secret;

/// Shows the code, opens the browser, waits, and saves the token.
pub(super) fn sign_in(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = credentials::locate(context)?;
    let (server, codes) = begin(context, options, &file)?;
    let events = options.has(&AS_JSON);
    if events {
        show_code_event(context, &codes)?;
    } else {
        show_codes(context, &codes);
    }
    show_qr(context, options, &codes);
    open_browser(
        context,
        options,
        &codes.verification_uri_complete,
        !codes.is_elsewhere,
    );
    let mut wait = Wait::new(context.clock.now(), codes.interval, codes.expires_in);
    let stored = wait_with_countdown(context, &server, &codes.device_code, &mut wait);
    let kept = stored.and_then(|stored| keep(context, &file, &stored, events));
    kept.map_err(|error| error.reference(reference(&codes.device_code)))
}

/// `--start`: asks for codes, saves the device code, and shows the user code.
pub(super) fn start(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = credentials::locate(context)?;
    let (server, codes) = begin(context, options, &file)?;
    let started = StartedLogin::begin(server.base(), &codes, context.clock.date());
    let login_file = StartedLogin::file_beside(&file);
    if login_file.path().exists() {
        context
            .output
            .say("This replaces a login that was started before and not finished.");
    }
    started.save(&login_file)?;
    if let Err(error) = show_code_event(context, &codes) {
        discard(context, &started, &login_file);
        return Err(error);
    }
    show_codes(context, &codes);
    show_qr(context, options, &codes);
    context.output.say("Then run `postiz auth:login --finish`.");
    Ok(Exit::Done)
}

/// `--finish`: waits for the login that `--start` began, and saves its token.
pub(super) fn finish(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = credentials::locate(context)?;
    file.check_writable()?;
    let login_file = StartedLogin::file_beside(&file);
    let mut started = StartedLogin::load(&login_file)?;
    let server = AuthServer::connect(trust(started.server.clone(), options), context)?;
    let date = context.clock.date();
    let (interval, left) = (started.interval, started.left(date));
    let mut wait = Wait::new(context.clock.now(), interval, left);
    // The server is polled no more often than it allows, however often an agent calls this.
    wait.pause = started.pause(date);
    let finished = if options.has(&NO_WAIT) {
        ask_once(context, &server, &started.device_code, &mut wait)
    } else {
        wait_with_countdown(context, &server, &started.device_code, &mut wait).map(Some)
    };
    match finished {
        Ok(Some(stored)) => {
            // The device code is spent, whether or not the token can be saved.
            discard(context, &started, &login_file);
            let kept = keep(context, &file, &stored, true);
            kept.map_err(|error| error.reference(reference(&started.device_code)))
        }
        Ok(None) => {
            let is_current = started.is_at(&login_file);
            started.ask_again_at(context.clock.date(), wait.interval);
            if is_current {
                started.save(&login_file)?;
            }
            let expires_in = wait.left(context.clock.now()).as_secs();
            let event = json!({ "event": "pending", "expires_in": expires_in });
            let printed = context.output.event(&event);
            // The login is pending, whether or not anyone reads the event.
            ignore_closed(printed).map(|()| Exit::Pending)
        }
        Err(error) => {
            let is_over = error.exit != Exit::Interrupted && error.word != NO_ANSWER;
            if is_over {
                discard(context, &started, &login_file);
            }
            Err(error.reference(reference(&started.device_code)))
        }
    }
}

/// Removes the file of a login that is over, so that the next `--finish` does not find it.
fn discard(context: &mut Context, login: &StartedLogin, login_file: &JsonFile) {
    if !login.is_at(login_file) {
        return;
    }
    if let Err(error) = login_file.remove() {
        let login_file = login_file.shown();
        context.output.warn(&format!(
            "cannot remove {login_file}, which is of no use any more: {error}"
        ));
    }
}

/// Polls once: the login, or `None` while it is pending.
fn ask_once(
    context: &mut Context,
    server: &AuthServer,
    device_code: &Secret<String>,
    wait: &mut Wait,
) -> Result<Option<Stored>, CliError> {
    sleep(context.clock.as_ref(), wait.pause)?;
    let (poll, answered) = server.poll(device_code, context.clock.date());
    let taken = wait.take(poll, context.clock.now());
    let stored = match (&wait.trouble, taken) {
        (Some(why), Ok(_)) => Err(CliError::failed(format!(
            "the auth server at {} did not answer: {why}",
            server.base()
        ))
        .word(NO_ANSWER)
        .hint("the login is still open: run `postiz auth:login --finish` again")),
        (_, taken) => taken,
    };
    stored.map_err(|error| error.answered(answered))
}

/// Checks what can be checked before the user is asked to do anything, and asks the server for codes.
fn begin(
    context: &mut Context,
    options: &Options,
    file: &JsonFile,
) -> Result<(AuthServer, Codes), CliError> {
    let base = auth_server(context, options)?;
    file.check_writable()?;
    warn_if_not_encrypted(context, &base);
    if base.as_str() == DEFAULT_AUTH_SERVER {
        // It has an OAuth app, for which Postiz keeps one token per account. Our own server says so on its page.
        context.output.say("Signing in by Postiz' own auth server ends an earlier login of the same account by it, on any machine.");
    } else {
        context.output.say(&format!("Auth server: {base}"));
    }
    let server = AuthServer::connect(trust(base, options), context)?;
    let codes = server.ask_for_codes(&machine_name(context, options)?)?;
    Ok((server, codes))
}

fn auth_server(context: &Context, options: &Options) -> Result<BaseUrl, CliError> {
    let (name, url) = match (
        options.text(&AUTH_SERVER)?,
        context.vars.text(AUTH_SERVER_VARIABLE),
    ) {
        (Some(url), _) => ("--auth-server", url.to_owned()),
        (None, Some(url)) => (AUTH_SERVER_VARIABLE, url),
        (None, None) => ("the default", DEFAULT_AUTH_SERVER.to_owned()),
    };
    url_of_setting(name, &url)
}

fn trust(server: BaseUrl, options: &Options) -> Trust {
    Trust {
        server,
        allow_http: options.has(&ALLOW_HTTP),
    }
}

fn show_code_event(context: &mut Context, codes: &Codes) -> Result<(), CliError> {
    let event = json!({
        "event": "code",
        "user_code": codes.user_code,
        "verification_uri": codes.verification_uri,
        "verification_uri_complete": codes.verification_uri_complete,
        "expires_in": codes.expires_in.as_secs(),
    });
    show_event(context, &event)
}

/// Shows the codes. The address and the code are alone on their lines, so that they can be clicked and copied.
fn show_codes(context: &mut Context, codes: &Codes) {
    let output = &mut context.output;
    output.say("");
    output.say("Open this page:");
    output.say("");
    output.say(&codes.verification_uri);
    output.say("");
    if codes.is_elsewhere {
        output.say("(It is not at the auth server's own address: open it only if you know it.)");
    }
    output.say("and go on there only if it shows this code, or enter it:");
    output.say("");
    output.say_bold(&codes.user_code);
    output.say("");
}

fn show_qr(context: &mut Context, options: &Options, codes: &Codes) {
    if !options.has(&QR) {
        return;
    }
    match qr::draw(&codes.verification_uri_complete, context.output.screen()) {
        Some(picture) => context.output.say_verbatim(&picture),
        None => context.output.say("The address is too long for a QR code."),
    }
}

fn wait_with_countdown(
    context: &mut Context,
    server: &AuthServer,
    device_code: &Secret<String>,
    wait: &mut Wait,
) -> Result<Stored, CliError> {
    let mut last_answered = None;
    let stored = with_countdown(
        context,
        "Waiting for you to confirm the code …",
        |clock, tick| {
            let poll = || {
                let (poll, answered) = server.poll(device_code, clock.date());
                last_answered = answered;
                poll
            };
            wait_for_token(clock, wait, poll, tick)
        },
    );
    stored.map_err(|error| error.answered(last_answered))
}

const DEFAULT_AUTH_SERVER: &str = "https://cli-auth.postiz.com";

/// The error's word after a single poll without an answer.
const NO_ANSWER: &str = "no_answer";
