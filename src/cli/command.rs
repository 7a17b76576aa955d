//! What a command is: its name, arguments, flags and help; and the options that one command line gives it.

use std::ffi::{OsStr, OsString};
use std::fmt;

use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

/// One command: what users see of it, and what it runs.
pub(crate) struct Command {
    /// `posts:create`; `posts create` means the same.
    pub(crate) name: &'static str,
    /// One line for the overview.
    pub(crate) about: &'static str,
    pub(crate) positionals: &'static [Positional],
    pub(crate) flags: &'static [&'static Flag],
    /// What the flags' lines do not say.
    pub(crate) notes: &'static str,
    /// Command lines that work unchanged, with `$CHANNEL`, `$POST`, `$LOST` (a published post whose ID is missing)
    /// and `$GROUP` set to IDs.
    pub(crate) examples: &'static [&'static str],
    pub(crate) run: fn(&mut Context, &Options) -> Result<Exit, CliError>,
}

impl Command {
    /// The part of its name before the colon: `auth`, `posts`, …
    pub(crate) fn group(&self) -> Option<&'static str> {
        self.name.split_once(':').map(|(group, _)| group)
    }

    /// The hint after wrong usage.
    pub(crate) fn see_help(&self) -> String {
        format!("`postiz {} --help` says how it is used", self.name)
    }

    /// The command's own flags, and those that every command has.
    pub(crate) fn all_flags(&self) -> impl Iterator<Item = &'static Flag> {
        let has_json = self.flags.iter().any(|flag| flag.long == JSON.long);
        let json = (!has_json).then_some(&JSON);
        let all = self.flags.iter().chain(COMMON_FLAGS).copied();
        all.chain(json)
    }
}

/// All commands, in the order of the overview. The list is in table.rs; code that needs it gets it as an argument.
#[derive(Clone, Copy)]
pub(crate) struct Commands(pub(crate) &'static [&'static Command]);

impl Commands {
    pub(crate) fn iter(self) -> impl Iterator<Item = &'static Command> {
        self.0.iter().copied()
    }

    pub(crate) fn named(self, name: &str) -> Option<&'static Command> {
        self.iter().find(|command| command.name == name)
    }

    pub(crate) fn group(self, name: &str) -> Option<&'static str> {
        self.iter()
            .filter_map(Command::group)
            .find(|group| *group == name)
    }
}

pub(crate) struct Positional {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) optional: bool,
    /// It may be repeated.
    pub(crate) many: bool,
}

/// A flag. `long` is in camelCase or kebab-case; users may type either.
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) repeatable: bool,
    pub(crate) about: &'static str,
}

/// As users write it: `--startDate`.
impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}", self.long)
    }
}

/// Flags are the same only by identity: other commands' flags may be written alike.
impl PartialEq for Flag {
    fn eq(&self, other: &Flag) -> bool {
        std::ptr::eq(self, other)
    }
}

