//! What the server tells systemd: over a real datagram socket, in the order of a service's life.
//! The unit itself is tried by `scripts/test-systemd`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::id;

use crate::support::{SOON, Store, TestServer, eventually, expect};

/// Starts a server that notifies `name`, which `socket` reads, and stops it again.
fn lives_and_tells(name: &str, socket: &UnixDatagram) {
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
    lives_and_tells(path.to_str().unwrap(), &socket);
}

#[test]
fn server_notifies_an_abstract_socket() {
    let name = format!("postiz-test-notify-{}", id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    lives_and_tells(&format!("@{name}"), &socket);
}

/// A start that fails says nothing, so that systemd does not take it for one that works.
#[test]
fn failed_start_is_never_ready() {
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

/// A variable that a shell inherited from a service that is gone does not keep the server from serving.
#[test]
fn missing_notify_socket_is_a_warning() {
    let setup = TestServer::setup(Store::Embedded).var("NOTIFY_SOCKET", "/nowhere/notify");
    let server = setup.start();
    expect::json(&server.get("/health"), 200);
    eventually("the warning is logged", || {
        server.log().contains("warn notify failed")
    });
    // An empty one is none.
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
