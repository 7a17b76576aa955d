//! The `postiz` program: each test runs the real one and looks at its exit code, stdout and stderr apart.
//!
//! The other end is mostly a scripted server, because it must misbehave in ways that ours never does; whole_login.rs has
//! the real auth server, and Postiz' stand-in.

// In a test, a panic is how a failure is told.
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
