//! The pages of `--help`, written from the table of commands.

use crate::cli::command::{Command, Commands, Flag, Takes};

#[derive(Clone, Copy)]
pub(crate) enum Topic {
    Overview,
    /// `posts`: all commands that begin with it.
    Group(&'static str),
    Command(&'static Command),
}

pub(crate) fn page(commands: Commands, topic: Topic) -> String {
    match topic {
        Topic::Overview => overview(commands),
        Topic::Group(group) => group_page(commands, group),
        Topic::Command(command) => command_page(command),
    }
}

fn overview(commands: Commands) -> String {
    let commands: String = commands.iter().map(summary).collect();
    let code = |(code, meaning): &(u8, &str)| format!("  {code:<4} {meaning}\n");
    let codes: String = EXIT_CODES.iter().map(code).collect();
    let variable = |(name, meaning): &(&str, &str)| format!("  {name:<24} {meaning}\n");
    let variables: String = VARIABLES.iter().map(variable).collect();
    format!(
        "\
postiz: schedule social media posts with Postiz

Usage: postiz <command> [arguments]

Commands:
{commands}
Run `postiz <command> --help` for its flags and examples. `postiz posts create` means `postiz posts:create`.

stdout carries the result alone, as JSON; everything meant for a person goes to stderr.

Exit codes:
{codes}
Environment:
{variables}
Example:
  postiz auth:login
  postiz integrations:list | jq -r '.[] | \"\\(.id) \\(.name)\"'
  postiz posts:create -c \"Hello\" -s 2030-01-15T10:00:00Z -i \"$CHANNEL\"
"
    )
}

fn group_page(commands: Commands, group: &str) -> String {
    let members = commands
        .iter()
        .filter(|command| command.group() == Some(group));
    let commands: String = members.map(summary).collect();
    format!(
        "Usage: postiz {group}:<command> [arguments]\n\nCommands:\n{commands}\nRun `postiz {group}:<command> --help` for more.\n"
    )
}

fn summary(command: &Command) -> String {
    format!("  {:<22} {}\n", command.name, command.about)
}

fn command_page(command: &Command) -> String {
    let (name, about, usage) = (command.name, command.about, usage(command));
    let mut page = format!("postiz {name}: {about}\n\nUsage: {usage}\n");
    if !command.positionals.is_empty() {
        page.push_str("\nArguments:\n");
        for positional in command.positionals {
            let name = format!("<{}>", positional.name);
            page.push_str(&two_columns(&name, positional.about));
        }
    }
    page.push_str("\nFlags:\n");
    for flag in command.all_flags() {
        page.push_str(&two_columns(&flag_names(flag), flag.about));
    }
    page.push_str(&two_columns("-h, --help", "print this"));
    if !command.notes.is_empty() {
        page.push_str(&format!("\n{}\n", command.notes));
    }
    page.push_str("\nExamples:\n");
    for example in command.examples {
        page.push_str(&format!("  {example}\n"));
    }
    page
}

/// The line after "Usage:".
pub(crate) fn usage(command: &Command) -> String {
    let mut line = format!("postiz {}", command.name);
    for positional in command.positionals {
        let more = if positional.many { "…" } else { "" };
        let name = positional.name;
        match positional.optional {
            true => line.push_str(&format!(" [{name}]{more}")),
            false => line.push_str(&format!(" <{name}>{more}")),
        }
    }
    line.push_str(" [flags]");
    line
}

/// `-p, --page N`.
pub(crate) fn flag_names(flag: &Flag) -> String {
    let value = match flag.takes {
        Takes::Nothing | Takes::YesNo => String::new(),
        Takes::Value(name) => format!(" {name}"),
        Takes::Path => " FILE".to_owned(),
        Takes::OneOf(words) => format!(" {}", words.join("|")),
    };
    match flag.short {
        Some(short) => format!("-{short}, {flag}{value}"),
        None => format!("    {flag}{value}"),
    }
}

fn two_columns(left: &str, right: &str) -> String {
    if left.chars().count() > LEFT_COLUMN {
        return format!("  {left}\n  {:LEFT_COLUMN$} {right}\n", "");
    }
    format!("  {left:LEFT_COLUMN$} {right}\n")
}

const LEFT_COLUMN: usize = 30;

pub(crate) const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed: network, API, file"),
    (2, "wrong usage; nothing was sent"),
    (3, "the login is still waiting for its user"),
    (4, "not signed in, or Postiz refused the credentials"),
    (
        5,
        "sent, but the outcome is unknown: look before you send it again",
    ),
    (130, "interrupted"),
];

/// The environment's variables that have an effect, for users.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    (
        "POSTIZ_API_KEY",
        "an API key, used when nobody is signed in",
    ),
    (
        "POSTIZ_API_URL",
        "the API that goes with it, and where auth:login signs in (default: https://api.postiz.com; self-hosted: https://host/api)",
    ),
    (
        "POSTIZ_FRONTEND_URL",
        "where that Postiz shows its pages, for auth:login --direct (default: the API's URL without /api)",
    ),
    (
        "POSTIZ_AUTH_SERVER",
        "the auth server of auth:login (default: https://cli-auth.postiz.com)",
    ),
    (
        "POSTIZ_CREDENTIALS_FILE",
        "where the login is kept (default: ~/.postiz/credentials.json)",
    ),
    ("BROWSER", "the browser to open; also over SSH"),
    ("NO_COLOR", "no colour"),
    ("HTTPS_PROXY, NO_PROXY, …", "the proxy, as curl reads them"),
    (
        "SSL_CERT_FILE, …",
        "which certificates to trust; NODE_EXTRA_CA_CERTS adds to them",
    ),
];
