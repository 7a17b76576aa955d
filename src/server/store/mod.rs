//! The one place that keeps state. The trait [`Store`] has two backends: [`postgres`] and [`embedded`]. The state machine of a
//! login is `login.rs`; a store keeps the login's record and applies transitions to it.
//!
//! Every operation is atomic, across all instances that share the store. The store uses its own clock, never the caller's.
//! "Not found" and "too late" are results; a [`StoreError`] means that the store itself failed.

pub(crate) mod connect;
pub mod database_url;
mod migrations;
mod passfile;
mod pool;
pub mod postgres;
mod postgres_error;
pub(crate) mod tls;

pub mod embedded;
pub(crate) mod secret_file;

pub(crate) mod batcher;

use std::fmt;

use crate::server::codes::{DeviceCodeHash, StateHash, UserCode};
use crate::server::login::{Login, Polled, Starter, UnixMs};

/// A store of logins.
pub trait Store: Send + Sync {
    /// Adds logins in one commit. A login whose user code belongs to another undecided login is left out. Returns a result for
    /// each, in order.
    fn insert(&self, new: &[NewLogin]) -> Result<Vec<Inserted>, StoreError>;

    /// Returns the state of each login, in order. Reads all of them at once, and writes nothing.
    fn poll(&self, logins: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError>;

    /// Returns the login that `key` finds, and the store's time.
    fn read(&self, key: Key) -> Result<Option<(Login, UnixMs)>, StoreError>;

    /// Applies `transition` to the login that `key` finds, and stores the changed record atomically. May call `transition` more
    /// than once; only the last call counts. Returns false, and writes nothing, if there is no such login (any more). Callers
    /// use [`apply`].
    fn change(&self, key: Key, transition: &mut Transition) -> Result<bool, StoreError>;

    /// Deletes up to `limit` logins from a full store: finished ones (redeemed or expired); if there are none, pending and
    /// denied ones of the networks that hold the most, unconfirmed and oldest first. Returns how many it deleted.
    fn make_room(&self, limit: u32) -> Result<u64, StoreError>;

    /// Deletes up to `limit` logins that expired at least `login::EXPIRED_FOR` ago, and returns them.
    fn purge(&self, limit: u32) -> Result<Vec<Purged>, StoreError>;

    /// The number of logins kept, finished ones included until they are purged.
    fn count(&self) -> Result<u64, StoreError>;

    /// Fails unless the store answers and can be written to.
    fn ping(&self) -> Result<(), StoreError>;

    /// The connections to the database; `None` for a store without a connection pool.
    fn pool(&self) -> Option<PoolCounts> {
        None
    }
}

/// How many connections to the database there are, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCounts {
    /// The pool's size: at most so many may be open.
    pub max: usize,
    /// Checked out, or being opened.
    pub in_use: usize,
    /// Open and idle.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

/// Changes a login, given the current time: one of the transitions of `login.rs`.
pub type Transition<'a> = dyn FnMut(&mut Login, UnixMs) + 'a;

/// Applies `transition` to the login that `key` finds, and returns its result. `None`: there is no such login.
pub fn apply<T>(
    store: &dyn Store,
    key: Key,
    mut transition: impl FnMut(&mut Login, UnixMs) -> T,
) -> Result<Option<T>, StoreError> {
    let mut outcome = None;
    let changed = store.change(key, &mut |login, now| {
        outcome = Some(transition(login, now));
    })?;
    // If the login was deleted before it could be written, the transition's result does not hold.
    Ok(outcome.filter(|_| changed))
}

/// What a login is looked up by.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    /// The hash of its device code.
    Device(&'a DeviceCodeHash),
    /// Its user code, as long as it is undecided.
    User(&'a UserCode),
    /// The hash of the OAuth `state` that went to Postiz.
    State(&'a StateHash),
}

/// A login to be added.
#[derive(Clone, Debug)]
pub struct NewLogin {
    /// The hash of its device code.
    pub key: DeviceCodeHash,
    /// What the user will type.
    pub user_code: UserCode,
    /// Who starts it.
    pub starter: Starter,
}

/// The result of [`Store::insert`] for one login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was added.
    Yes,
    /// Another undecided login has this user code: the caller tries another code.
    UserCodeTaken,
}

/// A login that was purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The hash of its device code.
    pub key: DeviceCodeHash,
    /// Whether it expired before the user decided it or the client took its token.
    pub expired: bool,
}

/// The store failed. The text goes to the log, never to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time. Retryable.
    Unavailable(String),
    /// It cannot work as it is set up. Permanent: an operator must act.
    Unusable(String),
    /// Another transaction holds the login's row lock: an instance of an earlier version is delivering its token.
    Locked,
}

impl StoreError {
    /// The cause alone, without whether it is retryable.
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

/// Says what a start would do to a store with this schema version (`None`: the store is empty), where `newest` is the newest
/// version that this server knows. An error means that the store must not be touched.
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
