//! What both ways of signing in show on their way: a warning, the page, events for programs.

use std::time::Duration;

use serde_json::Value;

use crate::cli::browser::{NoBrowser, may_open};
use crate::cli::command::{AS_JSON, Options};
use crate::cli::context::{Clock, Context};
use crate::cli::error::{CliError, Exit};
use crate::cli::login::flags::NO_BROWSER;
use crate::shared::base_url::BaseUrl;

/// Warns where others on the network can read the login.
pub(super) fn warn_if_not_encrypted(context: &mut Context, base: &BaseUrl) {
    if !base.is_https() && !base.is_loopback() {
        context.output.warn(&format!(
            "{base} is not encrypted: others on the network can take this login over; use https"
        ));
    }
}

/// Runs `wait` with a countdown on a terminal, else after `text`. `wait` gets the function that shows the time left.
pub(super) fn with_countdown<T>(
    context: &mut Context,
    text: &str,
    wait: impl FnOnce(&dyn Clock, &mut dyn FnMut(Duration)) -> T,
) -> T {
    let Context { clock, output, .. } = context;
    if !output.can_change_lines() {
        output.say(text);
    }
    let waited = wait(clock.as_ref(), &mut |left| {
        output.line_in_place(&format!("Waiting for you … {} left", minutes(left)));
    });
    output.clear_line();
    waited
}

/// Minutes and seconds: `9:05`. A part of a second counts as a whole one.
fn minutes(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Opens `address`, or shows it and says why it is not opened.
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
        Err(NoBrowser::NoDisplay) => "There is no display",
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

/// Prints the event that says what to open. It is an error when nobody reads it, since then nobody can confirm the login.
pub(super) fn show_event(context: &mut Context, event: &Value) -> Result<(), CliError> {
    match context.output.event(event) {
        Err(error) if error.exit == Exit::Done => Err(CliError::failed(
            "nobody reads what to open on stdout, so that nobody can confirm it",
        )
        .hint("read all of stdout, or leave --json away to read it on stderr")),
        other => other,
    }
}

/// Ignores that the reader of stdout has gone, where the event only reports what has happened.
pub(super) fn ignore_closed(printed: Result<(), CliError>) -> Result<(), CliError> {
    match printed {
        Err(error) if error.exit == Exit::Done => Ok(()),
        other => other,
    }
}
