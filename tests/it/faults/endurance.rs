//! Recovery from temporary faults: a frozen database, a shortage of descriptors or threads, a restart, a log that is not read.
//! Each time a login works during the fault or right after it, and no thread, connection or token is lost.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postiz::server::times::Times;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake_postiz::FakePostiz;
use crate::support::frozen::Frozen;
use crate::support::http;
use crate::support::login::ApprovedLogin;
use crate::support::people::{self, assert_token, log_in, log_in_at_once, log_in_through};
use crate::support::process::{
    leave_descriptors, raise_own_limit, set_limit, thread_names, threads,
};
use crate::support::proxies::{Kind, Proxy, free_port};
use crate::support::relay::Relay;
use crate::support::sockets::{connect_from, reset};
use crate::support::{
    Answer, Browser, Cluster, Connection, Database, Login, Store, TestServer, at_once, eventually,
    expect, program,
};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
/// Delay that a busy machine may add.
const LATE: Duration = Duration::from_secs(2);
const POOL_SIZE: i64 = 8;

/// The server's timeouts while a database is frozen.
const SHORT: Times = Times {
    handler: Duration::from_millis(3_500),
    monitor_handler: Duration::from_millis(1_700),
    callback_handler: Duration::from_secs(6),
    follower: Duration::from_secs(3),
    hung: Duration::from_secs(4),
    ..Times::DEFAULT
};

/// A server on a cluster of its own, with a pool of [`POOL_SIZE`].
struct Fixture {
    cluster: Cluster,
    database: Database,
    postiz: FakePostiz,
    server: TestServer,
}

impl Fixture {
    fn new(times: &Times) -> Fixture {
        let (cluster, postiz) = (Cluster::start_new(), FakePostiz::start());
        let database = cluster.database();
        let setup = TestServer::setup(Store::Embedded)
            .postiz(&postiz)
            .database(&database)
            .var("DATABASE_POOL_SIZE", &POOL_SIZE.to_string())
            .times(times);
        let server = setup.start_for(&postiz);
        Fixture {
            cluster,
            database,
            postiz,
            server,
        }
    }

    /// All connections of the pool must still be usable: look-ups that wait for a locked table use all of them.
    #[track_caller]
    fn assert_no_slot_is_missing(&self) {
        eventually("all connections of the pool are in use at once", || {
            self.slots_in_use() == POOL_SIZE
        });
    }

    fn slots_in_use(&self) -> i64 {
        const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
             WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let (mut locker, mut observer) = (self.database.connect(), self.database.connect());
        let mut lock = locker.transaction().expect("a transaction");
        lock.batch_execute("LOCK TABLE device_requests IN ACCESS EXCLUSIVE MODE")
            .expect("no other client holds the lock for long");
        let mut most = 0;
        thread::scope(|scope| {
            for _ in 0..2 * POOL_SIZE {
                scope.spawn(|| look_up(&self.server));
            }
            let begun = Instant::now();
            // Statements wait at most 2 s for a lock.
            while most < POOL_SIZE && begun.elapsed() < Duration::from_millis(1_800) {
                let row = observer.query_one(WAITING, &[]).expect("a count");
                most = row.get::<_, i64>(0).max(most);
            }
            lock.rollback().expect("the lock is given back");
        });
        most
    }
}

