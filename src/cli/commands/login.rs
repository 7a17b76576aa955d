//! `auth:login`: shows the code, opens the browser, waits, keeps the token. In one go, or for agents as `--start` and
//! `--finish`, with the device code kept in a file in between.

use std::time::Duration;

use serde_json::json;

use crate::cli::api::Api;
use crate::cli::args::Options;
use crate::cli::browser::{Closed, may_open};
use crate::cli::commands::auth::{names, not_used, organization};
use crate::cli::context::{Context, sleep};
use crate::cli::credentials::{AUTH_SERVER_VARIABLE, CredentialsFile, Stored};
use crate::cli::device_flow::{AuthServer, Codes, Trust};
use crate::cli::error::{CliError, Exit};
use crate::cli::login::{Wait, wait_for_token};
use crate::cli::qr;
use crate::cli::table::{
    ALLOW_HTTP, AS_JSON, AUTH_SERVER, CLIENT_ID, CLIENT_SECRET, FINISH, NO_BROWSER, NO_WAIT, QR,
    START,
};
use crate::cli::unfinished::Unfinished;
use crate::shared::base_url::BaseUrl;
use crate::shared::secret::Secret;

/// Signs in.
pub(crate) fn login(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    check_flags(options)?;
    if options.has(&CLIENT_ID) || options.has(&CLIENT_SECRET) {
        context
            .output
            .say("--client-id and --client-secret are ignored: signing in needs neither.");
    }
    let in_two_calls = options.has(&START) || options.has(&FINISH);
    let events = options.has(&AS_JSON) || in_two_calls;
    let done = if options.has(&FINISH) {
        finish(context, options)
    } else if options.has(&START) {
        start(context, options)
    } else {
        in_one_go(context, options)
    };
    match done {
        Err(error) if events && error.exit != Exit::Done => {
            let event = json!({ "event": "error", "error": error.word, "message": error.message });
            // The failure counts, whether or not anyone still reads about it on stdout.
            let _ = context.output.event(&event);
            Err(error)
        }
        other => other,
    }
}

fn check_flags(options: &Options) -> Result<(), CliError> {
    let wrong = if options.has(&START) && options.has(&FINISH) {
        "--start and --finish are two calls"
    } else if options.has(&NO_WAIT) && !options.has(&FINISH) {
        "--no-wait goes with --finish"
    } else if options.has(&FINISH) && options.has(&AUTH_SERVER) {
        "--finish knows the auth server from --start"
    } else {
        return Ok(());
    };
    Err(CliError::usage(wrong).hint("`postiz auth:login --help` says how it is used"))
}

fn in_one_go(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = CredentialsFile::locate(context)?;
    let (server, codes) = begin(context, options, &file)?;
    let events = options.has(&AS_JSON);
    if events {
        show_code_event(context, &codes)?;
    } else {
        show_codes(context, &codes);
    }
    if options.has(&QR) {
        show_qr(context, &codes);
    }
    open_browser(context, options, &codes);
    let first_pause = Wait::usual_pause(codes.interval);
    let mut wait = Wait::new(
        context.clock.now(),
        codes.interval,
        codes.expires_in,
        first_pause,
    );
    let stored = wait_with_countdown(context, &server, &codes.device_code, &mut wait)?;
    keep(context, &file, &stored, events)
}

/// `--start`: asks for codes, keeps the device code, and ends.
fn start(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = CredentialsFile::locate(context)?;
    let (server, codes) = begin(context, options, &file)?;
    let unfinished = Unfinished::begin(server.base(), &codes, context.clock.date());
    let place = Unfinished::place(&file);
    if place.path().exists() {
        context
            .output
            .say("This replaces a login that was started before and not finished.");
    }
    unfinished.save(&place)?;
    if let Err(error) = show_code_event(context, &codes) {
        discard(context, &unfinished, &place);
        return Err(error);
    }
    show_codes(context, &codes);
    if options.has(&QR) {
        show_qr(context, &codes);
    }
    context.output.say("Then run `postiz auth:login --finish`.");
    Ok(Exit::Done)
}

