//! The `postiz` program: each test runs the real one and looks at its exit code, stdout and stderr apart.
//!
//! Whole logins against the real auth server are elsewhere; here the other end is a scripted server, because it must
//! misbehave in ways that ours never does.

mod harness;

mod arguments;
mod auth;
mod browser;
mod errors;
mod login;
mod login_in_two_calls;
mod requests;
mod retries;
mod terminal;
mod upload;