/// Looks up a login by its user code. Look-ups are not batched, so each is a statement of its own.
fn look_up(server: &TestServer) -> Answer {
    let headers = [("Accept", "text/html")];
    server.send("GET", "/device/verify?user_code=WDJB-MJHT", &headers, b"")
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// PostgreSQL freezes while its connections stay open. Every request is answered within its route's timeout, requests that need
/// no database are answered at once, and afterwards no thread and no connection of the pool is missing.
#[test]
fn frozen_database_blocks_no_client_beyond_its_timeout() {
    let fixture = Fixture::new(&SHORT);
    let (server, postiz) = (&fixture.server, &fixture.postiz);
    let threads_before = threads(&server.child);
    log_in_at_once(server, postiz, 16);
    fixture.assert_no_slot_is_missing();
    let mut approved = ApprovedLogin::new(server, &people::name());
    let polling = Login::start(server);
    let mut browser = Browser::new();
    let confirm_page = browser.open(polling.link());
    expect::page(&confirm_page.answer, 200);

    let frozen = Frozen::new(&fixture.cluster);
    let (asked, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut health = Vec::new();
    // Request, expected answer, and timeout.
    let ask = |limit: Duration, ask: &(dyn Fn() -> Answer + Sync), check: fn(&Answer)| {
        asked.fetch_add(4, Ordering::SeqCst);
        let times = at_once(4, |_| {
            let begun = Instant::now();
            let answer = ask();
            let took = begun.elapsed();
            answered.fetch_add(1, Ordering::SeqCst);
            check(&answer);
            took
        });
        let most = times.into_iter().max().unwrap();
        assert!(most < limit + LATE, "{limit:?}: {most:?}");
    };
    thread::scope(|scope| {
        let ask = &ask;
        let (polling, browser, confirm_page) = (&polling, &browser, &confirm_page);
        let (program, person) = (expect::unavailable, |answer: &Answer| {
            expect::page(answer, 503);
        });
        let codes = || server.post_json("/device/code", &json!({}));
        let confirm = || browser.clone().submit(confirm_page, &[]).answer;
        scope.spawn(move || ask(SHORT.handler, &codes, program));
        scope.spawn(move || ask(SHORT.handler, &|| polling.poll(server), program));
        scope.spawn(move || ask(SHORT.handler, &|| polling.poll_form(server), program));
        scope.spawn(move || ask(SHORT.handler, &|| look_up(server), person));
        scope.spawn(move || ask(SHORT.handler, &confirm, person));
        scope.spawn(move || {
            ask(SHORT.monitor_handler, &|| server.get("/ready"), |answer| {
                expect::json(answer, 503)
            })
        });
        eventually("they ask", || asked.load(Ordering::SeqCst) == 24);
        while answered.load(Ordering::SeqCst) < 24 {
            let begun = Instant::now();
            expect::json(&server.get("/health"), 200);
            health.push(begun.elapsed());
            // Many requests over the time of the fault.
            thread::sleep(Duration::from_millis(10));
        }
    });
    let (count, typical) = (health.len(), median(&mut health));
    let most = health.last().unwrap();
    eprintln!("/health {count} times while it is frozen: median {typical:?}, most {most:?}");
    assert!(
        typical < Duration::from_millis(20),
        "median {typical:?}, most {most:?}"
    );
    assert!(count > 50, "{count}");
    // The callback's timeout, which is the longest, has the next test.
    drop(frozen);

    eventually("it is ready again", || server.get("/ready").status == 200);
    approved.assert_recovers(server);
    expect::error(&polling.poll(server), 400, "authorization_pending");
    fixture.assert_no_slot_is_missing();
    log_in_at_once(server, postiz, 16);
    eventually("no thread is left over", || {
        threads(&server.child) == threads_before
    });
    let log = server.log();
    assert!(!log.contains("panic"), "{log}");
}

/// A callback waits for Postiz, so it has the longest timeout.
#[test]
fn frozen_database_blocks_callbacks_up_to_their_timeout() {
    let fixture = Fixture::new(&SHORT);
    let mut people: Vec<_> = (0..12)
        .map(|_| ApprovedLogin::new(&fixture.server, &people::name()))
        .collect();
    let ask = |person: &ApprovedLogin| {
        let mut connection = Connection::open(fixture.server.address);
        connection.send(person.browser.get_bytes(&person.redirect.location()));
        expect::page(&connection.answer(), 503);
    };
    let frozen = Frozen::new(&fixture.cluster);
    let begun = Instant::now();
    at_once(people.len(), |i| ask(&people[i]));
    let took = begun.elapsed();
    assert!(
        took >= SHORT.handler && took < SHORT.callback_handler + LATE,
        "{took:?}"
    );
    drop(frozen);
    eventually("it is ready again", || {
        fixture.server.get("/ready").status == 200
    });
    // Some of these callbacks now get their statement's result and go on after their client was answered; others are sent again.
    for person in &mut people {
        eventually("this login has ended", || {
            let page = person.browser.follow(&person.redirect);
            assert_eq!(page.status(), 200, "{}", page.html());
            !page.html().contains("http-equiv")
        });
        assert_token(&person.login.outcome(&fixture.server), &fixture.postiz);
    }
    fixture.assert_no_slot_is_missing();
}

/// A relay between the server and its database silently drops its connections and accepts new ones, as a proxy that was moved.
/// To the server's operating system they still look open.
#[test]
fn silent_connections_to_the_database_are_replaced() {
    let (cluster, postiz) = (Cluster::start_new(), FakePostiz::start());
    let database = cluster.database();
    let relay = Relay::to(database.address());
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .database(&database.behind(relay.port()))
        .times(&SHORT)
        .var("DATABASE_POOL_SIZE", "4");
    let server = setup.start_for(&postiz);
    log_in_at_once(&server, &postiz, 8);
    let polling = Login::start(&server);
    relay.forget_connections();
    // All connections of the pool are now in use by statements without an answer.
    at_once(8, |_| look_up(&server));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) && server.get("/ready").status != 200 {
        thread::sleep(Duration::from_millis(100));
    }
    expect::json(&server.get("/ready"), 200);
    expect::error(&polling.poll(&server), 400, "authorization_pending");
    log_in_at_once(&server, &postiz, 8);
}

on_each_store!(
    requests_after_sigterm_are_answered_and_close_their_connection,
    server_recovers_from_a_shortage_of_descriptors,
);

/// The limit on descriptors is lowered while connections open, and raised again.
fn server_recovers_from_a_shortage_of_descriptors(store: Store) {
    raise_own_limit();
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let mut approved = ApprovedLogin::new(&server, &people::name());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    // Some of these fail, as they must.
                    let Ok(mut connection) = Connection::try_open(server.address) else {
                        continue;
                    };
                    connection.try_send("POST /device/code HTTP/1.1\r\nHost: a\r\n\r\n");
                    connection.try_answer(true).ok();
                }
            });
        }
        for _ in 0..3 {
            let before = server.log().matches("accept failed").count();
            set_limit(&server.child, "nofile", "3:");
            let begun = Instant::now();
            eventually("it has no descriptors", || {
                // The line is written at most once in five seconds.
                let logged = server.log().matches("accept failed").count();
                logged > before || logged > 0 && begun.elapsed() > Duration::from_millis(300)
            });
            set_limit(&server.child, "nofile", "4096:");
            eventually("the server is ready again", || {
                server.get("/ready").status == 200
            });
        }
        over.store(true, Ordering::SeqCst);
    });
    approved.assert_recovers(&server);
    log_in_at_once(&server, &postiz, 40);
}

