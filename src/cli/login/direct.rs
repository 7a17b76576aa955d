//! Signs in at Postiz itself, with neither an auth server nor an OAuth app (RFC 8252): registers a client for this machine,
//! opens the consent page, waits for the callback, and exchanges the code. callback.rs waits; postiz_oauth.rs speaks to
//! Postiz.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::browser::{NoBrowser, is_over_ssh, may_open};
use crate::cli::command::{AS_JSON, Options};
use crate::cli::context::Context;
use crate::cli::credentials::{self, Stored};
use crate::cli::error::{CliError, Exit, RUN_AGAIN};
use crate::cli::json_file::JsonFile;
use crate::cli::login::callback::{Callback, CallbackListener, Ending, Outcome};
use crate::cli::login::flags::{NEW_CLIENT, NO_BROWSER};
use crate::cli::login::keep::{save, tell};
use crate::cli::login::machine::machine_name;
use crate::cli::login::postiz_oauth::{LoginRequest, Postiz, WAYS};
use crate::cli::login::show::{show_event, warn_if_not_encrypted, with_countdown};
use crate::cli::signed_in::{api_url_from_environment, url_of_setting};
use crate::shared::base_url::BaseUrl;
use crate::shared::hash::hex;
use crate::shared::pkce;
use crate::shared::random;
use crate::shared::text::printable_cut;

/// Opens the consent page, waits, and saves the token.
pub(super) fn sign_in(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let api_url = api_url_from_environment(context)?;
    check_browser(context, options)?;
    let frontend_url = frontend_url(context, &api_url)?;
    let file = credentials::locate(context)?;
    file.check_writable()?;
    context.output.say(&format!("Postiz: {api_url}"));
    warn_if_not_encrypted(context, &api_url);
    let postiz = Postiz::connect(api_url, frontend_url, context)?;
    let (listener, client) = client(context, options, &postiz, &file)?;
    let request = LoginRequest {
        client_id: client.client_id,
        redirect_uri: listener.redirect_uri(),
        state: hex(&random::bytes::<32>()),
        verifier: pkce::verifier(),
    };
    show(context, options, &postiz.consent_url(&request))?;
    let callback = wait(context, listener, &request.state)?;
    let saved = finish(context, &postiz, &request, &callback, &file);
    callback.answer(match &saved {
        Ok(_) => Ending::SignedIn,
        Err(error) if error.word == REFUSED => Ending::Refused,
        Err(_) => Ending::Failed,
    });
    tell(context, &file, &saved?, options.has(&AS_JSON))
}

/// Checks that a browser can run on this machine: the callback goes to 127.0.0.1, which elsewhere is another machine.
fn check_browser(context: &Context, options: &Options) -> Result<(), CliError> {
    let has_terminal = context.output.screen().stderr_is_terminal;
    let why = if is_over_ssh(&context.vars) {
        "this is an SSH session, and the browser would come back to the wrong machine"
    } else if options.has(&NO_BROWSER) {
        // The user opens the page on this machine.
        return Ok(());
    } else {
        match may_open(true, &context.vars, has_terminal) {
            Err(NoBrowser::NoDisplay) => "there is no display for a browser on this machine",
            Err(NoBrowser::InThisTerminal) => {
                "the browser in BROWSER runs no scripts, which Postiz' pages need"
            }
            _ => return Ok(()),
        }
    };
    Err(impossible(why))
}

/// The error where direct login is impossible, with the ways that work.
pub(super) fn impossible(why: &str) -> CliError {
    CliError::failed(format!("cannot sign in to Postiz directly: {why}"))
        .word("no_browser")
        .hint(WAYS)
}

/// The URL of Postiz' pages: the API's without `/api`, except in the cloud.
fn frontend_url(context: &Context, api_url: &BaseUrl) -> Result<BaseUrl, CliError> {
    let url = match context.vars.text(FRONTEND_VARIABLE) {
        Some(url) => url,
        None if is_cloud(api_url) => CLOUD_FRONTEND_URL.to_owned(),
        None => {
            let url = api_url.as_str();
            url.strip_suffix("/api").unwrap_or(url).to_owned()
        }
    };
    url_of_setting(FRONTEND_VARIABLE, &url)
}

pub(super) fn is_cloud(api_url: &BaseUrl) -> bool {
    api_url.host().eq_ignore_ascii_case(CLOUD_HOST)
}

/// The client that this machine registered at Postiz, saved with its port beside the credentials. The next login uses it
/// again, so that the list under Settings > Approved Apps does not grow. It holds no secret.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RegisteredClient {
    api_url: String,
    client_name: String,
    client_id: String,
    /// The port of its callback.
    port: u16,
}

