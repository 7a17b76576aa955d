//! The store for exactly one instance: one file, by redb (pure Rust, ACID, fsynced commits). The file's tables are tables.rs.

mod file;
mod tables;
mod writer_lock;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use crate::server::codes::DeviceCodeHash;
use crate::server::login::{EXPIRED_FOR, Login, Polled, Status, UnixMs, as_ms};
pub use crate::server::store::embedded::file::inspect;
pub(super) use crate::server::store::embedded::file::open_private_file;
use crate::server::store::embedded::file::{Storage, make_parent_folder};
use crate::server::store::embedded::tables::{
    BY_EXPIRY, BY_STATE, BY_USER_CODE, META, REQUESTS, Tables, device_key_in, expiry_prefix,
    parse_login, read_login, read_login_by, write_to,
};
use crate::server::store::embedded::writer_lock::WriterLock;
use crate::server::store::{Inserted, Key, NewLogin, Purged, Store, StoreError, Transition};
use crate::server::times::Times;

/// Larger than a login: if a probe of this size can be written, so can a login.
const PROBE_BYTES: usize = 16 * 1024;

/// The current time in milliseconds since 1970.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// The embedded store.
pub struct Embedded {
    storage: Storage,
    /// `None` after an I/O error: redb fails every call after the first error, so the next call opens the database again.
    database: Mutex<Option<Arc<Database>>>,
    writer_lock: WriterLock,
    /// Whether the last write failed.
    write_failed: AtomicBool,
    clock: Clock,
}

impl Embedded {
    /// Opens the file at `path`. Makes it, and its folder (mode 0700), if they are missing.
    pub fn open(path: &Path, times: &Times) -> Result<Embedded, StoreError> {
        Embedded::with_clock(path, times, Box::new(system_ms))
    }

    /// As [`Embedded::open`], with another clock than the system's.
    pub fn with_clock(path: &Path, times: &Times, clock: Clock) -> Result<Embedded, StoreError> {
        make_parent_folder(path)?;
        Embedded::new(Storage::File(path.to_owned()), times, clock)
    }

    /// Opens a store in memory, for tests without a file.
    pub fn in_memory(clock: Clock) -> Result<Embedded, StoreError> {
        Embedded::new(Storage::Memory, &Times::DEFAULT, clock)
    }

    fn new(storage: Storage, times: &Times, clock: Clock) -> Result<Embedded, StoreError> {
        let database = Arc::new(storage.open()?);
        Ok(Embedded {
            storage,
            database: Mutex::new(Some(database)),
            writer_lock: WriterLock::new(times.writer),
            write_failed: AtomicBool::new(false),
            clock,
        })
    }
}

impl Store for Embedded {
    fn insert(&self, new: &[NewLogin]) -> Result<Vec<Inserted>, StoreError> {
        let now = self.now();
        self.write(|tables| new.iter().map(|new| tables.add(new, now)).collect())
    }

