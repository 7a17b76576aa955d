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
    /// What the flags that every command has say; nothing before the command line is read.
    pub common: Common,
}

/// What holds for the whole run, whatever the command.
#[derive(Default)]
pub struct Common {
    pub(crate) timeout: AnswerTimeout,
    /// A request whose answer was lost may be sent again.
    pub(crate) again: bool,
    /// What was asked for: the command line, and the files that it names. Two equal ones are one request, said twice.
    pub(crate) asked: Vec<u8>,
}

/// How long an answer may take, as the user chose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AnswerTimeout {
    /// 60 s; for [`Http::send_and_wait`], as long as it takes.
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

    /// Puts `value` in place of what the environment has.
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

    /// Does the terminal, if there is one, understand escape sequences?
    pub fn understands_escapes(&self) -> bool {
        // Windows' terminals do, and set no TERM.
        self.raw("TERM")
            .map_or(cfg!(windows), |term| term != "dumb")
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

/// Time, as an argument: tests neither sleep nor depend on the day.
pub trait Clock {
    /// Time since some fixed moment; it never goes back.
    fn now(&self) -> Duration;
    /// The date.
    fn date(&self) -> SystemTime;
    /// Waits; `false` when the user interrupted.
    fn sleep(&self, time: Duration) -> bool;
    /// Runs `work` to its end although the user interrupts; what was half-written would stay.
    fn finish_first(&self, work: &mut dyn FnMut());
}

/// Sleeps, or says that the user interrupted.
pub(crate) fn sleep(clock: &dyn Clock, time: Duration) -> Result<(), CliError> {
    if clock.sleep(time) {
        Ok(())
    } else {
        Err(CliError::interrupted())
    }
}

/// The system's time, and Ctrl-C: at once where nothing can be left half-done, else at the next safe moment.
pub struct SystemClock {
    start: Instant,
    interrupted: Arc<AtomicBool>,
    may_end_at_once: Arc<AtomicBool>,
}

impl SystemClock {
    /// Waits are cut short once `interrupted` is set; `may_end_at_once` tells the signal's handler what it may do.
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

    fn finish_first(&self, work: &mut dyn FnMut()) {
        self.may_end_at_once.store(false, Ordering::SeqCst);
        work();
        self.may_end_at_once.store(true, Ordering::SeqCst);
    }
}

/// How soon a sleeping program notices Ctrl-C.
const INTERRUPT_CHECK: Duration = Duration::from_millis(50);
