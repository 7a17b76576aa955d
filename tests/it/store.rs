//! One suite for both stores: what `Store` promises, PostgreSQL and the embedded file must keep, races included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postiz::server::codes::{
    BrowserKey, BrowserKeyHash, DeviceCode, DeviceCodeHash, State, StateHash, UserCode,
};
use postiz::server::seal::{Seal, SealedToken};
use postiz::server::store::embedded::Embedded;
use postiz::server::store::postgres::{DatabaseUrl, Postgres};
use postiz::server::store::{
    Claim, Denier, Inserted, NewRequest, Polled, REDEEMABLE_FOR, SealedGrant, Store, StoreError,
};
use postiz::shared::secret::Secret;

use crate::support::{Cluster, Database, at_once};

const MINUTE: Duration = Duration::from_secs(60);
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// A store whose time can be moved on.
struct Subject {
    store: Arc<dyn Store>,
    backend: Backend,
}

enum Backend {
    Postgres(Database),
    Embedded {
        offset_ms: Arc<AtomicU64>,
        _folder: tempfile::TempDir,
    },
}

impl Subject {
    fn postgres() -> Subject {
        let database = Cluster::shared().database();
        let store = connect(&database);
        store.ping().expect("the database is there");
        Subject {
            store,
            backend: Backend::Postgres(database),
        }
    }

    fn embedded() -> Subject {
        let folder = tempfile::tempdir().expect("a folder");
        let offset_ms = Arc::new(AtomicU64::new(0));
        let clock = {
            let offset_ms = Arc::clone(&offset_ms);
            Box::new(move || system_ms() + offset_ms.load(Ordering::SeqCst))
        };
        let store =
            Embedded::with_clock(&folder.path().join("new/auth.redb"), clock).expect("a new store");
        Subject {
            store: Arc::new(store),
            backend: Backend::Embedded {
                offset_ms,
                _folder: folder,
            },
        }
    }

    /// Lets time pass for the store.
    fn wait(&self, by: Duration) {
        match &self.backend {
            Backend::Embedded { offset_ms, .. } => {
                offset_ms.fetch_add(u64::try_from(by.as_millis()).expect("a short time"), Ordering::SeqCst);
            }
            Backend::Postgres(database) => database.run(&format!(
                "UPDATE device_requests SET created_at = created_at - interval '{0} s', \
                 expires_at = expires_at - interval '{0} s', claimed_at = claimed_at - interval '{0} s'",
                by.as_secs()
            )),
        }
    }

    /// How one login stands.
    fn poll(&self, login: &DeviceCodeHash) -> Result<Polled, StoreError> {
        let polled = self.store.poll(std::slice::from_ref(login))?;
        assert_eq!(polled.len(), 1);
        Ok(polled[0])
    }

    /// Adds a login.
    fn insert(&self) -> (DeviceCodeHash, UserCode) {
        let new = new_request();
        assert_eq!(
            self.store.insert(std::slice::from_ref(&new)),
            Ok(vec![Inserted::Yes])
        );
        (new.login, new.user_code)
    }

    /// Adds a login and ties it to a browser.
    fn bound(&self) -> (DeviceCodeHash, StateHash, BrowserKeyHash) {
        let (login, user_code) = self.insert();
        let (state, browser) = (State::generate().hash(), BrowserKey::generate().hash());
        assert_eq!(
            self.store.bind(&user_code, &state, &browser),
            Ok(Some(login.clone()))
        );
        (login, state, browser)
    }

    /// Adds a login and completes it.
    fn completed(&self) -> DeviceCodeHash {
        let (login, state, browser) = self.bound();
        assert_eq!(
            self.store.claim(&state, &browser),
            Ok(Claim::Mine(login.clone()))
        );
        assert_eq!(self.store.complete(&login, &grant()), Ok(true));
        login
    }
}

fn connect(database: &Database) -> Arc<dyn Store> {
    let url = DatabaseUrl::parse(&database.url(), &|_| None).expect("a good URL");
    Arc::new(Postgres::new(&url, 4, Arc::new(seal())).expect("a good configuration"))
}

fn seal() -> Seal {
    Seal::new(&Secret::new("the client secret".to_owned()))
}

fn system_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    u64::try_from(now.as_millis()).expect("it is before the year 500,000,000")
}

