//! Integration tests: the real programs over real sockets, with a real PostgreSQL. Only Postiz is a fake.
//! `support` starts and stops servers and speaks HTTP; every other file tests one part of the product.

// No other crate uses a test program's modules. A failed test panics and prints its server's log.
#![allow(unreachable_pub, clippy::print_stderr, clippy::unwrap_used)]

#[path = "../fake_postiz/mod.rs"]
mod fake_postiz;
#[macro_use]
mod support;

mod addresses;
mod airgap;
mod attack;
mod certificates;
mod check;
mod cli;
mod configuration_files;
mod contract;
mod database_roles;
mod database_tls;
mod database_url;
mod failed_starts;
mod faults;
mod lifecycle;
mod log;
mod login;
mod machine;
mod metrics;
mod outbound;
mod pooler;
mod proxied;
mod registration;
mod rolling_upgrade;
mod secrets;
mod stand_in;
mod store;
mod systemd;
mod upstream;