    fn poll(&self, logins: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError> {
        let now = self.now();
        self.snapshot(|snapshot| {
            let requests = snapshot.open_table(REQUESTS)?;
            let poll = |login: &DeviceCodeHash| {
                let login = read_login(&requests, login.as_str())?;
                Ok(login.map_or(Polled::Unknown, |login| login.polled(now)))
            };
            logins.iter().map(poll).collect()
        })
    }

    fn read(&self, key: Key) -> Result<Option<(Login, UnixMs)>, StoreError> {
        let now = self.now();
        let found = self.snapshot(|snapshot| {
            let requests = snapshot.open_table(REQUESTS)?;
            match key {
                Key::Device(key) => read_login(&requests, key.as_str()),
                Key::User(code) => read_login_by(
                    &snapshot.open_table(BY_USER_CODE)?,
                    code.as_str(),
                    &requests,
                ),
                Key::State(state) => {
                    read_login_by(&snapshot.open_table(BY_STATE)?, state.as_str(), &requests)
                }
            }
        })?;
        Ok(found.map(|login| (login, now)))
    }

    fn change(&self, key: Key, transition: &mut Transition) -> Result<bool, StoreError> {
        let Some((before, now)) = self.read(key)? else {
            return Ok(false);
        };
        let mut login = before.clone();
        transition(&mut login, now);
        if login == before {
            // Most calls of a crowd change nothing, and do not have to wait for the writer lock.
            return Ok(true);
        }
        self.write(|tables| {
            let Some(before) = tables.find(key)? else {
                return Ok(false);
            };
            let mut login = before.clone();
            transition(&mut login, now);
            if login != before {
                tables.remove(&before)?;
                tables.put(&login)?;
            }
            Ok(true)
        })
    }

    fn make_room(&self, limit: u32) -> Result<u64, StoreError> {
        let now = self.now();
        let logins = self.snapshot(|snapshot| {
            let requests = snapshot.open_table(REQUESTS)?;
            let logins = requests.iter()?.map(|entry| parse_login(entry?.1.value()));
            logins.collect::<Result<Vec<Login>, redb::Error>>()
        })?;
        let is_finished = |login: &Login| {
            let has_lease = matches!(login.status, Status::Exchanging | Status::Delivering);
            login.status == Status::Redeemed || now >= login.expires_at && !has_lease
        };
        let (finished, live): (Vec<Login>, Vec<Login>) = logins.into_iter().partition(is_finished);
        let mut removed = match finished.is_empty() {
            false => finished,
            true => in_removal_order(live),
        };
        removed.truncate(limit as usize);
        self.delete(
            &removed.iter().map(|login| &login.key).collect::<Vec<_>>(),
            |login| is_finished(login) || is_removable(login),
        )
    }

    fn purge(&self, limit: u32) -> Result<Vec<Purged>, StoreError> {
        let expired_before = self.now().saturating_sub(as_ms(EXPIRED_FOR));
        let purged = self.snapshot(|snapshot| {
            let (by_expiry, requests) = (
                snapshot.open_table(BY_EXPIRY)?,
                snapshot.open_table(REQUESTS)?,
            );
            let mut purged = Vec::new();
            for entry in by_expiry
                .range(..&*expiry_prefix(expired_before))?
                .take(limit as usize)
            {
                let (expiry_key, _) = entry?;
                let key = device_key_in(expiry_key.value());
                let status = read_login(&requests, key)?.map(|login| login.status);
                purged.push(Purged {
                    key: DeviceCodeHash::from_store(key.to_owned()),
                    expired: !matches!(status, Some(Status::Redeemed | Status::Denied)),
                });
            }
            Ok(purged)
        })?;
        self.delete(
            &purged.iter().map(|purged| &purged.key).collect::<Vec<_>>(),
            |_| true,
        )?;
        Ok(purged)
    }

    fn count(&self) -> Result<u64, StoreError> {
        self.snapshot(|snapshot| Ok(snapshot.open_table(REQUESTS)?.len()?))
    }

    fn ping(&self) -> Result<(), StoreError> {
        // Writes only after a failed write: otherwise every health check would cost a commit.
        if self.write_failed.load(Ordering::Relaxed) {
            self.write(|tables| tables.probe(&" ".repeat(PROBE_BYTES)))?;
            return self.write(|tables| tables.probe(""));
        }
        self.snapshot(|snapshot| snapshot.open_table(META).map(drop).map_err(Into::into))
    }
}

/// Whether a full store may delete it before it is finished.
fn is_removable(login: &Login) -> bool {
    matches!(login.status, Status::Pending | Status::Denied)
}

/// The removable logins, in the order in which they are deleted. Each network's logins are ranked: confirmed before unconfirmed,
/// then newest first. The highest ranks are deleted first, so that the networks that hold the most lose the most.
fn in_removal_order(live: Vec<Login>) -> Vec<Login> {
    let is_confirmed = |login: &Login| login.status == Status::Pending && login.browser.is_some();
    let mut removable: Vec<Login> = live.into_iter().filter(is_removable).collect();
    removable.sort_by_key(|login| (!is_confirmed(login), Reverse(login.created_at)));
    let mut last_rank: HashMap<String, usize> = HashMap::new();
    let mut ranked: Vec<(usize, Login)> = Vec::new();
    for login in removable {
        let rank = last_rank.entry(login.starter.network.clone()).or_default();
        *rank += 1;
        ranked.push((*rank, login));
    }
    ranked.sort_by_key(|(rank, login)| (Reverse(*rank), is_confirmed(login), login.created_at));
    ranked.into_iter().map(|(_, login)| login).collect()
}

impl Embedded {
    fn now(&self) -> UnixMs {
        (self.clock)()
    }

    /// Reads from one snapshot of the database.
    fn snapshot<T>(
        &self,
        act: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database()?;
        let result = database
            .begin_read()
            .map_err(redb::Error::from)
            .and_then(|snapshot| act(&snapshot));
        result.map_err(|error| self.failed(&error))
    }

    /// Runs `act` in one transaction, and commits what it changed.
    fn write<T>(
        &self,
        act: impl FnOnce(&mut Tables) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let _guard = self.writer_lock.acquire()?;
        let written = self
            .database()
            .and_then(|database| write_to(&database, act).map_err(|error| self.failed(&error)));
        self.write_failed.store(written.is_err(), Ordering::Relaxed);
        written
    }

    /// Deletes those of the logins that still exist and that `may_delete` allows, in one commit. Returns how many it deleted.
    fn delete(
        &self,
        keys: &[&DeviceCodeHash],
        may_delete: impl Fn(&Login) -> bool,
    ) -> Result<u64, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        self.write(|tables| {
            let mut deleted = 0;
            for key in keys {
                if let Some(login) = tables.find(Key::Device(key))?.filter(&may_delete) {
                    tables.remove(&login)?;
                    deleted += 1;
                }
            }
            Ok(deleted)
        })
    }

    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut database = self.database.lock();
        if let Some(open) = &*database {
            return Ok(Arc::clone(open));
        }
        let opened = Arc::new(self.storage.open()?);
        *database = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Closes a file after an error, so that the next call opens it again. A database in memory would lose its contents.
    fn failed(&self, error: &redb::Error) -> StoreError {
        if matches!(self.storage, Storage::File(_)) {
            *self.database.lock() = None;
        }
        StoreError::Unavailable(error.to_string())
    }
}

fn system_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, as_ms)
}
