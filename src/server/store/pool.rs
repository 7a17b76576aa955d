//! A small pool of PostgreSQL connections. A connection is checked out for one statement, and replaced when it is broken.
//!
//! Between this server and the database there may be a pooler (PgBouncer in transaction mode) that gives each transaction
//! another session. So each new connection is first tested for being direct. A direct connection uses named statements and
//! session timeouts. Through a pooler, statements are unnamed, and no session state outlives a transaction.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use postgres::error::{Severity, SqlState};
use postgres::types::{ToSql, Type};
use postgres::{Client, Row, Statement};

use crate::server::store::connect::Connector;
use crate::server::store::postgres_error::{PostgresError, classify};
use crate::server::store::{PoolCounts, StoreError};
use crate::server::times::Times;
use crate::shared::hash::hex;
use crate::shared::random;

/// The database's timeouts for a statement, for a lock, and for a transaction that waits for this server. Set on direct
/// connections.
const SESSION: &str = "SET statement_timeout = '2s'; SET lock_timeout = '2s'; \
     SET idle_in_transaction_session_timeout = '15s'";

/// A session parameter of our own. It is set when a connection starts; if it can be read back, the connection is direct.
const DIRECT: &str = "postiz.direct";

/// Maximum number of retries, on new connections, of a statement whose table is altered between preparing and running it.
const STALE_RETRIES_MAX: usize = 3;

/// Maximum number of parameters of a statement.
const PARAMETERS_MAX: usize = 24;

/// A pool of up to `size` connections, opened on demand.
pub(crate) struct Pool {
    connector: Connector,
    size: usize,
    times: Times,
    /// Whether there is a pooler in between: the URL says so, or the pooler refused the test for a direct connection.
    has_pooler: AtomicBool,
    /// Runs once on each new connection before its first use.
    prepare: Prepare,
    slots: Mutex<Slots>,
    slot_freed: Condvar,
}

type Prepare = Box<dyn Fn(&mut Client) -> Result<(), StoreError> + Send + Sync>;

struct Slots {
    idle: Vec<Connection>,
    /// The slots of connections that are checked out or being opened: since when, by the slot's id.
    in_use: HashMap<u64, Instant>,
    last_id: u64,
    /// How many hanging connections have given up their slot to another. At most the pool's size, since each holds a thread.
    abandoned: usize,
    /// Requests that wait for a connection.
    waiting: usize,
    /// When a connection was last checked out or returned. If that is longer ago than the checkout timeout, the database does
    /// not answer, and requests do not wait.
    last_activity: Instant,
    /// No further connection is opened until then, since the server has no more to give.
    server_full_until: Instant,
}

struct Connection {
    client: Client,
    /// The statements prepared so far, by their SQL. `None`: the connection is not direct, and prepares none.
    statements: Option<HashMap<String, Statement>>,
}

/// One of the pool's `size` slots, in use. Dropping it frees the slot, and puts `returned` into the pool.
struct Slot<'a> {
    pool: &'a Pool,
    id: u64,
    returned: Option<Connection>,
}

pub(crate) struct Pooled<'a> {
    connection: Connection,
    /// Whether it was idle in the pool before, rather than new.
    is_reused: bool,
    slot: Slot<'a>,
}

