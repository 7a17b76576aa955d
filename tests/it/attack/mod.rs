//! What the open network may do to a server, done to the real one over real sockets: each attack is answered as the
//! contract says, costs little, and leaves a server that logs people in.

mod addresses;
mod budgets;
mod crowds;
mod garbage;
mod limits;
mod pages;
mod smuggling;
mod stopping;
mod strangers;
pub mod tls;

use std::fs;

use crate::fake_postiz::FakePostiz;
use crate::support::{Browser, Login, Store, TestServer, expect};

/// The proof that nothing is stuck: a whole login, from its code to its token.
#[track_caller]
fn assert_logs_in(server: &TestServer) {
    let login = Login::start(server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    expect::json(&login.outcome(server), 200);
}

/// A server that is ready to log people in, with these variables.
fn server_with(postiz: &FakePostiz, variables: &[(&str, &str)]) -> TestServer {
    server_on(Store::Embedded, postiz, variables)
}

/// The same on this store.
fn server_on(store: Store, postiz: &FakePostiz, variables: &[(&str, &str)]) -> TestServer {
    let setup = TestServer::setup(store);
    let setup = variables
        .iter()
        .fold(setup, |setup, (name, value)| setup.var(name, value));
    setup.start_for(postiz)
}

/// Memory that the process really uses, in KiB; now, or at its most (`VmRSS`, `VmHWM`).
fn memory_kib(server: &TestServer, which: &str) -> u64 {
    let path = format!("/proc/{}/status", server.child.id());
    let status = fs::read_to_string(path).expect("Linux tells of its processes");
    let line = status.lines().find(|line| line.starts_with(which));
    let digits = line.unwrap_or_default().split_whitespace().nth(1);
    digits.unwrap_or_default().parse().expect("a number")
}

/// The log has no panic and no error.
#[track_caller]
fn assert_nothing_broke(server: &TestServer) {
    let log = server.log();
    assert!(!log.contains("panic") && !log.contains(" error "), "{log}");
}
