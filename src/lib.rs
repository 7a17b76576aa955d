//! The login of the Postiz command line: a self-hosted auth server and a CLI, in one crate.
//!
//! Three parts, in the order data flows:
//!
//! - [`cli`]: what the user types. It asks the server for a code, shows it, polls, keeps the token.
//! - [`shared`]: what both ends say to each other (RFC 8628), and the few tools both need.
//! - [`server`]: hands out codes, sends the browser to Postiz, takes the token and hands it over once.
//!
//! `cli` and `server` never import each other; both import `shared`. The two programs in `src/bin` only convert:
//! arguments and environment in, exit code out.

pub mod cli;
pub mod server;
pub mod shared;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
