//! Faults of the embedded store: its process is killed at any moment, its disk is full, or its file cannot be written.

use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_postiz::FakePostiz;
use crate::support::{
    Answer, Browser, Connection, Login, Store, TestServer, at_once, eventually, expect, http, run,
};

const KILLS: u64 = 50;

/// The logins that the server acknowledged before it was killed.
#[derive(Default)]
struct Acknowledged {
    started: Vec<Login>,
    completed: Vec<Login>,
}

/// The server is killed at 50 moments under load. After each restart it still has every acknowledged login.
#[test]
fn killed_server_keeps_acknowledged_logins() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let mut earlier = Acknowledged::default();
    for kill in 0..KILLS {
        let mut server = setup.start_for(&postiz);
        assert_all_there(&server, &earlier);
        let acknowledged = Mutex::default();
        let (killed, server) = (AtomicBool::new(false), &mut server);
        let address = server.address;
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !killed.load(Ordering::SeqCst) {
                        start_if_alive(address, &acknowledged);
                    }
                });
            }
            complete_one(server, &acknowledged);
            // A moment in the first 100 ms of load, from a fixed sequence.
            thread::sleep(Duration::from_millis(kill * 37 % 100));
            server.kill();
            killed.store(true, Ordering::SeqCst);
        });
        earlier = acknowledged.into_inner().expect("no thread panicked");
        assert!(!earlier.completed.is_empty());
    }
    assert_all_there(&setup.start_for(&postiz), &earlier);
}

fn assert_all_there(server: &TestServer, earlier: &Acknowledged) {
    for login in &earlier.started {
        expect::error(&login.poll(server), 400, "authorization_pending");
    }
    for login in &earlier.completed {
        expect::json(&login.poll(server), 200);
    }
}

/// Starts a login and records it, unless the server is killed before its answer.
fn start_if_alive(address: std::net::SocketAddr, acknowledged: &Mutex<Acknowledged>) {
    let Ok(mut connection) = Connection::try_open(address) else {
        return;
    };
    connection.try_send(http::request("POST", "/device/code", &[], b""));
    if let Ok(answer) = connection.try_answer(true) {
        let login = Login::of(&answer);
        let mut acknowledged = acknowledged.lock().expect("no thread panicked");
        acknowledged.started.push(login);
    }
}

fn complete_one(server: &TestServer, acknowledged: &Mutex<Acknowledged>) {
    let login = Login::start(server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    let mut acknowledged = acknowledged.lock().expect("no thread panicked");
    acknowledged.completed.push(login);
}

/// Can this process make mount namespaces? Prints the reason if not.
fn can_mount() -> bool {
    let output = run(Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]));
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        eprintln!("skipped, since only root can mount: {why}");
    }
    output.status.success()
}

/// The disk has a few megabytes. Once it is full, clients get 503; once it has room again, logins work, and every acknowledged
/// login is still there.
#[test]
fn full_disk_answers_503_and_recovers() {
    if !can_mount() {
        return;
    }
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .var("LIMIT_LIVE_LOGINS", "0");
    fs::create_dir(setup.data_dir()).expect("the test may write the file");
    let setup = setup.in_own_mounts(
        "mount -t tmpfs -o size=3m none \"$DATA_DIR\" && head -c 1000000 /dev/zero >\"$DATA_DIR/ballast\"",
    );
    let server = setup.start_for(&postiz);
    let acknowledged = fill(&server);
    let log = server.log();
    assert!(log.contains("No space left on device"), "{log}");
    expect::json(&server.get("/health"), 200);
    expect::json(&server.get("/ready"), 503);

    let ballast = setup.data_dir().join("ballast");
    let inside = format!("/proc/{}/root{}", server.child.id(), ballast.display());
    fs::remove_file(inside).expect("root may look into its mounts");
    eventually("logins start again", || ask(&server).status == 200);
    for start in acknowledged {
        let login = Login { start };
        expect::error(&login.poll(&server), 400, "authorization_pending");
    }
    let login = Login::start(&server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    expect::json(&login.outcome(&server), 200);
}

/// The file may not grow further (`ulimit -f`). The system reports this by a signal that would end the process by default.
#[test]
fn file_size_limit_answers_503() {
    let setup = TestServer::setup(Store::Embedded)
        .var("LIMIT_LIVE_LOGINS", "0")
        .limited("-f 4096");
    let server = setup.start();
    let acknowledged = fill(&server);
    let log = server.log();
    assert!(log.contains("File too large"), "{log}");
    expect::json(&server.get("/health"), 200);
    for start in acknowledged {
        let login = Login { start };
        expect::error(&login.poll(&server), 400, "authorization_pending");
    }
}

fn ask(server: &TestServer) -> Answer {
    server.post_json("/device/code", &json!({}))
}

/// Starts logins until the file is full and clients get 503. Returns the acknowledged ones.
fn fill(server: &TestServer) -> Vec<Value> {
    let acknowledged = Mutex::<Vec<Value>>::default();
    at_once(8, |_| {
        loop {
            let answer = ask(server);
            if answer.status != 200 {
                return expect::unavailable(&answer);
            }
            let mut acknowledged = acknowledged.lock().expect("no thread panicked");
            acknowledged.push(answer.json());
        }
    });
    let acknowledged = acknowledged.into_inner().expect("no thread panicked");
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    acknowledged
}

#[test]
fn read_only_file_ends_the_start() {
    if !can_mount() {
        return;
    }
    let setup = TestServer::setup(Store::Embedded);
    drop(setup.start());
    let read_only =
        "mount --bind \"$DATA_DIR\" \"$DATA_DIR\" && mount -o remount,bind,ro \"$DATA_DIR\"";
    let output = setup.clone().in_own_mounts(read_only).run(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let file = setup.data_dir().join("postiz-auth.redb");
    assert!(stderr.contains(&*file.to_string_lossy()), "{stderr}");
    assert!(stderr.contains("Read-only file system"), "{stderr}");
    assert!(!stderr.contains("panic"), "{stderr}");
}

/// Another process has the file open: the start fails and names the reason.
#[test]
fn file_open_elsewhere_ends_the_start() {
    let setup = TestServer::setup(Store::Embedded);
    let server = setup.start();
    let login = Login::start(&server);
    let output = setup.run(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("another postiz-auth-server has it open"),
        "{stderr}"
    );
    assert!(
        stderr.contains("DATABASE_URL"),
        "it names a remedy: {stderr}"
    );
    expect::error(&login.poll(&server), 400, "authorization_pending");
}
