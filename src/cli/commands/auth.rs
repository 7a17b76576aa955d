//! `auth:status`, `auth:logout`, `auth:token`. `auth:login` is in login/.

use serde_json::{Value, json};

use crate::cli::account::Account;
use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::{AS_JSON, Command, Options};
use crate::cli::context::Context;
use crate::cli::credentials::{self, Stored};
use crate::cli::error::{CliError, Exit};
use crate::cli::json_file::JsonFile;
use crate::cli::login::StartedLogin;
use crate::cli::signed_in::{API_KEY_VARIABLE, SignInMethod, SignedIn};

/// What Postiz says about a valid credential.
struct Confirmed {
    integrations: usize,
    account: Account,
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

fn status(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let as_json = options.has(&AS_JSON);
    let api = match Api::connect(context) {
        Ok(api) => api,
        Err(error) if as_json => return print_json(context, None, Err(error)),
        Err(error) => return Err(error),
    };
    if as_json {
        let confirmed = confirm(&api, context);
        return print_json(context, Some(&api.signed_in), confirmed);
    }
    print_credential(context, &api.signed_in)?;
    let confirmed = confirm(&api, context);
    print_account(context, &api.signed_in, confirmed.as_ref().ok())?;
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

/// Prints what is known without asking Postiz.
fn print_credential(context: &mut Context, signed_in: &SignedIn) -> Result<(), CliError> {
    let output = &mut context.output;
    let start = signed_in.secret_start();
    match &signed_in.method {
        SignInMethod::Login { file, .. } => {
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
        SignInMethod::ApiKey => {
            output.line(&format!("Method:       API key ({API_KEY_VARIABLE})"))?;
            output.line(&format!("API URL:      {}", signed_in.api_url))?;
            output.line(&format!("Key:          {start}…"))?;
        }
    }
    for (variable, why) in signed_in.unused_variables(&context.vars) {
        context
            .output
            .warn(&format!("{variable} is set, and not used: {why}"));
    }
    Ok(())
}

/// Prints the organisation and the person, as far as they are known.
fn print_account(
    context: &mut Context,
    signed_in: &SignedIn,
    confirmed: Option<&Confirmed>,
) -> Result<(), CliError> {
    let unknown = Account::default();
    let account = confirmed.map_or(&unknown, |confirmed| &confirmed.account);
    let stored_id = match &signed_in.method {
        SignInMethod::Login {
            organization_id, ..
        } => Some(organization_id.as_ref()),
        SignInMethod::ApiKey => account.organization.as_ref().map(|_| None),
    };
    if let Some(stored_id) = stored_id {
        let organization = account.organization_or(stored_id);
        context
            .output
            .line(&format!("Organization: {organization}"))?;
    }
    if let Some(person) = &account.person {
        context.output.line(&format!("User:         {person}"))?;
    }
    Ok(())
}

/// Asks Postiz whether the credential is valid, and whose it is.
fn confirm(api: &Api, context: &mut Context) -> Result<Confirmed, CliError> {
    let answer = api.json(context, &Call::get(&["integrations"])?)?;
    let Value::Array(integrations) = answer.value() else {
        return Err(CliError::failed(
            "Postiz answered with something else than a list of integrations",
        ));
    };
    Ok(Confirmed {
        integrations: integrations.len(),
        account: Account::ask(api, context),
    })
}

/// Prints the result for programs. An error is printed on stderr as well.
fn print_json(
    context: &mut Context,
    signed_in: Option<&SignedIn>,
    confirmed: Result<Confirmed, CliError>,
) -> Result<Exit, CliError> {
    // Null when Postiz could not be asked.
    let authenticated = match &confirmed {
        Ok(_) => Some(true),
        Err(error) if error.exit == Exit::NotSignedIn => Some(false),
        Err(_) => None,
    };
    let account = confirmed.as_ref().ok().map(|confirmed| &confirmed.account);
    let (method, stored_id, file) = match signed_in.map(|signed_in| &signed_in.method) {
        None => (None, None, None),
        Some(SignInMethod::ApiKey) => (Some("api_key"), None, None),
        Some(SignInMethod::Login {
            file,
            organization_id,
            ..
        }) => (Some("oauth2"), organization_id.clone(), Some(file.shown())),
    };
    let found_id = account.and_then(|account| account.organization_id.as_deref());
    let ignored = signed_in.map(|signed_in| signed_in.unused_variables(&context.vars));
    let ignored: Vec<&str> = ignored.iter().flatten().map(|(name, _)| *name).collect();
    let mut answer = json!({
        "authenticated": authenticated,
        "method": method,
        "api_url": signed_in.map(|signed_in| signed_in.api_url.as_str()),
        "organization_id": stored_id.or_else(|| found_id.map(Value::from)),
        "organization": account.and_then(|account| account.organization.as_deref()),
        "user": account.and_then(|account| account.person.as_deref()),
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
    // What Postiz said decides the exit code, even when nobody reads the result.
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
fn logout(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let file = credentials::locate(context)?;
    // A file without a login is not ours to remove. A broken file may hold a part of a login.
    let removed = !matches!(Stored::load(&file), Ok(None)) && remove(&file)?;
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

fn remove(file: &JsonFile) -> Result<bool, CliError> {
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
    run: |context, _| {
        let signed_in = SignedIn::find(context)?;
        context.output.line(signed_in.secret.expose())?;
        Ok(Exit::Done)
    },
};
