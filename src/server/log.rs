//! What the server tells its operator, on stderr: one line an event, as text or as JSON.
//!
//! Fields are named by the caller one by one, so that nothing gets in by accident: a code or a token never does. Text from
//! elsewhere loses its control characters, so that nobody can fake a second line.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::shared::text::printable_cut;
use crate::shared::utc;
use crate::shared::version::{COMMIT, VERSION};

/// `LOG_FORMAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-24T23:48:28.123Z info login completed id=1f2e3d4c`
    Text,
    /// `{"time":"…","level":"info","event":"login_completed","id":"1f2e3d4c"}`
    Json,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Mends itself, but may explain what a user saw.
    Warn,
    /// Someone has to do something.
    Error,
}

/// The longest value that a field may have, in characters: upstream's texts can be whole pages.
const VALUE_CHARACTERS_MAX: usize = 500;

/// The longest line, in bytes: what a pipe that has room takes without waiting (POSIX's PIPE_BUF).
const LINE_BYTES_MAX: usize = 4_096;

type TakeLine = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Where lines go.
pub struct Log {
    format: Format,
    out: TakeLine,
}

impl Log {
    /// A log on stderr. When nobody reads it (a full pipe), lines are dropped, and the next one that is written is preceded
    /// by their count.
    pub fn stderr(format: Format) -> Log {
        let stderr = std::io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .map(File::from);
        // The lock is held from the look to the write, or another thread could take the room in between.
        let dropped = Mutex::new(0_u64);
        Log::to(format, move |line| {
            // Nobody is left to tell when stderr is closed.
            let Ok(stderr) = &stderr else { return };
            let mut dropped = dropped.lock().unwrap_or_else(PoisonError::into_inner);
            if *dropped > 0 && has_room(stderr) {
                let count = dropped.to_string();
                let fields = [("count", &*count)];
                let line = render(format, Level::Warn, "log_lines_dropped", &fields);
                let _ = (&*stderr).write_all(line.as_bytes());
                *dropped = 0;
            }
            if has_room(stderr) {
                let _ = (&*stderr).write_all(line);
            } else {
                *dropped += 1;
            }
        })
    }

    /// A log of which `out` takes each line.
    pub fn to(format: Format, out: impl Fn(&[u8]) + Send + Sync + 'static) -> Log {
        Log {
            format,
            out: Box::new(out),
        }
    }

    /// Says that `event` (`login_completed`) happened, with what is known of it.
    pub fn info(&self, event: &str, fields: &[(&str, &str)]) {
        self.line(Level::Info, event, fields);
    }

    /// The same, for what mends itself.
    pub fn warn(&self, event: &str, fields: &[(&str, &str)]) {
        self.line(Level::Warn, event, fields);
    }

    /// The same, for what someone has to mend.
    pub fn error(&self, event: &str, fields: &[(&str, &str)]) {
        self.line(Level::Error, event, fields);
    }

    /// Says where the server listens, in the one form that scripts look for: `listening on http://…`; and which build it is.
    pub fn listening(&self, url: &str) {
        let commit = COMMIT.map(|commit| ("commit", commit));
        let fields: Vec<_> = [("url", url), ("version", VERSION)]
            .into_iter()
            .chain(commit)
            .collect();
        match self.format {
            Format::Text => self.info(&format!("listening on {url}"), &fields[1..]),
            Format::Json => self.info("listening", &fields),
        }
    }

    fn line(&self, level: Level, event: &str, fields: &[(&str, &str)]) {
        (self.out)(render(self.format, level, event, fields).as_bytes());
    }
}

/// Can a line be written without waiting?
fn has_room(file: &File) -> bool {
    let mut asked = [PollFd::new(file, PollFlags::OUT)];
    let now = Timespec::default();
    // A closed pipe has room, too: writing to it fails at once.
    poll(&mut asked, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// A line with its end.
fn render(format: Format, level: Level, event: &str, fields: &[(&str, &str)]) -> String {
    let time = utc::iso8601(SystemTime::now());
    let mut line = match format {
        Format::Text => as_text(&time, level, event, fields),
        Format::Json => as_json(&time, level, event, fields),
    };
    line.truncate(line.floor_char_boundary(LINE_BYTES_MAX - 1));
    line.push('\n');
    line
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

fn as_text(time: &str, level: Level, event: &str, fields: &[(&str, &str)]) -> String {
    let mut line = format!("{time} {} {}", level.name(), event.replace('_', " "));
    for (name, value) in fields {
        let value = printable_cut(value, VALUE_CHARACTERS_MAX);
        if value.is_empty() || value.contains([' ', '"', '=']) {
            line.push_str(&format!(" {name}={value:?}"));
        } else {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    line
}

fn as_json(time: &str, level: Level, event: &str, fields: &[(&str, &str)]) -> String {
    let mut object = serde_json::Map::new();
    let always = [("time", time), ("level", level.name()), ("event", event)];
    for (name, value) in always.iter().chain(fields) {
        object.insert(
            (*name).to_owned(),
            printable_cut(value, VALUE_CHARACTERS_MAX).into(),
        );
    }
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_lines_cannot_be_faked() {
        let line = as_text(
            "T",
            Level::Warn,
            "postiz_error",
            &[("text", "a\nT info faked x=1\u{1b}[0m"), ("ms", "3")],
        );
        assert_eq!(
            line,
            "T warn postiz error text=\"a T info faked x=1[0m\" ms=3"
        );
    }

    #[test]
    fn json_lines_are_objects() {
        let line = as_json(
            "T",
            Level::Info,
            "request",
            &[("route", "/health"), ("agent", "\"q\"")],
        );
        assert_eq!(
            line,
            r#"{"time":"T","level":"info","event":"request","route":"/health","agent":"\"q\""}"#
        );
    }
}
