//! `analytics:platform` and `analytics:post`: numbers of the last days.

use crate::cli::api::Call;
use crate::cli::args::Options;
use crate::cli::commands::answer_of;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::table::DAYS;

pub(crate) fn platform(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::get(&["analytics", options.positional(0)?])?.query("date", days(options)?);
    answer_of(context, &call)
}

pub(crate) fn post(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
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
