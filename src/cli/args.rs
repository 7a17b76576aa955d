//! Parses a command line against the table of commands. Nothing is done yet.
//!
//! pico-args takes the command off the front. The rest is parsed here, once, from left to right: pico-args would find a flag
//! inside another flag's value (`-c "-m"`), and lose the order in which `-c` and `-m` came.

use std::ffi::{OsStr, OsString};

use crate::cli::command::{Command, Commands, Flag, Options, Takes, kebab};
use crate::cli::error::CliError;
use crate::cli::help::Topic;
use crate::cli::suggestions::{self, SEE_OVERVIEW};

pub(crate) enum Asked {
    Run(Options),
    Help(Topic),
    Version,
    Nothing,
}

/// Parses the whole command line, without the program's name.
pub(crate) fn parse(commands: Commands, arguments: Vec<OsString>) -> Result<Asked, CliError> {
    if arguments.is_empty() {
        return Ok(Asked::Nothing);
    }
    let mut words = pico_args::Arguments::from_vec(arguments);
    match words.subcommand() {
        Ok(Some(word)) => parse_word_first(commands, &word, words.finish()),
        Ok(None) => parse_flags_first(commands, &words.finish()),
        Err(_) => Err(CliError::usage("the command is not valid UTF-8").hint(SEE_OVERVIEW)),
    }
}

/// `word` comes first: a command, a group (`posts create`), or `help`.
fn parse_word_first(
    commands: Commands,
    word: &str,
    rest: Vec<OsString>,
) -> Result<Asked, CliError> {
    if let Some(command) = commands.named(word) {
        return parse_arguments(commands, command, &rest);
    }
    let second = rest.first().and_then(|next| next.to_str());
    if word == "help" {
        return help_about(commands, second, &rest);
    }
    if commands.group(word).is_none() {
        return Err(unknown_command(commands, word));
    }
    match second {
        Some("-h" | "--help") => help_about(commands, Some(word), &[]),
        Some("-v" | "--version") => Ok(Asked::Version),
        None | Some("") => {
            let message = format!("`{word}` is only half of a command");
            Err(CliError::usage(message)
                .hint(format!("`postiz {word} --help` lists what can follow")))
        }
        Some(second) => {
            let name = format!("{word}:{second}");
            let command = commands.named(&name);
            let command = command.ok_or_else(|| unknown_command(commands, &name))?;
            parse_arguments(commands, command, &rest[1..])
        }
    }
}

/// `help`, `help posts`, `help posts:create`, `help posts create`.
fn help_about(
    commands: Commands,
    word: Option<&str>,
    rest: &[OsString],
) -> Result<Asked, CliError> {
    let Some(word) = word else {
        return Ok(Asked::Help(Topic::Overview));
    };
    let with_next = rest
        .get(1)
        .map(|next| format!("{word}:{}", next.to_string_lossy()));
    let name = with_next.as_deref().unwrap_or(word);
    match (commands.named(name), commands.group(name)) {
        (Some(command), _) => Ok(Asked::Help(Topic::Command(command))),
        (None, Some(group)) => Ok(Asked::Help(Topic::Group(group))),
        (None, None) => Err(unknown_command(commands, name)),
    }
}

/// Flags come before the command (`--json auth:status`): the command is the first word that names one and whose flags the
/// words before it can be.
fn parse_flags_first(commands: Commands, arguments: &[OsString]) -> Result<Asked, CliError> {
    let first = arguments.first().map(|first| first.to_string_lossy());
    let first = first.unwrap_or_default();
    match &*first {
        "-h" | "--help" => return Ok(Asked::Help(Topic::Overview)),
        "-v" | "--version" => return Ok(Asked::Version),
        _ => {}
    }
    for (index, word) in arguments.iter().enumerate() {
        let Some(command) = word.to_str().and_then(|word| commands.named(word)) else {
            continue;
        };
        let before = &arguments[..index];
        if Parser::new(commands, command).take_all(before).is_ok() {
            let all = [before, &arguments[index + 1..]].concat();
            return parse_arguments(commands, command, &all);
        }
    }
    Err(CliError::usage(format!("no command follows `{first}`")).hint(SEE_OVERVIEW))
}

fn parse_arguments(
    commands: Commands,
    command: &'static Command,
    arguments: &[OsString],
) -> Result<Asked, CliError> {
    let mut parser = Parser::new(commands, command);
    let parsed = parser.take_all(arguments).and_then(|()| parser.finish());
    parsed.map_err(|error| match error.hint {
        Some(_) => error,
        None => error.hint(command.see_help()),
    })
}

/// One pass over the arguments of a command.
struct Parser {
    options: Options,
    /// `-h` or `-v` was found: nothing after it counts.
    instead: Option<Asked>,
}

