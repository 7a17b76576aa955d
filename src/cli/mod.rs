//! The `postiz` command line: arguments are read against one table of commands, a command runs, its result is printed.
//!
//! In the order data flows: [`context`] is what comes from outside, `table` and `args` say what was asked, `commands` do
//! it by way of `api` or `login`, [`output`] prints, [`error`] is how it ends.

pub mod context;

mod args;
mod command;
mod common;
mod suggestions;
mod table;

mod commands;

mod api;
mod api_error;
mod unanswered;

mod login;

mod http;
mod json;

mod browser;
pub(crate) mod credentials;
mod private_file;

mod completions;
mod dates;
mod help;
mod progress;
mod qr;

pub mod error;
pub mod output;

pub use browser::open as open_browser;

use crate::shared::version::version;
use args::{Asked, Topic};
use command::CREDENTIALS;
use context::{Common, Context};
use error::{CliError, Exit};

/// Runs one command line to its end.
pub fn run(mut context: Context) -> Exit {
    let arguments = std::mem::take(&mut context.arguments);
    let as_json = common::wants_json_errors(&arguments);
    let done = args::parse(arguments).and_then(|asked| act(asked, &mut context));
    match done {
        Ok(exit) => exit,
        Err(error) => {
            match as_json {
                true => context.output.error_as_json(&error),
                false => context.output.error(&error),
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
            context.common = Common::read(&options, &context.vars)?;
            return (options.command.run)(context, &options);
        }
        Asked::Help(topic) => context.output.verbatim(&help::page(topic))?,
        Asked::Version => {
            let version = version(Some("npm 2.1.0 compatible"));
            context.output.line(&format!("postiz {version}"))?;
        }
        Asked::Nothing => {
            context.output.say_verbatim(&help::page(Topic::Overview));
            return Ok(Exit::Usage);
        }
    }
    Ok(Exit::Done)
}
