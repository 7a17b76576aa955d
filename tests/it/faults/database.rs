//! PostgreSQL restarts, crashes, hangs, loses connections, turns read-only, or cannot be reached.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postiz::server::codes::{DeviceCode, UserCode};
use postiz::server::login::Starter;
use postiz::server::store::{Key, NewLogin, apply};
use postiz::server::times::Times;
use serde_json::json;

use crate::fake_postiz::{Delivery, FakePostiz, Fault, Gate};
use crate::pooler::{log_in, store};
use crate::support::login::ApprovedLogin;
use crate::support::postgres::PASSWORD;
use crate::support::relay::Relay;
use crate::support::{
    Cluster, Connection, Database, Login, Store, TestServer, at_once, eventually, expect,
};

/// A server on a PostgreSQL cluster of its own.
struct Fixture {
    cluster: Cluster,
    database: Database,
    server: TestServer,
    // The last field, so that it is dropped last.
    postiz: FakePostiz,
}

impl Fixture {
    fn new(variables: &[(&str, &str)]) -> Fixture {
        let (cluster, postiz) = (Cluster::start_new(), FakePostiz::start());
        let database = cluster.database();
        let setup = TestServer::setup(Store::Embedded)
            .postiz(&postiz)
            .database(&database);
        let setup = variables
            .iter()
            .fold(setup, |setup, (name, value)| setup.var(name, value));
        let server = setup.start_for(&postiz);
        Fixture {
            cluster,
            database,
            server,
            postiz,
        }
    }

    /// Polls get 503 in the form that the npm CLI retries, and the process keeps running.
    #[track_caller]
    fn assert_answers_503(&self, login: &Login) {
        expect::unavailable(&login.poll(&self.server));
        expect::unavailable(&login.poll_form(&self.server));
        expect::json(&self.server.get("/health"), 200);
    }
}

/// A restart by an administrator, a crash, and SIGKILL to all processes.
#[test]
fn database_is_stopped_and_started_again() {
    let fixture = Fixture::new(&[]);
    for end in ["stop", "kill", "sigkill"] {
        let mut approved = ApprovedLogin::new(&fixture.server, "ada");
        fixture.cluster.control(end);
        fixture.assert_answers_503(&approved.login);
        fixture.cluster.control("start");
        approved.assert_recovers(&fixture.server);
    }
    assert!(!fixture.server.log().contains("panic"));
}

/// No request fails: a statement whose connection was terminated is retried on a new one.
#[test]
fn terminated_connections_are_replaced() {
    let fixture = Fixture::new(&[]);
    let mut administrator = fixture.database.connect();
    let mut terminate = || {
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                      WHERE application_name = 'postiz-auth-server'";
        let rows = administrator.query(others, &[]);
        rows.expect("a superuser may").len()
    };
    for _ in 0..5 {
        let mut approved = ApprovedLogin::new(&fixture.server, "ada");
        at_once(8, |_| approved.login.poll(&fixture.server));
        assert!(terminate() > 0);
        let answers = at_once(8, |_| approved.login.poll(&fixture.server));
        for answer in &answers {
            expect::error(answer, 400, "authorization_pending");
        }
        terminate();
        approved.assert_recovers(&fixture.server);
    }
}

/// As after a failover, when the server is still connected to the host that is now a standby.
#[test]
fn read_only_database_answers_503() {
    let fixture = Fixture::new(&[]);
    let set = |value: &str| {
        let alter = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        let mut administrator = fixture.database.connect();
        // As separate statements: the first cannot run in a transaction.
        for statement in [
            "SET default_transaction_read_only = off",
            &alter,
            "SELECT pg_reload_conf()",
        ] {
            administrator.batch_execute(statement).expect(statement);
        }
        eventually("new connections are read-only", || {
            let row = fixture
                .database
                .connect()
                .query_one("SHOW default_transaction_read_only", &[]);
            row.expect("a setting").get::<_, String>(0) == value
        });
    };
    let mut approved = ApprovedLogin::new(&fixture.server, "ada");
    set("on");
    eventually("writes are refused", || {
        let answer = fixture
            .server
            .post_json("/device/code", &serde_json::json!({}));
        let refused = answer.status == 503;
        if refused {
            expect::unavailable(&answer);
        }
        refused
    });
    expect::error(
        &approved.login.poll(&fixture.server),
        400,
        "authorization_pending",
    );
    expect::page(&approved.call_back(), 503);
    assert!(
        fixture.postiz.requests_to("/oauth/token").is_empty(),
        "the code is not exchanged"
    );
    set("off");
    approved.assert_recovers(&fixture.server);
}

