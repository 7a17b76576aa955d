//! A small pool of PostgreSQL connections, checked out per statement and replaced when broken.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::error::{Severity, SqlState};
use postgres::types::ToSql;
use postgres::{Client, Row, Statement};

use crate::server::store::StoreError;
use crate::server::store::connect::Connector;

/// How long a request waits for a connection when none is taken or given back meanwhile: less than the 2 s in which
/// `/ready` must answer in any case, so that the log names the cause.
const CHECKOUT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// What the server lets a statement take, and a transaction wait for us; both are set on every connection.
const SESSION: &str = "SET statement_timeout = '2s'; SET lock_timeout = '2s'; \
     SET idle_in_transaction_session_timeout = '15s'";

/// Up to `size` connections, made when they are needed.
pub(crate) struct Pool {
    connector: Connector,
    size: usize,
    /// What each new connection goes through once before it is used.
    prepare: Prepare,
    slots: Mutex<Slots>,
    freed: Condvar,
}

type Prepare = Box<dyn Fn(&mut Client) -> Result<(), StoreError> + Send + Sync>;

struct Slots {
    idle: Vec<Connection>,
    /// Idle ones and those in use.
    open: usize,
    /// Requests that wait for one.
    waiting: usize,
    /// When one was taken or came back last: while a silent database holds them all, nobody need wait for one.
    moved: Instant,
}

/// A connection with the statements that it has prepared so far.
struct Connection {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

/// A connection in use; back in the pool when dropped, unless it is broken.
pub(crate) struct Pooled {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    reused: bool,
    spoiled: bool,
}

impl Pool {
    pub(crate) fn new(
        connector: Connector,
        size: usize,
        prepare: impl Fn(&mut Client) -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Arc<Pool> {
        let slots = Slots {
            idle: Vec::new(),
            open: 0,
            waiting: 0,
            moved: Instant::now(),
        };
        let (slots, freed) = (Mutex::new(slots), Condvar::new());
        Arc::new(Pool {
            connector,
            size,
            prepare: Box::new(prepare),
            slots,
            freed,
        })
    }

    /// Runs `act` on a connection. When a connection from before turns out to be dead, the database was probably
    /// restarted: all others from before are dropped, and `act` is tried again, until a new one has its word. So `act` must
    /// be one that may be done more than once.
    pub(crate) fn with<T>(
        self: &Arc<Pool>,
        act: impl Fn(&mut Pooled) -> Result<T, postgres::Error>,
    ) -> Result<T, StoreError> {
        self.kept_with(act).map(|(_, value)| value)
    }

    /// The same, and the connection is the caller's own for as long as it is kept.
    pub(crate) fn kept_with<T>(
        self: &Arc<Pool>,
        act: impl Fn(&mut Pooled) -> Result<T, postgres::Error>,
    ) -> Result<(Pooled, T), StoreError> {
        loop {
            let mut pooled = self.checkout()?;
            match act(&mut pooled) {
                Ok(value) => return Ok((pooled, value)),
                Err(error) if pooled.is_broken(&error) && pooled.reused => {
                    drop(pooled);
                    self.drop_idle();
                }
                Err(error) => return Err(pooled.failed(&error)),
            }
        }
    }

    fn checkout(self: &Arc<Pool>) -> Result<Pooled, StoreError> {
        let mut slots = self.slots();
        loop {
            if let Some(connection) = slots.idle.pop() {
                slots.moved = Instant::now();
                return Ok(self.pooled(connection, true));
            }
            if slots.open < self.size {
                slots.open += 1;
                slots.moved = Instant::now();
                drop(slots);
                return self.connect();
            }
            let left = CHECKOUT_TIMEOUT.saturating_sub(slots.moved.elapsed());
            if left.is_zero() {
                let busy = format!("all {} connections to PostgreSQL are busy", self.size);
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

    /// Fills the slot that the caller has counted as open.
    fn connect(self: &Arc<Pool>) -> Result<Pooled, StoreError> {
        let connected = self
            .connector
            .connect(None)
            .map_err(|failed| failed.error)
            .and_then(|mut client| {
                (self.prepare)(&mut client)?;
                client
                    .batch_execute(SESSION)
                    .map_err(|error| classify(&error))?;
                Ok(client)
            });
        match connected {
            Ok(client) => Ok(self.pooled(
                Connection {
                    client,
                    statements: HashMap::new(),
                },
                false,
            )),
            Err(error) => {
                self.give_up_slot();
                Err(error)
            }
        }
    }

    fn pooled(self: &Arc<Pool>, connection: Connection, reused: bool) -> Pooled {
        Pooled {
            pool: Arc::clone(self),
            connection: Some(connection),
            reused,
            spoiled: false,
        }
    }

    fn drop_idle(&self) {
        let mut slots = self.slots();
        slots.open -= slots.idle.len();
        let dead = std::mem::take(&mut slots.idle);
        drop(slots);
        // Closing may take a moment each, and needs no lock.
        drop(dead);
        self.freed.notify_all();
    }

    fn give_up_slot(&self) {
        self.slots().open -= 1;
        self.freed.notify_one();
    }

    /// Nothing is left half-done in the slots by a panic elsewhere.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pooled {
    /// Runs `sql`, prepared once per connection, and gives back its rows.
    pub(crate) fn query(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        let Connection { client, statements } = self.connection();
        let statement = match statements.entry(sql) {
            Entry::Occupied(prepared) => prepared.into_mut(),
            Entry::Vacant(place) => place.insert(client.prepare(sql)?),
        };
        client.query(&*statement, params)
    }

    /// The client, for what is not worth preparing.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.connection().client
    }

    /// Never to be used again: closed, rather than put back, when dropped.
    pub(crate) fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// What the layer above hears of `error`; the connection goes when it is to blame.
    pub(crate) fn failed(&mut self, error: &postgres::Error) -> StoreError {
        self.is_broken(error);
        classify(error)
    }

    /// Is the connection of no use any more? So it is when the server says that it ends it, which is heard before it is
    /// closed; and on a standby that lost its primary's place, since a new connection may find the new primary.
    fn is_broken(&mut self, error: &postgres::Error) -> bool {
        self.spoiled |= match error.as_db_error() {
            None => true,
            Some(said) => {
                matches!(
                    said.parsed_severity(),
                    Some(Severity::Fatal | Severity::Panic)
                ) || *said.code() == SqlState::READ_ONLY_SQL_TRANSACTION
                    || self.client().is_closed()
            }
        };
        self.spoiled
    }

    fn connection(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("only drop takes the connection out")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if self.spoiled || connection.client.is_closed() {
            drop(connection);
            self.pool.give_up_slot();
        } else {
            let mut slots = self.pool.slots();
            slots.moved = Instant::now();
            slots.idle.push(connection);
            // A wake-up is a system call even where nobody sleeps.
            if slots.waiting > 0 {
                self.pool.freed.notify_one();
            }
        }
    }
}

/// Can waiting mend it? A wrong password, a missing database or right, or a table of another shape, it cannot.
pub(crate) fn classify(error: &postgres::Error) -> StoreError {
    let text = with_causes(error);
    let Some(code) = error.code() else {
        return StoreError::Unavailable(text);
    };
    let hopeless = *code == SqlState::INVALID_PASSWORD
        || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        || *code == SqlState::INVALID_CATALOG_NAME
        || code.code().starts_with("42");
    if hopeless {
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
