//! `auth:login`, in two ways. This file chooses the way.
//!
//! - device_flow.rs signs in through an auth server. auth_server.rs sends its requests, wait.rs schedules the polls, and
//!   started_login.rs saves a login between `--start` and `--finish`.
//! - direct.rs signs in at Postiz itself. postiz_oauth.rs sends its requests, and callback.rs waits for the browser.
//!
//! Both use flags.rs, machine.rs, and show.rs on their way, and keep.rs at the end.

mod auth_server;
mod callback;
mod device_flow;
mod direct;
mod flags;
mod keep;
mod machine;
mod postiz_oauth;
mod show;
mod started_login;
mod wait;

pub(crate) use flags::NO_BROWSER;
pub(crate) use started_login::StartedLogin;

use serde_json::json;

use crate::cli::command::{AS_JSON, Command, Options};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::signed_in::{API_URL_VARIABLE, AUTH_SERVER_VARIABLE, api_url_from_environment};
use flags::{
    ALLOW_HTTP, AUTH_SERVER, CLIENT_ID, CLIENT_SECRET, DIRECT, FINISH, NEW_CLIENT, NO_WAIT, QR,
    START,
};
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
There are two ways. Through an auth server: shows a code and a page's address, opens the page, and waits until you have
confirmed the code there, on any device. Directly: opens Postiz' own page in a browser on this machine, and waits until
you allow the login there.

The auth server is the one that --auth-server or POSTIZ_AUTH_SERVER names. The login is direct with --direct, or when
POSTIZ_API_URL names a self-hosted Postiz. Else the auth server is https://cli-auth.postiz.com.

Postiz lists the login under Settings > Approved Apps by this machine's name. An auth server accepts up to three words of
ASCII letters, digits, - and _ as a name, and passes it on unless it has an OAuth app of its own.

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

fn login(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    check_flags(options)?;
    if options.has(&CLIENT_ID) || options.has(&CLIENT_SECRET) {
        context
            .output
            .say("--client-id and --client-secret are ignored: signing in needs neither.");
    }
    let is_direct = is_direct(context, options)?;
    if options.has(&NEW_CLIENT) && !is_direct {
        return Err(CliError::usage(
            "--new-client goes with --direct: an auth server has its own",
        ));
    }
    let in_two_calls = options.has(&START) || options.has(&FINISH);
    let events = options.has(&AS_JSON) || in_two_calls;
    let done = if is_direct {
        direct::sign_in(context, options)
    } else if options.has(&FINISH) {
        device_flow::finish(context, options)
    } else if options.has(&START) {
        device_flow::start(context, options)
    } else {
        device_flow::sign_in(context, options)
    };
    match done {
        Err(error) if events && error.exit != Exit::Done => {
            let mut event =
                json!({ "event": "error", "error": error.word, "message": error.message });
            if let Some(reference) = &error.reference {
                event["reference"] = reference.as_str().into();
            }
            // The failure counts, whether or not anyone reads the event.
            let _ = context.output.event(&event);
            Err(error)
        }
        other => other,
    }
}

/// Do the flags and variables ask for a direct login? A user who names a self-hosted Postiz must never sign in to the cloud.
fn is_direct(context: &Context, options: &Options) -> Result<bool, CliError> {
    let names_auth_server = options.has(&AUTH_SERVER) || options.has(&FINISH);
    if options.has(&DIRECT) {
        return Ok(true);
    }
    if names_auth_server || context.vars.text(AUTH_SERVER_VARIABLE).is_some() {
        return Ok(false);
    }
    let api_url = api_url_from_environment(context)?;
    if direct::is_cloud(&api_url) {
        return Ok(false);
    }
    let other_device = [&START, &QR];
    if let Some(flag) = other_device.into_iter().find(|flag| options.has(flag)) {
        let why = format!("{flag} needs an auth server, and {API_URL_VARIABLE} names {api_url}");
        return Err(direct::impossible(&why));
    }
    Ok(true)
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
    Err(options.wrong_usage(wrong))
}
