//! The store of exactly one instance: one file, by redb (pure Rust, ACID, fsynced commits).
//!
//! A login is a JSON record under its device code's hash; three more tables find it by user code (until it is decided),
//! by state, and by when it expires.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageBackend, TableDefinition,
};
use serde_json::Value;

use crate::server::codes::{BrowserKeyHash, DeviceCodeHash, StateHash, UserCode};
use crate::server::config::SECRET_BYTES_MIN;
use crate::server::file_rights;
use crate::server::login::{
    EXPIRED_FOR, Login, Polled, SealedGrant, Starter, Status, UnixMs, as_ms,
};
use crate::server::seal::SealedToken;
use crate::server::store::{
    Inserted, Key, NewLogin, Purged, Store, StoreError, Transition, schema_plan,
};
use crate::server::times::Times;
use crate::shared::hash::hex;
use crate::shared::random;
use crate::shared::secret::Secret;

/// From text to text, every one: the B-tree's code is then in the program once, not once for each pair of types.
type Text = TableDefinition<'static, &'static str, &'static str>;

const REQUESTS: Text = TableDefinition::new("requests");
const BY_USER_CODE: Text = TableDefinition::new("by_user_code");
const BY_STATE: Text = TableDefinition::new("by_state");
/// Under `expiry_key`; the values are empty.
const BY_EXPIRY: Text = TableDefinition::new("by_expiry");

/// The version of what the tables hold; kept in the file, so that a later one can be told.
const META: Text = TableDefinition::new("meta");
const SCHEMA_VERSION: u64 = 2;

/// redb's page cache: the default of 1 GiB would be most of a small server's memory.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Larger than a login, so that where this can be written, that can be.
const PROBE_BYTES: usize = 16 * 1024;

/// Milliseconds since 1970, by whatever clock the store is given.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// The embedded store.
pub struct Embedded {
    source: Source,
    /// `None` after an I/O error: redb refuses a database that failed once, so the next call opens it again.
    database: Mutex<Option<Arc<Database>>>,
    writers: Writers,
    /// Did the last write fail?
    write_failed: AtomicBool,
    clock: Clock,
}

enum Source {
    File(PathBuf),
    Memory,
}

impl Embedded {
    /// Opens the file at `path`, or makes it, with its folder (0700) where that is missing.
    pub fn open(path: &Path, times: &Times) -> Result<Embedded, StoreError> {
        Embedded::with_clock(path, times, Box::new(system_ms))
    }

    /// The same with a clock of the caller's choice.
    pub fn with_clock(path: &Path, times: &Times, clock: Clock) -> Result<Embedded, StoreError> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            make_private_folder(folder).map_err(|error| {
                let why = file_rights::explain_store(path, &error);
                let folder = folder.display();
                StoreError::Unusable(format!("cannot make the folder {folder}: {why}"))
            })?;
        }
        Embedded::new(Source::File(path.to_owned()), times, clock)
    }

    /// A store in memory, gone when dropped: the same code, for tests without a file.
    pub fn in_memory(clock: Clock) -> Result<Embedded, StoreError> {
        Embedded::new(Source::Memory, &Times::DEFAULT, clock)
    }

    fn new(source: Source, times: &Times, clock: Clock) -> Result<Embedded, StoreError> {
        let database = Arc::new(source.open()?);
        Ok(Embedded {
            source,
            database: Mutex::new(Some(database)),
            writers: Writers::new(times.writer),
            write_failed: AtomicBool::new(false),
            clock,
        })
    }
}

