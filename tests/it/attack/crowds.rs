//! Too many clients at the same time: those within the limits are served, the others are refused, and then the server recovers.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::attack::{assert_logs_in, assert_nothing_broke, memory_kib, server_with};
use crate::fake_postiz::FakePostiz;
use crate::support::process::raise_own_limit;
use crate::support::{
    Browser, Connection, Login, Store, TestServer, at_once, eventually, expect, run,
};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

/// Opens `count` connections, each of which is served one request.
fn served_once(server: &TestServer, count: usize) -> Vec<Connection> {
    let mut connections: Vec<Connection> = (0..count)
        .map(|_| Connection::open(server.address))
        .collect();
    for connection in &mut connections {
        connection.send(HEALTH);
    }
    for connection in &mut connections {
        assert_eq!(connection.answer().status, 200);
    }
    connections
}

/// Is a new client served?
fn serves(server: &TestServer) -> bool {
    let Ok(mut connection) = Connection::try_open(server.address) else {
        return false;
    };
    connection.try_send(HEALTH);
    connection.try_answer(true).is_ok()
}

#[test]
fn thousand_idle_connections_use_little_memory() {
    raise_own_limit();
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[]);
    let before = memory_kib(&server, "VmRSS");
    let mut idle = served_once(&server, 1_000);
    assert_logs_in(&server);
    let begun = Instant::now();
    expect::json(&server.get("/health"), 200);
    assert!(begun.elapsed() < Duration::from_secs(2));
    let grown = memory_kib(&server, "VmRSS").saturating_sub(before);
    assert!(grown < 40_000, "grew by {grown} KiB");
    // All of them are still open.
    for connection in idle.iter_mut().step_by(50) {
        connection.send(HEALTH);
        assert_eq!(connection.answer().status, 200);
    }
    assert_nothing_broke(&server);
}

#[test]
fn slow_clients_do_not_delay_logins() {
    const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
    raise_own_limit();
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).time(|times| times.request = REQUEST_TIMEOUT);
    let server = setup.start_for(&postiz);
    let begun = Instant::now();
    let mut slow: Vec<Connection> = (0..200).map(|_| Connection::open(server.address)).collect();
    for (i, connection) in slow.iter_mut().enumerate() {
        // Half of them in the head, half in the body.
        match i % 2 {
            0 => connection.send("GET /health HTTP/1.1\r\nHost: a\r\nX: "),
            _ => connection
                .send("POST /device/token HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"),
        }
    }
    thread::scope(|scope| {
        let slow = &mut slow;
        scope.spawn(move || {
            while begun.elapsed() < REQUEST_TIMEOUT * 9 / 10 {
                slow.iter_mut()
                    .for_each(|connection| connection.try_send(" "));
                // The slow clients' pause between bytes.
                thread::sleep(Duration::from_millis(400));
            }
        });
        at_once(4, |thread| {
            for i in 0..25 {
                let login = Login::start(&server);
                let page = login.approve(&mut Browser::new(), &format!("person-{thread}-{i}"));
                expect::page(&page.answer, 200);
                expect::json(&login.outcome(&server), 200);
            }
        });
    });
    for connection in &mut slow {
        assert_eq!(connection.answer().status, 408);
    }
    assert!(begun.elapsed() >= REQUEST_TIMEOUT);
    assert_nothing_broke(&server);
}

/// Soft and hard limit are 128, too few for 200 clients: the server refuses some before it runs out of descriptors.
#[test]
fn server_with_128_descriptors_refuses_surplus_clients() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let server = setup.limited("-n 128").start_for(&postiz);
    assert!(server.log().contains("few file descriptors limit=128"));
    let mut crowd: Vec<Connection> = (0..200).map(|_| Connection::open(server.address)).collect();
    // Each sends the most expensive request.
    for connection in &mut crowd {
        connection.try_send("GET /device/callback?code=x&state=y HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let answers = crowd
        .iter_mut()
        .map(|connection| connection.try_answer(true));
    let served = answers.filter(Result::is_ok).count();
    assert!((10..=200).contains(&served), "{served} were served");
    assert!(
        serves(&server),
        "idle connections are closed for a new client"
    );
    drop(crowd);
    eventually("the server serves many clients at once again", || {
        at_once(10, |_| serves(&server))
            .into_iter()
            .all(|served| served)
    });
    assert_logs_in(&server);
    assert_nothing_broke(&server);
}

#[test]
fn low_soft_limit_is_raised() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let server = setup.limited("-S -n 128").start();
    let crowd = served_once(&server, 300);
    assert!(serves(&server));
    drop(crowd);
    assert!(!server.log().contains("few file"), "{}", server.log());
    assert_nothing_broke(&server);
}

/// The limit is lowered while the server runs: connections wait until they can be accepted.
#[test]
fn server_without_descriptors_recovers() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[]);
    let process = server.child.id().to_string();
    let limit = |descriptors: &str| {
        let limit = format!("--nofile={descriptors}:");
        let output = run(Command::new("prlimit").args(["--pid", &process, &limit]));
        assert!(output.status.success(), "{output:?}");
    };
    assert!(serves(&server));
    limit("3");
    // Linux reserves a descriptor for the next client in advance, so only the second client finds none. Idle connections
    // are then closed.
    let mut waiting: Vec<Connection> = (0..5).map(|_| Connection::open(server.address)).collect();
    waiting.iter_mut().for_each(|client| client.send(HEALTH));
    eventually("the failed accept is logged", || {
        server.log().contains("accept failed")
    });
    limit("1024");
    for client in &mut waiting {
        assert_eq!(client.answer().status, 200);
    }
    assert_logs_in(&server);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

#[test]
fn connections_are_limited_in_all_and_by_address() {
    let postiz = FakePostiz::start();
    for variables in [
        &[("LIMIT_CONNECTIONS", "5")][..],
        &[
            ("LIMIT_CONNECTIONS_PER_ADDRESS", "5"),
            ("TRUSTED_PROXIES", "none"),
        ],
    ] {
        let server = server_with(&postiz, variables);
        let mut inside = served_once(&server, 5);
        // Exactly one idle connection is closed.
        inside.extend(served_once(&server, 1));
        let mut still_served = |connection: &mut Connection| {
            connection.try_send(HEALTH);
            connection.try_answer(true).is_ok()
        };
        let served = inside.iter_mut().map(&mut still_served);
        assert_eq!(served.filter(|served| *served).count(), 5, "{variables:?}");
        assert_nothing_broke(&server);
    }
    // A trusted proxy's connections are those of many clients, so the limit by address does not apply.
    let server = server_with(&postiz, &[("LIMIT_CONNECTIONS_PER_ADDRESS", "5")]);
    served_once(&server, 20);
}
