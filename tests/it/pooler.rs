//! PgBouncer in transaction mode between the server and PostgreSQL. Each transaction may run in another session, and other
//! applications share the sessions.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use serde_json::json;

use postiz::server::codes::{BrowserKey, DeviceCode, StateHash, UserCode};
use postiz::server::keys::Keys;
use postiz::server::login::{
    Claim, CodeDigest, DELIVERY_LEASE, LeaseId, Login, Polled, SealedGrant, Starter, UnixMs,
};
use postiz::server::seal::SealedToken;
use postiz::server::store::database_url::DatabaseUrl;
use postiz::server::store::postgres::Postgres;
use postiz::server::store::{Inserted, Key, NewLogin, Store, apply};
use postiz::server::times::Times;
use postiz::shared::secret::Secret;

use crate::support::{
    Cluster, Database, Pooler, Store as Kind, TestServer, at_once, eventually, expect,
};

/// Opens the store of this URL.
pub fn store(url: &str, pool_size: usize) -> Arc<dyn Store> {
    let url = DatabaseUrl::parse(url, &|_| None).expect("a good URL");
    let secret = Secret::new("the client secret".to_owned());
    let seal = Arc::new(Keys::new(&secret));
    Arc::new(Postgres::new(&url, pool_size, seal, &Times::DEFAULT).expect("a good configuration"))
}

/// A whole login, each step of which another of these instances takes. Panics if a step fails.
pub fn log_in(instances: &[Arc<dyn Store>], first: usize) {
    let mut turn = first;
    let mut next = || {
        turn += 1;
        &*instances[turn % instances.len()]
    };
    let new = NewLogin {
        key: DeviceCode::generate().hash(),
        user_code: UserCode::generate(),
        starter: Starter::default(),
    };
    let key = Key::Device(&new.key);
    let inserted = next().insert(std::slice::from_ref(&new));
    assert_eq!(inserted, Ok(vec![Inserted::Yes]));
    let browser = BrowserKey::generate().hash();
    let state = StateHash::from_store(browser.as_str().to_owned());
    let user = Key::User(&new.user_code);
    let confirmed = apply(next(), user, |login, now| {
        login.confirm(&state, &browser, now)
    });
    assert_eq!(confirmed, Ok(Some(true)));
    let (lease, code) = (LeaseId::generate(), CodeDigest::of("code"));
    let claimed = apply(next(), Key::State(&state), |login, now| {
        login.claim(&browser, &code, &lease, now)
    });
    assert_eq!(claimed, Ok(Some(Claim::Granted)));
    let grant = SealedGrant {
        token: SealedToken::from_store("s1:00ff".to_owned()),
        api_url: "https://api.example".to_owned(),
        organization_id: None,
        scope: None,
    };
    let complete = |login: &mut Login, now: UnixMs| {
        login.complete(&lease, &CodeDigest::of("code"), &grant, now)
    };
    assert_eq!(apply(next(), key, complete), Ok(Some(true)));
    let poll = |store: &dyn Store| store.poll(std::slice::from_ref(&new.key));
    assert_eq!(poll(next()), Ok(vec![Polled::Completed]));
    let begin = |login: &mut Login, now: UnixMs| login.begin_delivery(&lease, now, DELIVERY_LEASE);
    assert_eq!(apply(next(), key, begin), Ok(Some(Some(grant.clone()))));
    let delivered = apply(next(), key, |login, _| login.delivered(&lease));
    assert_eq!(delivered, Ok(Some(true)));
    assert_eq!(poll(next()), Ok(vec![Polled::Unknown]));
}

/// Settings of PgBouncer: it refuses unknown startup parameters, or ignores them.
const KINDS: [&str; 2] = ["", "ignore_startup_parameters = options"];

/// Another application that shares sessions with the server. It must find its own defaults in them.
struct OtherApplication {
    database: Database,
    expected: Vec<String>,
}

impl OtherApplication {
    fn new(direct: &Database, pooler: &Pooler) -> OtherApplication {
        OtherApplication {
            expected: session(&mut direct.connect()),
            database: pooler.database(direct),
        }
    }

    fn assert_unchanged(&self) {
        let mut client = self.database.connect();
        for _ in 0..20 {
            assert_eq!(session(&mut client), self.expected);
        }
    }
}

/// The settings, prepared statements and advisory locks of a session.
fn session(client: &mut Client) -> Vec<String> {
    let names = [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "search_path",
        "default_transaction_read_only",
        "transaction_isolation",
    ];
    let settings = names.map(|name| format!("current_setting('{name}')"));
    let query = format!(
        "SELECT {}, coalesce(current_setting('postiz.direct', true), ''), (SELECT count(*) FROM pg_prepared_statements), \
         (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')",
        settings.join(", ")
    );
    let rows = client.simple_query(&query).expect("a session answers");
    let row = rows.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.expect("one row");
    (0..row.len())
        .map(|column| row.get(column).unwrap_or_default().to_owned())
        .collect()
}

/// The URL says that there is a pooler, or the server detects it.
#[test]
fn fifty_logins_of_two_instances_leave_sessions_unchanged() {
    for settings in KINDS {
        for parameters in ["", "&pgbouncer=true"] {
            let database = Cluster::shared().database();
            let pooler = Pooler::start(&database, settings);
            let url = database_url(&pooler, &database, parameters);
            let other = OtherApplication::new(&database, &pooler);
            other.assert_unchanged();
            let instances = [store(&url, 8), store(&url, 8)];
            thread::scope(|scope| {
                let others: Vec<_> = (0..5)
                    .map(|_| scope.spawn(|| other.assert_unchanged()))
                    .collect();
                // Longer than the statement timeout that the server sets on direct connections.
                let slow = scope.spawn(|| other.database.run("SELECT pg_sleep(2.5)"));
                at_once(50, |first| log_in(&instances, first));
                others
                    .into_iter()
                    .for_each(|one| one.join().expect("it sees its own"));
                slow.join().expect("it is not cancelled");
            });
            at_once(5, |_| other.assert_unchanged());
        }
    }
}