/// `--finish`: goes on where `--start` ended.
fn finish(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = CredentialsFile::locate(context)?;
    file.check_writable()?;
    let place = Unfinished::place(&file);
    let mut unfinished = Unfinished::load(&place)?;
    let server = AuthServer::connect(trust(unfinished.server.clone(), options), context)?;
    let date = context.clock.date();
    let (interval, left) = (unfinished.interval(), unfinished.left(date));
    // However often an agent calls, the server is asked no more often than it wants.
    let first_pause = unfinished.pause(date);
    let mut wait = Wait::new(context.clock.now(), interval, left, first_pause);
    let finished = if options.has(&NO_WAIT) {
        ask_once(context, &server, unfinished.device_code(), &mut wait)
    } else {
        wait_with_countdown(context, &server, unfinished.device_code(), &mut wait).map(Some)
    };
    match finished {
        Ok(Some(stored)) => {
            // Spent, whether or not the token can be saved.
            discard(context, &unfinished, &place);
            keep(context, &file, &stored, true)
        }
        Ok(None) => {
            let is_current = unfinished.is_at(&place);
            unfinished.ask_again_at(context.clock.date(), wait.interval());
            if is_current {
                unfinished.save(&place)?;
            }
            let expires_in = wait.left(context.clock.now()).as_secs();
            let event = json!({ "event": "pending", "expires_in": expires_in });
            let printed = context.output.event(&event);
            // It is pending whether or not anyone reads so.
            ignore_closed(printed).map(|()| Exit::Pending)
        }
        Err(error) => {
            let is_over = error.exit != Exit::Interrupted && error.word != NO_ANSWER;
            if is_over {
                discard(context, &unfinished, &place);
            }
            Err(error)
        }
    }
}

