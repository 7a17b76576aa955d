//! The server's log, on stderr: one line for each event, as text or JSON. It also counts events, for the metrics.
//!
//! Callers pass each field by name, so that no code or token is logged by accident. Control characters are removed from values,
//! so that text from elsewhere cannot fake a line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

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

/// An event's level, the most urgent first. Levels up to `LOG_LEVEL` are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// An operator has to do something.
    Error,
    /// Needs no action, but may explain what a user saw.
    Warn,
    /// Normal operation.
    Info,
    /// Frequent and normal: pending polls, health checks.
    Debug,
}

/// Most characters of a field's value: texts from upstream can be whole pages.
const VALUE_CHARACTERS_MAX: usize = 500;

/// The fields whose values are numbers, in JSON too.
const NUMBERS: [&str; 7] = [
    "status",
    "ms",
    "count",
    "logins",
    "deleted",
    "limit",
    "connections",
];

/// Most bytes of a line: what can be written to a pipe with room without blocking (POSIX's PIPE_BUF).
const LINE_BYTES_MAX: usize = 4_096;

type TakeLine = Box<dyn Fn(&[u8]) + Send + Sync>;

/// A log with its format, level and output.
pub struct Log {
    format: Format,
    level: Level,
    /// Whether each line begins with its priority, as systemd's journal reads it (sd-daemon(3)).
    with_priority: bool,
    out: TakeLine,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Lines that were dropped since the start.
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// A log on stderr; `to_journal` if that [`is_journal`]. While stderr is a full pipe, lines are dropped, and their count is
    /// written before the next line.
    pub fn stderr(format: Format, level: Level, to_journal: bool) -> Log {
        let stderr = stderr();
        // The lock is held from poll to write: else another thread could fill the pipe in between.
        let dropped = Mutex::new(0_u64);
        let dropped_total = Arc::<AtomicU64>::default();
        let count_dropped = Arc::clone(&dropped_total);
        let mut log = Log::to(format, level, move |line| {
            // Stderr was closed at the start.
            let Ok(stderr) = &stderr else { return };
            let mut dropped = dropped.lock();
            if *dropped > 0 && has_room(stderr) {
                let count = dropped.to_string();
                let fields = [("count", &*count)];
                let mut line = priority(to_journal, Level::Warn).to_owned();
                line += &render(format, Level::Warn, "log_lines_dropped", &fields);
                let _ = (&*stderr).write_all(line.as_bytes());
                *dropped = 0;
            }
            if has_room(stderr) {
                let _ = (&*stderr).write_all(line);
            } else {
                *dropped += 1;
                count_dropped.fetch_add(1, Ordering::Relaxed);
            }
        });
        log.with_priority = to_journal;
        log.dropped = dropped_total;
        log
    }

    /// A log that passes each line to `out`.
    pub fn to(format: Format, level: Level, out: impl Fn(&[u8]) + Send + Sync + 'static) -> Log {
        Log {
            format,
            level,
            with_priority: false,
            out: Box::new(out),
            counts: Mutex::default(),
            dropped: Arc::default(),
        }
    }

    /// Logs a normal event (`login_completed`) with its fields.
    pub fn info(&self, event: &'static str, fields: &[(&str, &str)]) {
        self.event(Level::Info, event, fields);
    }

    /// Logs an event that needs no action.
    pub fn warn(&self, event: &'static str, fields: &[(&str, &str)]) {
        self.event(Level::Warn, event, fields);
    }

    /// Logs an event that an operator has to act on.
    pub fn error(&self, event: &'static str, fields: &[(&str, &str)]) {
        self.event(Level::Error, event, fields);
    }

    /// Counts an event, and writes its line if its level is within `LOG_LEVEL`.
    pub fn event(&self, level: Level, event: &'static str, fields: &[(&str, &str)]) {
        let mut counts = self.counts.lock();
        *counts.entry(event).or_default() += 1;
        drop(counts);
        if self.is_written(level) {
            self.write(level, event, fields);
        }
    }

    /// Logs where the server listens and its build, in the form that scripts look for: `listening on http://…`. It is written
    /// at any `LOG_LEVEL`.
    pub fn listening(&self, url: &str) {
        let commit = COMMIT.map(|commit| ("commit", commit));
        let fields: Vec<_> = [("url", url), ("version", VERSION)]
            .into_iter()
            .chain(commit)
            .collect();
        match self.format {
            Format::Text => self.write(Level::Info, &format!("listening on {url}"), &fields[1..]),
            Format::Json => self.write(Level::Info, "listening", &fields),
        }
    }

    /// Whether lines of this level are written.
    pub fn is_written(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Counts of events since the start, whether written or not; `log_lines_dropped` counts lines.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.counts.lock();
        let mut counts = counts.clone();
        let dropped = self.dropped.load(Ordering::Relaxed);
        counts.insert("log_lines_dropped", dropped);
        counts
    }

    fn write(&self, level: Level, event: &str, fields: &[(&str, &str)]) {
        let mut line = priority(self.with_priority, level).to_owned();
        line += &render(self.format, level, event, fields);
        (self.out)(line.as_bytes());
    }
}

fn stderr() -> std::io::Result<File> {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    stderr.map(File::from)
}

/// Whether stderr goes to systemd's journal: then `JOURNAL_STREAM` is its device and inode (systemd.exec(5)).
pub fn is_journal(journal_stream: &str) -> bool {
    let metadata = stderr().and_then(|stderr| stderr.metadata());
    metadata.is_ok_and(|file| format!("{}:{}", file.dev(), file.ino()) == journal_stream)
}

/// The prefix of a line for systemd's journal (sd-daemon(3)): syslog's number of the priority.
pub fn priority(with_priority: bool, level: Level) -> &'static str {
    match level {
        _ if !with_priority => "",
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug => "<7>",
    }
}

/// Whether a line can be written without blocking.
fn has_room(file: &File) -> bool {
    let mut polled = [PollFd::new(file, PollFlags::OUT)];
    let now = Timespec::default();
    // A pipe without a reader counts as having room: writing to it fails at once.
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// A line with its line end.
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
    /// The name in `LOG_LEVEL` and in lines.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// The level of this name.
    pub fn from_name(name: &str) -> Option<Level> {
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug];
        levels.into_iter().find(|level| level.name() == name)
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
        let number = NUMBERS.contains(name).then(|| value.parse().ok()).flatten();
        let text = || printable_cut(value, VALUE_CHARACTERS_MAX).into();
        object.insert((*name).to_owned(), number.map_or_else(text, Value::Number));
    }
    Value::Object(object).to_string()
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
            &[
                ("route", "/health"),
                ("agent", "\"q\""),
                ("status", "200"),
                ("ms", "0.4"),
                ("id", "12345678"),
            ],
        );
        assert_eq!(
            line,
            r#"{"time":"T","level":"info","event":"request","route":"/health","agent":"\"q\"","status":200,"ms":0.4,"id":"12345678"}"#
        );
    }
}
