//! The commands, one file for each family. A command reads its options, sends its requests, and prints the result.

pub(crate) mod analytics;
pub(crate) mod api;
pub(crate) mod auth;
pub(crate) mod clipping;
mod common;
pub(crate) mod completions;
pub(crate) mod integrations;
pub(crate) mod man;
pub(crate) mod media;
pub(crate) mod notifications;
pub(crate) mod posts;
pub(crate) mod skill;
pub(crate) mod upload;