/// The secret of a server that was given none. The first start makes it, in a file of its owner alone beside the store's.
pub fn own_secret(path: &Path) -> Result<Secret<String>, StoreError> {
    let file = beside(path, ".secret");
    let unusable = |what: &dyn fmt::Display| {
        StoreError::Unusable(format!(
            "cannot keep a secret in {}: {what}",
            file.display()
        ))
    };
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().len() >= SECRET_BYTES_MIN => {
            return Ok(Secret::new(text.trim().to_owned()));
        }
        Ok(_) => return Err(unusable(&"it is too short; without it a new one is made")),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(&file_rights::explain_store(&file, &error))),
    }
    let secret = hex(&random::bytes::<32>());
    // Renamed when it is complete, so that a crash leaves no half of it.
    let new = beside(path, ".secret.new");
    let write = || {
        let mut opened = private_file(&new)?;
        opened.set_len(0)?;
        opened.write_all(secret.as_bytes())?;
        opened.sync_all()?;
        std::fs::rename(&new, &file)
    };
    write().map_err(|error| unusable(&file_rights::explain_store(&new, &error)))?;
    Ok(Secret::new(secret))
}

/// The path whose name is that of `path` and `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What a start would find at `path` and do, line by line. Changes nothing, and needs no right to.
pub fn inspect(path: &Path) -> Result<Vec<String>, StoreError> {
    let file = path.display();
    let mut lines = vec![format!("the store is the embedded file {file}")];
    if let Some(problem) = file_rights::store_problem(path) {
        lines.push(format!(
            "WARNING: a start as this user would fail: {file}: {problem}"
        ));
    }
    let bytes = match read_unlocked(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            lines.push("another server has it open: nothing was read".to_owned());
            return Ok(lines);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            lines.push(format!("nothing was read: {error}"));
            return Ok(lines);
        }
        Err(error) => return Err(cannot_open(path, &error.to_string())),
    };
    // redb takes an empty file for a new one.
    if bytes.is_empty() {
        lines.push(schema_plan(None, SCHEMA_VERSION)?);
        return Ok(lines);
    }
    let database = open_copy(&bytes).map_err(|error| cannot_open(path, &explain(&error)))?;
    let read = || {
        let snapshot = database.begin_read()?;
        let version = snapshot.open_table(META)?.get("schema_version")?;
        let version = version.map(|version| version.value().parse().unwrap_or(u64::MAX));
        Ok((version, snapshot.open_table(REQUESTS)?.len()?))
    };
    let (version, count) =
        read().map_err(|error: redb::Error| cannot_open(path, &error.to_string()))?;
    lines.push(schema_plan(version, SCHEMA_VERSION)?);
    lines.push(format!("it holds {count} logins"));
    Ok(lines)
}

