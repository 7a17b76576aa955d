//! The posts' commands: create.rs, update.rs, list.rs, and change.rs for those of one request. What create and update share:
//! the parts (parts.rs, their text.rs and media.rs), the flags, the channels, the schedule, and the body of the request.

mod change;
mod create;
mod list;
mod update;

mod body;
mod channels;
mod flags;
mod media;
mod parts;
mod schedule;
mod text;

pub(crate) use change::{CONNECT, DELETE, MISSING, SETTINGS, STATUS};
pub(crate) use create::CREATE;
pub(crate) use list::LIST;
pub(crate) use update::UPDATE;
