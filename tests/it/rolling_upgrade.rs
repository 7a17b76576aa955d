//! A rolling upgrade: instances of the version before leases run beside new ones on one database. The tests run the old
//! version's SQL statements themselves.

use std::thread;
use std::time::{Duration, Instant};

use postiz::server::codes::{
    BrowserKey, BrowserKeyHash, DeviceCode, DeviceCodeHash, StateHash, UserCode,
};
use postiz::server::login::{
    Claim, CodeDigest, DELIVERY_LEASE, LeaseId, Polled, SealedGrant, Starter,
};
use postiz::server::seal::SealedToken;
use postiz::server::store::{Key, NewLogin, Store, StoreError, apply};

use crate::database_roles::bring_to_version;
use crate::pooler::{log_in, store};
use crate::support::{Cluster, Database, at_once};

/// A login that a browser has confirmed.
struct Confirmed {
    key: DeviceCodeHash,
    state: StateHash,
    browser: BrowserKeyHash,
}

fn confirmed(store: &dyn Store) -> Confirmed {
    let new = NewLogin {
        key: DeviceCode::generate().hash(),
        user_code: UserCode::generate(),
        starter: Starter::default(),
    };
    store.insert(std::slice::from_ref(&new)).unwrap();
    let browser = BrowserKey::generate().hash();
    let state = StateHash::from_store(browser.as_str().to_owned());
    let confirm = apply(store, Key::User(&new.user_code), |login, now| {
        login.confirm(&state, &browser, now)
    });
    assert_eq!(confirm, Ok(Some(true)));
    Confirmed {
        key: new.key,
        state,
        browser,
    }
}

fn claim(store: &dyn Store, by: &Confirmed, lease: &LeaseId) -> Option<Claim> {
    let code = CodeDigest::of("code");
    let claimed = apply(store, Key::State(&by.state), |login, now| {
        login.claim(&by.browser, &code, lease, now)
    });
    claimed.unwrap()
}

fn complete(store: &dyn Store, key: &DeviceCodeHash, lease: &LeaseId) -> Option<bool> {
    let grant = SealedGrant {
        token: SealedToken::from_store("s1:00ff".to_owned()),
        api_url: "https://api.example".to_owned(),
        organization_id: None,
        scope: None,
    };
    apply(store, Key::Device(key), |login, now| {
        login.complete(lease, &CodeDigest::of("code"), &grant, now)
    })
    .unwrap()
}

fn begin_delivery(store: &dyn Store, key: &DeviceCodeHash) -> Result<bool, StoreError> {
    let lease = LeaseId::generate();
    let begun = apply(store, Key::Device(key), |login, now| {
        login.begin_delivery(&lease, now, DELIVERY_LEASE)
    });
    begun.map(|begun| begun.flatten().is_some())
}

fn completed(store: &dyn Store) -> DeviceCodeHash {
    let (confirmed, lease) = (confirmed(store), LeaseId::generate());
    assert_eq!(claim(store, &confirmed, &lease), Some(Claim::Granted));
    assert_eq!(complete(store, &confirmed.key, &lease), Some(true));
    confirmed.key
}

/// The old version's claim before an exchange. Returns whether it got the login.
fn old_claim(database: &Database, by: &Confirmed) -> bool {
    let statement = "UPDATE device_requests SET status = 'exchanging', claimed_at = now()
        WHERE state = $1 AND browser = $2 AND status IN ('pending', 'exchanging')
            AND NOT (status = 'exchanging' AND claimed_at >= now() - interval '30 seconds') AND expires_at > now()
        RETURNING device_code";
    let (state, browser) = (by.state.as_str(), by.browser.as_str());
    let rows = database.connect().query(statement, &[&state, &browser]);
    !rows.unwrap().is_empty()
}

/// The old version's statement for a delivery, before its COMMIT or ROLLBACK. Returns whether it got the login.
fn old_delivery(transaction: &mut postgres::Transaction, key: &DeviceCodeHash) -> bool {
    let take = "SELECT access_token, api_url, organization_id, scope FROM device_requests
        WHERE device_code = $1 AND status = 'completed' AND expires_at > now() FOR UPDATE SKIP LOCKED";
    if transaction
        .query(take, &[&key.as_str()])
        .unwrap()
        .is_empty()
    {
        return false;
    }
    let redeem = "UPDATE device_requests SET status = 'redeemed', access_token = NULL WHERE device_code = $1";
    transaction.execute(redeem, &[&key.as_str()]).unwrap() == 1
}

fn wait(database: &Database, seconds: u32) {
    database.run(&format!(
        "UPDATE device_requests SET claimed_at = claimed_at - interval '{seconds} s', \
         lease_until = lease_until - interval '{seconds} s'"
    ));
}

