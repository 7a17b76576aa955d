//! What both ways of signing in show while they go on: warnings, the browser, events for programs.

use std::time::Duration;

use serde_json::Value;

use crate::cli::browser::{NoBrowser, may_open};
use crate::cli::command::{AS_JSON, Options};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::login::flags::NO_BROWSER;
use crate::shared::base_url::BaseUrl;

/// Says that others can read along, where they can.
pub(super) fn warn_if_not_encrypted(context: &mut Context, base: &BaseUrl) {
    if !base.is_https() && !base.is_loopback() {
        context.output.warn(&format!(
            "{base} is not encrypted: others on the network can take this login over; use https"
        ));
    }
}

/// `9:05`, a second that has begun counted as whole.
pub(super) fn minutes(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Opens `address`, or says why not and what to do.
pub(super) fn open_browser(
    context: &mut Context,
    options: &Options,
    address: &str,
    is_trusted: bool,
) {
    let has_terminal = context.output.screen().stderr_is_terminal;
    let allowed = may_open(!options.has(&NO_BROWSER), &context.vars, has_terminal);
    let problem = match allowed {
        Ok(()) if !is_trusted => "That page is not the auth server's own",
        Ok(()) if (context.open_browser)(address) => {
            context.output.say("Your browser should open it now.");
            return;
        }
        Ok(()) => "No browser could be opened",
        Err(NoBrowser::OverSsh) => "This is an SSH session",
        Err(NoBrowser::NobodyHere) => "There is no display",
        Err(NoBrowser::InThisTerminal) => "The browser in BROWSER would take this terminal over",
        Err(NoBrowser::NotWanted) => "No browser is opened",
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
pub(super) fn show_event(context: &mut Context, event: &Value) -> Result<(), CliError> {
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
pub(super) fn ignore_closed(printed: Result<(), CliError>) -> Result<(), CliError> {
    match printed {
        Err(error) if error.exit == Exit::Done => Ok(()),
        other => other,
    }
}
