//! Everything the CLI takes from outside: arguments, environment, streams, time, the browser. A test builds its own.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::cli::error::CliError;
use crate::cli::output::Output;

/// What one run of the CLI may touch.
pub struct Context {
    /// The command line, without the program's name.
    pub arguments: Vec<OsString>,
    /// The environment, read once.
    pub vars: Vars,
    /// This machine's name, where one is known.
    pub host_name: Option<String>,
    /// The user's home folder, where one is known.
    pub home: Option<PathBuf>,
    /// Standard input.
    pub stdin: Box<dyn Read>,
    /// Standard output and error.
    pub output: Output,
    /// Time.
    pub clock: Box<dyn Clock>,
    /// Opens an address in the user's browser and does not wait for it; `false` when that failed.
    pub open_browser: fn(&str) -> bool,
    /// The flags that every command has; their defaults until the command line is read.
    pub common: CommonFlags,
}

/// The values of the flags that every command has.
#[derive(Default)]
pub struct CommonFlags {
    pub(crate) timeout: AnswerTimeout,
    /// Send a request although the same one was sent before and got no answer.
    pub(crate) again: bool,
    /// Identifies what the user asked for: the command line, and the content of the texts that it names. Two runs of equal
    /// identity ask for the same.
    pub(crate) identity: Vec<u8>,
}

/// How long an answer may take, as the user chose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AnswerTimeout {
    /// 60 s; no limit for a request that the server may need long for.
    #[default]
    Usual,
    After(Duration),
    Never,
}

/// The environment's variables.
pub struct Vars(Vec<(OsString, OsString)>);

impl Vars {
    /// Keeps `vars`.
    pub fn new(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Vars {
        Vars(vars.into_iter().collect())
    }

    /// Overrides the value of `name`.
    pub(crate) fn set(&mut self, name: &str, value: &OsStr) {
        self.0.retain(|(key, _)| key != name);
        self.0.push((name.into(), value.into()));
    }

    /// The value of `name` as it is, unless it is empty.
    pub(crate) fn raw(&self, name: &str) -> Option<&OsString> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }

    /// The value of `name`; one that is empty or blank counts as not set.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = self.raw(name)?.to_string_lossy().trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// Does the terminal understand escape sequences?
    pub fn understands_escapes(&self) -> bool {
        self.raw("TERM").is_some_and(|term| term != "dumb")
    }

    /// Does the user like colour (<https://no-color.org>)?
    pub fn wants_colour(&self) -> bool {
        !self.is_set("NO_COLOR")
    }

    /// Is `name` set to anything?
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }
}

/// Time, as an argument: unit tests neither sleep nor depend on the date.
pub trait Clock {
    /// Time since some fixed moment; it never goes back.
    fn now(&self) -> Duration;
    /// The date.
    fn date(&self) -> SystemTime;
    /// Sleeps; `false` when the user interrupted.
    fn sleep(&self, time: Duration) -> bool;
    /// Defers Ctrl-C until `work` returns, so that no half-written file is left.
    fn defer_interrupt(&self, work: &mut dyn FnMut());
}

/// Sleeps; an error when the user interrupted.
pub(crate) fn sleep(clock: &dyn Clock, time: Duration) -> Result<(), CliError> {
    match clock.sleep(time) {
        true => Ok(()),
        false => Err(CliError::interrupted()),
    }
}

/// The system's clock. Ctrl-C ends the program at once, or after the current sleep or deferred work.
pub struct SystemClock {
    start: Instant,
    interrupted: Arc<AtomicBool>,
    may_end_at_once: Arc<AtomicBool>,
}

impl SystemClock {
    /// Sleeps end early once `interrupted` is set. The signal handler ends the program itself while `may_end_at_once` is set.
    pub fn new(interrupted: Arc<AtomicBool>, may_end_at_once: Arc<AtomicBool>) -> SystemClock {
        SystemClock {
            start: Instant::now(),
            interrupted,
            may_end_at_once,
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn date(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        self.may_end_at_once.store(false, Ordering::SeqCst);
        while !self.interrupted.load(Ordering::SeqCst) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(INTERRUPT_CHECK));
        }
        self.may_end_at_once.store(true, Ordering::SeqCst);
        !self.interrupted.load(Ordering::SeqCst)
    }

    fn defer_interrupt(&self, work: &mut dyn FnMut()) {
        self.may_end_at_once.store(false, Ordering::SeqCst);
        work();
        self.may_end_at_once.store(true, Ordering::SeqCst);
    }
}

/// How soon a sleeping program notices Ctrl-C.
const INTERRUPT_CHECK: Duration = Duration::from_millis(50);