/// A server that runs as an unprivileged user with a limit of 600 threads.
struct Unprivileged {
    postiz: FakePostiz,
    server: TestServer,
    // The copy of its program, removed after it has ended.
    _folder: TempDir,
}

impl Unprivileged {
    /// Starts it under a user id that no other process has, since the limit counts all threads of a user.
    fn start(user: u32) -> Unprivileged {
        let (postiz, folder) = (FakePostiz::start(), tempfile::tempdir().unwrap());
        // The user must be able to read the folder.
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), mode).unwrap();
        let copy = folder.path().join("server");
        fs::copy(program("postiz-auth-server"), &copy).unwrap();
        let as_user = format!(
            "-n 4096 && exec prlimit --nproc=600 setpriv --reuid={user} --regid={user} --clear-groups {}",
            copy.display()
        );
        let setup = TestServer::setup(Store::Postgres)
            .postiz(&postiz)
            .var("TRUSTED_PROXIES", "none")
            .var("LIMIT_CALLBACKS_PER_MINUTE", "0")
            .limited(&as_user);
        let server = setup.start_for(&postiz);
        let log = server.log();
        assert!(log.contains("few threads limit=600"), "{log}");
        Unprivileged {
            postiz,
            server,
            _folder: folder,
        }
    }

    /// Opens `count` connections from 11 addresses.
    fn crowd(&self, count: usize) -> Vec<TcpStream> {
        let come = |i: usize| {
            let source = Ipv4Addr::new(127, 0, 0, 20 + (i % 11) as u8);
            connect_from(source.into(), self.server.address).expect("the kernel takes it")
        };
        (0..count).map(come).collect()
    }

    /// Lowers its limit such that it can start `spare` more threads.
    fn leave_threads(&self, spare: usize) {
        let limit = format!("{}:", threads(&self.server.child) + spare);
        set_limit(&self.server.child, "nproc", &limit);
    }
}

