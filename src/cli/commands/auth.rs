//! `auth:status`, `auth:logout`, `auth:token`. Signing in is login/.

use serde_json::{Value, json};

use crate::cli::api::{Api, Call};
use crate::cli::command::{AS_JSON, Command, Options};
use crate::cli::context::{Context, Vars};
use crate::cli::credentials::{
    API_KEY_VARIABLE, API_URL_VARIABLE, AUTH_SERVER_VARIABLE, By, CredentialsFile, SignedIn,
};
use crate::cli::error::{CliError, Exit};
use crate::cli::login::StartedLogin;

/// What Postiz says about a credential that it takes.
struct Confirmed {
    integrations: usize,
    names: Names,
}

/// Who is signed in, as people know them.
#[derive(Default)]
pub(crate) struct Names {
    organization_id: Option<String>,
    pub(crate) organization: Option<String>,
    /// An API key belongs to nobody.
    pub(crate) person: Option<String>,
}

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

/// Says who is signed in, and asks Postiz whether that is so.
pub(crate) fn status(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let as_json = options.has(&AS_JSON);
    let api = match Api::connect(context) {
        Ok(api) => api,
        Err(error) if as_json => return report(context, None, Err(error)),
        Err(error) => return Err(error),
    };
    if as_json {
        let confirmed = confirm(&api, context);
        return report(context, Some(&api.signed_in), confirmed);
    }
    describe(context, &api.signed_in)?;
    let confirmed = confirm(&api, context);
    name(context, &api.signed_in, confirmed.as_ref().ok())?;
    let count = match confirmed {
        Ok(confirmed) => confirmed.integrations,
        Err(error) if error.exit == Exit::Failed => {
            return Err(error.about("the credentials could not be verified"));
        }
        Err(error) => return Err(error),
    };
    let plural = if count == 1 { "" } else { "s" };
    context.output.line(&format!(
        "Status:       valid, {count} integration{plural} connected"
    ))?;
    Ok(Exit::Done)
}

/// What is known without asking Postiz.
fn describe(context: &mut Context, signed_in: &SignedIn) -> Result<(), CliError> {
    let output = &mut context.output;
    let start = signed_in.secret_start();
    match &signed_in.by {
        By::Login { file, .. } => {
            output.line("Method:       OAuth2 (auth:login)")?;
            output.line(&format!("API URL:      {}", signed_in.api_url))?;
            output.line(&format!("Credentials:  {}", file.shown()))?;
            output.line(&format!("Token:        {start}…"))?;
            if file.is_open_to_others() {
                let path = file.shown();
                output.warn(&format!(
                    "other users of this machine can read {path}: run `chmod 600 {path}`"
                ));
            }
        }
        By::ApiKey => {
            output.line(&format!("Method:       API key ({API_KEY_VARIABLE})"))?;
            output.line(&format!("API URL:      {}", signed_in.api_url))?;
            output.line(&format!("Key:          {start}…"))?;
        }
    }
    for (variable, why) in not_used(&context.vars, signed_in) {
        context
            .output
            .warn(&format!("{variable} is set, and not used: {why}"));
    }
    Ok(())
}

/// Variables that are set and change nothing now, each with the reason.
pub(crate) fn not_used(vars: &Vars, signed_in: &SignedIn) -> Vec<(&'static str, &'static str)> {
    let candidates: &[(&str, &str)] = match &signed_in.by {
        By::Login { has_api_url, .. } => {
            let all = &[
                (API_KEY_VARIABLE, "the stored login comes first"),
                (API_URL_VARIABLE, "the stored login has its own API URL"),
            ];
            if *has_api_url { all } else { &all[..1] }
        }
        By::ApiKey => &[(AUTH_SERVER_VARIABLE, "the API key signs in")],
    };
    let is_set = |(name, _): &&(&str, &str)| vars.text(name).is_some();
    candidates.iter().filter(is_set).copied().collect()
}

/// The organisation and the person: their names where Postiz says them, else the organisation's ID.
fn name(
    context: &mut Context,
    signed_in: &SignedIn,
    confirmed: Option<&Confirmed>,
) -> Result<(), CliError> {
    let names = confirmed.map(|confirmed| &confirmed.names);
    let organization = match (
        names.and_then(|names| names.organization.as_deref()),
        &signed_in.by,
    ) {
        (Some(name), _) => Some(name.to_owned()),
        (
            None,
            By::Login {
                organization_id, ..
            },
        ) => Some(organization(organization_id.as_ref())),
        (None, By::ApiKey) => None,
    };
    if let Some(organization) = organization {
        context
            .output
            .line(&format!("Organization: {organization}"))?;
    }
    if let Some(person) = names.and_then(|names| names.person.as_deref()) {
        context.output.line(&format!("User:         {person}"))?;
    }
    Ok(())
}