fn database_url(pooler: &Pooler, database: &Database, parameters: &str) -> String {
    let parameters = format!("sslmode=disable{parameters}");
    pooler.database(database).url_with("127.0.0.1", &parameters)
}

/// A session keeps the `search_path` of its last user.
#[test]
fn schema_of_the_url_applies_in_any_session() {
    let database = Cluster::shared().database();
    database.run("CREATE SCHEMA \"our logins\"; CREATE SCHEMA elsewhere");
    let pooler = Pooler::start(&database, "");
    let url = database_url(&pooler, &database, "&schema=our%20logins");
    let instances = [store(&url, 4), store(&url, 4)];
    let mut untidy: Vec<Client> = (0..3)
        .map(|_| pooler.database(&database).connect())
        .collect();
    at_once(3, |_| instances[0].ping().unwrap());
    for client in &mut untidy {
        // In one transaction each, so that every session is used.
        client
            .batch_execute("BEGIN; SET search_path = elsewhere")
            .unwrap();
    }
    untidy
        .iter_mut()
        .for_each(|client| client.batch_execute("COMMIT").unwrap());
    at_once(20, |first| log_in(&instances, first));
    let mut client = database.connect();
    let mut count = |schema: &str| {
        let query = "SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
                     WHERE relkind = 'r' AND nspname = $1";
        client
            .query_one(query, &[&schema])
            .unwrap()
            .get::<_, i64>(0)
    };
    assert_eq!(
        (count("our logins"), count("elsewhere"), count("public")),
        (2, 0, 0)
    );
}

#[test]
fn eight_instances_start_at_once_through_a_pooler() {
    for settings in KINDS {
        let database = Cluster::shared().database();
        let pooler = Pooler::start(&database, settings);
        let url = database_url(&pooler, &database, "");
        let pings = at_once(8, |_| store(&url, 2).ping());
        assert_eq!(pings, vec![Ok(()); 8]);
        log_in(&[store(&url, 2)], 0);
    }
}

/// The server's timeouts.
const SHORT: Times = Times {
    handler: Duration::from_secs(2),
    monitor_handler: Duration::from_secs(1),
    ..Times::DEFAULT
};

/// Behind a pooler the server sets no statement timeout, so the watchdog answers.
#[test]
fn watchdog_answers_when_statements_hang_behind_a_pooler() {
    let cluster = Cluster::start_new();
    let database = cluster.database();
    let pooler = Pooler::start(&database, "");
    let setup = TestServer::setup(Kind::Embedded).database(&pooler.database(&database));
    let server = setup.times(&SHORT).start();
    let start = || server.post_json("/device/code", &json!({}));
    let login = start().json();
    let poll = || {
        server.post_json(
            "/device/token",
            &json!({"device_code": login["device_code"]}),
        )
    };
    let in_time = |seconds: u64, act: &(dyn Fn() + Sync)| {
        let begun = Instant::now();
        act();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(seconds), "it took {took:?}");
    };
    let assert_unavailable = || {
        at_once(10, |at| {
            in_time(6, &|| match at % 2 {
                0 => expect::unavailable(&poll()),
                _ => expect::unavailable(&start()),
            });
        });
        in_time(3, &|| assert_eq!(server.get("/ready").status, 503));
        in_time(2, &|| assert_eq!(server.get("/health").status, 200));
    };
    let assert_available = || {
        eventually("the server is ready again", || {
            server.get("/ready").status == 200
        });
        expect::error(&poll(), 400, "authorization_pending");
        expect::json(&start(), 200);
    };

    let mut locker = database.connect();
    let mut lock = locker.transaction().expect("a transaction");
    let statement = "LOCK TABLE device_requests IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(statement)
        .expect("no other client holds the lock");
    assert_unavailable();
    lock.rollback().expect("the lock is released");
    assert_available();

    cluster.control("freeze");
    assert_unavailable();
    cluster.control("thaw");
    assert_available();
}

/// A direct connection is detected as such: it uses named statements and a statement timeout.
#[test]
fn direct_connection_keeps_named_statements_and_limits() {
    let database = Cluster::shared().database();
    for (parameters, is_direct) in [("", true), ("&pgbouncer=true", false)] {
        let url = database.url_with("127.0.0.1", &format!("sslmode=disable{parameters}"));
        let store = store(&url, 1);
        log_in(&[Arc::clone(&store)], 0);
        // The application name distinguishes the server's session from the test's.
        let mut client = Client::connect(&database.url(), NoTls).unwrap();
        let query = "SELECT query FROM pg_stat_activity WHERE application_name = 'postiz-auth-server' \
                     AND datname = current_database()";
        let rows = client.query(query, &[]).unwrap();
        assert_eq!(rows.len(), 1, "one session, idle");
        // A hanging statement ends by its timeout, or else only when its lock is released.
        let mut lock = client.transaction().unwrap();
        lock.batch_execute("LOCK TABLE device_requests IN ACCESS EXCLUSIVE MODE")
            .unwrap();
        let hanging = thread::spawn(move || {
            let begun = Instant::now();
            (store.count(), begun.elapsed())
        });
        thread::sleep(Duration::from_secs(3));
        lock.rollback().unwrap();
        let (counted, took) = hanging.join().unwrap();
        assert_eq!(
            counted.is_err(),
            is_direct,
            "{parameters}: {counted:?} after {took:?}"
        );
    }
}