/// 660 connections from 11 addresses open and close, which is more than the limit of threads.
#[test]
fn server_recovers_from_more_connections_than_threads() {
    raise_own_limit();
    let fixture = Unprivileged::start(64_123);
    let (server, postiz) = (&fixture.server, &fixture.postiz);
    let crowd = fixture.crowd(660);
    eventually("the crowd is in", || threads(&server.child) > 500);
    log_in(server, postiz);
    drop(crowd);
    log_in_at_once(server, postiz, 40);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

/// Other processes of the same user leave few threads, so the server accepts connections for which it cannot start one.
#[test]
fn server_recovers_from_a_shortage_of_threads() {
    raise_own_limit();
    let fixture = Unprivileged::start(64_124);
    let (server, postiz) = (&fixture.server, &fixture.postiz);
    let mut approved = ApprovedLogin::new(server, &people::name());
    let done = Login::start(server);
    expect::page(
        &done.approve(&mut Browser::new(), &people::name()).answer,
        200,
    );
    fixture.leave_threads(10);
    let crowd = fixture.crowd(100);
    eventually("the server cannot start a thread", || {
        server.log().contains("thread failed")
    });
    expect::json(&server.get("/health"), 200);
    assert_token(&done.outcome(server), postiz);
    drop(crowd);
    set_limit(&server.child, "nproc", "600:");
    approved.assert_recovers(server);
    log_in_at_once(server, postiz, 40);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

/// The HTTP client starts a thread for each exchange. If it cannot, the code is not sent, and the login can be completed at once
/// by the next callback.
#[test]
fn exchange_without_a_thread_leaves_its_login_open() {
    let fixture = Unprivileged::start(64_125);
    let server = &fixture.server;
    let mut approved = ApprovedLogin::new(server, &people::name());
    // One thread for the callback's connection, and none for the exchange.
    eventually("all its requests are over", || threads(&server.child) <= 5);
    fixture.leave_threads(1);
    let page = approved.browser.follow(&approved.redirect);
    assert!(matches!(page.status(), 502 | 503), "{}", page.status());
    set_limit(&server.child, "nproc", "600:");
    approved.assert_recovers(server);
}

/// PostgreSQL restarts while no descriptors are left to reconnect. Its client library panics in this case.
#[test]
fn database_restart_without_descriptors_leaks_no_slot() {
    let fixture = Fixture::new(&Times::DEFAULT);
    let server = &fixture.server;
    let mut approved = ApprovedLogin::new(server, &people::name());
    // These connections are opened before, since no new one can be accepted during the fault.
    let mut clients: Vec<_> = (0..12)
        .map(|_| {
            let mut client = Connection::open(server.address);
            client.send(HEALTH);
            assert_eq!(client.answer().status, 200);
            client
        })
        .collect();
    let body = approved.login.poll_body().to_string();
    let poll = format!(
        "POST /device/token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    fixture.cluster.control("stop");
    // By now its connections to the database are closed, and their descriptors free.
    eventually("the server has seen the restart", || {
        server.get("/ready").status == 503
    });
    // With each of these numbers something else fails: the runtime, its timer or its socket.
    for left in 0..6 {
        set_limit(&server.child, "nofile", "4096:");
        leave_descriptors(&server.child, left);
        if left == 3 {
            fixture.cluster.control("start");
        }
        clients.iter_mut().for_each(|client| client.send(&poll));
        for client in &mut clients {
            let answer = client.answer();
            if answer.status != 400 {
                expect::unavailable(&answer);
            }
        }
    }
    set_limit(&server.child, "nofile", "4096:");
    approved.assert_recovers(server);
    fixture.assert_no_slot_is_missing();
    log_in_at_once(server, &fixture.postiz, 40);
    assert!(
        server.log().contains("panic"),
        "the library does not panic any more"
    );
}

/// The same panic in the janitor does not end its thread.
#[test]
fn janitor_survives_a_panic() {
    // Each round tries to connect to a database that is not there.
    let server = TestServer::setup(Store::Embedded)
        .var(
            "DATABASE_URL",
            "postgres://u:p@127.0.0.1:1/x?sslmode=disable",
        )
        .times(&Times {
            purge_period: Duration::from_secs(1),
            ..Times::DEFAULT
        })
        .start();
    eventually("it panics", || {
        // Once more, since a round may have had descriptors open.
        leave_descriptors(&server.child, 0);
        server.log().contains("thread=janitor")
    });
    assert!(server.log().contains("panicked"), "{}", server.log());
    // A panic would have ended the thread by now; the janitor waits for its next round instead.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        let names = thread_names(&server.child);
        assert!(names.iter().any(|name| name == "janitor"), "{names:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// After SIGTERM, a request on an open connection is answered and closes the connection, and `/ready` answers "stopping".
fn requests_after_sigterm_are_answered_and_close_their_connection(store: Store) {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(store)
        .postiz(&postiz)
        .var("STOP_DELAY", "2");
    let mut server = setup.start_for(&postiz);
    let mut approved = ApprovedLogin::new(&server, &people::name());
    let done = {
        let login = Login::start(&server);
        expect::page(
            &login.approve(&mut Browser::new(), &people::name()).answer,
            200,
        );
        login
    };
    let mut open: Vec<_> = (0..5)
        .map(|_| {
            let mut connection = Connection::open(server.address);
            connection.send(HEALTH);
            assert_eq!(connection.answer().status, 200);
            connection
        })
        .collect();
    let mut last = |request: Vec<u8>| {
        let mut connection = open.pop().expect("there are enough");
        // Without `Connection: close`.
        let request = String::from_utf8(request).unwrap();
        connection.send(request.replace("Connection: close\r\n", ""));
        let answer = connection.answer();
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
        assert_eq!(connection.rest().expect("it is closed"), b"");
        answer
    };
    let poll = |login: &Login| login.poll_bytes();
    let assert_stopping = |answer: &Answer| {
        expect::json(answer, 503);
        assert_eq!(answer.json(), json!({"status": "stopping"}));
    };

    server.signal("TERM");
    eventually("it stops", || server.get("/ready").status == 503);
    // New connections are accepted during the two seconds of STOP_DELAY.
    assert_stopping(&server.get("/ready"));
    expect::json(&server.get("/health"), 200);
    expect::page(&approved.call_back(), 200);
    assert_stopping(&last(http::request("GET", "/ready", &[], b"")));
    let started = last(http::request("POST", "/device/code", &[], b""));
    expect::json(&started, 200);
    eventually("the listener is closed", || {
        Connection::try_open(server.address).is_err()
    });
    assert_stopping(&last(http::request("GET", "/ready", &[], b"")));
    assert_token(&last(poll(&done)), &postiz);
    assert_token(&last(poll(&approved.login)), &postiz);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

/// Two instances restart in turn, six times in all, while people log in through a proxy. No request fails.
fn roll(kind: Kind, stop_delay: &str) {
    let postiz = FakePostiz::start();
    let (port, instances) = (free_port(), [free_port(), free_port()]);
    let public_url = format!("http://localhost:{port}");
    let setup = TestServer::setup(Store::Postgres)
        .postiz(&postiz)
        .var("SERVER_URL", &public_url)
        .var("STOP_DELAY", stop_delay)
        .var("LIMIT_CALLBACKS_PER_MINUTE", "0");
    postiz.set_callback_url(&format!("{public_url}/device/callback"));
    let setups = instances.map(|port| setup.clone().var("PORT", &port.to_string()));
    let mut servers = [setups[0].start(), setups[1].start()];
    let proxy = Proxy::start(kind, port, instances);
    instances
        .iter()
        .for_each(|instance| proxy.wait_for(*instance));
    let (over, logins) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    log_in_through(proxy.address, &postiz);
                    logins.fetch_add(1, Ordering::SeqCst);
                    // So that they leave time to the other tests.
                    thread::sleep(Duration::from_millis(100));
                }
            });
        }
        // Also after a panic, the loops must end.
        let _over = SetOnDrop(&over);
        for round in 0..6 {
            let which = round % 2;
            let before = logins.load(Ordering::SeqCst);
            servers[which].signal("TERM");
            assert_eq!(
                servers[which].wait().code(),
                Some(0),
                "{}",
                servers[which].log()
            );
            servers[which] = setups[which].start();
            proxy.wait_for(instances[which]);
            eventually("people log in", || logins.load(Ordering::SeqCst) > before);
        }
    });
    eprintln!("{kind:?}: {} logins", logins.load(Ordering::SeqCst));
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// haproxy checks `/ready`, which answers "stopping" during the second of STOP_DELAY, and then sends no more clients.
#[test]
fn rolling_restarts_behind_haproxy_lose_no_request() {
    roll(Kind::Haproxy, "1");
}

/// nginx tries the other instance after a refused connection, and needs no delay.
#[test]
fn rolling_restarts_behind_nginx_lose_no_request() {
    roll(Kind::Nginx, "0");
}

/// A server whose standard error is a pipe that is not read.
struct Unread {
    child: Child,
    /// `None`: closed.
    stderr: Option<BufReader<ChildStderr>>,
    address: SocketAddr,
}

impl Unread {
    fn start(format: &str) -> Unread {
        let port = free_port();
        let setup = TestServer::setup(Store::Embedded)
            .var("PORT", &port.to_string())
            .var("LOG_FORMAT", format)
            // Health checks are logged at this level.
            .var("LOG_LEVEL", "debug");
        let mut child = setup
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server program starts");
        let server = Unread {
            stderr: child.stderr.take().map(BufReader::new),
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        eventually("it listens", || {
            Connection::try_open(server.address).is_ok()
        });
        server
    }

    /// Reads lines from the pipe until `is_last` is true for one.
    fn lines_until(&mut self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        let stderr = self.stderr.as_mut().expect("the stream is piped");
        for line in stderr.by_ref().lines().map_while(Result::ok) {
            let last = is_last(&line);
            lines.push(line);
            if last {
                break;
            }
        }
        lines
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The server keeps serving while its log is not read. Once it is read again, the next line has the number of dropped lines.
#[test]
fn full_pipe_on_stderr_drops_log_lines_only() {
    for format in ["text", "json"] {
        let mut server = Unread::start(format);
        let mut client = Connection::open(server.address);
        const REQUESTS: usize = 3_000;
        for sent in 0..REQUESTS {
            client.send(HEALTH);
            let answer = client.try_answer(true);
            let answer = answer.unwrap_or_else(|e| panic!("{format}: no answer after {sent}: {e}"));
            assert_eq!(answer.status, 200);
        }
        // New connections are served as well.
        for target in ["/ready", "/device/verify"] {
            let request = http::request("GET", target, &[], b"");
            assert_eq!(http::exchange(server.address, request).status, 200);
        }
        // The line with the number is written with the first line after the pipe was emptied.
        let mut emptied = 0;
        let mut lines = Vec::new();
        let is_request = |line: &str| line.contains("request") && line.contains("/health");
        while emptied < 100 {
            lines.extend(server.lines_until(|_| true));
            emptied += 1;
        }
        client.send(HEALTH);
        assert_eq!(client.answer().status, 200);
        lines.extend(server.lines_until(|line| dropped(line).is_some()));
        let missing = lines
            .last()
            .and_then(|line| dropped(line))
            .expect("a line has the number of dropped lines");
        // The next line is that of the request that caused it.
        lines.extend(server.lines_until(is_request));
        let seen = lines.iter().filter(|line| is_request(line)).count();
        // All requests, including the two on new connections and the last one.
        assert_eq!(
            seen + missing,
            REQUESTS + 2 + 1,
            "{format}: {missing} are reported"
        );
    }
}

/// The reader of the pipe has closed it.
#[test]
fn closed_pipe_on_stderr_fails_no_request() {
    let mut server = Unread::start("text");
    server.stderr = None;
    let mut client = Connection::open(server.address);
    for _ in 0..100 {
        client.send(HEALTH);
        assert_eq!(client.answer().status, 200);
    }
}

/// The number in a line about dropped lines.
fn dropped(line: &str) -> Option<usize> {
    if let Ok(object) = serde_json::from_str::<Value>(line) {
        let is_it = object["event"] == "log_lines_dropped";
        return is_it.then(|| object["count"].as_u64()?.try_into().ok())?;
    }
    let words = line.replace("log lines dropped", "log_lines_dropped");
    let (_, count) = words.split_once("log_lines_dropped count=")?;
    count.split(' ').next()?.parse().ok()
}

/// Delivering a token takes a lease of one second, but holds no transaction open. 60 clients that reset just before the lease
/// ends do not delay others, and the next poll gets each token.
#[test]
fn sixty_resetting_clients_do_not_delay_others() {
    const CLIENTS: usize = 60;
    let fixture = Fixture::new(&Times::DEFAULT);
    let (server, postiz) = (&fixture.server, &fixture.postiz);
    let logins: Vec<Vec<Login>> = at_once(6, |_| {
        let approved = |_| {
            let login = Login::start(server);
            let page = login.approve(&mut Browser::new(), &people::name());
            expect::page(&page.answer, 200);
            login
        };
        (0..CLIENTS / 6).map(approved).collect()
    });
    let logins = logins.concat();
    let vanished = AtomicUsize::new(0);
    let mut times = Vec::new();
    let vanish = |login: &Login| {
        let poll = login.poll_bytes();
        let stream = connect_from(Ipv4Addr::LOCALHOST.into(), server.address).unwrap();
        let sent = Instant::now();
        (&stream).write_all(&poll).unwrap();
        let mut start = [0; 12];
        (&stream).read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        thread::sleep(Duration::from_millis(800).saturating_sub(sent.elapsed()));
        reset(stream);
        vanished.fetch_add(1, Ordering::SeqCst);
        // The lease began after the poll was sent. On a busy machine it may have ended by now.
        sent.elapsed() < Duration::from_millis(950)
    };
    let in_time: Vec<bool> = thread::scope(|scope| {
        let vanish = &vanish;
        let clients: Vec<_> = logins
            .iter()
            .map(|login| scope.spawn(move || vanish(login)))
            .collect();
        let other = Login::start(server);
        let approving = scope.spawn(|| log_in(server, postiz));
        let mut observer = fixture.database.connect();
        while vanished.load(Ordering::SeqCst) < CLIENTS && !clients.iter().all(|c| c.is_finished())
        {
            let begun = Instant::now();
            expect::error(&other.poll(server), 400, "authorization_pending");
            times.push(begun.elapsed());
            let held = "SELECT count(*) FROM pg_stat_activity
                 WHERE state LIKE 'idle in transaction%' AND datname = current_database()";
            let held: i64 = observer.query_one(held, &[]).expect("a count").get(0);
            assert_eq!(held, 0, "a transaction is held open");
        }
        approving.join().expect("the other logins succeed");
        let vanished = |client: thread::ScopedJoinHandle<bool>| client.join().expect("it vanishes");
        clients.into_iter().map(vanished).collect()
    });
    let (count, typical) = (times.len(), median(&mut times));
    let most = times[count - 1];
    eprintln!("{count} polls of another login: median {typical:?}, most {most:?}");
    assert!(
        most < Duration::from_millis(900),
        "median {typical:?}, most {most:?}"
    );
    at_once(CLIENTS, |i| {
        let outcome = logins[i].outcome(server);
        if in_time[i] || outcome.status == 200 {
            assert_token(&outcome, postiz);
        }
    });
    let in_time = in_time.iter().filter(|in_time| **in_time).count();
    assert!(in_time > CLIENTS / 4, "{in_time}: the machine is too busy");
    assert!(server.log().matches("token not delivered").count() >= in_time);
    fixture.assert_no_slot_is_missing();
}