impl Parser {
    fn new(commands: Commands, command: &'static Command) -> Parser {
        Parser {
            options: Options {
                commands,
                command,
                positionals: Vec::new(),
                given: Vec::new(),
            },
            instead: None,
        }
    }

    fn take_all(&mut self, arguments: &[OsString]) -> Result<(), CliError> {
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.to_str() {
                Some("--") => {
                    self.options.positionals.extend(rest.cloned());
                    break;
                }
                Some("-h" | "--help") => {
                    self.instead = Some(Asked::Help(Topic::Command(self.options.command)));
                    break;
                }
                Some("-v" | "--version") => {
                    self.instead = Some(Asked::Version);
                    break;
                }
                Some(text) if text.starts_with("--") => self.long(&text[2..], &mut rest)?,
                Some(text) if text.len() > 1 && text.starts_with('-') => {
                    self.short(&text[1..], &mut rest)?
                }
                None if argument.as_encoded_bytes().starts_with(b"-") => {
                    let message = format!("`{}` is not valid UTF-8", argument.to_string_lossy());
                    return Err(CliError::usage(message));
                }
                _ => self.options.positionals.push(argument.clone()),
            }
        }
        Ok(())
    }

    /// `--name`, `--name=value`, `--no-name`.
    fn long(&mut self, text: &str, rest: &mut std::slice::Iter<OsString>) -> Result<(), CliError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let command = self.options.command;
        let named = |wanted: &str| command.all_flags().find(|flag| kebab(flag.long) == wanted);
        let wanted = kebab(name);
        if let Some(flag) = named(&wanted) {
            return self.flag(flag, value.map(OsString::from), rest);
        }
        let positive = wanted.strip_prefix("no-").and_then(named);
        let negated = positive.filter(|flag| flag.takes == Takes::YesNo);
        match (negated, value) {
            (Some(flag), None) => self.keep(flag, "false".into()),
            (Some(_), Some(_)) => Err(CliError::usage(format!("--{name} takes no value"))),
            (None, _) => Err(self.unknown_flag(&format!("--{name}"))),
        }
    }

    /// `-f value`, `-fvalue`, `-f=value`.
    fn short(&mut self, text: &str, rest: &mut std::slice::Iter<OsString>) -> Result<(), CliError> {
        let mut characters = text.chars();
        let letter = characters.next();
        let glued = characters.as_str();
        let mut flags = self.options.command.all_flags();
        let Some(flag) = flags.find(|flag| flag.short.is_some() && flag.short == letter) else {
            return Err(self.unknown_flag(&format!("-{text}")));
        };
        let value = match glued {
            "" => None,
            glued => Some(glued.strip_prefix('=').unwrap_or(glued).into()),
        };
        self.flag(flag, value, rest)
    }

    fn flag(
        &mut self,
        flag: &'static Flag,
        value: Option<OsString>,
        rest: &mut std::slice::Iter<OsString>,
    ) -> Result<(), CliError> {
        let value = match (flag.takes, value) {
            (Takes::Nothing, Some(_)) => {
                return Err(CliError::usage(format!("{flag} takes no value")));
            }
            (Takes::Nothing, None) => OsString::new(),
            (Takes::YesNo, Some(value)) => value,
            (Takes::YesNo, None) => match rest.as_slice().first().and_then(|next| next.to_str()) {
                // The npm CLI reads a `true` or `false` that follows as the flag's value.
                Some("true" | "false") => rest.next().cloned().unwrap_or_default(),
                _ => "true".into(),
            },
            (_, Some(value)) => value,
            (_, None) => match rest.next() {
                Some(value) => value.clone(),
                None => return Err(CliError::usage(format!("{flag} needs a value"))),
            },
        };
        check_value(flag, &value)?;
        self.keep(flag, value)
    }

    fn keep(&mut self, flag: &'static Flag, value: OsString) -> Result<(), CliError> {
        if !flag.repeatable && self.options.has(flag) {
            return Err(CliError::usage(format!("{flag} is given twice")));
        }
        self.options.given.push((flag, value));
        Ok(())
    }

    fn finish(self) -> Result<Asked, CliError> {
        if let Some(instead) = self.instead {
            return Ok(instead);
        }
        let command = self.options.command;
        let wanted = command.positionals;
        let given = &self.options.positionals;
        if let Some(missing) = wanted.get(given.len()).filter(|next| !next.optional) {
            return Err(CliError::usage(format!(
                "{} needs <{}>: {}",
                command.name, missing.name, missing.about
            )));
        }
        let takes_more = wanted.last().is_some_and(|last| last.many);
        if given.len() > wanted.len() && !takes_more {
            let (surplus, name) = (given[wanted.len()].to_string_lossy(), command.name);
            let message = format!("`{surplus}` is one argument too many for {name}");
            return Err(CliError::usage(message));
        }
        Ok(Asked::Run(self.options))
    }

    fn unknown_flag(&self, typed: &str) -> CliError {
        let command = self.options.command;
        let names = command.all_flags().map(|flag| flag.long);
        let names = names.chain(["help", "version"]);
        let message = format!("{} has no flag {typed}", command.name);
        let typed = typed.trim_start_matches('-');
        let has = |name: &str| command.flags.iter().any(|flag| flag.long == name);
        let renamed = RENAMED.iter().find(|(old, new)| *old == typed && has(new));
        let meant = renamed.map(|(_, new)| *new);
        match meant.or_else(|| suggestions::nearest_flag(&kebab(typed), names)) {
            Some(name) => CliError::usage(message).hint(format!("did you mean --{name}?")),
            None => CliError::usage(message),
        }
    }
}

