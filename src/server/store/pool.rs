//! A small pool of PostgreSQL connections, checked out per statement and replaced when broken.
//!
//! Between us and the database there may be a pooler (PgBouncer in transaction mode) that gives each transaction another
//! session. So a new connection proves first that it is direct. Only a direct one has named statements and session limits;
//! elsewhere statements are unnamed, and nothing of ours outlives a transaction.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::error::{Severity, SqlState};
use postgres::types::{ToSql, Type};
use postgres::{Client, Row, Statement};

use crate::server::store::connect::{ConnectError, Connector};
use crate::server::store::{PoolCounts, StoreError};
use crate::server::times::Times;
use crate::shared::hash::hex;
use crate::shared::random;

/// What the server lets a statement take, and a transaction wait for us; set on direct connections.
const SESSION: &str = "SET statement_timeout = '2s'; SET lock_timeout = '2s'; \
     SET idle_in_transaction_session_timeout = '15s'";

/// The parameter that a direct connection reads back.
const DIRECT: &str = "postiz.direct";

/// So often is a statement tried again that a new connection has just prepared, when the table is altered in between.
const STALE_TRIES: usize = 3;

/// Most parameters of a statement.
const PARAMETERS_MAX: usize = 24;

/// Up to `size` connections, made when they are needed.
pub(crate) struct Pool {
    connector: Connector,
    size: usize,
    times: Times,
    /// Is there a pooler in between, as the URL says or as it said itself?
    pooler: AtomicBool,
    /// What each new connection goes through once before it is used.
    prepare: Prepare,
    slots: Mutex<Slots>,
    freed: Condvar,
}

type Prepare = Box<dyn Fn(&mut Client) -> Result<(), StoreError> + Send + Sync>;

struct Slots {
    idle: Vec<Connection>,
    /// Since when the others are in use, or being made.
    in_use: HashMap<u64, Instant>,
    next_id: u64,
    /// How many hang and have lost their place. No more than the pool's size: each costs a thread.
    abandoned: usize,
    /// Requests that wait for one.
    waiting: usize,
    /// When one was taken or came back last: while a silent database holds them all, nobody need wait for one.
    moved: Instant,
    /// Until when no further connection is tried.
    crowded_until: Instant,
}

/// A connection with the statements that it has prepared so far; `None`: it prepares none.
struct Connection {
    client: Client,
    statements: Option<HashMap<String, Statement>>,
}

/// A connection's place in the pool. When it is dropped, whatever happened, the connection that is left in it goes back to
/// the pool; without one, the place is free again.
struct Slot<'a> {
    pool: &'a Pool,
    id: u64,
    left: Option<Connection>,
}

/// A connection in use.
pub(crate) struct Pooled<'a> {
    connection: Connection,
    reused: bool,
    slot: Slot<'a>,
}

