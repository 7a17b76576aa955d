//! The store of exactly one instance: one file, by redb (pure Rust, ACID, fsynced commits).
//!
//! A login is a JSON record under its device code's hash; three more tables find it by user code (until it is decided),
//! by state, and by when it expires.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};
use serde::{Deserialize, Serialize};

use crate::server::codes::{BrowserKeyHash, DeviceCodeHash, StateHash, UserCode};
use crate::server::seal::SealedToken;
use crate::server::store::{
    CLAIM_LASTS, Claim, Denier, EXPIRED_FOR, Inserted, NewRequest, PendingRequest, Polled,
    REDEEMABLE_FOR, Redemption, SealedGrant, Store, StoreError,
};

/// From text to text, every one: the B-tree's code is then in the program once, not once for each pair of types.
type Text = TableDefinition<'static, &'static str, &'static str>;

const REQUESTS: Text = TableDefinition::new("requests");
const BY_USER_CODE: Text = TableDefinition::new("by_user_code");
const BY_STATE: Text = TableDefinition::new("by_state");
/// Under [`expiry_key`]; the values are empty.
const BY_EXPIRY: Text = TableDefinition::new("by_expiry");

/// The version of what the tables hold; kept in the file, so that a later one can be told.
const META: Text = TableDefinition::new("meta");
const SCHEMA_VERSION: u64 = 1;

/// redb's page cache: the default of 1 GiB would be most of a small server's memory.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Milliseconds since 1970, by whatever clock the store is given.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// The embedded store.
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    /// `None` after an I/O error: redb refuses a database that failed once, so the next call opens it again.
    database: Mutex<Option<Arc<Database>>>,
    /// Logins whose token is being handed over right now. In memory on purpose: a crash forgets it, and the token is back.
    in_hand: Mutex<HashSet<DeviceCodeHash>>,
    clock: Clock,
}

enum Source {
    File(PathBuf),
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Pending,
    Exchanging,
    Completed,
    Denied,
    Redeemed,
}

/// One login. Times are milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    user_code: String,
    status: Status,
    state: Option<String>,
    browser: Option<String>,
    claimed_at: Option<u64>,
    access_token: Option<String>,
    api_url: Option<String>,
    organization_id: Option<String>,
    scope: Option<String>,
    client_address: String,
    client_agent: String,
    created_at: u64,
    expires_at: u64,
}

impl Embedded {
    /// Opens the file at `path`, or makes it, with its folder (0700) where that is missing.
    pub fn open(path: &Path) -> Result<Embedded, StoreError> {
        Embedded::with_clock(path, Box::new(system_ms))
    }

    /// The same with a clock of the caller's choice.
    pub fn with_clock(path: &Path, clock: Clock) -> Result<Embedded, StoreError> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            make_private_folder(folder).map_err(|error| {
                StoreError::Unusable(format!(
                    "cannot make the folder {}: {error}",
                    folder.display()
                ))
            })?;
        }
        Embedded::new(Source::File(path.to_owned()), clock)
    }

    /// A store in memory, gone when dropped: the same code, for tests without a file.
    pub fn in_memory(clock: Clock) -> Result<Embedded, StoreError> {
        Embedded::new(Source::Memory, clock)
    }

    fn new(source: Source, clock: Clock) -> Result<Embedded, StoreError> {
        let database = Arc::new(source.open()?);
        let database = Mutex::new(Some(database));
        let in_hand = Mutex::default();
        Ok(Embedded {
            shared: Arc::new(Shared {
                source,
                database,
                in_hand,
                clock,
            }),
        })
    }
}

impl Store for Embedded {
    fn insert(&self, new: &[NewRequest]) -> Result<Vec<Inserted>, StoreError> {
        let now = self.shared.now();
        self.shared
            .write(|tables| new.iter().map(|new| tables.add(new, now)).collect())
    }

