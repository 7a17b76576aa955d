//! One test suite for both implementations of `Store`, PostgreSQL and the embedded file, including races.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postiz::server::codes::{
    BrowserKey, BrowserKeyHash, DeviceCode, DeviceCodeHash, StateHash, UserCode,
};
use postiz::server::keys::Keys;
use postiz::server::login::{
    Claim, CodeDigest, DELIVERY_LEASE, LIFETIME, LeaseId, Login, Polled, REDEEMABLE_FOR,
    SealedGrant, Starter, Status,
};
use postiz::server::seal::SealedToken;
use postiz::server::store::database_url::DatabaseUrl;
use postiz::server::store::embedded::Embedded;
use postiz::server::store::postgres::Postgres;
use postiz::server::store::{Inserted, Key, NewLogin, Purged, Store, StoreError, apply};
use postiz::server::times::Times;
use postiz::shared::secret::Secret;

use crate::support::{self, Cluster, Database, at_once};

const MINUTE: Duration = Duration::from_secs(60);

/// A store whose clock the test can advance.
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

impl From<support::Store> for Subject {
    fn from(store: support::Store) -> Subject {
        match store {
            support::Store::Embedded => Subject::embedded(),
            support::Store::Postgres => Subject::postgres(),
        }
    }
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
            Embedded::with_clock(&folder.path().join("new/auth.redb"), &Times::DEFAULT, clock)
                .expect("a new store");
        Subject {
            store: Arc::new(store),
            backend: Backend::Embedded {
                offset_ms,
                _folder: folder,
            },
        }
    }

    /// Advances the store's clock.
    fn wait(&self, by: Duration) {
        match &self.backend {
            Backend::Embedded { offset_ms, .. } => {
                offset_ms.fetch_add(u64::try_from(by.as_millis()).expect("a short time"), Ordering::SeqCst);
            }
            Backend::Postgres(database) => database.run(&format!(
                "UPDATE device_requests SET created_at = created_at - interval '{0} s', \
                 expires_at = expires_at - interval '{0} s', claimed_at = claimed_at - interval '{0} s', \
                 lease_until = lease_until - interval '{0} s'",
                by.as_secs()
            )),
        }
    }

    /// The state of one login.
    fn poll(&self, login: &DeviceCodeHash) -> Result<Polled, StoreError> {
        let polled = self.store.poll(std::slice::from_ref(login))?;
        assert_eq!(polled.len(), 1);
        Ok(polled[0])
    }

    /// Adds a login.
    fn insert(&self) -> (DeviceCodeHash, UserCode) {
        let new = new_login();
        assert_eq!(
            self.store.insert(std::slice::from_ref(&new)),
            Ok(vec![Inserted::Yes])
        );
        (new.key, new.user_code)
    }

    /// Adds a login and confirms it in a browser.
    fn confirmed(&self) -> Confirmed {
        let (key, user_code) = self.insert();
        let confirmed = Confirmed {
            key,
            state: state(),
            browser: BrowserKey::generate().hash(),
        };
        assert_eq!(self.confirm(&user_code, &confirmed), Ok(Some(true)));
        confirmed
    }

    fn confirm(&self, user_code: &UserCode, by: &Confirmed) -> Result<Option<bool>, StoreError> {
        apply(&*self.store, Key::User(user_code), |login, now| {
            login.confirm(&by.state, &by.browser, now)
        })
    }

    fn deny(&self, user_code: &UserCode) -> Result<Option<bool>, StoreError> {
        apply(&*self.store, Key::User(user_code), |login, now| {
            login.deny(now)
        })
    }

    fn claim(&self, by: &Confirmed, lease: &LeaseId) -> Result<Option<Claim>, StoreError> {
        let code = CodeDigest::of("code");
        apply(&*self.store, Key::State(&by.state), |login, now| {
            login.claim(&by.browser, &code, lease, now)
        })
    }

    fn complete(&self, key: &DeviceCodeHash, lease: &LeaseId) -> Result<Option<bool>, StoreError> {
        apply(&*self.store, Key::Device(key), |login, now| {
            login.complete(lease, &CodeDigest::of("code"), &grant(), now)
        })
    }

    /// Adds a login and completes it.
    fn completed(&self) -> DeviceCodeHash {
        let (confirmed, lease) = (self.confirmed(), LeaseId::generate());
        assert_eq!(self.claim(&confirmed, &lease), Ok(Some(Claim::Granted)));
        assert_eq!(self.complete(&confirmed.key, &lease), Ok(Some(true)));
        confirmed.key
    }

    fn begin_delivery(
        &self,
        key: &DeviceCodeHash,
        lease: &LeaseId,
    ) -> Result<Option<SealedGrant>, StoreError> {
        let begun = apply(&*self.store, Key::Device(key), |login, now| {
            login.begin_delivery(lease, now, DELIVERY_LEASE)
        });
        begun.map(Option::flatten)
    }

    fn end_delivery(&self, key: &DeviceCodeHash, lease: &LeaseId, delivered: bool) -> bool {
        let ended = apply(&*self.store, Key::Device(key), |login, _| match delivered {
            true => login.delivered(lease),
            false => login.not_delivered(lease),
        });
        ended.unwrap().unwrap_or(false)
    }

    /// The stored login.
    fn read(&self, key: &DeviceCodeHash) -> Login {
        self.store
            .read(Key::Device(key))
            .unwrap()
            .expect("it is there")
            .0
    }
}

