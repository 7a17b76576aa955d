//! The auth server's main: reads the environment, serves until a signal, and returns the exit code.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program prints to its caller"
)]
#![allow(clippy::disallowed_methods, reason = "the environment is read here")]

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;

use postiz::server::config::{self, Config};
use postiz::server::log::{self, Level, Log};
use postiz::server::notify::Notify;
use postiz::server::{self, Server};
use postiz::shared::version::version;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

const HELP: &str = include_str!("postiz-auth-server.help");

/// Wrong usage, or a configuration with problems.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = pico_args::Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        print!("{}", HELP.replace("{SETTINGS}", &config::help()));
        return ExitCode::SUCCESS;
    }
    if arguments.contains(["-v", "--version"]) {
        println!("postiz-auth-server {}", version(None));
        return ExitCode::SUCCESS;
    }
    let check = arguments.contains("--check");
    let rest = arguments.finish();
    let act: fn(Config) -> ExitCode = match (rest.as_slice(), check) {
        ([], false) => run,
        ([], true) => report,
        ([command], false) if command == "healthcheck" => healthcheck,
        ([unknown, ..], _) => {
            eprintln!(
                "postiz-auth-server: unknown argument {unknown:?}; --help shows what there is"
            );
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match Config::from_vars(std::env::vars_os()) {
        Ok(config) => act(config),
        Err(problems) => {
            print_error(&problems);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Prints why the server does not start. For systemd's journal each line has the priority of an error.
fn print_error(problem: &dyn Display) {
    let priority = log::priority(is_journal(), Level::Error);
    for line in format!("postiz-auth-server: {problem}").lines() {
        eprintln!("{priority}{line}");
    }
}

fn is_journal() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| log::is_journal(&stream))
}

/// `--check`: prints notes to stdout, and problems to stderr.
fn report(config: Config) -> ExitCode {
    let findings = server::check(&config);
    for note in &findings.notes {
        println!("{note}");
    }
    for problem in findings.misconfigured.iter().chain(&findings.unreachable) {
        eprintln!("postiz-auth-server: {problem}");
    }
    match (
        findings.misconfigured.is_empty(),
        findings.unreachable.is_empty(),
    ) {
        (false, _) => ExitCode::from(EXIT_USAGE),
        (_, false) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// `healthcheck`: whether the server with the same environment is ready.
fn healthcheck(config: Config) -> ExitCode {
    match server::healthcheck(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postiz-auth-server: not ready: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT, then finishes the requests in flight. A second signal ends the process at once. SIGHUP (also
/// when a terminal closes) makes it read its certificate again.
fn run(config: Config) -> ExitCode {
    let log = Log::stderr(config.log_format, config.log_level, is_journal());
    let log = Arc::new(log);
    log_panics(Arc::clone(&log));
    for warning in &config.warnings {
        log.warn("configuration", &[("warning", warning)]);
    }
    // Signals are caught before anything is started, so that none ends the process half-started. With SIGXFSZ caught, a write
    // beyond `ulimit -f` fails with an error instead of ending the process.
    let caught = signal_hook::flag::register(SIGXFSZ, Arc::default())
        .and_then(|_| Signals::new([SIGTERM, SIGINT, SIGHUP]));
    let mut signals = match caught {
        Ok(signals) => signals,
        Err(error) => {
            print_error(&format!("cannot catch signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let notify = Notify::new(std::env::var_os("NOTIFY_SOCKET"));
    let server = match Server::start(config, Arc::clone(&log)) {
        Ok(server) => server,
        Err(error) => {
            print_error(&error);
            return ExitCode::FAILURE;
        }
    };
    notify.ready(server.local_url(), &log);
    let reloads = signals.forever().take_while(|signal| *signal == SIGHUP);
    reloads.for_each(|_| server.reload());
    std::thread::spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            std::process::exit(1);
        }
    });
    notify.stopping(&log);
    server.stop();
    ExitCode::SUCCESS
}

/// Writes panics to the log. A panic ends one request, not the process.
fn log_panics(log: Arc<Log>) {
    std::panic::set_hook(Box::new(move |panic| {
        let (payload, at) = (panic.payload(), panic.location().map(ToString::to_string));
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let what = text.or_else(|| payload.downcast_ref().copied());
        log.error(
            "panicked",
            &[
                ("what", what.unwrap_or_default()),
                ("at", &at.unwrap_or_default()),
                ("thread", std::thread::current().name().unwrap_or_default()),
            ],
        );
    }));
}