fn new_request() -> NewRequest {
    NewRequest {
        login: DeviceCode::generate().hash(),
        user_code: UserCode::generate(),
        client_address: "192.0.2.1".to_owned(),
        client_agent: "agent/1 \"ü\"".to_owned(),
        lifetime: LIFETIME,
    }
}

fn grant() -> SealedGrant {
    SealedGrant {
        token: SealedToken::from_store("s1:00ff".to_owned()),
        api_url: "https://api.example".to_owned(),
        organization_id: Some("org".to_owned()),
        scope: None,
    }
}

/// Writes each test down once and runs it on both stores.
macro_rules! on_both_stores {
    ($($(#[$doc:meta])* fn $name:ident($subject:ident: &Subject) $body:block)*) => {
        $($(#[$doc])* fn $name($subject: &Subject) $body)*
        mod postgres_store { $(#[test] fn $name() { super::$name(&super::Subject::postgres()); })* }
        mod embedded_store { $(#[test] fn $name() { super::$name(&super::Subject::embedded()); })* }
    };
}

on_both_stores! {
    fn a_new_login_is_found_by_its_user_code(subject: &Subject) {
        let (login, user_code) = subject.insert();
        subject.wait(MINUTE);
        let found = subject.store.find(&user_code).unwrap().expect("it is there");
        assert_eq!((found.login, found.client_address.as_str()), (login.clone(), "192.0.2.1"));
        assert_eq!(found.client_agent, "agent/1 \"ü\"");
        assert!((60..70).contains(&found.age.as_secs()), "{:?}", found.age);
        assert_eq!(subject.poll(&login), Ok(Polled::Pending));
        assert_eq!(subject.store.find(&UserCode::generate()), Ok(None));
        assert_eq!(subject.store.count(), Ok(1));
    }

    /// What became of each is said in order: taken codes, one of them taken in the same call, unknown logins, and the same
    /// one twice.
    fn many_start_and_are_polled_in_one_call(subject: &Subject) {
        let (denied, user_code) = subject.insert();
        let mut new: Vec<NewRequest> = (0..100).map(|_| new_request()).collect();
        new[7].user_code = user_code.clone();
        new[99].user_code = new[0].user_code.clone();
        let is_taken = |at| at == 7 || at == 99;
        let inserted = subject.store.insert(&new).unwrap();
        assert_eq!(inserted.len(), 100);
        for (at, inserted) in inserted.into_iter().enumerate() {
            assert_eq!(inserted == Inserted::UserCodeTaken, is_taken(at), "{at}");
        }
        subject.store.deny(Denier::User(&user_code)).unwrap();
        let mut logins: Vec<_> = new.into_iter().map(|new| new.login).collect();
        logins.push(denied.clone());
        logins.push(denied);
        let polled = subject.store.poll(&logins).unwrap();
        assert_eq!(polled.len(), 102);
        for (at, polled) in polled.into_iter().enumerate() {
            let expected = match at {
                100 | 101 => Polled::Denied,
                at if is_taken(at) => Polled::Unknown,
                _ => Polled::Pending,
            };
            assert_eq!(polled, expected, "{at}");
        }
        assert_eq!(subject.store.insert(&[]), Ok(vec![]));
        assert_eq!(subject.store.poll(&[]), Ok(vec![]));
        assert_eq!(subject.store.count(), Ok(99));
    }

    fn a_taken_user_code_is_not_given_out_twice(subject: &Subject) {
        let first = new_request();
        let second = NewRequest { user_code: first.user_code.clone(), ..new_request() };
        assert_eq!(subject.store.insert(std::slice::from_ref(&first)), Ok(vec![Inserted::Yes]));
        assert_eq!(subject.store.insert(std::slice::from_ref(&second)), Ok(vec![Inserted::UserCodeTaken]));
        assert_eq!(subject.poll(&second.login), Ok(Polled::Unknown));
        assert_eq!(subject.store.find(&first.user_code).unwrap().unwrap().login, first.login);
    }

    fn a_user_code_is_free_again_once_its_login_is_decided(subject: &Subject) {
        let (_, user_code) = subject.insert();
        assert!(subject.store.deny(Denier::User(&user_code)).unwrap().is_some());
        let again = NewRequest { user_code, ..new_request() };
        assert_eq!(subject.store.insert(&[again]), Ok(vec![Inserted::Yes]));
    }

    fn the_whole_way_to_a_token(subject: &Subject) {
        let login = subject.completed();
        assert_eq!(subject.poll(&login), Ok(Polled::Completed));
        let redemption = subject.store.redeem(&login).unwrap().expect("it is ready");
        assert_eq!(redemption.grant, grant());
        redemption.confirm().unwrap();
        assert_eq!(subject.poll(&login), Ok(Polled::Unknown));
        assert!(subject.store.redeem(&login).unwrap().is_none());
    }

    fn a_redemption_that_is_dropped_undoes_itself(subject: &Subject) {
        let login = subject.completed();
        for _ in 0..20 {
            let redemption = subject.store.redeem(&login).unwrap().expect("the last one was dropped");
            assert!(subject.store.redeem(&login).unwrap().is_none(), "it is in other hands");
            assert_eq!(subject.poll(&login), Ok(Polled::Completed));
            drop(redemption);
        }
        subject.store.redeem(&login).unwrap().unwrap().confirm().unwrap();
        assert!(subject.store.redeem(&login).unwrap().is_none());
    }

    /// The reference gave one token to up to 185 of 200.
    fn of_200_racing_redeemers_one_wins(subject: &Subject) {
        let login = subject.completed();
        let wins = at_once(200, |_| match subject.store.redeem(&login) {
            Ok(Some(redemption)) => redemption.confirm().is_ok(),
            // Too many at once for the pool is no win, either.
            Ok(None) | Err(StoreError::Unavailable(_)) => false,
            Err(error) => panic!("{error}"),
        });
        assert_eq!(wins.into_iter().filter(|won| *won).count(), 1);
    }

    /// R52
    fn of_racing_callbacks_one_exchanges(subject: &Subject) {
        let (login, state, browser) = subject.bound();
        let claims = at_once(20, |_| subject.store.claim(&state, &browser).unwrap());
        assert_eq!(claims.iter().filter(|claim| **claim == Claim::Mine(login.clone())).count(), 1);
        assert_eq!(claims.iter().filter(|claim| **claim == Claim::Taken(login.clone())).count(), 19);
        assert_eq!(subject.poll(&login), Ok(Polled::Pending), "R27: also during the exchange");
        let completions = at_once(2, |_| subject.store.complete(&login, &grant()).unwrap());
        assert!(completions.contains(&true));
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Done));
    }

    /// R51: neither the right state with another browser, nor the right browser with another state, nor a used state.
    fn only_the_bound_browser_may_claim(subject: &Subject) {
        let (login, state, browser) = subject.bound();
        let (other_state, other_browser) = (State::generate().hash(), BrowserKey::generate().hash());
        assert_eq!(subject.store.claim(&state, &other_browser), Ok(Claim::Unknown));
        assert_eq!(subject.store.claim(&other_state, &browser), Ok(Claim::Unknown));
        assert_eq!(subject.store.deny(Denier::Browser(&state, &other_browser)), Ok(None));
        assert_eq!(subject.store.deny(Denier::Browser(&other_state, &browser)), Ok(None));
        assert_eq!(subject.poll(&login), Ok(Polled::Pending));
    }

    fn a_later_binding_replaces_an_earlier_one(subject: &Subject) {
        let (login, user_code) = subject.insert();
        let (first, second) = (State::generate().hash(), State::generate().hash());
        let browser = BrowserKey::generate().hash();
        subject.store.bind(&user_code, &first, &browser).unwrap();
        subject.store.bind(&user_code, &second, &browser).unwrap();
        assert_eq!(subject.store.claim(&first, &browser), Ok(Claim::Unknown));
        assert_eq!(subject.store.claim(&second, &browser), Ok(Claim::Mine(login)));
    }

    fn a_released_claim_can_be_claimed_again(subject: &Subject) {
        let (login, state, browser) = subject.bound();
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Mine(login.clone())));
        subject.store.release(&login).unwrap();
        assert_eq!(subject.store.complete(&login, &grant()), Ok(false), "nobody has the claim");
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Mine(login.clone())));
        assert_eq!(subject.store.complete(&login, &grant()), Ok(true));
        subject.store.release(&login).unwrap();
        assert_eq!(subject.poll(&login), Ok(Polled::Completed), "a late release changes nothing");
    }

    fn the_claim_of_the_dead_frees_itself(subject: &Subject) {
        let (login, user_code) = subject.insert();
        let (state, browser) = (State::generate().hash(), BrowserKey::generate().hash());
        subject.store.bind(&user_code, &state, &browser).unwrap();
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Mine(login.clone())));
        subject.wait(Duration::from_secs(25));
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Taken(login.clone())));
        subject.wait(Duration::from_secs(10));
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Mine(login)));
    }

    fn a_denied_login_stays_denied(subject: &Subject) {
        let (by_user, user_code) = subject.insert();
        let (by_browser, state, browser) = subject.bound();
        assert_eq!(subject.store.deny(Denier::User(&user_code)), Ok(Some(by_user.clone())));
        assert_eq!(subject.store.deny(Denier::Browser(&state, &browser)), Ok(Some(by_browser.clone())));
        for login in [&by_user, &by_browser] {
            assert_eq!(subject.poll(login), Ok(Polled::Denied));
            assert!(subject.store.redeem(login).unwrap().is_none());
        }
        assert_eq!(subject.store.find(&user_code), Ok(None));
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Unknown));
        assert_eq!(subject.store.deny(Denier::User(&user_code)), Ok(None), "once is enough");
    }

    /// R09, R30
    fn an_expired_login_says_so_for_15_minutes_more(subject: &Subject) {
        let (unbound, user_code) = subject.insert();
        let (login, state, browser) = subject.bound();
        subject.wait(LIFETIME);
        for login in [&unbound, &login] {
            assert_eq!(subject.poll(login), Ok(Polled::Expired));
        }
        assert_eq!(subject.store.find(&user_code), Ok(None));
        assert_eq!(subject.store.bind(&user_code, &state, &browser), Ok(None));
        assert_eq!(subject.store.deny(Denier::User(&user_code)), Ok(None));
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Unknown));
        subject.wait(14 * MINUTE);
        assert_eq!(subject.store.purge(1_000), Ok(0));
        assert_eq!(subject.poll(&login), Ok(Polled::Expired));
        subject.wait(2 * MINUTE);
        assert_eq!(subject.store.purge(1), Ok(1), "in batches");
        assert_eq!(subject.store.purge(1_000), Ok(1));
        assert_eq!((subject.poll(&login), subject.store.count()), (Ok(Polled::Unknown), Ok(0)));
    }

    /// R20: approved in the last second; the exchange and the next poll may come after.
    fn a_token_that_came_in_time_is_not_lost_to_the_clock(subject: &Subject) {
        let (login, state, browser) = subject.bound();
        subject.wait(LIFETIME - Duration::from_secs(5));
        assert_eq!(subject.store.claim(&state, &browser), Ok(Claim::Mine(login.clone())));
        subject.wait(Duration::from_secs(10));
        assert_eq!(subject.poll(&login), Ok(Polled::Pending));
        assert_eq!(subject.store.complete(&login, &grant()), Ok(true));
        subject.wait(REDEEMABLE_FOR - Duration::from_secs(10));
        assert_eq!(subject.poll(&login), Ok(Polled::Completed));
        assert!(subject.store.redeem(&login).unwrap().is_some());
        subject.wait(Duration::from_secs(20));
        assert_eq!(subject.poll(&login), Ok(Polled::Expired), "but not for ever");
        assert!(subject.store.redeem(&login).unwrap().is_none());
    }
}