impl Pool {
    pub(crate) fn new(
        connector: Connector,
        size: usize,
        times: &Times,
        pooler: bool,
        prepare: impl Fn(&mut Client) -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Pool {
        let now = Instant::now();
        Pool {
            connector,
            size,
            times: *times,
            pooler: AtomicBool::new(pooler),
            prepare: Box::new(prepare),
            slots: Mutex::new(Slots {
                idle: Vec::new(),
                in_use: HashMap::new(),
                next_id: 0,
                abandoned: 0,
                waiting: 0,
                moved: now,
                crowded_until: now,
            }),
            freed: Condvar::new(),
        }
    }

    /// Runs a statement whose parameters are all text (their SQL casts them), and gives back its rows. When a connection from
    /// before turns out to be dead, the database was probably restarted: all others from before are dropped, and the
    /// statement is tried again, until a new connection decides. So it must be one that may be run more than once.
    pub(crate) fn query(&self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Row>, StoreError> {
        let mut stale_tries = 0..STALE_TRIES;
        loop {
            let mut pooled = self.checkout()?;
            match pooled.connection.query(sql, params) {
                Ok(rows) => {
                    pooled.give_back();
                    return Ok(rows);
                }
                Err(error) if !pooled.connection.is_broken(&error) => {
                    pooled.give_back();
                    return Err(self.connector.placed(classify(&error)));
                }
                Err(error)
                    if pooled.reused || (is_stale(&error) && stale_tries.next().is_some()) =>
                {
                    drop(pooled);
                    self.drop_idle();
                }
                Err(error) => return Err(self.connector.placed(classify(&error))),
            }
        }
    }

    pub(crate) fn counts(&self) -> PoolCounts {
        let slots = self.slots();
        PoolCounts {
            max: self.size,
            in_use: slots.in_use.len(),
            idle: slots.idle.len(),
            waiting: slots.waiting,
        }
    }

    fn checkout(&self) -> Result<Pooled<'_>, StoreError> {
        let mut slots = self.slots();
        loop {
            let now = Instant::now();
            if let Some(connection) = slots.idle.pop() {
                slots.moved = now;
                return Ok(Pooled {
                    connection,
                    reused: true,
                    slot: self.slot(&mut slots),
                });
            }
            let crowded = slots.open() > 0 && now < slots.crowded_until;
            if !crowded
                && (slots.open() < self.size || slots.abandon_one(self.size, self.times.hung))
            {
                slots.moved = now;
                let slot = self.slot(&mut slots);
                drop(slots);
                match self.connect(slot) {
                    Err(SlotError::Crowded) => slots = self.slots(),
                    Err(SlotError::Store(error)) => return Err(error),
                    Ok(pooled) => return Ok(pooled),
                }
                continue;
            }
            let left = self.times.checkout.saturating_sub(slots.moved.elapsed());
            if left.is_zero() {
                let busy = format!("all {} connections to PostgreSQL are busy", slots.open());
                return Err(StoreError::Unavailable(busy));
            }
            slots.waiting += 1;
            slots = self
                .freed
                .wait_timeout(slots, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            slots.waiting -= 1;
        }
    }

    /// Fills a slot. It is given back if this fails, even by a panic (the client library's, when there are no descriptors).
    fn connect<'a>(&'a self, slot: Slot<'a>) -> Result<Pooled<'a>, SlotError> {
        let (mut client, is_direct) = match self.connect_client() {
            Ok(connected) => connected,
            Err(failed) => {
                drop(slot);
                return Err(self.not_connected(failed));
            }
        };
        (self.prepare)(&mut client).map_err(|error| self.connector.placed(error))?;
        if is_direct {
            client
                .batch_execute(SESSION)
                .map_err(|error| classify(&error))?;
        }
        Ok(Pooled {
            connection: Connection {
                client,
                statements: is_direct.then(HashMap::new),
            },
            reused: false,
            slot,
        })
    }

    /// A connection, and whether it is a direct one: a parameter set as it starts can be read back.
    fn connect_client(&self) -> Result<(Client, bool), ConnectError> {
        if self.pooler.load(Ordering::Relaxed) {
            return Ok((self.connector.connect(None)?, false));
        }
        let proof = hex(&random::bytes::<8>());
        let options = format!("-c {DIRECT}={proof}");
        match self.connector.connect(Some(&options)) {
            Ok(mut client) => {
                let read = format!("SELECT current_setting('{DIRECT}', true)");
                let rows = client.query_typed(&read, &[])?;
                let found: Option<&str> = rows.first().and_then(|row| row.get(0));
                let is_direct = found == Some(&proof);
                Ok((client, is_direct))
            }
            // A pooler that does not know the parameter says so (PgBouncer the first way, RDS Proxy the second).
            Err(failed)
                if matches!(&failed.code, Some(code) if *code == SqlState::PROTOCOL_VIOLATION
                    || *code == SqlState::FEATURE_NOT_SUPPORTED) =>
            {
                let client = self.connector.connect(None)?;
                self.pooler.store(true, Ordering::Relaxed);
                Ok((client, false))
            }
            Err(failed) => Err(failed),
        }
    }

    fn not_connected(&self, failed: ConnectError) -> SlotError {
        let mut slots = self.slots();
        if failed.code == Some(SqlState::TOO_MANY_CONNECTIONS) && slots.open() > 0 {
            slots.crowded_until = Instant::now() + self.times.crowded_pause;
            return SlotError::Crowded;
        }
        SlotError::Store(failed.error)
    }

    /// Closes the connections that nobody uses: what is true of them may not be true of new ones.
    pub(crate) fn drop_idle(&self) {
        let dead = std::mem::take(&mut self.slots().idle);
        // Closing may take a moment each, and needs no lock.
        drop(dead);
        self.freed.notify_all();
    }

    fn slot(&self, slots: &mut Slots) -> Slot<'_> {
        slots.next_id += 1;
        slots.in_use.insert(slots.next_id, Instant::now());
        Slot {
            pool: self,
            id: slots.next_id,
            left: None,
        }
    }

    /// Nothing is left half-done in the slots by a panic elsewhere.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no new connection.
enum SlotError {
    /// The database has none left for us, but others of ours are open.
    Crowded,
    Store(StoreError),
}

impl From<StoreError> for SlotError {
    fn from(error: StoreError) -> SlotError {
        SlotError::Store(error)
    }
}

impl Slots {
    /// Idle connections and those in use.
    fn open(&self) -> usize {
        self.idle.len() + self.in_use.len()
    }

    /// Takes the place of one that hangs, if there is one and not too many were abandoned.
    fn abandon_one(&mut self, most: usize, hung: Duration) -> bool {
        let mut in_use = self.in_use.iter();
        let hangs = in_use.find(|(_, since)| since.elapsed() >= hung);
        match hangs.map(|(id, _)| *id) {
            Some(id) if self.abandoned < most => {
                self.abandoned += 1;
                self.in_use.remove(&id).is_some()
            }
            _ => false,
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut slots = self.pool.slots();
        slots.moved = Instant::now();
        if slots.in_use.remove(&self.id).is_none() {
            slots.abandoned -= 1;
        }
        // One that was abandoned comes back to a pool that may be full.
        if slots.open() < self.pool.size {
            slots.idle.extend(self.left.take());
        }
        // A wake-up is a system call even where nobody sleeps.
        if slots.waiting > 0 {
            self.pool.freed.notify_one();
        }
    }
}

impl Pooled<'_> {
    /// Puts a connection that is still good back into the pool; dropped otherwise, it is closed.
    fn give_back(self) {
        let Pooled {
            connection,
            mut slot,
            ..
        } = self;
        slot.left = Some(connection).filter(|connection| !connection.client.is_closed());
    }
}

impl Connection {
    fn query(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Row>, postgres::Error> {
        const TYPES: [Type; PARAMETERS_MAX] = [const { Type::TEXT }; PARAMETERS_MAX];
        let types = TYPES.get(..params.len()).unwrap_or(&TYPES);
        let Some(statements) = &mut self.statements else {
            let typed = params
                .iter()
                .map(|param| (param as &(dyn ToSql + Sync), Type::TEXT));
            return self.client.query_typed(sql, &typed.collect::<Vec<_>>());
        };
        let statement = match statements.get(sql) {
            Some(prepared) => prepared.clone(),
            None => {
                let prepared = self.client.prepare_typed(sql, types)?;
                statements.insert(sql.to_owned(), prepared.clone());
                prepared
            }
        };
        let params = params.iter().map(|param| param as &(dyn ToSql + Sync));
        self.client.query(&statement, &params.collect::<Vec<_>>())
    }

    /// Is the connection of no use any more? So it is when the server says that it ends it, which comes before it is closed;
    /// on a standby that lost its primary's place, since a new connection may find the new primary; and when the table was
    /// altered under a prepared statement.
    fn is_broken(&self, error: &postgres::Error) -> bool {
        let Some(said) = error.as_db_error() else {
            return true;
        };
        let fatal = matches!(
            said.parsed_severity(),
            Some(Severity::Fatal | Severity::Panic)
        );
        let read_only = *said.code() == SqlState::READ_ONLY_SQL_TRANSACTION;
        fatal || read_only || is_stale(error) || self.client.is_closed()
    }
}

/// Was the table altered under a prepared statement ("cached plan must not change result type")?
fn is_stale(error: &postgres::Error) -> bool {
    let stale = [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
    ];
    error.code().is_some_and(|code| stale.contains(code))
}

/// Retryable, unless: bad password, missing database, missing privilege, wrong schema.
pub(crate) fn classify(error: &postgres::Error) -> StoreError {
    let text = with_causes(error);
    let Some(code) = error.code() else {
        return StoreError::Unavailable(text);
    };
    let permanent = *code == SqlState::INVALID_PASSWORD
        || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        || *code == SqlState::INVALID_CATALOG_NAME
        || *code == SqlState::INVALID_SCHEMA_NAME
        || code.code().starts_with("42");
    if permanent {
        StoreError::Unusable(text)
    } else {
        StoreError::Unavailable(text)
    }
}

/// "error connecting to server" alone helps nobody.
fn with_causes(error: &postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