    fn find(&self, user_code: &UserCode) -> Result<Option<PendingRequest>, StoreError> {
        let now = self.shared.now();
        self.shared.read(|snapshot| {
            let Some(login) = snapshot
                .open_table(BY_USER_CODE)?
                .get(user_code.as_str())?
                .map(key)
            else {
                return Ok(None);
            };
            let Some(record) = read_record(&snapshot.open_table(REQUESTS)?, &login)? else {
                return Ok(None);
            };
            Ok(record.is_live(now).then(|| PendingRequest {
                login,
                client_address: record.client_address,
                client_agent: record.client_agent,
                age: Duration::from_millis(now.saturating_sub(record.created_at)),
            }))
        })
    }

    fn bind(
        &self,
        user_code: &UserCode,
        state: &StateHash,
        browser: &BrowserKeyHash,
    ) -> Result<Option<DeviceCodeHash>, StoreError> {
        let now = self.shared.now();
        self.shared.write(|tables| {
            let Some((login, mut record)) = tables.pending(user_code, now)? else {
                return Ok(None);
            };
            if let Some(earlier) = record.state.replace(state.as_str().to_owned()) {
                tables.by_state.remove(earlier.as_str())?;
            }
            tables.by_state.insert(state.as_str(), login.as_str())?;
            record.browser = Some(browser.as_str().to_owned());
            record.status = Status::Pending;
            record.claimed_at = None;
            tables.put(&login, &record)?;
            Ok(Some(login))
        })
    }

    fn claim(&self, state: &StateHash, browser: &BrowserKeyHash) -> Result<Claim, StoreError> {
        let now = self.shared.now();
        self.shared.write(|tables| {
            let Some((login, mut record)) = tables.bound(state, browser)? else {
                return Ok(Claim::Unknown);
            };
            match record.status {
                Status::Completed | Status::Redeemed => Ok(Claim::Done),
                _ if record.is_claimed(now) => Ok(Claim::Taken(login)),
                _ if record.is_live(now) => {
                    record.status = Status::Exchanging;
                    record.claimed_at = Some(now);
                    tables.put(&login, &record)?;
                    Ok(Claim::Mine(login))
                }
                _ => Ok(Claim::Unknown),
            }
        })
    }

    fn release(&self, login: &DeviceCodeHash) -> Result<(), StoreError> {
        self.shared.write(|tables| {
            let Some(mut record) = read_record(&tables.requests, login)? else {
                return Ok(());
            };
            if record.status == Status::Exchanging {
                record.status = Status::Pending;
                record.claimed_at = None;
                tables.put(login, &record)?;
            }
            Ok(())
        })
    }

    fn complete(&self, login: &DeviceCodeHash, grant: &SealedGrant) -> Result<bool, StoreError> {
        let now = self.shared.now();
        self.shared.write(|tables| {
            let Some(mut record) = read_record(&tables.requests, login)? else {
                return Ok(false);
            };
            if record.status != Status::Exchanging {
                return Ok(false);
            }
            tables.by_user_code.remove(record.user_code.as_str())?;
            tables
                .by_expiry
                .remove(&*expiry_key(record.expires_at, login))?;
            record.expires_at = record.expires_at.max(now + as_ms(REDEEMABLE_FOR));
            tables
                .by_expiry
                .insert(&*expiry_key(record.expires_at, login), "")?;
            record.status = Status::Completed;
            record.claimed_at = None;
            record.access_token = Some(grant.token.as_str().to_owned());
            record.api_url = Some(grant.api_url.clone());
            record.organization_id = grant.organization_id.clone();
            record.scope = grant.scope.clone();
            tables.put(login, &record)?;
            Ok(true)
        })
    }

    fn deny(&self, who: Denier) -> Result<Option<DeviceCodeHash>, StoreError> {
        let now = self.shared.now();
        self.shared.write(|tables| {
            let found = match who {
                Denier::User(user_code) => tables.pending(user_code, now)?,
                Denier::Browser(state, browser) => tables.bound(state, browser)?,
            };
            let Some((login, mut record)) = found.filter(|(_, record)| record.is_live(now)) else {
                return Ok(None);
            };
            tables.by_user_code.remove(record.user_code.as_str())?;
            record.status = Status::Denied;
            tables.put(&login, &record)?;
            Ok(Some(login))
        })
    }