impl RegisteredClient {
    /// The saved client, if it is of this Postiz and has this name. A file that cannot be used is ignored, and the next
    /// registration overwrites it.
    fn load(file: &JsonFile, api_url: &BaseUrl, name: &str) -> Option<RegisteredClient> {
        let fields = file.load().ok()??;
        let client: RegisteredClient = serde_json::from_value(fields.into()).ok()?;
        let is_of_this_postiz = client.api_url == api_url.as_str();
        (is_of_this_postiz && client.client_name == name && client.port > 0).then_some(client)
    }
}

/// The client of an earlier login, if its port is free and Postiz knows it, else a new one; and its port, which is bound
/// before a registration names it.
fn client(
    context: &mut Context,
    options: &Options,
    postiz: &Postiz,
    file: &JsonFile,
) -> Result<(CallbackListener, RegisteredClient), CliError> {
    let name = match machine_name(context, options)?.as_str() {
        "" => CLIENT_NAME.to_owned(),
        machine => format!("{CLIENT_NAME} on {machine}"),
    };
    let client_file = file.beside(".client");
    let kept = RegisteredClient::load(&client_file, &postiz.api_url, &name);
    if let Some(client) = kept.filter(|_| !options.has(&NEW_CLIENT))
        && let Ok(listener) = CallbackListener::bind(client.port)
        && postiz.knows(&client.client_id)?
    {
        return Ok((listener, client));
    }
    let listener = CallbackListener::bind(0).map_err(|error| {
        CliError::failed(format!("cannot wait for the browser on 127.0.0.1: {error}"))
    })?;
    let client = RegisteredClient {
        api_url: postiz.api_url.to_string(),
        client_id: postiz.register(&name, &listener.redirect_uri())?,
        client_name: name,
        port: listener.port,
    };
    if let Err(error) = client_file.save(&client) {
        context.output.warn(&format!(
            "cannot write {}: {error}; the next login will register this machine anew",
            client_file.shown()
        ));
    }
    Ok((listener, client))
}

/// Shows the consent page's address, alone on its line, and opens the page.
fn show(context: &mut Context, options: &Options, url: &str) -> Result<(), CliError> {
    if options.has(&AS_JSON) {
        show_event(context, &json!({ "event": "open", "url": url }))?;
    } else {
        let output = &mut context.output;
        output.say("");
        output.say("Allow the login on this page, in a browser on this machine:");
        output.say("");
        output.say(url);
        output.say("");
    }
    if options.has(&NO_BROWSER) {
        return Ok(());
    }
    if !(context.open_browser)(url) {
        return Err(impossible("no browser could be opened on this machine"));
    }
    context.output.say("Your browser should open it now.");
    Ok(())
}

fn wait(
    context: &mut Context,
    listener: CallbackListener,
    state: &str,
) -> Result<Callback, CliError> {
    let waited = with_countdown(
        context,
        "Waiting for you to allow the login …",
        |clock, tick| listener.wait(state, LOGIN_TIMEOUT, clock, tick),
    );
    waited?.ok_or_else(|| {
        CliError::failed("nobody allowed the login within 15 minutes")
            .word("expired")
            .hint(
                "run `postiz auth:login` again; with --new-client if Postiz' page did not know the client, and with \
                 POSTIZ_FRONTEND_URL set if there was no such page",
            )
    })
}

/// Exchanges the callback's code, and saves the login.
fn finish(
    context: &Context,
    postiz: &Postiz,
    request: &LoginRequest,
    callback: &Callback,
    file: &JsonFile,
) -> Result<Stored, CliError> {
    match &callback.outcome {
        Outcome::Code(code) => {
            let stored = postiz.exchange(code, request)?;
            save(context, file, &stored)?;
            Ok(stored)
        }
        Outcome::Error(error) if error == REFUSED => {
            Err(CliError::failed("the login was refused in the browser").word(REFUSED))
        }
        Outcome::Error(error) => {
            let message = format!("Postiz ended the login: {}", printable_cut(error, 100));
            Err(CliError::failed(message).hint(RUN_AGAIN))
        }
    }
}

const CLIENT_NAME: &str = "Postiz CLI";

const FRONTEND_VARIABLE: &str = "POSTIZ_FRONTEND_URL";

const CLOUD_HOST: &str = "api.postiz.com";

const CLOUD_FRONTEND_URL: &str = "https://platform.postiz.com";

/// RFC 6749 §4.1.2.1.
const REFUSED: &str = "access_denied";

const LOGIN_TIMEOUT: Duration = Duration::from_secs(15 * 60);
