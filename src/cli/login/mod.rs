//! `auth:login`: a browser confirms, the token is kept. device_flow.rs is the way by an auth server: it talks to it through
//! auth_server.rs, waits by wait.rs, and keeps a login between `--start` and `--finish` by started_login.rs.

mod auth_server;
mod device_flow;
mod started_login;
mod wait;

use serde_json::json;

use crate::cli::browser::{Closed, may_open};
use crate::cli::command::{Command, Flag, Options, Takes, flag};
use crate::cli::commands::auth::{AS_JSON, organization};
use crate::cli::context::Context;
use crate::cli::credentials::{API_KEY_VARIABLE, CredentialsFile, Stored};
use crate::cli::error::{CliError, Exit};

pub(crate) static LOGIN: Command = Command {
    name: "auth:login",
    about: "sign in with a browser, here or on another device",
    positionals: &[],
    flags: &[&AUTH_SERVER, &NO_BROWSER, &QR, &AS_JSON, &START, &FINISH, &NO_WAIT],
    notes: "\
Shows a code and a page's address, opens the page, and waits until you have confirmed the code there.
The credentials go to ~/.postiz/credentials.json, or where POSTIZ_CREDENTIALS_FILE says.

For agents: --start prints the code as JSON and ends; --finish waits for the user and signs in. With --json,
--start and --finish, stdout gets one JSON object a line: the events code, pending, done and error.",
    examples: &[
        "postiz auth:login",
        "postiz auth:login --auth-server https://auth.example.com --no-browser",
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

/// Signs in.
pub(crate) fn login(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    check_flags(options)?;
    let in_two_calls = options.has(&START) || options.has(&FINISH);
    let events = options.has(&AS_JSON) || in_two_calls;
    let done = if options.has(&FINISH) {
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

fn check_flags(options: &Options) -> Result<(), CliError> {
    let wrong = if options.has(&START) && options.has(&FINISH) {
        "--start and --finish cannot be combined"
    } else if options.has(&NO_WAIT) && !options.has(&FINISH) {
        "--no-wait goes with --finish"
    } else if options.has(&FINISH) && options.has(&AUTH_SERVER) {
        "--finish knows the auth server from --start"
    } else {
        return Ok(());
    };
    Err(CliError::usage(wrong).hint("`postiz auth:login --help` says how it is used"))
}

/// Opens `address`, or says why not and what to do.
fn open_browser(context: &mut Context, options: &Options, address: &str) {
    let has_terminal = context.output.screen().stderr_is_terminal;
    let allowed = may_open(!options.has(&NO_BROWSER), &context.vars, has_terminal);
    let problem = match allowed {
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
    let id = stored.organization_id.as_ref();
    context
        .output
        .say(&format!("Signed in. Organization: {}", organization(id)));
    context
        .output
        .say(&format!("The credentials are in {}", file.shown()));
    if context.vars.is_set(API_KEY_VARIABLE) {
        context.output.say(&format!(
            "{API_KEY_VARIABLE} is set too, and ignored from now on: the stored login comes first."
        ));
    }
    if events {
        let event = json!({
            "event": "done",
            "api_url": stored.api_url,
            "organization_id": id,
            "credentials_file": file.shown(),
        });
        context.output.event(&event)?;
    }
    Ok(Exit::Done)
}
