//! `auth:status`, `auth:logout`, `auth:token`. Signing in is login.rs.

use serde_json::{Map, Value, json};

use crate::cli::api::{Api, Call};
use crate::cli::command::{Command, Flag, Options, Takes, flag};
use crate::cli::context::Context;
use crate::cli::credentials::{API_KEY_VARIABLE, By, CredentialsFile, SignedIn};
use crate::cli::error::{CliError, Exit};

pub(crate) static STATUS: Command = Command {
    name: "auth:status",
    about: "say who is signed in, and check it with Postiz",
    positionals: &[],
    flags: &[&AS_JSON],
    notes: "Exit code 0: valid. 4: not signed in, or refused. 1: could not be checked.",
    examples: &[
        "postiz auth:status",
        "postiz auth:status --json | jq -r .method",
    ],
    run: status,
};

pub(crate) static AS_JSON: Flag = flag(
    "json",
    None,
    Takes::Nothing,
    "print JSON for programs on stdout",
);

/// Says who is signed in, and asks Postiz whether that is so.
pub(crate) fn status(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let as_json = options.has(&AS_JSON);
    let api = match Api::connect(context) {
        Ok(api) => api,
        Err(error) if as_json => {
            let nothing = ["method", "api_url", "organization_id", "credentials_file"]
                .map(|name| (name.to_owned(), Value::Null));
            return report(context, nothing.into_iter().collect(), Err(error));
        }
        Err(error) => return Err(error),
    };
    if !as_json {
        describe(context, &api.signed_in)?;
    }
    let checked = integrations_connected(&api, context);
    if as_json {
        return report(context, facts(&api.signed_in), checked);
    }
    let count = checked.map_err(|error| match error.exit {
        Exit::Failed => error.about("the credentials could not be verified"),
        _ => error,
    })?;
    let plural = if count == 1 { "" } else { "s" };
    context.output.line(&format!(
        "Status:       valid, {count} integration{plural} connected"
    ))?;
    Ok(Exit::Done)
}

fn describe(context: &mut Context, signed_in: &SignedIn) -> Result<(), CliError> {
    let output = &mut context.output;
    let start = signed_in.secret_start();
    match &signed_in.by {
        By::Login {
            file,
            organization_id,
        } => {
            output.line("Method:       OAuth2 (auth:login)")?;
            output.line(&format!("API URL:      {}", signed_in.api_url))?;
            output.line(&format!(
                "Organization: {}",
                organization(organization_id.as_ref())
            ))?;
            output.line(&format!("Credentials:  {}", file.shown()))?;
            output.line(&format!("Token:        {start}…"))?;
            if file.is_open_to_others() {
                let path = file.shown();
                output.warn(&format!(
                    "other users of this machine can read {path}: run `chmod 600 {path}`"
                ));
            }
            if context.vars.is_set(API_KEY_VARIABLE) {
                output.warn(&format!(
                    "{API_KEY_VARIABLE} is set too, and ignored: the stored login comes first"
                ));
            }
        }
        By::ApiKey => {
            output.line(&format!("Method:       API key ({API_KEY_VARIABLE})"))?;
            output.line(&format!("API URL:      {}", signed_in.api_url))?;
            output.line(&format!("Key:          {start}…"))?;
        }
    }
    Ok(())
}

/// How many channels Postiz has for this credential.
fn integrations_connected(api: &Api, context: &mut Context) -> Result<usize, CliError> {
    let json = api.json(context, &Call::get(&["integrations"])?)?;
    match serde_json::from_str(json.as_str()) {
        Ok(Value::Array(integrations)) => Ok(integrations.len()),
        _ => Err(CliError::failed(
            "Postiz answered with something else than a list of integrations",
        )),
    }
}

