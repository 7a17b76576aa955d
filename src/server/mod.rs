//! The server.

pub mod codes;
pub mod pages;
pub mod seal;
pub mod store;