    fn poll(&self, logins: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError> {
        let now = self.shared.now();
        self.shared.read(|snapshot| {
            let requests = snapshot.open_table(REQUESTS)?;
            let poll = |login| {
                let record = read_record(&requests, login)?;
                Ok(record.map_or(Polled::Unknown, |record| record.polled(now)))
            };
            logins.iter().map(poll).collect()
        })
    }

    fn redeem(&self, login: &DeviceCodeHash) -> Result<Option<Redemption>, StoreError> {
        // Taken in hand before the record is read: a hand-over that ends in between has then changed what is read.
        let Some(in_hand) = InHand::take(&self.shared, login) else {
            return Ok(None);
        };
        let now = self.shared.now();
        let record = self
            .shared
            .read(|snapshot| read_record(&snapshot.open_table(REQUESTS)?, login))?;
        let Some(record) = record.filter(|record| record.polled(now) == Polled::Completed) else {
            return Ok(None);
        };
        Ok(record
            .into_grant()
            .map(|grant| Redemption::new(grant, move || in_hand.spend())))
    }

    fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let over = self.shared.now().saturating_sub(as_ms(EXPIRED_FOR));
        let doomed = self.shared.read(|snapshot| {
            let by_expiry = snapshot.open_table(BY_EXPIRY)?;
            let before = expiry_key_prefix(over);
            let keys = by_expiry.range(..&*before)?.take(limit as usize);
            keys.map(|entry| Ok(entry?.0.value().to_owned()))
                .collect::<Result<Vec<String>, redb::Error>>()
        })?;
        if doomed.is_empty() {
            return Ok(0);
        }
        self.shared.write(|tables| {
            for expiry_key in &doomed {
                tables.delete(expiry_key)?;
            }
            Ok(doomed.len() as u64)
        })
    }

    fn count(&self) -> Result<u64, StoreError> {
        self.shared
            .read(|snapshot| Ok(snapshot.open_table(REQUESTS)?.len()?))
    }

    fn ping(&self) -> Result<(), StoreError> {
        self.shared
            .read(|snapshot| snapshot.open_table(META).map(drop).map_err(Into::into))
    }
}

/// The tables of one write, which is committed as a whole or not at all.
struct Tables<'t> {
    /// Whether there is anything to commit: an fsync for a stranger's wrong code would be a gift to him.
    changed: bool,
    requests: redb::Table<'t, &'static str, &'static str>,
    by_user_code: redb::Table<'t, &'static str, &'static str>,
    by_state: redb::Table<'t, &'static str, &'static str>,
    by_expiry: redb::Table<'t, &'static str, &'static str>,
}

impl Tables<'_> {
    /// Adds a login, unless its user code is taken.
    fn add(&mut self, new: &NewRequest, now: u64) -> Result<Inserted, redb::Error> {
        let (login, user_code) = (&new.login, new.user_code.as_str());
        if self.by_user_code.get(user_code)?.is_some() {
            return Ok(Inserted::UserCodeTaken);
        }
        self.by_user_code.insert(user_code, login.as_str())?;
        let expires_at = now + as_ms(new.lifetime);
        self.by_expiry.insert(&*expiry_key(expires_at, login), "")?;
        let record = Record {
            user_code: user_code.to_owned(),
            status: Status::Pending,
            state: None,
            browser: None,
            claimed_at: None,
            access_token: None,
            api_url: None,
            organization_id: None,
            scope: None,
            client_address: new.client_address.clone(),
            client_agent: new.client_agent.clone(),
            created_at: now,
            expires_at,
        };
        self.put(login, &record)?;
        Ok(Inserted::Yes)
    }

    fn put(&mut self, login: &DeviceCodeHash, record: &Record) -> Result<(), redb::Error> {
        let json = serde_json::to_string(record)
            .map_err(|error| redb::Error::Corrupted(error.to_string()))?;
        self.requests.insert(login.as_str(), json.as_str())?;
        self.changed = true;
        Ok(())
    }

    /// The live, pending login that `user_code` names.
    fn pending(
        &self,
        user_code: &UserCode,
        now: u64,
    ) -> Result<Option<(DeviceCodeHash, Record)>, redb::Error> {
        let Some(login) = self.by_user_code.get(user_code.as_str())?.map(key) else {
            return Ok(None);
        };
        let record = read_record(&self.requests, &login)?;
        Ok(record
            .filter(|record| record.is_live(now))
            .map(|record| (login, record)))
    }

    /// The login tied to this state and this browser, however it stands.
    fn bound(
        &self,
        state: &StateHash,
        browser: &BrowserKeyHash,
    ) -> Result<Option<(DeviceCodeHash, Record)>, redb::Error> {
        let Some(login) = self.by_state.get(state.as_str())?.map(key) else {
            return Ok(None);
        };
        let record = read_record(&self.requests, &login)?;
        let ours = |record: &Record| record.browser.as_deref() == Some(browser.as_str());
        Ok(record.filter(ours).map(|record| (login, record)))
    }

    fn delete(&mut self, expiry_key: &str) -> Result<(), redb::Error> {
        self.changed = true;
        self.by_expiry.remove(expiry_key)?;
        let login = expiry_key.split_once(' ').map_or("", |(_, login)| login);
        let login = &DeviceCodeHash::from_store(login.to_owned());
        let Some(record) = read_record(&self.requests, login)? else {
            return Ok(());
        };
        self.requests.remove(login.as_str())?;
        if matches!(record.status, Status::Pending | Status::Exchanging) {
            self.by_user_code.remove(record.user_code.as_str())?;
        }
        if let Some(state) = record.state {
            self.by_state.remove(state.as_str())?;
        }
        Ok(())
    }
}

