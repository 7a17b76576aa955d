//! The only file that prints. Its rules:
//!
//! - stdout carries the result alone, for programs; stderr carries everything meant for a person.
//! - Text from elsewhere loses its control characters before a terminal sees it.
//! - Colour and lines that change in place only where stderr is a terminal; no colour with `NO_COLOR`.
//! - A reader of stdout that has gone is not an error; a stdout that cannot be written is.

use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::cli::error::CliError;
use crate::cli::json::{Json, without_unprintable};
use crate::shared::text::printable;

/// stdout and stderr, and what they can show.
pub struct Output {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    screen: Screen,
    /// The terminal shows a line that changes in place, which must be removed before anything else is printed.
    line_stands: bool,
    /// The lines that are printed once, and were.
    warned: Vec<String>,
}

/// What the streams are connected to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// stdout is a terminal.
    pub stdout_is_terminal: bool,
    /// stderr is a terminal.
    pub stderr_is_terminal: bool,
    /// The terminal understands escape sequences (`TERM` is not `dumb`).
    pub understands_escapes: bool,
    /// Colour is welcome (`NO_COLOR` is not set).
    pub wants_colour: bool,
}

impl Screen {
    pub(crate) fn has_colour(self) -> bool {
        self.stderr_is_terminal && self.understands_escapes && self.wants_colour
    }
}

impl Output {
    /// Writes to these streams.
    pub fn new(
        stdout: Box<dyn Write + Send>,
        stderr: Box<dyn Write + Send>,
        screen: Screen,
    ) -> Output {
        Output {
            stdout,
            stderr,
            screen,
            line_stands: false,
            warned: Vec::new(),
        }
    }

    pub(crate) fn screen(&self) -> Screen {
        self.screen
    }

    /// The result of a command: JSON, two-space indented, a newline at its end.
    pub(crate) fn json(&mut self, json: &Json) -> Result<(), CliError> {
        let text = json.indented(self.screen.stdout_is_terminal);
        self.write_stdout(format!("{text}\n").as_bytes())
    }

    /// One event: a JSON object on a line of its own.
    pub(crate) fn event(&mut self, event: &serde_json::Value) -> Result<(), CliError> {
        let mut line = event.to_string();
        if self.screen.stdout_is_terminal {
            line = without_unprintable(&line);
        }
        self.write_stdout(format!("{line}\n").as_bytes())
    }

    /// A result that is text: one line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), CliError> {
        let text = printable(text);
        self.write_stdout(format!("{text}\n").as_bytes())
    }

    /// A result that is our own text: help, completions.
    pub(crate) fn verbatim(&mut self, text: &str) -> Result<(), CliError> {
        self.write_stdout(text.as_bytes())
    }

    /// A body as the API sent it; without control characters on a terminal.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        if !self.screen.stdout_is_terminal {
            return self.write_stdout(bytes);
        }
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<String> = text.lines().map(printable).collect();
        self.write_stdout(format!("{}\n", lines.join("\n")).as_bytes())
    }

    fn write_stdout(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.clear_line();
        let written = self
            .stdout
            .write_all(bytes)
            .and_then(|()| self.stdout.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::reader_gone(),
            _ => CliError::failed(format!("cannot write the result to stdout: {error}")),
        })
    }

    /// A line for the person at the terminal.
    pub(crate) fn say(&mut self, text: &str) {
        self.clear_line();
        self.write_stderr(&format!("{}\n", printable(text)));
    }

    /// A line in bold, with nothing else on it, so that it can be copied.
    pub(crate) fn say_bold(&mut self, text: &str) {
        self.clear_line();
        let line = self.coloured("1", &printable(text));
        self.write_stderr(&format!("{line}\n"));
    }

    /// A warning: the command goes on.
    pub(crate) fn warn(&mut self, text: &str) {
        self.clear_line();
        let label = self.coloured("33", "warning:");
        self.write_stderr(&format!("{label} {}\n", printable(text)));
    }

    pub(crate) fn warn_once(&mut self, text: &str) {
        if self.is_new(text) {
            self.warn(text);
        }
    }

    fn is_new(&mut self, text: &str) -> bool {
        let is_new = !self.warned.iter().any(|warned| warned == text);
        if is_new {
            self.warned.push(text.to_owned());
        }
        is_new
    }

    /// Runs `work`, which waits for a server. A terminal shows `text` when that takes long.
    pub(crate) fn while_waiting<T>(&mut self, text: &str, work: impl FnOnce() -> T) -> T {
        if !self.screen.stderr_is_terminal {
            return work();
        }
        let (is_working, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let watch = move || {
                if ended.recv_timeout(SILENCE_MAX) == Err(RecvTimeoutError::Timeout) {
                    self.waiting(text);
                }
            };
            // Where no thread can be started, that line is missing.
            let _ = thread::Builder::new().spawn_scoped(scope, watch);
            let done = work();
            drop(is_working);
            done
        })
    }

    /// Shows what the program waits for: in place where the terminal can do that, else once.
    pub(crate) fn waiting(&mut self, text: &str) {
        if self.can_change_lines() {
            self.line_in_place(text);
        } else if self.screen.stderr_is_terminal && self.is_new(text) {
            self.say(text);
        }
    }

    /// The failure for programs: one JSON object on a line of its own.
    pub(crate) fn error_as_json(&mut self, error: &CliError) {
        if !error.message.is_empty() {
            let line = without_unprintable(&error.as_json().to_string());
            self.write_stderr(&format!("{line}\n"));
        }
    }

    /// The failure that ends the program.
    pub(crate) fn error(&mut self, error: &CliError) {
        self.clear_line();
        if error.message.is_empty() {
            return;
        }
        let label = self.coloured("31", "error:");
        self.write_stderr(&format!("{label} {}\n", printable(&error.message)));
        if let Some(hint) = &error.hint {
            let label = self.coloured("36", "hint:");
            self.write_stderr(&format!("{label} {}\n", printable(hint)));
        }
        if let Some(reference) = &error.reference {
            self.write_stderr(&format!("Reference: {reference}\n"));
        }
    }

    /// Our own text for the person, of several lines: a QR code, the overview.
    pub(crate) fn say_verbatim(&mut self, text: &str) {
        self.clear_line();
        self.write_stderr(text);
    }

    /// Can [`Output::line_in_place`] show anything?
    pub(crate) fn can_change_lines(&self) -> bool {
        self.screen.stderr_is_terminal && self.screen.understands_escapes
    }

    /// Replaces the line that changes in place (time left, bytes sent). Does nothing without a terminal.
    pub(crate) fn line_in_place(&mut self, text: &str) {
        if !self.can_change_lines() {
            return;
        }
        // Without wrapping (DECAWM), a line longer than a narrow or shrunken terminal is cut instead of filling a second row.
        self.write_stderr(&format!("\r\x1b[?7l\x1b[K{}\x1b[?7h", printable(text)));
        self.line_stands = true;
    }

    /// Removes the line that changes in place.
    pub(crate) fn clear_line(&mut self) {
        if self.line_stands {
            self.line_stands = false;
            self.write_stderr("\r\x1b[K");
        }
    }

    fn coloured(&self, code: &str, text: &str) -> String {
        if self.screen.has_colour() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn write_stderr(&mut self, text: &str) {
        // A closed stderr is no failure: nothing could report it.
        let _ = self.stderr.write_all(text.as_bytes());
        let _ = self.stderr.flush();
    }
}

/// How long a terminal shows nothing before a wait is announced.
const SILENCE_MAX: Duration = Duration::from_secs(3);