impl Pool {
    pub(crate) fn new(
        connector: Connector,
        size: usize,
        times: &Times,
        has_pooler: bool,
        prepare: impl Fn(&mut Client) -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Pool {
        let now = Instant::now();
        Pool {
            connector,
            size,
            times: *times,
            has_pooler: AtomicBool::new(has_pooler),
            prepare: Box::new(prepare),
            slots: Mutex::new(Slots {
                idle: Vec::new(),
                in_use: HashMap::new(),
                last_id: 0,
                abandoned: 0,
                waiting: 0,
                last_activity: now,
                server_full_until: now,
            }),
            slot_freed: Condvar::new(),
        }
    }

    /// Runs a statement and returns its rows. All parameters are text; the SQL casts them. When a reused connection is broken,
    /// the database was probably restarted: then all idle connections are closed, and the statement is run again, at last on
    /// a new connection. So the statement must be one that may run more than once.
    pub(crate) fn query(&self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Row>, StoreError> {
        let mut stale_retries = 0..STALE_RETRIES_MAX;
        loop {
            let mut pooled = self.checkout()?;
            match pooled.connection.query(sql, params) {
                Ok(rows) => {
                    pooled.give_back();
                    return Ok(rows);
                }
                Err(error) if !pooled.connection.is_broken(&error) => {
                    pooled.give_back();
                    return Err(self.connector.with_location(classify(&error)));
                }
                Err(error)
                    if pooled.is_reused || (is_stale(&error) && stale_retries.next().is_some()) =>
                {
                    drop(pooled);
                    self.drop_idle();
                }
                Err(error) => return Err(self.connector.with_location(classify(&error))),
            }
        }
    }

    pub(crate) fn counts(&self) -> PoolCounts {
        let slots = self.slots.lock();
        PoolCounts {
            max: self.size,
            in_use: slots.in_use.len(),
            idle: slots.idle.len(),
            waiting: slots.waiting,
        }
    }

    /// Takes an idle connection or opens one. Waits while all are in use, as long as the pool shows activity.
    fn checkout(&self) -> Result<Pooled<'_>, StoreError> {
        let mut slots = self.slots.lock();
        loop {
            let now = Instant::now();
            if let Some(connection) = slots.idle.pop() {
                slots.last_activity = now;
                return Ok(Pooled {
                    connection,
                    is_reused: true,
                    slot: self.take_slot(&mut slots),
                });
            }
            let is_server_full = slots.open() > 0 && now < slots.server_full_until;
            if !is_server_full
                && (slots.open() < self.size || slots.abandon_hung(self.size, self.times.hung))
            {
                slots.last_activity = now;
                let slot = self.take_slot(&mut slots);
                drop(slots);
                match self.connect(slot)? {
                    Some(pooled) => return Ok(pooled),
                    None => slots = self.slots.lock(),
                }
                continue;
            }
            let left = (self.times.checkout).saturating_sub(slots.last_activity.elapsed());
            if left.is_zero() {
                let busy = format!("all {} connections to PostgreSQL are busy", slots.open());
                return Err(StoreError::Unavailable(busy));
            }
            slots.waiting += 1;
            self.slot_freed.wait_for(&mut slots, left);
            slots.waiting -= 1;
        }
    }

    /// Opens a connection for a slot. The slot is freed if this fails, even by a panic of the client library, which panics when
    /// there are no file descriptors left. `None`: the database has reached its limit of connections, and this pool has others
    /// open to wait for.
    fn connect<'a>(&'a self, slot: Slot<'a>) -> Result<Option<Pooled<'a>>, StoreError> {
        let (mut client, is_direct) = match self.connect_client() {
            Ok(connected) => connected,
            Err(failed) => {
                drop(slot);
                let mut slots = self.slots.lock();
                if failed.code == Some(SqlState::TOO_MANY_CONNECTIONS) && slots.open() > 0 {
                    slots.server_full_until = Instant::now() + self.times.crowded_pause;
                    return Ok(None);
                }
                return Err(failed.error);
            }
        };
        (self.prepare)(&mut client).map_err(|error| self.connector.with_location(error))?;
        if is_direct {
            client
                .batch_execute(SESSION)
                .map_err(|error| classify(&error))?;
        }
        Ok(Some(Pooled {
            connection: Connection {
                client,
                statements: is_direct.then(HashMap::new),
            },
            is_reused: false,
            slot,
        }))
    }

    /// Connects, and returns whether the connection is direct: a parameter set at its start can be read back.
    fn connect_client(&self) -> Result<(Client, bool), PostgresError> {
        if self.has_pooler.load(Ordering::Relaxed) {
            return Ok((self.connector.connect(None)?, false));
        }
        let proof = hex(&random::bytes::<8>());
        let options = format!("-c {DIRECT}={proof}");
        match self.connector.connect(Some(&options)) {
            Ok(mut client) => {
                let read_back = format!("SELECT current_setting('{DIRECT}', true)");
                let rows = client.query_typed(&read_back, &[])?;
                let found: Option<&str> = rows.first().and_then(|row| row.get(0));
                let is_direct = found == Some(&proof);
                Ok((client, is_direct))
            }
            // A pooler that does not know the parameter refuses it (PgBouncer with the first code, RDS Proxy with the second).
            Err(failed)
                if matches!(&failed.code, Some(code) if *code == SqlState::PROTOCOL_VIOLATION
                    || *code == SqlState::FEATURE_NOT_SUPPORTED) =>
            {
                let client = self.connector.connect(None)?;
                self.has_pooler.store(true, Ordering::Relaxed);
                Ok((client, false))
            }
            Err(failed) => Err(failed),
        }
    }

    /// Closes the idle connections, because new ones may reach another server, or read other settings.
    pub(crate) fn drop_idle(&self) {
        let idle = std::mem::take(&mut self.slots.lock().idle);
        // Closing takes time, so it happens without the lock.
        drop(idle);
        self.slot_freed.notify_all();
    }

    fn take_slot(&self, slots: &mut Slots) -> Slot<'_> {
        slots.last_id += 1;
        slots.in_use.insert(slots.last_id, Instant::now());
        Slot {
            pool: self,
            id: slots.last_id,
            returned: None,
        }
    }
}

