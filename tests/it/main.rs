//! Integration tests: the real programs over real sockets, with a real PostgreSQL; Postiz alone is played.
//! `support` starts and stops things and speaks HTTP; every other file is about one part of what the project promises.

// Modules of a test program have no outside, and a failed test shows its server's log.
#![allow(unreachable_pub, clippy::print_stderr)]

#[path = "../fake_postiz/mod.rs"]
mod fake_postiz;
mod support;

mod cli;
mod contract;
mod stand_in;