/// In all three ways of being read-only the server answers reads and is not ready. Once it can write again, it is ready.
#[test]
fn read_only_database_is_not_ready() {
    let cluster = Cluster::start_new();
    let database = cluster.database();
    let setup = TestServer::setup(Store::Embedded).database(&database);
    let server = setup.start();
    let start = || server.post_json("/device/code", &json!({}));
    let login = start().json();
    let poll = || {
        server.post_json(
            "/device/token",
            &json!({"device_code": login["device_code"]}),
        )
    };
    let set = |value: &str| {
        let set = "SET default_transaction_read_only = off";
        let alter = format!("ALTER DATABASE {} {set}", database.name()).replace("off", value);
        let mut administrator = cluster.existing("postgres").connect();
        administrator
            .batch_execute(&alter)
            .expect("a superuser may");
    };
    let be_standby = |standby: bool| {
        let act = if standby { "touch" } else { "rm" };
        cluster.restart_after(&format!("{act} data/standby.signal"));
    };
    // The setting does not apply to open sessions; a restart closes them.
    let restart = || cluster.restart_after(":");
    for (make_read_only, make_writable) in [
        (
            &(|| {
                set("on");
                restart();
            }) as &dyn Fn(),
            &(|| set("off")) as &dyn Fn(),
        ),
        (&|| be_standby(true), &|| be_standby(false)),
        (&|| be_standby(true), &|| {
            let promote = "SELECT pg_promote(true, 20)";
            cluster
                .existing("postgres")
                .connect()
                .batch_execute(promote)
                .expect("it is promoted");
        }),
    ] {
        make_read_only();
        eventually("it answers", || poll().status == 400);
        expect::json(&server.get("/ready"), 503);
        expect::unavailable(&start());
        // A second instance waits for a writable database.
        let second = setup.start();
        expect::json(&second.get("/ready"), 503);
        make_writable();
        for server in [&server, &second] {
            eventually("it is ready", || server.get("/ready").status == 200);
        }
        expect::json(&start(), 200);
        expect::error(&poll(), 400, "authorization_pending");
    }
}

/// The next version's migration alters the table, so prepared statements return another type.
#[test]
fn altered_table_causes_no_failed_request() {
    let database = Cluster::shared().database();
    let server = TestServer::setup(Store::Embedded)
        .database(&database)
        .start();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let work = || {
            let mut count = 0;
            while !is_over.load(Ordering::SeqCst) {
                let start = server.post_json("/device/code", &json!({}));
                expect::json(&start, 200);
                let code = &start.json()["device_code"];
                let poll = server.post_json("/device/token", &json!({"device_code": code}));
                expect::error(&poll, 400, "authorization_pending");
                expect::json(&server.get("/ready"), 200);
                count += 1;
            }
            count
        };
        let workers: Vec<_> = (0..12).map(|_| scope.spawn(work)).collect();
        for step in 0..20 {
            thread::sleep(Duration::from_millis(100));
            let kind = ["varchar(100)", "text"][step % 2];
            database.run(&format!(
                "ALTER TABLE device_requests ALTER status TYPE {kind}, ALTER user_code TYPE {kind}, ADD extra_{step} text"
            ));
        }
        is_over.store(true, Ordering::SeqCst);
        for worker in workers {
            assert!(worker.join().expect("no request failed") > 0);
        }
    });
}

/// Between the read and the write of a step, the database is restored from a dump, or another host takes over. The row is then
/// a new one, and the step is repeated.
#[test]
fn step_is_repeated_after_a_restore_or_failover() {
    let database = Cluster::shared().database();
    assert_step_is_repeated(&database.url(), || dump_and_restore(&database, &database));

    let (first, second) = (Cluster::start_new(), Cluster::start_new());
    let (primary, standby) = (first.database(), second.database());
    let hosts = format!("{},{}", primary.address(), standby.address());
    let parameters = "sslmode=disable&target_session_attrs=read-write";
    let name = primary.name();
    let url = format!("postgres://postgres:{PASSWORD}@{hosts}/{name}?{parameters}");
    assert_step_is_repeated(&url, || {
        dump_and_restore(&primary, &standby);
        first.restart_after("touch data/standby.signal");
    });
}