#[test]
fn the_embedded_file_is_the_owners_alone_and_one_servers_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/auth.redb");
    let first = Embedded::open(&path).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let Err(StoreError::Unusable(why)) = Embedded::open(&path) else {
        panic!("two at once")
    };
    assert!(
        why.contains("another postiz-auth-server has it open"),
        "{why}"
    );
    drop(first);
    assert!(Embedded::open(&path).is_ok());
}

#[test]
fn a_file_that_is_no_store_is_refused_in_words_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.redb");
    let text = "not a store at all, but somebody's text. ".repeat(500);
    std::fs::write(&path, &text).unwrap();
    let Err(error) = Embedded::open(&path) else {
        panic!("it was taken for a store")
    };
    assert!(error.to_string().contains("auth.redb"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_file_of_a_newer_schema_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.redb");
    drop(Embedded::open(&path).unwrap());
    let meta: redb::TableDefinition<&str, &str> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write
        .open_table(meta)
        .unwrap()
        .insert("schema_version", "99")
        .unwrap();
    // Of another form than this server's.
    let requests = redb::TableDefinition::<u64, u64>::new("requests");
    write
        .delete_table(redb::TableDefinition::<&str, &str>::new("requests"))
        .unwrap();
    write.open_table(requests).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let Err(StoreError::Unusable(why)) = Embedded::open(&path) else {
        panic!("it was taken")
    };
    assert!(
        why.contains("99") && why.contains("run a newer server"),
        "{why}"
    );
    let database = redb::Database::open(&path).unwrap();
    let read = redb::ReadableDatabase::begin_read(&database).unwrap();
    let left = redb::ReadableTableMetadata::len(&read.open_table(requests).unwrap());
    assert_eq!(left.unwrap(), 1);
}

/// `CREATE TABLE IF NOT EXISTS` alone fails in this race.
#[test]
fn eight_instances_start_at_once_on_an_empty_database() {
    let database = Cluster::shared().database();
    let pings = at_once(8, |_| connect(&database).ping());
    assert_eq!(pings, vec![Ok(()); 8]);
}

/// The table as the Node reference leaves it, with a login in every state.
const REFERENCE: &str = "
    CREATE TABLE device_requests (
        device_code VARCHAR(64) PRIMARY KEY, user_code VARCHAR(9) NOT NULL, status VARCHAR(20) NOT NULL DEFAULT 'pending',
        access_token TEXT, api_url TEXT, organization_id TEXT, created_at TIMESTAMP DEFAULT NOW());
    CREATE INDEX idx_user_code ON device_requests (user_code) WHERE status = 'pending';
    INSERT INTO device_requests (device_code, user_code) VALUES ('waiting', 'AEIU-2568'), ('older', 'BBBB-BBBB');
    INSERT INTO device_requests (device_code, user_code, created_at)
        VALUES ('newer', 'BBBB-BBBB', NOW() + interval '1 s'), ('ancient', 'CCCC-CCCC', NOW() - interval '1 day');
    INSERT INTO device_requests (device_code, user_code, status, access_token, api_url, organization_id) VALUES
        ('done', 'DDDD-DDDD', 'completed', 'pos_clear', 'https://api.example', 'org'),
        ('tokenless', 'FFFF-FFFF', 'completed', NULL, NULL, NULL);";

#[test]
fn the_references_table_is_brought_up_in_place() {
    let database = Cluster::shared().database();
    database.run(REFERENCE);
    let pings = at_once(4, |_| connect(&database).ping());
    assert_eq!(pings, vec![Ok(()); 4]);
    let store = connect(&database);
    let poll = |code: &str| {
        let login = DeviceCode::from_client(code).hash();
        store.poll(&[login]).unwrap()[0]
    };
    assert_eq!(poll("waiting"), Polled::Pending);
    assert_eq!(
        (poll("newer"), poll("older")),
        (Polled::Pending, Polled::Unknown),
        "the user code is unique now"
    );
    assert_eq!(
        (poll("ancient"), poll("tokenless")),
        (Polled::Unknown, Polled::Unknown)
    );

    // A code of the reference's wider alphabet goes all the way.
    let user_code = UserCode::parse("aeiu 2568").unwrap();
    assert_eq!(
        store.find(&user_code).unwrap().unwrap().login,
        DeviceCode::from_client("waiting").hash()
    );

    // The token in clear is sealed now, and comes out again.
    let login = DeviceCode::from_client("done").hash();
    let redemption = store.redeem(&login).unwrap().expect("it was completed");
    assert_eq!(redemption.grant.api_url, "https://api.example");
    assert_eq!(
        seal()
            .open(&login, &redemption.grant.token)
            .unwrap()
            .expose(),
        "pos_clear"
    );
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let database = Cluster::shared().database();
    connect(&database).ping().unwrap();
    database.run("INSERT INTO device_requests_schema (version) VALUES (99)");
    let Err(StoreError::Unusable(why)) = connect(&database).ping() else {
        panic!("it was taken")
    };
    assert!(
        why.contains("99") && why.contains("run a newer server"),
        "{why}"
    );
}
