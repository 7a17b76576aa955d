//! The login of the Postiz command line: a self-hosted auth server and a CLI, in one crate.
//!
//! Three parts, in the order data flows:
//!
//! - [`cli`]: the command line. It asks the server for a code, shows it, polls, and saves the token.
//! - [`shared`]: the constants of the device flow (RFC 8628), and the few tools that both need.
//! - [`server`]: the auth server. It issues codes, sends the browser to Postiz, and delivers each token once.
//!
//! `cli` and `server` never import each other; both import `shared`. The two programs in `src/bin` only convert:
//! arguments and environment in, exit code out.

pub mod cli;
pub mod server;
pub mod shared;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
