//! Notifications to systemd over a real datagram socket, from start to stop. `scripts/test-systemd` tests the unit file.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::id;

use crate::support::{SOON, Store, TestServer, eventually, expect};

/// Starts and stops a server with NOTIFY_SOCKET `name`, and asserts the messages that `socket` receives.
fn assert_notifies(name: &str, socket: &UnixDatagram) {
    socket.set_read_timeout(Some(SOON)).unwrap();
    let setup = TestServer::setup(Store::Embedded).var("NOTIFY_SOCKET", name);
    let mut server = setup.start();
    let ready = format!("READY=1\nSTATUS=listening on http://{}", server.address);
    assert_eq!(message(socket), ready);
    expect::json(&server.get("/health"), 200);

    server.signal("TERM");
    assert!(message(socket).starts_with("STOPPING=1\nSTATUS="));
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer).expect("a message within SOON");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn server_notifies_a_socket_with_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    assert_notifies(path.to_str().unwrap(), &socket);
}

#[test]
fn server_notifies_an_abstract_socket() {
    let name = format!("postiz-test-notify-{}", id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    assert_notifies(&format!("@{name}"), &socket);
}

/// A failed start sends no message, so that systemd does not regard it as ready.
#[test]
fn failed_start_sends_no_ready() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let setup = TestServer::setup(Store::Embedded).var("NOTIFY_SOCKET", path.to_str().unwrap());
    let running = setup.start();
    socket.set_read_timeout(Some(SOON)).unwrap();
    assert!(message(&socket).starts_with("READY=1\n"));
    socket.set_nonblocking(true).unwrap();
    let port = running.address.port().to_string();
    for (name, value, code) in [("PORT", &*port, 1), ("PORT", "a", 2)] {
        let output = setup.clone().var(name, value).run(&[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let nothing = socket.recv(&mut [0; 8]).expect_err("nothing was sent");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
}

/// A shell may have inherited the variable from a service that has ended. The server starts nevertheless.
#[test]
fn missing_notify_socket_is_a_warning() {
    let setup = TestServer::setup(Store::Embedded).var("NOTIFY_SOCKET", "/nowhere/notify");
    let server = setup.start();
    expect::json(&server.get("/health"), 200);
    eventually("the warning is logged", || {
        server.log().contains("warn notify failed")
    });
    // An empty variable counts as unset.
    drop(server);
    let server = setup.var("NOTIFY_SOCKET", "").start();
    expect::json(&server.get("/health"), 200);
    assert!(!server.log().contains("notify"), "{}", server.log());
}

/// A manager that reads nothing more fills its queue. The server serves and stops all the same.
#[test]
fn full_notify_socket_does_not_hold_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let _unread = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", &path).is_ok() {}
    let setup = TestServer::setup(Store::Embedded).var("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut server = setup.start();
    eventually("the warning is logged", || {
        server.log().contains("warn notify failed")
    });
    expect::json(&server.get("/health"), 200);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}
