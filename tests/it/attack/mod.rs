//! Attacks from the open network on the real server over real sockets. The answer to each is as the contract says, it uses
//! few resources, and afterwards logins still work.

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

/// A whole login must still work, from its code to its token.
#[track_caller]
fn assert_logs_in(server: &TestServer) {
    let login = Login::start(server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    expect::json(&login.outcome(server), 200);
}

/// A server with the embedded store and these variables.
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

/// Resident memory of the process in KiB: now (`VmRSS`), or at its peak (`VmHWM`).
fn memory_kib(server: &TestServer, which: &str) -> u64 {
    let path = format!("/proc/{}/status", server.child.id());
    let status = fs::read_to_string(path).expect("the process is running");
    let line = status.lines().find(|line| line.starts_with(which));
    let digits = line.unwrap_or_default().split_whitespace().nth(1);
    digits.unwrap_or_default().parse().expect("a number")
}

/// The log must have no panic and no error.
#[track_caller]
fn assert_nothing_broke(server: &TestServer) {
    let log = server.log();
    assert!(!log.contains("panic") && !log.contains(" error "), "{log}");
}