/// `None`: another process has it open.
fn read_unlocked(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Opens a copy in memory: a file that was not closed in order is repaired when it is opened.
fn open_copy(bytes: &[u8]) -> Result<Database, DatabaseError> {
    let memory = redb::backends::InMemoryBackend::new();
    memory
        .set_len(bytes.len() as u64)
        .and_then(|()| memory.write(0, bytes))
        .map_err(redb::StorageError::from)?;
    Database::builder().create_with_backend(memory)
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
            // Most of a crowd change nothing, and need not wait for their turn to write.
            return Ok(true);
        }
        self.write(|tables| {
            let Some(before) = tables.find(key)? else {
                return Ok(false);
            };
            let mut login = before.clone();
            transition(&mut login, now);
            if login != before {
                tables.replace(&before, &login)?;
            }
            Ok(true)
        })
    }

    fn make_room(&self, limit: u32) -> Result<u64, StoreError> {
        let now = self.now();
        let logins = self.snapshot(|snapshot| {
            let requests = snapshot.open_table(REQUESTS)?;
            let logins = requests.iter()?.map(|entry| parse(entry?.1.value()));
            logins.collect::<Result<Vec<Login>, redb::Error>>()
        })?;
        let is_over = |login: &Login| {
            let has_lease = matches!(login.status, Status::Exchanging | Status::Delivering);
            login.status == Status::Redeemed || now >= login.expires_at && !has_lease
        };
        let (over, alive): (Vec<Login>, Vec<Login>) = logins.into_iter().partition(is_over);
        let mut doomed = match over.is_empty() {
            false => over,
            true => crowding(alive),
        };
        doomed.truncate(limit as usize);
        self.delete(
            &doomed.iter().map(|login| &login.key).collect::<Vec<_>>(),
            |login| is_over(login) || is_removable(login),
        )
    }

    fn purge(&self, limit: u32) -> Result<Vec<Purged>, StoreError> {
        let over = self.now().saturating_sub(as_ms(EXPIRED_FOR));
        let doomed = self.snapshot(|snapshot| {
            let (by_expiry, requests) = (
                snapshot.open_table(BY_EXPIRY)?,
                snapshot.open_table(REQUESTS)?,
            );
            let mut doomed = Vec::new();
            for entry in by_expiry
                .range(..&*expiry_prefix(over))?
                .take(limit as usize)
            {
                let (expiry_key, _) = entry?;
                let key = key_of_expiry(expiry_key.value());
                let status = read_login(&requests, key)?.map(|login| login.status);
                doomed.push(Purged {
                    key: DeviceCodeHash::from_store(key.to_owned()),
                    expired: !matches!(status, Some(Status::Redeemed | Status::Denied)),
                });
            }
            Ok(doomed)
        })?;
        self.delete(
            &doomed.iter().map(|purged| &purged.key).collect::<Vec<_>>(),
            |_| true,
        )?;
        Ok(doomed)
    }

    fn count(&self) -> Result<u64, StoreError> {
        self.snapshot(|snapshot| Ok(snapshot.open_table(REQUESTS)?.len()?))
    }

    fn ping(&self) -> Result<(), StoreError> {
        // A stranger's question must not cost a commit while all is well.
        if self.write_failed.load(Ordering::Relaxed) {
            self.write(|tables| tables.probe(&" ".repeat(PROBE_BYTES)))?;
            return self.write(|tables| tables.probe(""));
        }
        self.snapshot(|snapshot| snapshot.open_table(META).map(drop).map_err(Into::into))
    }
}

/// May it make room for others?
fn is_removable(login: &Login) -> bool {
    matches!(login.status, Status::Pending | Status::Denied)
}

/// The removable logins, in the order in which they go. Each network's logins are numbered: the confirmed ones first, then the
/// others, the last one first. Those with the highest numbers go, so that the networks that hold most lose most.
fn crowding(alive: Vec<Login>) -> Vec<Login> {
    let is_confirmed = |login: &Login| login.status == Status::Pending && login.browser.is_some();
    let mut removable: Vec<Login> = alive.into_iter().filter(is_removable).collect();
    removable.sort_by_key(|login| (!is_confirmed(login), Reverse(login.created_at)));
    let mut held: HashMap<String, usize> = HashMap::new();
    let mut ranked: Vec<(usize, Login)> = Vec::new();
    for login in removable {
        let rank = held.entry(login.starter.network.clone()).or_default();
        *rank += 1;
        ranked.push((*rank, login));
    }
    ranked.sort_by_key(|(rank, login)| (Reverse(*rank), is_confirmed(login), login.created_at));
    ranked.into_iter().map(|(_, login)| login).collect()
}

/// The tables of one write, which is committed as a whole or not at all.
struct Tables<'t> {
    /// Whether there is anything to commit: an fsync for a stranger's wrong code would be a cheap denial of service.
    changed: bool,
    requests: redb::Table<'t, &'static str, &'static str>,
    by_user_code: redb::Table<'t, &'static str, &'static str>,
    by_state: redb::Table<'t, &'static str, &'static str>,
    by_expiry: redb::Table<'t, &'static str, &'static str>,
}

