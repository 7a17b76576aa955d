//! `analytics:platform` and `analytics:post`: the numbers of the last days.

use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, Options, value};
use crate::cli::commands::common::{INTEGRATION_ID, POST_ID, answer_of};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

pub(crate) static PLATFORM: Command = Command {
    name: "analytics:platform",
    about: "show a channel's numbers",
    positionals: &[INTEGRATION_ID],
    flags: &[&DAYS],
    notes: "",
    examples: &["postiz analytics:platform \"$CHANNEL\" -d 30 | jq -r '.[].label'"],
    run: platform,
};

static DAYS: Flag = value("date", "DAYS", "how many days back (default: 7)").short('d');

fn platform(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::get(&["analytics", options.positional(0)?])?.query("date", days(options)?);
    answer_of(context, &call)
}

pub(crate) static POST: Command = Command {
    name: "analytics:post",
    about: "show a post's numbers",
    positionals: &[POST_ID],
    flags: &[&DAYS],
    notes: "",
    examples: &["postiz analytics:post \"$POST\" -d 30"],
    run: post,
};

fn post(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call =
        Call::get(&["analytics", "post", options.positional(0)?])?.query("date", days(options)?);
    answer_of(context, &call)
}

fn days(options: &Options) -> Result<&str, CliError> {
    let days = options.text(&DAYS)?.unwrap_or("7");
    match days.parse::<u32>() {
        Ok(number) if number > 0 => Ok(days),
        _ => Err(CliError::usage(format!(
            "--date must be a number of days, not `{days}`"
        ))),
    }
}