impl Record {
    /// Does it still wait for its user? A claim that its owner did not live to end is as good as none.
    fn is_live(&self, now: u64) -> bool {
        let undecided = matches!(self.status, Status::Pending | Status::Exchanging);
        undecided && !self.is_claimed(now) && now < self.expires_at
    }

    /// Is its exchange claimed, by somebody who may still be alive?
    fn is_claimed(&self, now: u64) -> bool {
        self.status == Status::Exchanging
            && self
                .claimed_at
                .is_some_and(|claimed_at| now < claimed_at + as_ms(CLAIM_LASTS))
    }

    fn polled(&self, now: u64) -> Polled {
        match self.status {
            Status::Redeemed => Polled::Unknown,
            Status::Denied => Polled::Denied,
            // Claimed in time: the exchange that is running decides.
            Status::Exchanging if self.is_claimed(now) => Polled::Pending,
            _ if now >= self.expires_at => Polled::Expired,
            Status::Pending | Status::Exchanging => Polled::Pending,
            Status::Completed => Polled::Completed,
        }
    }

    fn into_grant(self) -> Option<SealedGrant> {
        Some(SealedGrant {
            token: SealedToken::from_store(self.access_token?),
            api_url: self.api_url?,
            organization_id: self.organization_id,
            scope: self.scope,
        })
    }
}

impl Shared {
    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn read<T>(
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

    fn write<T>(
        &self,
        act: impl FnOnce(&mut Tables) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database()?;
        write_to(&database, act).map_err(|error| self.failed(&error))
    }

    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut database = lock(&self.database);
        if let Some(open) = &*database {
            return Ok(Arc::clone(open));
        }
        let opened = Arc::new(self.source.open()?);
        *database = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Notes that the database failed. A file is opened again by the next call; memory has nothing to be opened again.
    fn failed(&self, error: &redb::Error) -> StoreError {
        if matches!(self.source, Source::File(_)) {
            *lock(&self.database) = None;
        }
        StoreError::Unavailable(error.to_string())
    }
}

impl Source {
    fn open(&self) -> Result<Database, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let opened = match self {
            Source::File(path) => {
                make_private_file(path).map_err(|error| cannot_open(path, &error.to_string()))?;
                builder
                    .create(path)
                    .map_err(|error| cannot_open(path, &explain(&error)))?
            }
            Source::Memory => builder
                .create_with_backend(redb::backends::InMemoryBackend::new())
                .map_err(|error| StoreError::Unusable(error.to_string()))?,
        };
        prepare(&opened)?;
        Ok(opened)
    }
}

fn cannot_open(path: &Path, reason: &str) -> StoreError {
    StoreError::Unusable(format!("cannot open {}: {reason}", path.display()))
}

