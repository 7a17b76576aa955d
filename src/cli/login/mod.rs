//! `auth:login`: a browser confirms, the token is kept.
//!
//! device_flow.rs is the way by an auth server: it talks to it through auth_server.rs, waits by wait.rs, and keeps a login
//! between `--start` and `--finish` by started_login.rs. direct.rs is the way without one: it talks to Postiz through
//! postiz_oauth.rs, waits for the browser by callback.rs, and keeps its client by registered_client.rs.

mod auth_server;
mod callback;
mod device_flow;
mod direct;
mod machine;
mod postiz_oauth;
mod registered_client;
mod started_login;
mod wait;

pub(crate) use started_login::StartedLogin;

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::api::Api;
use crate::cli::browser::{Closed, may_open};
use crate::cli::command::{AS_JSON, Command, Flag, Options, Takes, flag};
use crate::cli::commands::auth::{names, not_used, organization};
use crate::cli::context::Context;
use crate::cli::credentials::{
    API_URL_VARIABLE, AUTH_SERVER_VARIABLE, CredentialsFile, Stored, api_url_from_environment,
};
use crate::cli::error::{CliError, Exit};
use crate::shared::base_url::BaseUrl;
use machine::MACHINE;

pub(crate) static LOGIN: Command = Command {
    name: "auth:login",
    about: "sign in with a browser, here or on another device",
    positionals: &[],
    flags: &[
        &AUTH_SERVER,
        &DIRECT,
        &MACHINE,
        &NEW_CLIENT,
        &NO_BROWSER,
        &QR,
        &AS_JSON,
        &START,
        &FINISH,
        &NO_WAIT,
        &ALLOW_HTTP,
        &CLIENT_ID,
        &CLIENT_SECRET,
    ],
    notes: "\
By an auth server: shows a code and a page's address, opens the page, and waits until you have confirmed the code
there, on any device. Directly: opens Postiz' own page in a browser on this machine and waits until you allow it.

It goes by --auth-server or POSTIZ_AUTH_SERVER if one is named, directly with --direct or where POSTIZ_API_URL names
a Postiz of your own, and else by https://cli-auth.postiz.com.

Postiz lists the login under Settings > Approved Apps by this machine's name. An auth server takes up to three words of
ASCII letters, digits, - and _ as one; without an OAuth app of its own, it passes the name on.

The credentials go to ~/.postiz/credentials.json, or where POSTIZ_CREDENTIALS_FILE says.

For agents: --start prints the code as JSON and ends; --finish waits for the user and signs in. With --json,
--start and --finish, stdout gets one JSON object a line: the events code (directly: open), pending, done and error.",
    examples: &[
        "postiz auth:login",
        "postiz auth:login --auth-server https://auth.example.com --no-browser",
        "postiz auth:login --direct",
        "postiz auth:login --start && postiz auth:login --finish --no-wait",
    ],
    run: login,
};

pub(crate) static AUTH_SERVER: Flag = flag(
    "auth-server",
    None,
    Takes::Value("URL"),
    "the auth server; else POSTIZ_AUTH_SERVER, else https://cli-auth.postiz.com",
);

pub(crate) static DIRECT: Flag = flag(
    "direct",
    None,
    Takes::Nothing,
    "sign in at Postiz itself, without an auth server (newer than v2.23.0)",
);

pub(crate) static NEW_CLIENT: Flag = flag(
    "new-client",
    None,
    Takes::Nothing,
    "directly: register this machine anew (if its old entry was revoked)",
);

pub(crate) static NO_BROWSER: Flag =
    flag("no-browser", None, Takes::Nothing, "do not open a browser");

pub(crate) static QR: Flag = flag(
    "qr",
    None,
    Takes::Nothing,
    "also draw the address as a QR code, for a phone",
);

pub(crate) static START: Flag = flag(
    "start",
    None,
    Takes::Nothing,
    "only ask for a code, print it and end",
);

pub(crate) static FINISH: Flag = flag(
    "finish",
    None,
    Takes::Nothing,
    "wait for the login that --start began",
);

pub(crate) static NO_WAIT: Flag = flag(
    "no-wait",
    None,
    Takes::Nothing,
    "with --finish: ask once; exit 3 when it still waits",
);

static ALLOW_HTTP: Flag = flag(
    "allow-http",
    None,
    Takes::Nothing,
    "take an API that the token reaches unencrypted",
);

static CLIENT_ID: Flag = flag("client-id", None, Takes::Value("ID"), "ignored: not needed");

static CLIENT_SECRET: Flag = flag(
    "client-secret",
    None,
    Takes::Value("SECRET"),
    "ignored: not needed",
);

