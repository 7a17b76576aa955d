//! The `postiz` command line: arguments are read against one table of commands, a command runs, its result is printed.
//!
//! In the order data flows: [`context`] is what comes from outside, `table` and `args` say what was asked, `commands` do
//! it by way of `api` or `login`, [`output`] prints, [`error`] is how it ends.

pub mod context;

mod args;
mod command;
mod table;

mod commands;

mod api;
mod api_error;

mod login;

mod http;
mod json;

mod browser;
pub(crate) mod credentials;

mod completions;
mod dates;
mod help;
mod progress;
mod qr;

pub mod error;
pub mod output;

pub use browser::open as open_browser;

use args::{Asked, Topic};
use command::COMMON_FLAGS;
use context::Context;
use error::{CliError, Exit};

/// Runs one command line to its end.
pub fn run(mut context: Context) -> Exit {
    let arguments = std::mem::take(&mut context.arguments);
    let done = args::parse(arguments).and_then(|asked| act(asked, &mut context));
    match done {
        Ok(exit) => exit,
        Err(error) => {
            context.output.error(&error);
            error.exit
        }
    }
}

fn act(asked: Asked, context: &mut Context) -> Result<Exit, CliError> {
    match asked {
        Asked::Run(options) => {
            for (flag, variable) in COMMON_FLAGS {
                if let Some(value) = options.raw(flag) {
                    context.vars.set(variable, value);
                }
            }
            return (options.command.run)(context, &options);
        }
        Asked::Help(topic) => context.output.verbatim(&help::page(topic))?,
        Asked::Version => context
            .output
            .line(concat!("postiz ", env!("CARGO_PKG_VERSION")))?,
        Asked::Nothing => {
            context.output.say_verbatim(&help::page(Topic::Overview));
            return Ok(Exit::Usage);
        }
    }
    Ok(Exit::Done)
}
