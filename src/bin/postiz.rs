//! The `postiz` command line: arguments, environment, streams and Ctrl-C in; exit code out.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use postiz::cli::context::{CommonFlags, Context, SystemClock, Vars};
use postiz::cli::error::Exit;
use postiz::cli::output::{Output, Screen};

fn main() -> ExitCode {
    let vars = Vars::new(std::env::vars_os());
    let screen = Screen {
        stdout_is_terminal: io::stdout().is_terminal(),
        stderr_is_terminal: io::stderr().is_terminal(),
        understands_escapes: vars.understands_escapes(),
        wants_colour: vars.wants_colour(),
    };
    let system = rustix::system::uname();
    let context = Context {
        arguments: std::env::args_os().skip(1).collect(),
        vars,
        host_name: Some(system.nodename().to_string_lossy().into_owned()),
        home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
        stdin: Box::new(io::stdin()),
        output: Output::new(Box::new(io::stdout()), Box::new(io::stderr()), screen),
        clock: Box::new(clock_with_ctrl_c()),
        open_browser: postiz::cli::open_browser,
        common: CommonFlags::default(),
    };
    ExitCode::from(postiz::cli::run(context).code())
}

/// The clock that sees Ctrl-C, which ends the program with exit code 130: at once, unless work defers it.
fn clock_with_ctrl_c() -> SystemClock {
    use signal_hook::{consts::SIGINT, flag};
    let interrupted = Arc::new(AtomicBool::new(false));
    let may_end_at_once = Arc::new(AtomicBool::new(true));
    // Without a handler, the system's default (the signal ends the program) is good enough.
    let _ = flag::register_conditional_shutdown(
        SIGINT,
        Exit::Interrupted.code().into(),
        may_end_at_once.clone(),
    );
    let _ = flag::register(SIGINT, interrupted.clone());
    SystemClock::new(interrupted, may_end_at_once)
}
