//! `completions`: prints a shell's completion script, written from the table of commands. The scripts do not complete IDs,
//! which only Postiz knows: a Tab must not wait for the network.

use crate::cli::command::{Command, Commands, Flag, Options, Takes, one};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

pub(crate) static COMPLETIONS: Command = Command {
    name: "completions",
    about: "print a script that completes commands and flags",
    positionals: &[one("shell", "bash, zsh or fish")],
    flags: &[],
    notes: "",
    examples: &["eval \"$(postiz completions bash)\""],
    run: print,
};

fn print(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let script = match options.positional(0)? {
        "bash" => bash(options.commands),
        "zsh" => zsh(options.commands),
        "fish" => fish(options.commands),
        other => {
            return Err(CliError::usage(format!(
                "`{other}` is not one of bash, zsh and fish"
            )));
        }
    };
    context.output.verbatim(&script)?;
    Ok(Exit::Done)
}

/// For `eval "$(postiz completions bash)"`.
fn bash(commands: Commands) -> String {
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    let mut flags = String::new();
    let mut values = String::new();
    for command in commands.iter() {
        let name = command.name;
        let words: String = command.all_flags().map(|flag| format!("{flag} ")).collect();
        flags.push_str(&format!("    {name}) words='{words}--help' ;;\n"));
        for flag in command.all_flags() {
            if let Some(words) = value_words(flag) {
                values.push_str(&format!("    {name}' '{flag}) words='{words}' ;;\n"));
            }
        }
    }
    format!(
        r#"_postiz() {{
  local line="${{COMP_LINE:0:COMP_POINT}}" words=''
  local -a typed
  read -ra typed <<< "$line"
  [[ $line == *[[:space:]] ]] && typed+=('')
  local current="${{typed[-1]}}" previous="${{typed[-2]}}" command="${{typed[1]}}"
  if (( ${{#typed[@]}} <= 2 )); then
    words='{}'
  elif [[ $current == -* ]]; then
    case "$command" in
{flags}    esac
  else
    case "$command $previous" in
{values}    esac
  fi
  COMPREPLY=()
  if [[ -z $words ]]; then
    compopt -o default 2>/dev/null
    return
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  # bash ends a word at a colon: it completes only what stands after it.
  if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
    local prefix="${{current%"${{current##*:}}"}}"
    COMPREPLY=("${{COMPREPLY[@]#"$prefix"}}")
  fi
}}
complete -F _postiz postiz
"#,
        names.join(" ")
    )
}

/// For `eval "$(postiz completions zsh)"`.
fn zsh(commands: Commands) -> String {
    let mut names = String::new();
    let mut arguments = String::new();
    for command in commands.iter() {
        let name = command.name.replace(':', "\\:");
        let described = quoted(&format!("{name}:{}", command.about));
        names.push_str(&format!("    {described}\n"));
        let (name, flags) = (command.name, zsh_flags(command));
        arguments.push_str(&format!(
            "    {name}) _arguments {flags} '*:file:_files' ;;\n"
        ));
    }
    format!(
        "\
#compdef postiz
_postiz() {{
  local -a commands=(
{names}  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=${{words[2]}}
  shift words
  (( CURRENT-- ))
  case $command in
{arguments}  esac
}}
if [[ $funcstack[1] == _postiz ]]; then _postiz \"$@\"; else compdef _postiz postiz; fi
"
    )
}

fn zsh_flags(command: &Command) -> String {
    let specs = command.all_flags().map(|flag| {
        let repeat = if flag.repeatable { "*" } else { "" };
        let about = flag
            .about
            .replace('\\', "\\\\")
            .replace('[', "\\[")
            .replace(']', "\\]")
            .replace(':', "\\:");
        let value = match (flag.takes, value_words(flag)) {
            (_, Some(words)) => format!(":value:({words})"),
            (Takes::Path, _) => ":file:_files".to_owned(),
            (Takes::Value(name), _) => format!(":{}:", name.replace(':', "\\:")),
            _ => String::new(),
        };
        quoted(&format!("{repeat}{flag}[{about}]{value}"))
    });
    specs.collect::<Vec<_>>().join(" ")
}

/// For `postiz completions fish | source`.
fn fish(commands: Commands) -> String {
    let mut script = String::from("complete -c postiz -f\n");
    for command in commands.iter() {
        let (name, about) = (command.name, quoted(command.about));
        script.push_str(&format!(
            "complete -c postiz -n __fish_use_subcommand -a {name} -d {about}\n"
        ));
        for flag in command.all_flags() {
            let short = flag
                .short
                .map_or(String::new(), |short| format!(" -s {short}"));
            let value = match (flag.takes, value_words(flag)) {
                (_, Some(words)) => format!(" -x -a {}", quoted(&words)),
                (Takes::Path, _) => " -r -F".to_owned(),
                (Takes::Value(_), _) => " -x".to_owned(),
                _ => String::new(),
            };
            let about = quoted(flag.about);
            script.push_str(&format!("complete -c postiz -n '__fish_seen_subcommand_from {name}' -l {}{short}{value} -d {about}\n", flag.long));
        }
        let mut positionals = command.positionals.iter();
        if positionals.any(|positional| positional.name == "file") {
            script.push_str(&format!(
                "complete -c postiz -n '__fish_seen_subcommand_from {name}' -F\n"
            ));
        }
    }
    script
}

fn value_words(flag: &Flag) -> Option<String> {
    match flag.takes {
        Takes::OneOf(words) => Some(words.join(" ")),
        _ => None,
    }
}

/// `text` as one quoted word, in any of the three shells.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