/// A login that a browser has confirmed.
struct Confirmed {
    key: DeviceCodeHash,
    state: StateHash,
    browser: BrowserKeyHash,
}

fn state() -> StateHash {
    StateHash::from_store(BrowserKey::generate().hash().as_str().to_owned())
}

fn connect(database: &Database) -> Arc<dyn Store> {
    let url = DatabaseUrl::parse(&database.url(), &|_| None).expect("a good URL");
    Arc::new(Postgres::new(&url, 4, seal(), &Times::DEFAULT).expect("a good configuration"))
}

fn seal() -> Arc<Keys> {
    Arc::new(Keys::new(&Secret::new("the client secret".to_owned())))
}

fn system_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    u64::try_from(now.as_millis()).expect("it is before the year 500,000,000")
}

fn new_login() -> NewLogin {
    NewLogin {
        key: DeviceCode::generate().hash(),
        user_code: UserCode::generate(),
        starter: Starter {
            machine: "ada-laptop".to_owned(),
            address: "192.0.2.1".to_owned(),
            network: "192.0.2.0".to_owned(),
            agent: "agent/1 \"ü\"".to_owned(),
        },
    }
}

/// Adds `count` logins that start in this network. Returns their keys, oldest first.
fn insert_from(subject: &Subject, network: &str, count: usize) -> Vec<DeviceCodeHash> {
    let insert = |_| {
        let mut new = new_login();
        new.starter.network = network.to_owned();
        assert_eq!(
            subject.store.insert(std::slice::from_ref(&new)),
            Ok(vec![Inserted::Yes])
        );
        subject.wait(Duration::from_secs(1));
        new.key
    };
    (0..count).map(insert).collect()
}

fn grant() -> SealedGrant {
    SealedGrant {
        token: SealedToken::from_store("s1:00ff".to_owned()),
        api_url: "https://api.example".to_owned(),
        organization_id: Some("org".to_owned()),
        scope: None,
    }
}

on_each_store!(
    new_login_is_found_by_its_user_code,
    logins_start_and_are_polled_in_one_call,
    user_code_in_use_is_not_assigned_twice,
    user_code_is_free_again_once_its_login_is_decided,
    login_ends_with_a_token,
    every_field_of_a_login_is_stored,
    failed_delivery_can_be_repeated,
    delivery_lease_of_a_killed_instance_expires,
    one_of_200_racing_polls_is_given_the_token,
    one_of_racing_callbacks_exchanges,
    only_the_confirming_browser_may_claim,
    later_confirmation_replaces_an_earlier_one,
    released_exchange_can_be_claimed_again,
    exchange_lease_of_a_killed_instance_expires,
    expired_login_is_reported_for_15_minutes,
    purge_returns_logins_that_expired_undecided,
    token_approved_before_the_expiry_outlives_it,
    eviction_begins_with_the_network_that_holds_most,
);