impl Tables<'_> {
    /// Adds a login, unless its user code is taken.
    fn add(&mut self, new: &NewLogin, now: UnixMs) -> Result<Inserted, redb::Error> {
        if self.by_user_code.get(new.user_code.as_str())?.is_some() {
            return Ok(Inserted::UserCodeTaken);
        }
        let (key, user_code) = (new.key.clone(), new.user_code.clone());
        self.put(&Login::new(key, user_code, new.starter.clone(), now))?;
        Ok(Inserted::Yes)
    }

    fn find(&self, key: Key) -> Result<Option<Login>, redb::Error> {
        match key {
            Key::Device(key) => read_login(&self.requests, key.as_str()),
            Key::User(code) => read_login_by(&self.by_user_code, code.as_str(), &self.requests),
            Key::State(state) => read_login_by(&self.by_state, state.as_str(), &self.requests),
        }
    }

    /// Writes something that is no login.
    fn probe(&mut self, text: &str) -> Result<(), redb::Error> {
        self.changed = true;
        self.by_state.insert("", text)?;
        Ok(())
    }

    fn replace(&mut self, before: &Login, after: &Login) -> Result<(), redb::Error> {
        self.remove(before)?;
        self.put(after)
    }

    /// Writes a login and all that it is found by.
    fn put(&mut self, login: &Login) -> Result<(), redb::Error> {
        self.changed = true;
        let key = login.key.as_str();
        let json = serde_json::to_string(login)
            .map_err(|error| redb::Error::Corrupted(error.to_string()))?;
        self.requests.insert(key, json.as_str())?;
        self.by_expiry.insert(&*expiry_key(login), "")?;
        if is_undecided(login) {
            self.by_user_code.insert(login.user_code.as_str(), key)?;
        }
        if let Some(state) = &login.state {
            self.by_state.insert(state.as_str(), key)?;
        }
        Ok(())
    }

    fn remove(&mut self, login: &Login) -> Result<(), redb::Error> {
        self.changed = true;
        self.requests.remove(login.key.as_str())?;
        self.by_expiry.remove(&*expiry_key(login))?;
        if is_undecided(login) {
            self.by_user_code.remove(login.user_code.as_str())?;
        }
        if let Some(state) = &login.state {
            self.by_state.remove(state.as_str())?;
        }
        Ok(())
    }
}

/// Is it found by its user code?
fn is_undecided(login: &Login) -> bool {
    matches!(login.status, Status::Pending | Status::Exchanging)
}

impl Embedded {
    fn now(&self) -> UnixMs {
        (self.clock)()
    }

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

    fn write<T>(
        &self,
        act: impl FnOnce(&mut Tables) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let _turn = self.writers.wait()?;
        let written = self
            .database()
            .and_then(|database| write_to(&database, act).map_err(|error| self.failed(&error)));
        self.write_failed.store(written.is_err(), Ordering::Relaxed);
        written
    }

    /// Deletes what is still there of these logins, and still may go, in one commit. Says how many it deleted.
    fn delete(
        &self,
        keys: &[&DeviceCodeHash],
        may_go: impl Fn(&Login) -> bool,
    ) -> Result<u64, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        self.write(|tables| {
            let mut deleted = 0;
            for key in keys {
                if let Some(login) = tables.find(Key::Device(key))?.filter(&may_go) {
                    tables.remove(&login)?;
                    deleted += 1;
                }
            }
            Ok(deleted)
        })
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

/// Lets one writer in at a time, as redb does, but nobody waits for ever for one that hangs in a silent disk.
struct Writers {
    turn: Mutex<TurnState>,
    freed: Condvar,
    timeout: Duration,
}

struct TurnState {
    busy: bool,
    /// When the turn was taken or given back last: while that goes on, the disk answers, however many wait.
    moved: Instant,
}

struct Turn<'a>(&'a Writers);

impl Writers {
    fn new(timeout: Duration) -> Writers {
        Writers {
            turn: Mutex::new(TurnState {
                busy: false,
                moved: Instant::now(),
            }),
            freed: Condvar::new(),
            timeout,
        }
    }

    fn wait(&self) -> Result<Turn<'_>, StoreError> {
        let mut turn = lock(&self.turn);
        while turn.busy {
            let left = self.timeout.saturating_sub(turn.moved.elapsed());
            if left.is_zero() {
                let silent = "the disk does not answer".to_owned();
                return Err(StoreError::Unavailable(silent));
            }
            let waited = self.freed.wait_timeout(turn, left);
            turn = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        turn.busy = true;
        turn.moved = Instant::now();
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turn = lock(&self.0.turn);
        turn.busy = false;
        turn.moved = Instant::now();
        self.0.freed.notify_one();
    }
}

