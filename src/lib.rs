//! The login of the Postiz command line: a self-hosted auth server and a CLI, in one crate.
//!
//! Three parts, in the order data flows:
//!
//! - [`cli`]: the command line. It requests a code from the server, shows it, polls, and saves the token.
//! - [`shared`]: the constants of the device flow (RFC 8628), and the tools that both others need.
//! - [`server`]: the auth server. It issues codes, sends the browser to Postiz, and delivers each token once.
//!
//! `cli` and `server` never import each other; both import `shared`. The programs in `src/bin` pass arguments and environment
//! in, and exit codes out.

pub mod cli;
pub mod server;
pub mod shared;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