fn facts(signed_in: &SignedIn) -> Map<String, Value> {
    let mut facts = Map::new();
    let api_url = signed_in.api_url.as_str();
    match &signed_in.by {
        By::Login {
            file,
            organization_id,
        } => {
            facts.insert("method".into(), "oauth2".into());
            facts.insert("api_url".into(), api_url.into());
            facts.insert(
                "organization_id".into(),
                organization_id.clone().unwrap_or_default(),
            );
            facts.insert("credentials_file".into(), file.shown().into());
        }
        By::ApiKey => {
            facts.insert("method".into(), "api_key".into());
            facts.insert("api_url".into(), api_url.into());
            facts.insert("organization_id".into(), Value::Null);
            facts.insert("credentials_file".into(), Value::Null);
        }
    }
    facts
}

/// The answer for programs. What a person reads on stderr comes after it.
fn report(
    context: &mut Context,
    mut facts: Map<String, Value>,
    checked: Result<usize, CliError>,
) -> Result<Exit, CliError> {
    let mut answer = Map::new();
    // Not to know is neither yes nor no.
    let authenticated = match &checked {
        Ok(_) => Value::Bool(true),
        Err(error) if error.exit == Exit::NotSignedIn => Value::Bool(false),
        Err(_) => Value::Null,
    };
    answer.insert("authenticated".into(), authenticated);
    answer.append(&mut facts);
    match &checked {
        Ok(count) => drop(answer.insert("integrations".into(), (*count).into())),
        Err(error) => {
            answer.insert("error".into(), error.word.clone().into());
            answer.insert("message".into(), error.message.clone().into());
        }
    }
    let printed = context.output.json(&Value::Object(answer).into());
    // What was found out decides the exit code, even where nobody reads the answer any more.
    checked.and_then(|_| printed.map(|()| Exit::Done))
}

pub(crate) static LOGOUT: Command = Command {
    name: "auth:logout",
    about: "remove the stored credentials",
    positionals: &[],
    flags: &[&AS_JSON],
    notes: "The token itself is revoked in Postiz: Settings > Approved Apps.",
    examples: &["postiz auth:logout"],
    run: logout,
};

/// Removes the credentials file.
pub(crate) fn logout(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = CredentialsFile::locate(context)?;
    let removed = file
        .remove()
        .map_err(|error| CliError::failed(format!("cannot remove {}: {error}", file.shown())))?;
    let key_is_set = context.vars.is_set(API_KEY_VARIABLE);
    if options.has(&AS_JSON) {
        let answer = json!({ "removed": removed, "credentials_file": file.shown(), "api_key_in_use": key_is_set });
        context.output.json(&answer.into())?;
        return Ok(Exit::Done);
    }
    let output = &mut context.output;
    if removed {
        output.say(&format!("Signed out: {} is removed.", file.shown()));
        output.say(
            "The token itself still works until you revoke it in Postiz: Settings > Approved Apps.",
        );
    } else {
        output.say(&format!(
            "Nobody was signed in: there is no {}.",
            file.shown()
        ));
    }
    if key_is_set {
        output.say(&format!("{API_KEY_VARIABLE} is set and still signs you in; unset it too if you do not want that."));
    }
    Ok(Exit::Done)
}

pub(crate) static TOKEN: Command = Command {
    name: "auth:token",
    about: "print the credential in use, for scripts",
    positionals: &[],
    flags: &[],
    notes: "",
    examples: &[
        "curl -s -H \"Authorization: $(postiz auth:token)\" \"$(postiz auth:status --json | jq -r .api_url)/public/v1/integrations\" | jq length",
    ],
    run: token,
};

/// Prints the credential in use, alone.
pub(crate) fn token(context: &mut Context, _: &Options) -> Result<Exit, CliError> {
    let signed_in = SignedIn::find(context)?;
    context.output.line(signed_in.secret.expose())?;
    Ok(Exit::Done)
}

/// An organisation's ID as people read it.
pub(crate) fn organization(id: Option<&Value>) -> String {
    match id {
        None | Some(Value::Null) => "unknown".to_owned(),
        Some(Value::String(id)) => id.clone(),
        Some(other) => other.to_string(),
    }
}