impl Source {
    fn open(&self) -> Result<Database, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let opened = match self {
            Source::File(path) => {
                private_file(path).map_err(|error| {
                    cannot_open(path, &file_rights::explain_store(path, &error))
                })?;
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
        Ok(version) => schema_plan(Some(version), SCHEMA_VERSION).map(drop),
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
        let mut tables = Tables::open(&write)?;
        if version < SCHEMA_VERSION {
            tables.upgrade()?;
            let mut meta = write.open_table(META)?;
            meta.insert("schema_version", SCHEMA_VERSION.to_string().as_str())?;
        }
        drop(tables);
        write.commit()?;
    }
    Ok(version)
}

/// A record of version 1 as a login of today. An exchange that was running is forgotten, as after a crash.
fn from_version_1(key: &str, json: &str) -> Option<Login> {
    let old: Value = serde_json::from_str(json).ok()?;
    let text = |name: &str| old[name].as_str().map(str::to_owned);
    let starter = Starter {
        address: text("client_address").unwrap_or_default(),
        network: String::new(),
        agent: text("client_agent").unwrap_or_default(),
        machine: String::new(),
    };
    let key = DeviceCodeHash::from_store(key.to_owned());
    let user_code = UserCode::from_store(text("user_code")?);
    let mut login = Login::new(key, user_code, starter, old["created_at"].as_u64()?);
    login.status = match Status::from_name(&text("status")?)? {
        Status::Exchanging => Status::Pending,
        status => status,
    };
    login.state = text("state").map(StateHash::from_store);
    login.browser = text("browser").map(BrowserKeyHash::from_store);
    login.grant = text("access_token").map(|token| SealedGrant {
        token: SealedToken::from_store(token),
        api_url: text("api_url").unwrap_or_default(),
        organization_id: text("organization_id"),
        scope: text("scope"),
    });
    login.expires_at = old["expires_at"].as_u64()?;
    Some(login)
}

impl<'t> Tables<'t> {
    /// Brings all records up from version 1.
    fn upgrade(&mut self) -> Result<(), redb::Error> {
        let mut logins = Vec::new();
        for entry in self.requests.iter()? {
            let (key, json) = entry?;
            let login = from_version_1(key.value(), json.value());
            logins.push(login.ok_or_else(|| {
                redb::Error::Corrupted(format!("the login {} cannot be read", key.value()))
            })?);
        }
        logins.iter().try_for_each(|login| self.put(login))
    }

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

fn read_login(
    table: &impl ReadableTable<&'static str, &'static str>,
    key: &str,
) -> Result<Option<Login>, redb::Error> {
    match table.get(key)? {
        Some(json) => parse(json.value()).map(Some),
        None => Ok(None),
    }
}

fn parse(json: &str) -> Result<Login, redb::Error> {
    serde_json::from_str(json).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// The login whose key stands under `name` in an index.
fn read_login_by(
    index: &impl ReadableTable<&'static str, &'static str>,
    name: &str,
    table: &impl ReadableTable<&'static str, &'static str>,
) -> Result<Option<Login>, redb::Error> {
    match index.get(name)? {
        Some(key) => read_login(table, key.value()),
        None => Ok(None),
    }
}

/// When a login expires, and which: of fixed width, so that text sorts as numbers do.
fn expiry_key(login: &Login) -> String {
    expiry_prefix(login.expires_at) + login.key.as_str()
}

fn expiry_prefix(expires_at: UnixMs) -> String {
    format!("{expires_at:020} ")
}

fn key_of_expiry(expiry_key: &str) -> &str {
    expiry_key.split_once(' ').map_or("", |(_, key)| key)
}

/// A panic elsewhere while the lock was held leaves nothing half-done behind: both mutexes guard single values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