/// Signs in.
pub(crate) fn login(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    check_flags(options)?;
    if options.has(&CLIENT_ID) || options.has(&CLIENT_SECRET) {
        context
            .output
            .say("--client-id and --client-secret are ignored: signing in needs neither.");
    }
    let way = way(context, options)?;
    if options.has(&NEW_CLIENT) && way != Way::Direct {
        return Err(CliError::usage(
            "--new-client goes with --direct: an auth server has its own",
        ));
    }
    let in_two_calls = options.has(&START) || options.has(&FINISH);
    let events = options.has(&AS_JSON) || in_two_calls;
    let done = if way == Way::Direct {
        direct::sign_in(context, options)
    } else if options.has(&FINISH) {
        device_flow::finish(context, options)
    } else if options.has(&START) {
        device_flow::start(context, options)
    } else {
        device_flow::in_one_go(context, options)
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

/// How to sign in.
#[derive(PartialEq, Eq)]
enum Way {
    /// By a device code (RFC 8628).
    AuthServer,
    /// At Postiz itself.
    Direct,
}

/// The way that was asked for. Whoever names a Postiz of their own must never end up at the cloud.
fn way(context: &Context, options: &Options) -> Result<Way, CliError> {
    let names_auth_server = options.has(&AUTH_SERVER) || options.has(&FINISH);
    if options.has(&DIRECT) {
        return Ok(Way::Direct);
    }
    if names_auth_server || context.vars.text(AUTH_SERVER_VARIABLE).is_some() {
        return Ok(Way::AuthServer);
    }
    let api_url = api_url_from_environment(context)?;
    if direct::is_cloud(&api_url) {
        return Ok(Way::AuthServer);
    }
    let other_device = [&START, &QR];
    if let Some(flag) = other_device.into_iter().find(|flag| options.has(flag)) {
        let why = format!("--{} needs an auth server", flag.long);
        return Err(direct::impossible(&format!(
            "{why}, and {API_URL_VARIABLE} names {api_url}"
        )));
    }
    Ok(Way::Direct)
}

fn check_flags(options: &Options) -> Result<(), CliError> {
    let without_auth_server = [&AUTH_SERVER, &QR, &START, &FINISH];
    let wrong = if options.has(&DIRECT) && without_auth_server.into_iter().any(|f| options.has(f)) {
        "--direct needs no auth server: it goes without --auth-server, --qr, --start and --finish"
    } else if options.has(&START) && options.has(&FINISH) {
        "--start and --finish cannot be combined"
    } else if options.has(&NO_WAIT) && !options.has(&FINISH) {
        "--no-wait goes with --finish"
    } else if options.has(&FINISH) && (options.has(&AUTH_SERVER) || options.has(&MACHINE)) {
        "--finish knows the auth server and the machine from --start"
    } else {
        return Ok(());
    };
    Err(CliError::usage(wrong).hint("`postiz auth:login --help` says how it is used"))
}

/// Says that others can read along, where they can.
fn warn_if_not_encrypted(context: &mut Context, base: &BaseUrl) {
    if !base.is_https() && !base.is_loopback() {
        context.output.warn(&format!(
            "{base} is not encrypted: others on the network can take this login over; use https"
        ));
    }
}

/// `9:05`, a second that has begun counted as whole.
fn minutes(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Opens `address`, or says why not and what to do.
fn open_browser(context: &mut Context, options: &Options, address: &str, is_trusted: bool) {
    let has_terminal = context.output.screen().stderr_is_terminal;
    let allowed = may_open(!options.has(&NO_BROWSER), &context.vars, has_terminal);
    let problem = match allowed {
        Ok(()) if !is_trusted => "That page is not the auth server's own",
        Ok(()) if (context.open_browser)(address) => {
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
    output.say(address);
    output.say("");
}

/// Prints the event without which nobody can go on: a login that its reader did not wait for is none.
fn show_event(context: &mut Context, event: &Value) -> Result<(), CliError> {
    context
        .output
        .event(event)
        .map_err(|error| match error.exit {
            Exit::Done => CliError::failed(
                "nobody reads what to open on stdout, so that nobody can confirm it",
            )
            .hint("read all of stdout, or leave --json away to read it on stderr"),
            _ => error,
        })
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
    save(context, file, stored)?;
    tell(context, file, stored, events)
}

fn save(context: &Context, file: &CredentialsFile, stored: &Stored) -> Result<(), CliError> {
    let mut saved = Ok(());
    context
        .clock
        .finish_first(&mut || saved = file.save(stored));
    saved.map_err(|error| {
        CliError::failed(format!("the login is approved, but {} cannot be written: {error}", file.shown()))
            .word("cannot_save")
            .hint("the token is lost: set POSTIZ_CREDENTIALS_FILE to a file that can be written, then run `postiz auth:login` again")
    })
}

/// Says that the login is saved, and whose it is.
fn tell(
    context: &mut Context,
    file: &CredentialsFile,
    stored: &Stored,
    events: bool,
) -> Result<Exit, CliError> {
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