/// A login that is over must not be found by the next `--finish`.
fn discard(context: &mut Context, login: &Unfinished, place: &CredentialsFile) {
    if !login.is_at(place) {
        return;
    }
    if let Err(error) = place.remove() {
        let place = place.shown();
        context.output.warn(&format!(
            "cannot remove {place}, which is of no use any more: {error}"
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
    sleep(context.clock.as_ref(), wait.pause())?;
    let poll = server.poll(device_code, context.clock.date());
    let stored = wait.take(poll, context.clock.now())?;
    match wait.trouble() {
        Some(why) => Err(CliError::failed(format!(
            "the auth server at {} did not answer: {why}",
            server.base()
        ))
        .word(NO_ANSWER)
        .hint("the login is still open: run `postiz auth:login --finish` again")),
        None => Ok(stored),
    }
}

/// What comes before anyone is asked to do anything; then the codes.
fn begin(
    context: &mut Context,
    options: &Options,
    file: &CredentialsFile,
) -> Result<(AuthServer, Codes), CliError> {
    let base = auth_server(context, options)?;
    file.check_writable()?;
    if base.as_str() != DEFAULT_AUTH_SERVER {
        context.output.say(&format!("Auth server: {base}"));
    }
    if !base.is_https() && !base.is_loopback() {
        let warning = format!(
            "{base} is not encrypted: others on the network can take this login over; use https"
        );
        context.output.warn(&warning);
    }
    context.output.say("Signing in here ends an earlier login of the same account on another machine: Postiz keeps one.");
    let server = AuthServer::connect(trust(base, options), context)?;
    let codes = server.ask_for_codes()?;
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
    BaseUrl::parse(&url).map_err(|wrong| CliError::usage(format!("{name} `{url}` {wrong}")))
}

fn trust(server: BaseUrl, options: &Options) -> Trust {
    Trust {
        server,
        allow_http: options.has(&ALLOW_HTTP),
    }
}

/// A code that nobody reads is confirmed by nobody: `auth:login --json | true` is no login.
fn show_code_event(context: &mut Context, codes: &Codes) -> Result<(), CliError> {
    let event = json!({
        "event": "code",
        "user_code": codes.user_code,
        "verification_uri": codes.verification_uri,
        "verification_uri_complete": codes.verification_uri_complete,
        "expires_in": codes.expires_in.as_secs(),
    });
    let shown = context.output.event(&event);
    shown.map_err(|error| match error.exit {
        Exit::Done => {
            CliError::failed("nobody reads the code on stdout, so that nobody can confirm it")
                .hint("read all of stdout, or leave --json away to read the code on stderr")
        }
        _ => error,
    })
}

/// Code and address stand alone on their lines, so that a double click takes the one and a click follows the other.
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

fn show_qr(context: &mut Context, codes: &Codes) {
    match qr::draw(&codes.verification_uri_complete, context.output.screen()) {
        Some(picture) => context.output.say_verbatim(&picture),
        None => context.output.say("The address is too long for a QR code."),
    }
}

fn open_browser(context: &mut Context, options: &Options, codes: &Codes) {
    let has_terminal = context.output.screen().stderr_is_terminal;
    let allowed = may_open(!options.has(&NO_BROWSER), &context.vars, has_terminal);
    let problem = match allowed {
        Ok(()) if codes.is_elsewhere => "That page is not the auth server's own",
        Ok(()) if (context.open_browser)(&codes.verification_uri_complete) => {
            context.output.say("Your browser should open it now.");
            return;
        }
        Ok(()) => "No browser could be opened",
        Err(Closed::OverSsh) => "This is an SSH session",
        Err(Closed::NobodyHere) => "There is no display",
        Err(Closed::InThisTerminal) => "The browser in BROWSER would take this terminal over",
        Err(Closed::NotWanted) => "No browser is opened",
    };
    if options.has(&AS_JSON) {
        // The program that reads the events shows the address.
        return;
    }
    let output = &mut context.output;
    output.say(&format!(
        "{problem}: open the page yourself, on any device. With the code filled in, it is:"
    ));
    output.say("");
    output.say(&codes.verification_uri_complete);
    output.say("");
}

/// Waits, and shows the time left where there is a terminal to show it on.
fn wait_with_countdown(
    context: &mut Context,
    server: &AuthServer,
    device_code: &Secret<String>,
    wait: &mut Wait,
) -> Result<Stored, CliError> {
    let Context { clock, output, .. } = context;
    if !output.can_change_lines() {
        output.say("Waiting for you to confirm the code …");
    }
    let waited = wait_for_token(
        clock.as_ref(),
        wait,
        || server.poll(device_code, clock.date()),
        |left| output.line_in_place(&format!("Waiting for you … {} left", minutes(left))),
    );
    output.clear_line();
    waited
}

/// `9:05`, a second that has begun counted as whole.
fn minutes(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// A reader of stdout that has gone does not change what happened.
fn ignore_closed(printed: Result<(), CliError>) -> Result<(), CliError> {
    match printed {
        Err(error) if error.exit == Exit::Done => Ok(()),
        other => other,
    }
}

/// Saves the login and says so.
fn keep(
    context: &mut Context,
    file: &CredentialsFile,
    stored: &Stored,
    events: bool,
) -> Result<Exit, CliError> {
    let mut saved = Ok(());
    context
        .clock
        .finish_first(&mut || saved = file.save(stored));
    saved.map_err(|error| {
        CliError::failed(format!("the login is approved, but {} cannot be written: {error}", file.shown()))
            .word("cannot_save")
            .hint("the token is lost: set POSTIZ_CREDENTIALS_FILE to a file that can be written, then run `postiz auth:login` again")
    })?;
    context.output.say(&format!(
        "Signed in. The credentials are in {}",
        file.shown()
    ));
    let api = Api::connect(context)?;
    for (variable, why) in not_used(&context.vars, &api.signed_in) {
        let words = format!("{variable} is set, and not used from now on: {why}.");
        context.output.say(&words);
    }
    if events {
        let event = json!({
            "event": "done",
            "api_url": stored.api_url,
            "organization_id": stored.organization_id,
            "credentials_file": file.shown(),
        });
        let printed = context.output.event(&event);
        ignore_closed(printed)?;
    }
    // Last, since it may take a while where the API cannot be reached.
    let names = names(&api, context);
    let id = organization(stored.organization_id.as_ref());
    let organization = names.organization.unwrap_or(id);
    context.output.say(&format!("Organization: {organization}"));
    if let Some(person) = names.person {
        context.output.say(&format!("User: {person}"));
    }
    Ok(Exit::Done)
}

const DEFAULT_AUTH_SERVER: &str = "https://cli-auth.postiz.com";

/// [`CliError::word`] of a single poll without an answer.
const NO_ANSWER: &str = "no_answer";