fn assert_step_is_repeated(url: &str, fault: impl Fn()) {
    let instances = [store(url, 2), store(url, 2)];
    log_in(&instances, 0);
    let new = NewLogin {
        key: DeviceCode::generate().hash(),
        user_code: UserCode::generate(),
        starter: Starter::default(),
    };
    instances[0].insert(std::slice::from_ref(&new)).unwrap();
    let mut calls = 0;
    let denied = apply(&*instances[0], Key::User(&new.user_code), |login, now| {
        calls += 1;
        if calls == 1 {
            fault();
        }
        login.deny(now)
    });
    assert_eq!((denied, calls), (Ok(Some(true)), 2), "{url}");
    log_in(&instances, 1);
}

fn dump_and_restore(from: &Database, to: &Database) {
    let (name, restored) = (from.name(), to.name());
    let [from, to] = [from, to].map(|database| database.address().port());
    let script = format!(
        "PATH=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1):$PATH
         export PGPASSWORD={PASSWORD} PGHOST=127.0.0.1 PGUSER=postgres
         dump=$(pg_dump -p {from} {name}); export PGPORT={to}
         dropdb --force {restored}; createdb -T template0 {restored}
         printf %s \"$dump\" | psql -q -v ON_ERROR_STOP=1 {restored} >/dev/null"
    );
    let done = Command::new("sh").args(["-euc", &script]).output();
    let done = done.expect("sh starts");
    assert!(done.status.success(), "{done:?}");
}

/// Every statement waits for a lock of another client. Statements time out after 2 s, and so do requests that wait for a
/// connection of the pool. Requests that need no database are answered at once.
#[test]
fn hanging_statements_time_out() {
    let fixture = Fixture::new(&[("DATABASE_POOL_SIZE", "4")]);
    let mut approved = ApprovedLogin::new(&fixture.server, "ada");
    let mut locker = fixture.database.connect();
    let mut lock = locker.transaction().expect("a transaction");
    lock.batch_execute("LOCK TABLE device_requests IN ACCESS EXCLUSIVE MODE")
        .expect("no other client holds the lock");
    thread::scope(|scope| {
        let (login, server) = (&approved.login, &fixture.server);
        for _ in 0..12 {
            scope.spawn(move || {
                let begun = Instant::now();
                expect::unavailable(&login.poll(server));
                let took = begun.elapsed().as_secs();
                assert!((1..15).contains(&took), "it took {took} s");
            });
        }
        eventually("a statement hangs", || {
            let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            !fixture
                .database
                .connect()
                .query(waiting, &[])
                .expect("rows")
                .is_empty()
        });
        for _ in 0..5 {
            let begun = Instant::now();
            expect::json(&server.get("/health"), 200);
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(2), "/health took {took:?}");
        }
    });
    let log = fixture.server.log();
    assert!(
        log.contains("lock timeout") || log.contains("statement timeout"),
        "{log}"
    );
    lock.rollback().expect("the lock is released");
    approved.assert_recovers(&fixture.server);
}

/// The database's port is closed during an exchange, for longer than any other request may take. Postiz accepts the code only
/// once, so the callback keeps its token until it can be stored.
#[test]
fn exchanged_token_survives_an_outage() {
    let (cluster, postiz) = (Cluster::start_new(), FakePostiz::start());
    let database = cluster.database();
    let mut relay = Relay::to(database.address());
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .database(&database.behind(relay.port()));
    let server = setup.start_for(&postiz);
    let mut approved = ApprovedLogin::new(&server, "ada");
    let exchanging = ApprovedLogin::new(&server, "bob");
    let gate = Gate::default();
    postiz.misbehave_times(
        1,
        "/oauth/token",
        Fault::Deliver(Delivery::Held(gate.clone())),
    );
    let mut callback = Connection::open(server.address);
    callback.send(
        exchanging
            .browser
            .get_bytes(&exchanging.redirect.location()),
    );
    eventually("the exchange is under way", || {
        postiz.requests_to("/oauth/token").len() == 1
    });

    relay.close();
    gate.open();
    let closed = Instant::now();
    while closed.elapsed() < Times::DEFAULT.handler + Duration::from_secs(2) {
        expect::unavailable(&approved.login.poll(&server));
        expect::unavailable(&exchanging.login.poll_form(&server));
        expect::json(&server.get("/health"), 200);
        expect::json(&server.get("/ready"), 503);
        // Clients go on polling through the outage.
        thread::sleep(Duration::from_millis(500));
    }
    relay.open();
    approved.assert_recovers(&server);
    expect::page(&callback.answer(), 200);
    expect::json(&exchanging.login.outcome(&server), 200);
    assert!(!server.log().contains("token lost"), "{}", server.log());
}
