//! Saves a login, and tells the user whose it is.

use serde_json::json;

use crate::cli::account::Account;
use crate::cli::api::Api;
use crate::cli::context::Context;
use crate::cli::credentials::Stored;
use crate::cli::error::{CliError, Exit};
use crate::cli::json_file::JsonFile;
use crate::cli::login::show::ignore_closed;

/// Saves the login, and says so.
pub(super) fn keep(
    context: &mut Context,
    file: &JsonFile,
    stored: &Stored,
    events: bool,
) -> Result<Exit, CliError> {
    save(context, file, stored)?;
    tell(context, file, stored, events)
}

pub(super) fn save(context: &Context, file: &JsonFile, stored: &Stored) -> Result<(), CliError> {
    let mut saved = Ok(());
    context
        .clock
        .defer_interrupt(&mut || saved = stored.save(file));
    saved.map_err(|error| {
        CliError::failed(format!("the login is approved, but {} cannot be written: {error}", file.shown()))
            .word("cannot_save")
            .hint("set POSTIZ_CREDENTIALS_FILE to a file that can be written, and run `postiz auth:login` again for a new token")
    })
}

/// Says that the login is saved, which variables it makes useless, and whose it is.
pub(super) fn tell(
    context: &mut Context,
    file: &JsonFile,
    stored: &Stored,
    events: bool,
) -> Result<Exit, CliError> {
    let path = file.shown();
    context
        .output
        .say(&format!("Signed in. The credentials are in {path}"));
    let api = Api::connect(context)?;
    for (variable, why) in api.signed_in.unused_variables(&context.vars) {
        let words = format!("{variable} is set, and not used from now on: {why}.");
        context.output.say(&words);
    }
    if events {
        let event = json!({
            "event": "done",
            "api_url": stored.api_url,
            "organization_id": stored.organization_id,
            "credentials_file": path,
        });
        let printed = context.output.event(&event);
        ignore_closed(printed)?;
    }
    // This comes last, since it takes long where the API cannot be reached.
    let account = Account::ask(&api, context);
    let organization = account.organization_or(stored.organization_id.as_ref());
    context.output.say(&format!("Organization: {organization}"));
    if let Some(person) = account.person {
        context.output.say(&format!("User: {person}"));
    }
    Ok(Exit::Done)
}
