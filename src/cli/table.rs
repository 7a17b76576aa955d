//! The list of all commands, in the order of the overview. The parser, help, completions, the manual page and the skill get
//! it as an argument.

use crate::cli::command::Commands;
use crate::cli::commands::{
    analytics, api, auth, clipping, completions, integrations, man, media, notifications, posts,
    skill, upload,
};
use crate::cli::login;

pub(crate) const COMMANDS: Commands = Commands(&[
    &login::LOGIN,
    &auth::STATUS,
    &auth::LOGOUT,
    &auth::TOKEN,
    &posts::CREATE,
    &posts::UPDATE,
    &posts::LIST,
    &posts::DELETE,
    &posts::STATUS,
    &posts::SETTINGS,
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
]);