impl Slots {
    /// The number of connections that are idle, checked out or being opened.
    fn open(&self) -> usize {
        self.idle.len() + self.in_use.len()
    }

    /// Frees the slot of a connection that has been in use for `hung`, unless `abandoned_max` slots were freed like this
    /// already. Returns whether it freed one.
    fn abandon_hung(&mut self, abandoned_max: usize, hung: Duration) -> bool {
        let mut in_use = self.in_use.iter();
        let found = in_use.find(|(_, since)| since.elapsed() >= hung);
        match found.map(|(id, _)| *id) {
            Some(id) if self.abandoned < abandoned_max => {
                self.abandoned += 1;
                self.in_use.remove(&id).is_some()
            }
            _ => false,
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut slots = self.pool.slots.lock();
        slots.last_activity = Instant::now();
        if slots.in_use.remove(&self.id).is_none() {
            slots.abandoned -= 1;
        }
        // When an abandoned connection is returned, the pool may be full.
        if slots.open() < self.pool.size {
            slots.idle.extend(self.returned.take());
        }
        // `notify_one` is a system call even if nothing waits.
        if slots.waiting > 0 {
            self.pool.slot_freed.notify_one();
        }
    }
}

impl Pooled<'_> {
    /// Returns the connection to the pool, unless it is closed. A `Pooled` that is dropped instead closes its connection.
    fn give_back(mut self) {
        let is_open = |connection: &Connection| !connection.client.is_closed();
        self.slot.returned = Some(self.connection).filter(is_open);
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

    /// Whether a new connection is needed after `error`:
    ///
    /// - the connection failed, or the server announces that it will close it;
    /// - the server has become a standby, and a new connection may reach the new primary;
    /// - the table was altered under a prepared statement.
    fn is_broken(&self, error: &postgres::Error) -> bool {
        let Some(db_error) = error.as_db_error() else {
            return true;
        };
        let is_fatal = matches!(
            db_error.parsed_severity(),
            Some(Severity::Fatal | Severity::Panic)
        );
        let is_read_only = *db_error.code() == SqlState::READ_ONLY_SQL_TRANSACTION;
        is_fatal || is_read_only || is_stale(error) || self.client.is_closed()
    }
}

/// Whether the table was altered under a prepared statement ("cached plan must not change result type").
fn is_stale(error: &postgres::Error) -> bool {
    let stale = [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
    ];
    error.code().is_some_and(|code| stale.contains(code))
}