/// What follows a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    /// Nothing, `=true` or `=false`; `--no-…` turns it off.
    YesNo,
    /// A value, shown in help under this name.
    Value(&'static str),
    /// A path, which need not be UTF-8.
    Path,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

pub(crate) const fn flag(long: &'static str, takes: Takes, about: &'static str) -> Flag {
    Flag {
        long,
        short: None,
        takes,
        repeatable: false,
        about,
    }
}

/// A flag with a value, which help calls `name`.
pub(crate) const fn value(long: &'static str, name: &'static str, about: &'static str) -> Flag {
    flag(long, Takes::Value(name), about)
}

/// A flag that takes no value.
pub(crate) const fn switch(long: &'static str, about: &'static str) -> Flag {
    flag(long, Takes::Nothing, about)
}

impl Flag {
    pub(crate) const fn short(mut self, letter: char) -> Flag {
        self.short = Some(letter);
        self
    }

    pub(crate) const fn repeatable(mut self) -> Flag {
        self.repeatable = true;
        self
    }
}

pub(crate) const fn one(name: &'static str, about: &'static str) -> Positional {
    Positional {
        name,
        about,
        optional: false,
        many: false,
    }
}

/// The arguments of one command, checked by args.rs, in the order they were typed.
pub(crate) struct Options {
    pub(crate) commands: Commands,
    pub(crate) command: &'static Command,
    pub(crate) positionals: Vec<OsString>,
    pub(crate) given: Vec<(&'static Flag, OsString)>,
}

impl Options {
    pub(crate) fn has(&self, flag: &'static Flag) -> bool {
        self.raw(flag).is_some()
    }

    /// All flags that were given, in order.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&'static Flag, &OsStr)> {
        self.given
            .iter()
            .map(|(flag, value)| (*flag, value.as_os_str()))
    }

    /// Those of them that are the command's own, and not flags that every command has.
    pub(crate) fn given_own(&self) -> impl Iterator<Item = (&'static Flag, &OsStr)> {
        let own = self.command.flags;
        self.given().filter(|(flag, _)| own.contains(flag))
    }

    /// The value of `flag`, which may be a path that is not UTF-8.
    pub(crate) fn raw(&self, flag: &'static Flag) -> Option<&OsStr> {
        let found = self.given().find(|(given, _)| *given == flag);
        found.map(|(_, value)| value)
    }

    /// The value of `flag`. An empty value is an error: usually it is a script's variable that was never set.
    pub(crate) fn text(&self, flag: &'static Flag) -> Result<Option<&str>, CliError> {
        let Some(raw) = self.raw(flag) else {
            return Ok(None);
        };
        match utf8(flag, raw)? {
            "" => Err(CliError::usage(format!("{flag} is empty"))),
            text => Ok(Some(text)),
        }
    }

    /// The value of a flag that the command needs.
    pub(crate) fn required(&self, flag: &'static Flag) -> Result<&str, CliError> {
        self.text(flag)?
            .ok_or_else(|| self.wrong_usage(format!("{} needs {flag}", self.command.name)))
    }

    /// The error for arguments that do not fit together.
    pub(crate) fn wrong_usage(&self, message: impl Into<String>) -> CliError {
        CliError::usage(message).hint(self.command.see_help())
    }

    /// A [`Takes::YesNo`] flag.
    pub(crate) fn yes_no(&self, flag: &'static Flag) -> Option<bool> {
        self.raw(flag).map(|value| value == "true")
    }

    /// The positional at `index`, which args.rs found to be there.
    pub(crate) fn positional(&self, index: usize) -> Result<&str, CliError> {
        let raw = self.paths().nth(index).unwrap_or_default();
        raw.to_str().ok_or_else(|| {
            let message = format!("`{}` is not valid UTF-8", raw.to_string_lossy());
            CliError::usage(message)
        })
    }

    /// Identifies what the user asked for: the command and its arguments, without the flags that every command has.
    pub(crate) fn identity(&self) -> Vec<u8> {
        let flags = self
            .given_own()
            .flat_map(|(flag, value)| [OsStr::new(flag.long), value]);
        let words = [OsStr::new(self.command.name)]
            .into_iter()
            .chain(self.paths())
            .chain(flags);
        words
            .flat_map(|word| [word.as_encoded_bytes(), b"\0"].concat())
            .collect()
    }

    /// All positionals, as paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &OsStr> {
        self.positionals.iter().map(OsString::as_os_str)
    }
}

pub(crate) fn utf8<'a>(flag: &Flag, raw: &'a OsStr) -> Result<&'a str, CliError> {
    raw.to_str()
        .ok_or_else(|| CliError::usage(format!("the value of {flag} is not valid UTF-8")))
}

/// `startDate` and `start-date` are one flag.
pub(crate) fn kebab(name: &str) -> String {
    let mut kebab = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

/// The flags that every command has. common_flags.rs reads them.
static COMMON_FLAGS: &[&Flag] = &[&CREDENTIALS, &TIMEOUT, &JSON_ERRORS, &AGAIN];

pub(crate) static CREDENTIALS: Flag = flag(
    "credentials",
    Takes::Path,
    "the credentials file (default: POSTIZ_CREDENTIALS_FILE, else ~/.postiz/credentials.json)",
);

/// `--json` of the commands that have no such flag of their own: scripts add it out of habit.
static JSON: Flag = switch("json", "accepted and ignored: results are JSON");

pub(crate) static TIMEOUT: Flag = value(
    "timeout",
    "SECONDS",
    "how long an answer may take; 0: no limit (default: 60; upload and api: no limit)",
);

pub(crate) static JSON_ERRORS: Flag = switch(
    "json-errors",
    "on failure, end stderr with one JSON object: error, status, channel, body, reference",
);

pub(crate) static AGAIN: Flag = switch(
    "again",
    "send it even if the same was sent within a day and got no answer",
);

/// `--json` of the commands that otherwise print text for people.
pub(crate) static AS_JSON: Flag = switch("json", "print JSON for programs on stdout");