fn new_login_is_found_by_its_user_code(subject: Subject) {
    let (key, user_code) = subject.insert();
    subject.wait(MINUTE);
    let (found, now) = subject
        .store
        .read(Key::User(&user_code))
        .unwrap()
        .expect("it is there");
    assert_eq!(
        (&found.key, found.starter.address.as_str()),
        (&key, "192.0.2.1")
    );
    assert_eq!(found.starter.network, "192.0.2.0");
    assert_eq!(found.starter.agent, "agent/1 \"ü\"");
    assert!(
        (60..70).contains(&((now - found.created_at) / 1_000)),
        "{found:?} {now}"
    );
    assert_eq!(found.expires_at - found.created_at, 15 * 60_000);
    assert_eq!(subject.poll(&key), Ok(Polled::Pending));
    assert_eq!(
        subject.store.read(Key::User(&UserCode::generate())),
        Ok(None)
    );
    assert_eq!(subject.store.count(), Ok(1));
}

/// The results are in the order of the requests, also with codes in use (one of them from the same call), unknown logins, and
/// the same login twice.
fn logins_start_and_are_polled_in_one_call(subject: Subject) {
    let (denied, user_code) = subject.insert();
    let mut new: Vec<NewLogin> = (0..100).map(|_| new_login()).collect();
    new[7].user_code = user_code.clone();
    new[99].user_code = new[0].user_code.clone();
    let is_taken = |at| at == 7 || at == 99;
    let inserted = subject.store.insert(&new).unwrap();
    assert_eq!(inserted.len(), 100);
    for (at, inserted) in inserted.into_iter().enumerate() {
        assert_eq!(inserted == Inserted::UserCodeTaken, is_taken(at), "{at}");
    }
    assert_eq!(subject.deny(&user_code), Ok(Some(true)));
    let mut logins: Vec<_> = new.into_iter().map(|new| new.key).collect();
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

fn user_code_in_use_is_not_assigned_twice(subject: Subject) {
    let first = new_login();
    let second = NewLogin {
        user_code: first.user_code.clone(),
        ..new_login()
    };
    assert_eq!(
        subject.store.insert(std::slice::from_ref(&first)),
        Ok(vec![Inserted::Yes])
    );
    assert_eq!(
        subject.store.insert(std::slice::from_ref(&second)),
        Ok(vec![Inserted::UserCodeTaken])
    );
    assert_eq!(subject.poll(&second.key), Ok(Polled::Unknown));
    let (found, _) = subject
        .store
        .read(Key::User(&first.user_code))
        .unwrap()
        .unwrap();
    assert_eq!(found.key, first.key);
}

fn user_code_is_free_again_once_its_login_is_decided(subject: Subject) {
    let (_, user_code) = subject.insert();
    assert_eq!(subject.deny(&user_code), Ok(Some(true)));
    assert_eq!(
        subject.deny(&user_code),
        Ok(None),
        "it is not found any more"
    );
    let again = NewLogin {
        user_code,
        ..new_login()
    };
    assert_eq!(subject.store.insert(&[again]), Ok(vec![Inserted::Yes]));
}

fn login_ends_with_a_token(subject: Subject) {
    let (key, lease) = (subject.completed(), LeaseId::generate());
    assert_eq!(subject.poll(&key), Ok(Polled::Completed));
    assert_eq!(subject.begin_delivery(&key, &lease), Ok(Some(grant())));
    assert_eq!(
        subject.poll(&key),
        Ok(Polled::Pending),
        "while it is delivered"
    );
    assert!(subject.end_delivery(&key, &lease, true));
    assert_eq!(subject.poll(&key), Ok(Polled::Unknown));
    assert_eq!(subject.begin_delivery(&key, &LeaseId::generate()), Ok(None));
    assert_eq!(subject.read(&key).grant, None);
}

/// A login that is read equals the one that was written.
fn every_field_of_a_login_is_stored(subject: Subject) {
    let (confirmed, lease) = (subject.confirmed(), LeaseId::generate());
    subject.claim(&confirmed, &lease).unwrap();
    let login = subject.read(&confirmed.key);
    assert_eq!(
        (login.state.as_ref(), login.browser.as_ref()),
        (Some(&confirmed.state), Some(&confirmed.browser))
    );
    assert_eq!(login.status, Status::Exchanging);
    assert_eq!(
        login.lease.as_ref().map(|lease| &lease.holder),
        Some(&lease)
    );
    for (n, code) in ["a", "b"].into_iter().enumerate() {
        let refused = CodeDigest::of(code);
        let released = apply(
            &*subject.store,
            Key::Device(&confirmed.key),
            |login, now| {
                login.claim(&confirmed.browser, &CodeDigest::of(code), &lease, now);
                login.release(&lease, Some(&refused))
            },
        );
        assert_eq!(released, Ok(Some(true)));
        assert_eq!(
            subject
                .read(&confirmed.key)
                .refused_codes
                .split(' ')
                .count(),
            n + 1
        );
    }
    assert_eq!(subject.read(&confirmed.key).lease, None);
}

fn failed_delivery_can_be_repeated(subject: Subject) {
    let key = subject.completed();
    for _ in 0..20 {
        let lease = LeaseId::generate();
        assert_eq!(subject.begin_delivery(&key, &lease), Ok(Some(grant())));
        assert_eq!(
            subject.begin_delivery(&key, &LeaseId::generate()),
            Ok(None),
            "it is being delivered"
        );
        assert!(subject.end_delivery(&key, &lease, false));
        assert_eq!(subject.poll(&key), Ok(Polled::Completed));
    }
}

fn delivery_lease_of_a_killed_instance_expires(subject: Subject) {
    let (key, dead) = (subject.completed(), LeaseId::generate());
    assert_eq!(subject.begin_delivery(&key, &dead), Ok(Some(grant())));
    subject.wait(Duration::from_secs(15));
    assert_eq!(subject.poll(&key), Ok(Polled::Pending));
    subject.wait(Duration::from_secs(10));
    assert_eq!(subject.poll(&key), Ok(Polled::Completed));
    let lease = LeaseId::generate();
    assert_eq!(subject.begin_delivery(&key, &lease), Ok(Some(grant())));
    assert!(
        !subject.end_delivery(&key, &dead, true),
        "it is another's now"
    );
    assert!(subject.end_delivery(&key, &lease, true));
}

/// The original Node.js auth server delivered one token to up to 185 of 200 polls.
fn one_of_200_racing_polls_is_given_the_token(subject: Subject) {
    let key = subject.completed();
    let wins = at_once(200, |_| {
        match subject.begin_delivery(&key, &LeaseId::generate()) {
            Ok(Some(_)) => true,
            // A poll that finds no free connection in the pool does not win, either.
            Ok(None) | Err(StoreError::Unavailable(_) | StoreError::Locked) => false,
            Err(error) => panic!("{error}"),
        }
    });
    assert_eq!(wins.into_iter().filter(|won| *won).count(), 1);
}

fn one_of_racing_callbacks_exchanges(subject: Subject) {
    let confirmed = subject.confirmed();
    let claims = at_once(20, |_| {
        let lease = LeaseId::generate();
        (subject.claim(&confirmed, &lease).unwrap(), lease)
    });
    let granted: Vec<_> = claims
        .iter()
        .filter(|(claim, _)| *claim == Some(Claim::Granted))
        .collect();
    assert_eq!(granted.len(), 1);
    assert_eq!(
        claims
            .iter()
            .filter(|(claim, _)| *claim == Some(Claim::Busy))
            .count(),
        19
    );
    assert_eq!(
        subject.poll(&confirmed.key),
        Ok(Polled::Pending),
        "also during the exchange"
    );
    let completions = at_once(2, |_| {
        subject.complete(&confirmed.key, &granted[0].1).unwrap()
    });
    assert_eq!(
        completions,
        [Some(true); 2],
        "a second try finds its own work done"
    );
    assert_eq!(
        subject.claim(&confirmed, &LeaseId::generate()),
        Ok(Some(Claim::Done))
    );
}

/// Neither the right state in another browser nor another state in the right browser may claim the login.
fn only_the_confirming_browser_may_claim(subject: Subject) {
    let confirmed = subject.confirmed();
    let lease = LeaseId::generate();
    let other_browser = Confirmed {
        browser: BrowserKey::generate().hash(),
        state: confirmed.state.clone(),
        key: confirmed.key.clone(),
    };
    let other_state = Confirmed {
        state: state(),
        browser: confirmed.browser.clone(),
        key: confirmed.key.clone(),
    };
    assert_eq!(
        subject.claim(&other_browser, &lease),
        Ok(Some(Claim::Unknown))
    );
    assert_eq!(subject.claim(&other_state, &lease), Ok(None));
    assert_eq!(subject.poll(&confirmed.key), Ok(Polled::Pending));
}

fn later_confirmation_replaces_an_earlier_one(subject: Subject) {
    let (key, user_code) = subject.insert();
    let by = || Confirmed {
        key: key.clone(),
        state: state(),
        browser: BrowserKey::generate().hash(),
    };
    let (first, second) = (by(), by());
    assert_eq!(subject.confirm(&user_code, &first), Ok(Some(true)));
    assert_eq!(subject.confirm(&user_code, &second), Ok(Some(true)));
    assert_eq!(subject.claim(&first, &LeaseId::generate()), Ok(None));
    assert_eq!(
        subject.claim(&second, &LeaseId::generate()),
        Ok(Some(Claim::Granted))
    );
}

fn released_exchange_can_be_claimed_again(subject: Subject) {
    let (confirmed, lease) = (subject.confirmed(), LeaseId::generate());
    assert_eq!(subject.claim(&confirmed, &lease), Ok(Some(Claim::Granted)));
    let release = || {
        apply(&*subject.store, Key::Device(&confirmed.key), |login, _| {
            login.release(&lease, None)
        })
    };
    assert_eq!(release(), Ok(Some(true)));
    assert_eq!(
        subject.complete(&confirmed.key, &lease),
        Ok(Some(false)),
        "no lease holds it"
    );
    let second = LeaseId::generate();
    assert_eq!(subject.claim(&confirmed, &second), Ok(Some(Claim::Granted)));
    assert_eq!(subject.complete(&confirmed.key, &second), Ok(Some(true)));
    assert_eq!(release(), Ok(Some(false)));
    assert_eq!(
        subject.poll(&confirmed.key),
        Ok(Polled::Completed),
        "a late release changes nothing"
    );
}

fn exchange_lease_of_a_killed_instance_expires(subject: Subject) {
    let confirmed = subject.confirmed();
    assert_eq!(
        subject.claim(&confirmed, &LeaseId::generate()),
        Ok(Some(Claim::Granted))
    );
    subject.wait(Duration::from_secs(25));
    assert_eq!(
        subject.claim(&confirmed, &LeaseId::generate()),
        Ok(Some(Claim::Busy))
    );
    subject.wait(Duration::from_secs(10));
    assert_eq!(
        subject.claim(&confirmed, &LeaseId::generate()),
        Ok(Some(Claim::Granted))
    );
}

fn expired_login_is_reported_for_15_minutes(subject: Subject) {
    let (unconfirmed, user_code) = subject.insert();
    let confirmed = subject.confirmed();
    subject.wait(LIFETIME);
    for key in [&unconfirmed, &confirmed.key] {
        assert_eq!(subject.poll(key), Ok(Polled::Expired));
    }
    assert_eq!(subject.deny(&user_code), Ok(Some(false)));
    assert_eq!(
        subject.claim(&confirmed, &LeaseId::generate()),
        Ok(Some(Claim::Unknown))
    );
    subject.wait(14 * MINUTE);
    assert_eq!(subject.store.purge(1_000), Ok(vec![]));
    assert_eq!(subject.poll(&confirmed.key), Ok(Polled::Expired));
    subject.wait(2 * MINUTE);
    assert_eq!(subject.store.purge(1).unwrap().len(), 1, "in batches");
    assert_eq!(subject.store.purge(1_000).unwrap().len(), 1);
    assert_eq!(
        (subject.poll(&confirmed.key), subject.store.count()),
        (Ok(Polled::Unknown), Ok(0))
    );
}

fn purge_returns_logins_that_expired_undecided(subject: Subject) {
    let (pending, _) = subject.insert();
    let (denied, user_code) = subject.insert();
    subject.deny(&user_code).unwrap();
    subject.wait(LIFETIME + 16 * MINUTE);
    let mut purged = subject.store.purge(10).unwrap();
    purged.sort_by_key(|purged| purged.expired);
    let expected = [(denied, false), (pending, true)].map(|(key, expired)| Purged { key, expired });
    assert_eq!(purged, expected);
}

/// The user consents in the last second. Exchange and poll may come after the expiry.
fn token_approved_before_the_expiry_outlives_it(subject: Subject) {
    let (confirmed, lease) = (subject.confirmed(), LeaseId::generate());
    let key = &confirmed.key;
    subject.wait(LIFETIME - Duration::from_secs(5));
    assert_eq!(subject.claim(&confirmed, &lease), Ok(Some(Claim::Granted)));
    subject.wait(Duration::from_secs(10));
    assert_eq!(subject.poll(key), Ok(Polled::Pending));
    assert_eq!(subject.complete(key, &lease), Ok(Some(true)));
    subject.wait(REDEEMABLE_FOR - Duration::from_secs(10));
    assert_eq!(subject.poll(key), Ok(Polled::Completed));
    subject.wait(Duration::from_secs(20));
    assert_eq!(subject.poll(key), Ok(Polled::Expired), "but not for ever");
    assert_eq!(subject.begin_delivery(key, &lease), Ok(None));
}

/// Ended logins are evicted first, then the oldest ones of the network that holds most, and confirmed ones last.
fn eviction_begins_with_the_network_that_holds_most(subject: Subject) {
    let (over, _) = subject.insert();
    subject.wait(LIFETIME);
    let lonely = insert_from(&subject, "203.0.113.0", 1);
    let crowd = insert_from(&subject, "192.0.2.0", 5);
    let confirmed = Confirmed {
        key: crowd[0].clone(),
        state: state(),
        browser: BrowserKey::generate().hash(),
    };
    let user_code = subject.read(&crowd[0]).user_code;
    assert_eq!(subject.confirm(&user_code, &confirmed), Ok(Some(true)));
    let pair = insert_from(&subject, "198.51.100.0", 2);
    let is_there = |key: &DeviceCodeHash| subject.poll(key) != Ok(Polled::Unknown);
    assert_eq!(subject.store.make_room(10), Ok(1), "expired ones alone");
    assert!(!is_there(&over));
    assert_eq!(subject.store.make_room(2), Ok(2));
    let left = |keys: &[DeviceCodeHash]| keys.iter().map(is_there).collect::<Vec<_>>();
    assert_eq!(left(&crowd), [true, false, false, true, true]);
    assert_eq!(subject.store.make_room(3), Ok(3));
    assert_eq!(
        left(&crowd),
        [true, false, false, false, false],
        "the confirmed one is kept"
    );
    assert_eq!(
        (left(&pair), left(&lonely)),
        (vec![false, true], vec![true])
    );
    assert_eq!(
        subject.store.make_room(10),
        Ok(3),
        "in the end all that wait"
    );
    assert_eq!(subject.store.make_room(10), Ok(0));
}

#[test]
fn embedded_file_is_private_and_locked() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/auth.redb");
    let first = Embedded::open(&path, &Times::DEFAULT).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let Err(StoreError::Unusable(why)) = Embedded::open(&path, &Times::DEFAULT) else {
        panic!("two stores have opened one file")
    };
    assert!(
        why.contains("another postiz-auth-server has it open"),
        "{why}"
    );
    drop(first);
    assert!(Embedded::open(&path, &Times::DEFAULT).is_ok());
}

