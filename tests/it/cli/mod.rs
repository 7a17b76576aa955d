//! The `postiz` program: each test runs the real one, and checks its exit code, stdout and stderr separately.
//!
//! The server at the other end is mostly a scripted one, which can misbehave in ways that ours never does. whole_login.rs uses
//! the real auth server and Postiz' stand-in.

// A test fails by a panic.
#![allow(clippy::unwrap_used)]

mod harness;

mod arguments;
mod auth;
mod browser;
mod credentials;
mod direct;
mod early_answers;
mod errors;
mod examples;
mod login;
mod login_in_two_calls;
mod media_and_clips;
mod networks;
mod outcomes;
mod posts;
mod proxies;
mod requests;
mod retries;
mod shells;
mod terminal;
mod upload;
mod whole_login;