/// Flags that documents call by another name.
const RENAMED: [(&str, &str); 2] = [("image", "media"), ("comments", "content")];

fn check_value(flag: &Flag, value: &OsStr) -> Result<(), CliError> {
    let words: &[&str] = match flag.takes {
        Takes::OneOf(words) => words,
        Takes::YesNo => &["true", "false"],
        _ => return Ok(()),
    };
    if words.iter().any(|word| value == *word) {
        return Ok(());
    }
    let (words, value) = (words.join(" or "), value.to_string_lossy());
    let message = format!("{flag} must be {words}, not `{value}`");
    Err(CliError::usage(message))
}

fn unknown_command(commands: Commands, typed: &str) -> CliError {
    CliError::usage(format!("there is no command `{typed}`"))
        .hint(suggestions::for_command(commands, typed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::COMMANDS;

    fn options(arguments: &[&str]) -> Options {
        match parse(COMMANDS, arguments.iter().map(Into::into).collect()) {
            Ok(Asked::Run(options)) => options,
            _ => panic!("{arguments:?} run no command"),
        }
    }

    #[test]
    fn flags_keep_their_order_and_their_values() {
        let options = options(&[
            "posts:create",
            "-c",
            "-m",
            "-m=--content",
            "-c-h",
            "--media",
            "--",
        ]);
        let given: Vec<(&str, &str)> = options
            .given()
            .map(|(flag, value)| (flag.long, value.to_str().unwrap()))
            .collect();
        assert_eq!(
            given,
            [
                ("content", "-m"),
                ("media", "--content"),
                ("content", "-h"),
                ("media", "--")
            ]
        );
    }

    /// A word that names a command may also be a flag's value.
    #[test]
    fn command_is_found_behind_its_flags() {
        let options = options(&["-c", "posts:list", "posts:create"]);
        let (_, content) = options.given().next().unwrap();
        assert_eq!(
            (options.command.name, content),
            ("posts:create", "posts:list".as_ref())
        );
    }

    /// No flag hides another, only the last positional repeats, and everything has help.
    #[test]
    fn table_is_consistent() {
        for command in COMMANDS.iter() {
            let flags: Vec<_> = command.all_flags().collect();
            for (index, flag) in flags.iter().enumerate() {
                for other in &flags[index + 1..] {
                    assert_ne!(kebab(flag.long), kebab(other.long), "{}", command.name);
                    assert!(
                        flag.short.is_none() || flag.short != other.short,
                        "{} {}",
                        command.name,
                        flag.long
                    );
                }
                assert!(!matches!(flag.short, Some('h' | 'v')) && !flag.about.is_empty());
            }
            let many = command
                .positionals
                .iter()
                .position(|positional| positional.many);
            assert!(many.is_none_or(|index| index + 1 == command.positionals.len()));
            assert!(!command.examples.is_empty() && !command.about.is_empty());
        }
    }

    /// Any list of arguments is parsed or refused.
    #[test]
    fn arguments_never_panic() {
        let mut words: Vec<String> = COMMANDS
            .iter()
            .map(|command| command.name.to_owned())
            .collect();
        for flag in COMMANDS.iter().flat_map(|command| command.all_flags()) {
            words.extend([
                format!("--{}", flag.long),
                format!("--{}=", flag.long),
                format!("--no-{}", flag.long),
            ]);
            words.extend(flag.short.map(|short| format!("-{short}ä")));
        }
        words.extend(
            [
                "", "-", "--", "-=", "--=", "---", "ä", "-ä", "true", "posts", "help", "-h",
            ]
            .map(str::to_owned),
        );
        let mut state = 1_u32;
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for _ in 0..20_000 {
            let line: Vec<OsString> = (0..next(7))
                .map(|_| OsString::from(&words[next(words.len())]))
                .collect();
            drop(parse(COMMANDS, line));
        }
    }
}
