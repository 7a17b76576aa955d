//! `skill`: prints the file that AI agents load to use this CLI, in the form of SKILL.md. Its text is skill.md, and its list
//! of commands comes from the table.

use crate::cli::command::{Command, Options};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

pub(crate) static SKILL: Command = Command {
    name: "skill",
    about: "print the file that AI agents load to use this CLI",
    positionals: &[],
    flags: &[],
    notes: "It has the form of SKILL.md: put it into a folder `postiz` among your agent's skills.",
    examples: &[
        "mkdir -p ~/.claude/skills/postiz && postiz skill | tee ~/.claude/skills/postiz/SKILL.md",
    ],
    run: print,
};

fn print(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let line = |command: &Command| format!("- `{}`: {}\n", command.name, command.about);
    let commands: String = options.commands.iter().map(line).collect();
    let skill = include_str!("skill.md").replace(COMMANDS_GO_HERE, commands.trim_end());
    context.output.verbatim(&skill)?;
    Ok(Exit::Done)
}

const COMMANDS_GO_HERE: &str = "<!-- commands -->";
