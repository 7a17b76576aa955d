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
    run: |context, options| print_numbers(context, options, &["analytics"]),
};

static DAYS: Flag = value("date", "DAYS", "how many days back (default: 7)").short('d');

pub(crate) static POST: Command = Command {
    name: "analytics:post",
    about: "show a post's numbers",
    positionals: &[POST_ID],
    flags: &[&DAYS],
    notes: "",
    examples: &["postiz analytics:post \"$POST\" -d 30"],
    run: |context, options| print_numbers(context, options, &["analytics", "post"]),
};

fn print_numbers(
    context: &mut Context,
    options: &Options,
    path: &[&str],
) -> Result<Exit, CliError> {
    let call = Call::get(&[path, &[options.positional(0)?]].concat())?;
    let days = options.text(&DAYS)?.unwrap_or("7");
    if !days.parse().is_ok_and(|number: u32| number > 0) {
        let message = format!("--date must be a number of days, not `{days}`");
        return Err(CliError::usage(message));
    }
    answer_of(context, &call.query("date", days))
}