fn explain(error: &DatabaseError) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            "another postiz-auth-server has it open; the embedded store serves one \
             instance, for more set DATABASE_URL to a PostgreSQL database"
                .to_owned()
        }
        DatabaseError::Storage(redb::StorageError::Corrupted(what)) => {
            format!(
                "it is damaged or no store of this server ({what}); move it away to start with an empty one"
            )
        }
        other => other.to_string(),
    }
}

/// Makes the tables, and refuses a file of a later version than this server knows.
fn prepare(database: &Database) -> Result<(), StoreError> {
    match make_tables(database) {
        Ok(version) if version > SCHEMA_VERSION => Err(StoreError::Unusable(format!(
            "its schema version is {version}, and this server knows versions up to {SCHEMA_VERSION}: run a newer server"
        ))),
        Ok(_) => Ok(()),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}

/// Makes the tables that are missing, unless the file is of a later version: that one stays as it is. Its version.
fn make_tables(database: &Database) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    let version = {
        let mut meta = write.open_table(META)?;
        // What is no number was not written by an earlier server.
        let found = meta
            .get("schema_version")?
            .map(|version| version.value().parse().unwrap_or(u64::MAX));
        if found.is_none() {
            meta.insert("schema_version", SCHEMA_VERSION.to_string().as_str())?;
        }
        found.unwrap_or(SCHEMA_VERSION)
    };
    if version > SCHEMA_VERSION {
        write.abort()?;
    } else {
        Tables::open(&write)?;
        write.commit()?;
    }
    Ok(version)
}

impl<'t> Tables<'t> {
    fn open(write: &'t redb::WriteTransaction) -> Result<Tables<'t>, redb::Error> {
        Ok(Tables {
            changed: false,
            requests: write.open_table(REQUESTS)?,
            by_user_code: write.open_table(BY_USER_CODE)?,
            by_state: write.open_table(BY_STATE)?,
            by_expiry: write.open_table(BY_EXPIRY)?,
        })
    }
}

fn write_to<T>(
    database: &Database,
    act: impl FnOnce(&mut Tables) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let write = database.begin_write()?;
    let (result, changed) = {
        let mut tables = Tables::open(&write)?;
        (act(&mut tables)?, tables.changed)
    };
    if changed {
        write.commit()?
    } else {
        write.abort()?
    }
    Ok(result)
}

fn read_record(
    table: &impl ReadableTable<&'static str, &'static str>,
    login: &DeviceCodeHash,
) -> Result<Option<Record>, redb::Error> {
    let Some(json) = table.get(login.as_str())? else {
        return Ok(None);
    };
    serde_json::from_str(json.value())
        .map(Some)
        .map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// When a login expires, and which: of fixed width, so that text sorts as numbers do.
fn expiry_key(expires_at: u64, login: &DeviceCodeHash) -> String {
    expiry_key_prefix(expires_at) + login.as_str()
}

fn expiry_key_prefix(expires_at: u64) -> String {
    format!("{expires_at:020} ")
}

fn key(value: redb::AccessGuard<&'static str>) -> DeviceCodeHash {
    DeviceCodeHash::from_store(value.value().to_owned())
}

/// A login whose token is being handed over; dropped, it is free for the next poll.
struct InHand {
    shared: Arc<Shared>,
    login: DeviceCodeHash,
}

impl InHand {
    fn take(shared: &Arc<Shared>, login: &DeviceCodeHash) -> Option<InHand> {
        let taken = lock(&shared.in_hand).insert(login.clone());
        taken.then(|| InHand {
            shared: Arc::clone(shared),
            login: login.clone(),
        })
    }

    /// The token has its receiver: forget it. The row stays until it expires, so that the browser's page can be reloaded.
    fn spend(self) -> Result<(), StoreError> {
        self.shared.write(|tables| {
            let Some(mut record) = read_record(&tables.requests, &self.login)? else {
                return Ok(());
            };
            record.status = Status::Redeemed;
            record.access_token = None;
            tables.put(&self.login, &record)
        })
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        lock(&self.shared.in_hand).remove(&self.login);
    }
}

/// A panic elsewhere while the lock was held leaves nothing half-done behind: both mutexes guard single values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn system_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, as_ms)
}

fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Creates the file for its owner alone before redb opens it, since redb would leave that to the umask.
fn make_private_file(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}
