//! The `postiz` command line: it parses the arguments against one table of commands, runs a command, and prints its result.
//!
//! In the order data flows: [`context`] is what comes from outside; `args` parses it against `table`; `commands` run, by way
//! of `api` or `login`; [`output`] prints results, and [`error`] is how a command fails.

pub mod context;

mod args;
mod command;
mod common_flags;
mod help;
mod suggestions;
mod table;

mod commands;
mod login;

mod account;
mod api;
mod api_error;
mod call;
mod http;
mod unanswered;

pub(crate) mod credentials;
pub(crate) mod json_file;
mod private_file;
mod signed_in;

mod browser;
mod dates;
mod input;
mod json;
mod progress;
mod qr;

pub mod error;
pub mod output;

pub use browser::open as open_browser;

use crate::shared::version::version;
use args::Asked;
use command::CREDENTIALS;
use context::{CommonFlags, Context};
use error::{CliError, Exit};
use help::Topic;

/// Runs one command line to its end.
pub fn run(mut context: Context) -> Exit {
    let arguments = std::mem::take(&mut context.arguments);
    let as_json = common_flags::wants_json_errors(&arguments);
    let done = args::parse(table::COMMANDS, arguments).and_then(|asked| act(asked, &mut context));
    match done {
        Ok(exit) => exit,
        Err(error) => {
            context.output.error(&error);
            if as_json {
                context.output.error_as_json(&error);
            }
            error.exit
        }
    }
}

fn act(asked: Asked, context: &mut Context) -> Result<Exit, CliError> {
    match asked {
        Asked::Run(options) => {
            if let Some(file) = options.raw(&CREDENTIALS) {
                context.vars.set("POSTIZ_CREDENTIALS_FILE", file);
            }
            context.common = CommonFlags::read(&options, &context.vars)?;
            return (options.command.run)(context, &options);
        }
        Asked::Help(topic) => context
            .output
            .verbatim(&help::page(table::COMMANDS, topic))?,
        Asked::Version => {
            let version = version(Some("npm 2.1.0 compatible"));
            context.output.line(&format!("postiz {version}"))?;
        }
        Asked::Nothing => {
            context
                .output
                .say_verbatim(&help::page(table::COMMANDS, Topic::Overview));
            return Ok(Exit::Usage);
        }
    }
    Ok(Exit::Done)
}
