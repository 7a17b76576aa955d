//! The one place that keeps state. Two backends stand behind [`Store`]: [`postgres`] and [`embedded`]. What a login may become
//! is `login.rs`; a store keeps its record and applies a transition to it atomically.
//!
//! Every operation is atomic, over all instances that share the store. Time is the store's own, never the caller's.
//! "Not found" and "too late" are answers; a [`StoreError`] means that the store itself failed.

pub(crate) mod connect;
pub mod database_url;
pub mod embedded;
pub(crate) mod gather;
mod migrations;
mod passfile;
mod pool;
pub mod postgres;
pub(crate) mod tls;

use std::fmt;

use crate::server::codes::{DeviceCodeHash, StateHash, UserCode};
use crate::server::login::{Login, Polled, Starter, UnixMs};

/// What keeps the logins.
pub trait Store: Send + Sync {
    /// Adds logins, each of them unless its user code is taken by another undecided one, in one commit. Says what became of
    /// each, in order.
    fn insert(&self, new: &[NewLogin]) -> Result<Vec<Inserted>, StoreError>;

    /// How logins stand, in order. One look-up for all of them, no write.
    fn poll(&self, logins: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError>;

    /// The login of `key` as it is now, with the store's time.
    fn read(&self, key: Key) -> Result<Option<(Login, UnixMs)>, StoreError>;

    /// Applies `transition` to the login of `key`, and keeps what it changed, all or nothing. It may be called more than
    /// once, and only its last call counts. False: there is no such login (any more), and nothing was written. Called by
    /// [`apply`].
    fn change(&self, key: Key, transition: &mut Transition) -> Result<bool, StoreError>;

    /// Deletes up to `limit` logins for which there is no room any more: those that are over; where there are none, the
    /// pending and denied ones of the networks that hold most, the unconfirmed and oldest first. Says how many it deleted.
    fn make_room(&self, limit: u32) -> Result<u64, StoreError>;

    /// Deletes up to `limit` logins that have been expired for `login::EXPIRED_FOR`. Says which, with how far they came.
    fn purge(&self, limit: u32) -> Result<Vec<Purged>, StoreError>;

    /// How many logins it keeps, those that are over but not purged included.
    fn count(&self) -> Result<u64, StoreError>;

    /// Does the store answer, and can it be written?
    fn ping(&self) -> Result<(), StoreError>;

    /// Its connections to a database, if it has any.
    fn pool(&self) -> Option<PoolCounts> {
        None
    }
}

/// Numbers of connections to a database, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCounts {
    /// Most that may be open.
    pub max: usize,
    /// In use, or being made.
    pub in_use: usize,
    /// Open and not in use.
    pub idle: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// A change of a login at a time: one of the transitions of `login.rs`.
pub type Transition<'a> = dyn FnMut(&mut Login, UnixMs) + 'a;

/// Applies `transition` to the login of `key`, and gives back what it says. `None`: no such login.
pub fn apply<T>(
    store: &dyn Store,
    key: Key,
    mut transition: impl FnMut(&mut Login, UnixMs) -> T,
) -> Result<Option<T>, StoreError> {
    let mut outcome = None;
    let changed = store.change(key, &mut |login, now| {
        outcome = Some(transition(login, now));
    })?;
    // What a transition says of a login that was gone when it was to be written is not true.
    Ok(outcome.filter(|_| changed))
}

/// What a login is found by.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    /// Its device code.
    Device(&'a DeviceCodeHash),
    /// Its user code, as long as it is undecided.
    User(&'a UserCode),
    /// The `state` of its trip to Postiz.
    State(&'a StateHash),
}

/// A login to be added.
#[derive(Clone, Debug)]
pub struct NewLogin {
    /// Its key.
    pub key: DeviceCodeHash,
    /// What the user will type.
    pub user_code: UserCode,
    /// Who starts it.
    pub starter: Starter,
}

/// What became of one login of [`Store::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    Yes,
    /// Another undecided login has this user code: draw another.
    UserCodeTaken,
}

/// A login that was purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Its key.
    pub key: DeviceCodeHash,
    /// Did it expire before anybody had decided it, or taken its token?
    pub expired: bool,
}

/// The store failed. The text is for the log; no client ever sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time: waiting may mend it.
    Unavailable(String),
    /// It answers, but will not work like this: only a person can mend it.
    Unusable(String),
    /// Another transaction holds this login: an instance of an earlier version delivers its token.
    Locked,
}

impl StoreError {
    /// What happened, without what it means.
    pub fn cause(&self) -> &str {
        match self {
            StoreError::Unavailable(cause) | StoreError::Unusable(cause) => cause,
            StoreError::Locked => "another transaction holds the login",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Unavailable(cause) => write!(f, "the store is unavailable: {cause}"),
            StoreError::Unusable(cause) => write!(f, "the store cannot be used: {cause}"),
            StoreError::Locked => f.write_str(self.cause()),
        }
    }
}

impl std::error::Error for StoreError {}

/// What a start makes of a store whose schema has this version, when it knows those up to `newest`; an error, if it must not
/// touch it. `None`: the store is empty.
fn schema_plan(version: Option<u64>, newest: u64) -> Result<String, StoreError> {
    match version {
        None => Ok(format!(
            "it is empty: a start would make its tables (schema {newest})"
        )),
        Some(version) if version < newest => Ok(format!(
            "a start would bring the schema from {version} to {newest}"
        )),
        Some(version) if version == newest => Ok(format!("its schema is {newest}, the newest")),
        Some(version) => Err(StoreError::Unusable(format!(
            "its schema version is {version}, and this server knows versions up to {newest}: run a newer server"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::codes::DeviceCode;

    /// A store whose logins are gone by the time they are to be written. Nothing else is asked of it.
    struct Vanishing;

    impl Store for Vanishing {
        fn change(&self, _: Key, transition: &mut Transition) -> Result<bool, StoreError> {
            let (key, user_code) = (DeviceCode::generate().hash(), UserCode::generate());
            transition(&mut Login::new(key, user_code, Starter::default(), 0), 0);
            Ok(false)
        }

        fn insert(&self, _: &[NewLogin]) -> Result<Vec<Inserted>, StoreError> {
            unimplemented!()
        }

        fn poll(&self, _: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError> {
            unimplemented!()
        }

        fn read(&self, _: Key) -> Result<Option<(Login, UnixMs)>, StoreError> {
            unimplemented!()
        }

        fn make_room(&self, _: u32) -> Result<u64, StoreError> {
            unimplemented!()
        }

        fn purge(&self, _: u32) -> Result<Vec<Purged>, StoreError> {
            unimplemented!()
        }

        fn count(&self) -> Result<u64, StoreError> {
            unimplemented!()
        }

        fn ping(&self) -> Result<(), StoreError> {
            unimplemented!()
        }
    }

    #[test]
    fn transition_that_was_not_written_says_nothing() {
        let user_code = UserCode::generate();
        let denied = apply(&Vanishing, Key::User(&user_code), |login, now| {
            login.deny(now)
        });
        assert_eq!(denied, Ok(None));
    }
}
