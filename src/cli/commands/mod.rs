//! The commands, one file a family: read the options, do it, print the result.

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
