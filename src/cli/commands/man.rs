//! `man`: prints the manual page (roff with the man macros), written from the table of commands.

use crate::cli::command::{Command, Commands};
use crate::cli::error::Exit;
use crate::cli::help::{EXIT_CODES, VARIABLES, flag_names, usage};

pub(crate) static MAN: Command = Command {
    name: "man",
    about: "print the manual page",
    positionals: &[],
    flags: &[],
    notes: "It is roff with the man macros.",
    examples: &["postiz man | head -n 1"],
    run: |context, options| {
        context.output.verbatim(&page(options.commands))?;
        Ok(Exit::Done)
    },
};

fn page(commands: Commands) -> String {
    let mut page = Page::default();
    let title = concat!(
        "TH POSTIZ 1 \"\" \"postiz ",
        env!("CARGO_PKG_VERSION"),
        "\" \"User Commands\""
    );
    page.request(title);
    page.section("NAME");
    page.text("postiz - schedule social media posts with Postiz");
    page.section("SYNOPSIS");
    page.text("postiz <command> [arguments]");
    page.section("DESCRIPTION");
    page.text(DESCRIPTION);
    page.section("COMMANDS");
    for command in commands.iter() {
        page.command(command);
    }
    page.section("EXIT STATUS");
    for (code, meaning) in EXIT_CODES {
        page.entry(&code.to_string(), meaning);
    }
    page.section("ENVIRONMENT");
    for (name, meaning) in VARIABLES {
        page.entry(name, meaning);
    }
    page.section("FILES");
    page.entry("~/.postiz/credentials.json", "the stored login");
    page.text
}

const DESCRIPTION: &str = "\
stdout carries the result alone, as JSON; everything meant for a person goes to stderr. Flags may be written in \
camelCase or kebab-case, before or after the other arguments; -- ends them. `postiz posts create` means `postiz posts:create`.";

/// A page that is being written. It escapes all text.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn request(&mut self, request: &str) {
        self.text.extend([".", request, "\n"]);
    }

    fn section(&mut self, title: &str) {
        self.request(&format!("SH {title}"));
    }

    fn command(&mut self, command: &Command) {
        self.request(&format!("SS {}", escape(command.name)));
        self.text(command.about);
        self.request("PP");
        self.literal([usage(command).as_str()]);
        for positional in command.positionals {
            self.entry(&format!("<{}>", positional.name), positional.about);
        }
        for flag in command.flags {
            self.entry(flag_names(flag).trim_start(), flag.about);
        }
        if !command.notes.is_empty() {
            for paragraph in command.notes.split("\n\n") {
                self.request("PP");
                self.text(paragraph);
            }
        }
        self.request("PP");
        self.text("Examples:");
        self.request("PP");
        self.literal(command.examples.iter().copied());
    }

    /// A term and its meaning, indented.
    fn entry(&mut self, term: &str, meaning: &str) {
        self.request("TP");
        self.text(term);
        self.text(meaning);
    }

    /// Lines that are not filled.
    fn literal<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        self.request("nf");
        lines.into_iter().for_each(|line| self.text(line));
        self.request("fi");
    }

    fn text(&mut self, text: &str) {
        for line in text.lines() {
            // A line that begins with one of these would be a request.
            let guard = if line.starts_with(['.', '\'']) {
                "\\&"
            } else {
                ""
            };
            self.text.extend([guard, &escape(line), "\n"]);
        }
    }
}

/// Escapes backslashes, and the characters that groff would replace by typographic ones.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '~' => escaped.push_str("\\(ti"),
            '^' => escaped.push_str("\\(ha"),
            // Not every roff reads UTF-8.
            '…' => escaped.push_str("..."),
            c => escaped.push(c),
        }
    }
    escaped
}