#[test]
fn claims_of_the_old_version_and_of_leases_exclude_each_other() {
    let database = Cluster::shared().database();
    let store = &*store(&database.url(), 4);
    for has_old_lease in [false, true] {
        let login = confirmed(store);
        let dead = LeaseId::generate();
        if has_old_lease {
            // A new instance was killed during an exchange, and an old one takes over.
            assert_eq!(claim(store, &login, &dead), Some(Claim::Granted));
            assert!(
                !old_claim(&database, &login),
                "the old version sees the lease"
            );
            wait(&database, 31);
        }
        assert!(old_claim(&database, &login));
        assert_eq!(
            claim(store, &login, &LeaseId::generate()),
            Some(Claim::Busy)
        );
        assert_eq!(
            claim(store, &login, &dead),
            Some(Claim::Busy),
            "the lease has expired"
        );
        assert_eq!(complete(store, &login.key, &dead), Some(false));
        assert_eq!(
            store.poll(std::slice::from_ref(&login.key)),
            Ok(vec![Polled::Pending])
        );
        wait(&database, 31);
        let lease = LeaseId::generate();
        assert_eq!(claim(store, &login, &lease), Some(Claim::Granted));
        assert_eq!(complete(store, &login.key, &lease), Some(true));
    }

    // Of ten old and ten new instances, one claims the login.
    let login = confirmed(store);
    let granted = at_once(20, |at| match at % 2 {
        0 => old_claim(&database, &login),
        _ => claim(store, &login, &LeaseId::generate()) == Some(Claim::Granted),
    });
    assert_eq!(granted.into_iter().filter(|granted| *granted).count(), 1);
}

#[test]
fn deliveries_of_the_old_version_and_of_leases_exclude_each_other() {
    let database = Cluster::shared().database();
    let store = &*store(&database.url(), 4);
    for commits in [false, true] {
        let key = completed(store);
        let poll = || store.poll(std::slice::from_ref(&key)).unwrap()[0];
        let mut old = database.connect();
        let mut old = old.transaction().unwrap();
        assert!(old_delivery(&mut old, &key));
        let begun = Instant::now();
        assert_eq!(begin_delivery(store, &key), Err(StoreError::Locked));
        assert_eq!(
            poll(),
            Polled::Completed,
            "a poll does not wait for it, either"
        );
        log_in(&[self::store(&database.url(), 1)], 0);
        assert_eq!(store.make_room(10).map(|_| ()), Ok(()));
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        thread::sleep(Duration::from_secs(1));
        if commits {
            old.commit().unwrap();
            assert_eq!(
                (poll(), begin_delivery(store, &key)),
                (Polled::Unknown, Ok(false))
            );
        } else {
            old.rollback().unwrap();
            assert_eq!(
                (poll(), begin_delivery(store, &key)),
                (Polled::Completed, Ok(true))
            );
            let mut old = database.connect();
            assert!(
                !old_delivery(&mut old.transaction().unwrap(), &key),
                "it is being delivered"
            );
        }
    }

    // Of ten old and ten new instances, one delivers the token.
    let key = completed(store);
    let given = at_once(20, |at| match at % 2 {
        0 => {
            let mut old = database.connect();
            let mut old = old.transaction().unwrap();
            let taken = old_delivery(&mut old, &key);
            old.commit().unwrap();
            taken
        }
        _ => begin_delivery(store, &key).unwrap_or(false),
    });
    assert_eq!(given.into_iter().filter(|given| *given).count(), 1);
}

/// The old version's locks make ALTER TABLE wait, and other statements would wait behind it. So it has a lock timeout and is
/// retried.
#[test]
fn migration_waits_for_deliveries_of_the_old_version() {
    let database = Cluster::shared().database();
    bring_to_version(&database, 2);
    let key = DeviceCode::generate().hash();
    database.run(&format!(
        "INSERT INTO device_requests (device_code, user_code, status, access_token, expires_at)
         VALUES ('{}', 'x', 'completed', 's1:00ff', now() + interval '1 minute'),
                ('other', 'y', 'pending', NULL, now() + interval '1 minute')",
        key.as_str()
    ));
    let mut old = database.connect();
    let mut old = old.transaction().unwrap();
    assert!(old_delivery(&mut old, &key));
    thread::scope(|scope| {
        let starting = scope.spawn(|| at_once(3, |_| store(&database.url(), 2).ping()));
        // Meanwhile an old instance still answers.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            database.run("SELECT status FROM device_requests; UPDATE device_requests SET browser = 'b' WHERE user_code = 'y'");
            assert!(
                asked.elapsed() < Duration::from_millis(1_800),
                "{:?}",
                asked.elapsed()
            );
        }
        assert!(!starting.is_finished());
        old.commit().unwrap();
        assert_eq!(starting.join().unwrap(), vec![Ok(()); 3]);
    });
    let store = store(&database.url(), 2);
    assert_eq!(store.poll(&[key]), Ok(vec![Polled::Unknown]));
    log_in(&[store], 0);
}