#[test]
fn file_of_another_kind_is_refused_and_left_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.redb");
    let text = "not a store at all, but somebody's text. ".repeat(500);
    std::fs::write(&path, &text).unwrap();
    let Err(error) = Embedded::open(&path, &Times::DEFAULT) else {
        panic!("the file was opened as a store")
    };
    assert!(error.to_string().contains("auth.redb"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn file_of_a_newer_schema_is_refused_and_left_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.redb");
    drop(Embedded::open(&path, &Times::DEFAULT).unwrap());
    let meta: redb::TableDefinition<&str, &str> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write
        .open_table(meta)
        .unwrap()
        .insert("schema_version", "99")
        .unwrap();
    // A record that this server cannot parse.
    let requests = redb::TableDefinition::<u64, u64>::new("requests");
    write
        .delete_table(redb::TableDefinition::<&str, &str>::new("requests"))
        .unwrap();
    write.open_table(requests).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let Err(StoreError::Unusable(why)) = Embedded::open(&path, &Times::DEFAULT) else {
        panic!("the newer schema was accepted")
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

/// The file of the version before leases has one login that waits for its user, one for its exchange, one for its next poll.
#[test]
fn file_of_version_1_is_migrated_with_its_logins() {
    type Text = redb::TableDefinition<'static, &'static str, &'static str>;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.redb");
    let now = system_ms();
    let record = |user_code: &str, status: &str, token: Option<&str>| {
        serde_json::json!({
            "user_code": user_code, "status": status, "state": null, "browser": null, "claimed_at": null,
            "access_token": token, "api_url": token.map(|_| "https://api.example"), "organization_id": "org",
            "scope": null, "client_address": "192.0.2.1", "client_agent": "agent/1",
            "created_at": now, "expires_at": now + 60_000,
        })
        .to_string()
    };
    let keys = ["a", "b", "c"].map(|code| DeviceCode::from_client(code).hash());
    let records = [
        record("WDJB-MJHT", "pending", None),
        record("WDJB-MJHB", "exchanging", None),
        record("WDJB-MJHC", "completed", Some("s1:00ff")),
    ];
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let table = |name| write.open_table(Text::new(name)).unwrap();
        let (mut requests, mut by_expiry) = (table("requests"), table("by_expiry"));
        let (mut by_user_code, _) = (table("by_user_code"), table("by_state"));
        for (key, record) in keys.iter().zip(&records) {
            requests.insert(key.as_str(), record.as_str()).unwrap();
            let expiry = format!("{:020} {}", now + 60_000, key.as_str());
            by_expiry.insert(expiry.as_str(), "").unwrap();
        }
        by_user_code.insert("WDJB-MJHT", keys[0].as_str()).unwrap();
        by_user_code.insert("WDJB-MJHB", keys[1].as_str()).unwrap();
        table("meta").insert("schema_version", "1").unwrap();
    }
    write.commit().unwrap();
    drop(database);

    let store = Embedded::open(&path, &Times::DEFAULT).unwrap();
    let polled = store.poll(&keys).unwrap();
    assert_eq!(
        polled,
        [Polled::Pending, Polled::Pending, Polled::Completed]
    );
    for (code, key) in [("WDJB-MJHT", &keys[0]), ("WDJB-MJHB", &keys[1])] {
        let user_code = UserCode::parse(code).unwrap();
        let (found, _) = store.read(Key::User(&user_code)).unwrap().unwrap();
        assert_eq!((&found.key, found.starter.agent.as_str()), (key, "agent/1"));
        assert_eq!(
            found.status,
            Status::Pending,
            "the exchange of the old version has ended"
        );
    }
    let (done, _) = store.read(Key::Device(&keys[2])).unwrap().unwrap();
    assert_eq!(done.grant, Some(grant()));
    drop(store);
    assert!(
        Embedded::open(&path, &Times::DEFAULT).is_ok(),
        "once is enough"
    );
}

/// `CREATE TABLE IF NOT EXISTS` without a lock fails in this race.
#[test]
fn eight_instances_start_at_once_on_an_empty_database() {
    let database = Cluster::shared().database();
    let pings = at_once(8, |_| connect(&database).ping());
    assert_eq!(pings, vec![Ok(()); 8]);
}

/// The table of the original Node.js auth server, with a login in every state.
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
fn table_of_the_reference_server_is_migrated_in_place() {
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

    // A login works whose code has letters that only the original Node.js auth server uses.
    let user_code = UserCode::parse("aeiu 2568").unwrap();
    let (found, _) = store.read(Key::User(&user_code)).unwrap().unwrap();
    assert_eq!(found.key, DeviceCode::from_client("waiting").hash());

    // The token, which was stored in clear, is now sealed, and can be decrypted.
    let key = DeviceCode::from_client("done").hash();
    let (done, _) = store.read(Key::Device(&key)).unwrap().unwrap();
    let grant = done.grant.expect("it was completed");
    assert_eq!(grant.api_url, "https://api.example");
    assert_eq!(
        seal().open(&key, &grant.token).unwrap().expose(),
        "pos_clear"
    );
}

#[test]
fn newer_schema_is_refused_and_left_unchanged() {
    let database = Cluster::shared().database();
    connect(&database).ping().unwrap();
    database.run("INSERT INTO device_requests_schema (version) VALUES (99)");
    let Err(StoreError::Unusable(why)) = connect(&database).ping() else {
        panic!("the newer schema was accepted")
    };
    assert!(
        why.contains("99") && why.contains("run a newer server"),
        "{why}"
    );
}
