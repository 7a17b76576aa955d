//! The list of all commands, in the order of the overview. Reading a command line (args.rs), help.rs and completions.rs
//! all go by it.

use crate::cli::command::Command;
use crate::cli::commands::{
    analytics, api, auth, clipping, completions, integrations, man, media, notifications, posts,
    skill, upload,
};
use crate::cli::login;

/// Every command.
pub(crate) static COMMANDS: &[&Command] = &[
    &login::LOGIN,
    &auth::STATUS,
    &auth::LOGOUT,
    &auth::TOKEN,
    &posts::CREATE,
    &posts::UPDATE,
    &posts::LIST,
    &posts::DELETE,
    &posts::STATUS_COMMAND,
    &posts::SETTINGS_COMMAND,
    &posts::MISSING,
    &posts::CONNECT,
    &integrations::LIST,
    &integrations::GROUPS,
    &integrations::SETTINGS,
    &integrations::TRIGGER,
    &integrations::CONNECT,
    &integrations::SLOT,
    &analytics::PLATFORM,
    &analytics::POST,
    &notifications::NOTIFICATIONS,
    &media::LIST,
    &clipping::CREATE,
    &clipping::STATUS,
    &clipping::LIST,
    &upload::UPLOAD,
    &api::API,
    &completions::COMPLETIONS,
    &skill::SKILL,
    &man::MAN,
];

/// The command with this exact name.
pub(crate) fn command(name: &str) -> Option<&'static Command> {
    COMMANDS
        .iter()
        .copied()
        .find(|command| command.name == name)
}

/// The words before a colon: `auth`, `posts`, …
pub(crate) fn group_of(name: &str) -> Option<&str> {
    name.split_once(':').map(|(group, _)| group)
}

/// Has any command this group?
pub(crate) fn is_group(word: &str) -> bool {
    COMMANDS
        .iter()
        .any(|command| group_of(command.name) == Some(word))
}