/// Asks Postiz whether it takes the credential, and whose it is.
fn confirm(api: &Api, context: &mut Context) -> Result<Confirmed, CliError> {
    let json = api.json(context, &Call::get(&["integrations"])?)?;
    let Ok(Value::Array(integrations)) = serde_json::from_str(json.as_str()) else {
        return Err(CliError::failed(
            "Postiz answered with something else than a list of integrations",
        ));
    };
    Ok(Confirmed {
        integrations: integrations.len(),
        names: names(api, context),
    })
}

/// Whose credential it is. Nothing, where Postiz does not say: up to v2.23.0 it has no `/me`.
pub(crate) fn names(api: &Api, context: &mut Context) -> Names {
    let answer = Call::get(&["me"]).and_then(|call| api.json(context, &call.once()));
    let me: Value = answer
        .ok()
        .and_then(|json| serde_json::from_str(json.as_str()).ok())
        .unwrap_or_default();
    let text = |value: &Value| Some(value.as_str()?.to_owned()).filter(|text| !text.is_empty());
    Names {
        organization_id: text(&me["organization"]["id"]),
        organization: text(&me["organization"]["name"]),
        person: text(&me["user"]["name"]),
    }
}

/// The answer for programs. What a person reads on stderr comes after it.
fn report(
    context: &mut Context,
    signed_in: Option<&SignedIn>,
    confirmed: Result<Confirmed, CliError>,
) -> Result<Exit, CliError> {
    // Not to know is neither yes nor no.
    let authenticated = match &confirmed {
        Ok(_) => Some(true),
        Err(error) if error.exit == Exit::NotSignedIn => Some(false),
        Err(_) => None,
    };
    let names = confirmed.as_ref().ok().map(|confirmed| &confirmed.names);
    let (method, stored_id, file) = match signed_in.map(|signed_in| &signed_in.by) {
        None => (None, None, None),
        Some(By::ApiKey) => (Some("api_key"), None, None),
        Some(By::Login {
            file,
            organization_id,
            ..
        }) => (Some("oauth2"), organization_id.clone(), Some(file.shown())),
    };
    let found_id = names.and_then(|names| names.organization_id.as_deref());
    let ignored = signed_in.map(|signed_in| not_used(&context.vars, signed_in));
    let ignored: Vec<&str> = ignored.iter().flatten().map(|(name, _)| *name).collect();
    let mut answer = json!({
        "authenticated": authenticated,
        "method": method,
        "api_url": signed_in.map(|signed_in| signed_in.api_url.as_str()),
        "organization_id": stored_id.or_else(|| found_id.map(Value::from)),
        "organization": names.and_then(|names| names.organization.as_deref()),
        "user": names.and_then(|names| names.person.as_deref()),
        "credentials_file": file,
        "not_used": ignored,
    });
    match &confirmed {
        Ok(confirmed) => answer["integrations"] = confirmed.integrations.into(),
        Err(error) => {
            answer["error"] = error.word.clone().into();
            answer["message"] = error.message.clone().into();
        }
    }
    let printed = context.output.json(&answer.into());
    // What was found out decides the exit code, even where nobody reads the answer any more.
    confirmed.and_then(|_| printed.map(|()| Exit::Done))
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

/// Removes the token, and the login that `--start` began.
pub(crate) fn logout(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = CredentialsFile::locate(context)?;
    // What is there and holds no login is not ours to remove; what is broken may hold a part of one.
    let removed = !matches!(file.load(), Ok(None)) && remove(&file)?;
    let started_removed = remove(&StartedLogin::file_beside(&file))?;
    let key_is_set = context.vars.is_set(API_KEY_VARIABLE);
    if options.has(&AS_JSON) {
        let answer = json!({
            "removed": removed,
            "started_login_removed": started_removed,
            "credentials_file": file.shown(),
            "api_key_in_use": key_is_set,
        });
        context.output.json(&answer.into())?;
        return Ok(Exit::Done);
    }
    let output = &mut context.output;
    let path = file.shown();
    if removed {
        output.say(&format!("Signed out: {path} is removed."));
        output.say(
            "The token itself still works until you revoke it in Postiz: Settings > Approved Apps.",
        );
    } else {
        output.say(&format!(
            "Nobody was signed in: there is no login in {path}."
        ));
    }
    if started_removed {
        output.say("The login that `auth:login --start` began is removed, too.");
    }
    if key_is_set {
        output.say(&format!("{API_KEY_VARIABLE} is set and still signs you in; unset it too if you do not want that."));
    }
    Ok(Exit::Done)
}

fn remove(file: &CredentialsFile) -> Result<bool, CliError> {
    let cannot = |error| CliError::failed(format!("cannot remove {}: {error}", file.shown()));
    file.remove().map_err(cannot)
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
