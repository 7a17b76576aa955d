//! The store for any number of instances: one table in PostgreSQL. Its schema is `sql/`; connections are pool.rs.
//!
//! A change takes two statements: read the row, then write it if it is unchanged (compare-and-set on `xmin`). So no transaction
//! stays open, and no lock is held, between statements.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::{Client, Row};
use serde_json::{Value, json};

use crate::server::codes::{BrowserKeyHash, DeviceCodeHash, StateHash, UserCode};
use crate::server::keys::Keys;
use crate::server::login::{
    EXPIRED_FOR, LIFETIME, Lease, LeaseId, Login, Polled, SealedClient, SealedGrant, Starter,
    Status, UnixMs, polled,
};
use crate::server::seal::SealedToken;
use crate::server::store::connect::Connector;
use crate::server::store::database_url::DatabaseUrl;
use crate::server::store::migrations::{self, migrate};
use crate::server::store::pool::Pool;
use crate::server::store::{
    Inserted, Key, NewLogin, PoolCounts, Purged, Store, StoreError, Transition,
};
use crate::server::times::Times;

/// The table's name in the statements below.
const TABLE: &str = "device_requests";

/// When a row's lease ends. For exchanges it follows from `claimed_at`, the only column that instances of version 0.1
/// leases know. A test compares the 30 seconds with `login::EXCHANGE_LEASE`.
macro_rules! lease_until {
    () => {
        "CASE status WHEN 'exchanging' THEN claimed_at + interval '30 seconds' ELSE lease_until END"
    };
}

/// `SELECT` of a whole row, with the columns in the order that `record` reads. If an instance of version 0.1 leases
/// claimed the exchange, its lease has no holder.
macro_rules! select_where {
    ($condition:literal) => {
        concat!(
            "SELECT device_code, user_code, status,
                 CASE WHEN status <> 'exchanging' OR lease_until = claimed_at + interval '30 seconds' THEN lease END,
                 (extract(epoch FROM ", lease_until!(), ") * 1000)::bigint,
                 state, browser, access_token, api_url, organization_id, scope, refused_codes, exchanged_codes,
                 client_address, client_network, client_agent,
                 (extract(epoch FROM created_at) * 1000)::bigint, (extract(epoch FROM expires_at) * 1000)::bigint,
                 xmin::text, (extract(epoch FROM now()) * 1000)::bigint,
                 client_machine, registered_client, registered_verifier, redirect_uri
             FROM device_requests WHERE ",
            $condition
        )
    };
}

/// The store in PostgreSQL.
pub struct Postgres {
    pool: Pool,
    /// The table's name with the URL's `schema`, if that is set: a pooler's sessions may have another `search_path`.
    qualified_table: Option<String>,
}

impl Postgres {
    /// Makes a store with up to `pool_size` connections, without connecting yet: the database may be down for a while. The
    /// first connection migrates the schema. `keys` encrypt the tokens that the original Node.js auth server stored in clear.
    pub fn new(
        url: &DatabaseUrl,
        pool_size: usize,
        keys: Arc<Keys>,
        times: &Times,
    ) -> Result<Postgres, String> {
        let connector = Connector::new(url)?;
        let schema = quoted_schema(url);
        let qualified_table = schema.as_ref().map(|schema| format!("{schema}.{TABLE}"));
        let is_migrated = AtomicBool::new(false);
        let prepare = move |client: &mut Client| {
            // Connections that are opened at the same time wait for each other under the migration's lock.
            if !is_migrated.load(Ordering::Acquire) {
                migrate(client, &keys, schema.as_deref()).map_err(|failed| failed.error)?;
                is_migrated.store(true, Ordering::Release);
            }
            Ok(())
        };
        Ok(Postgres {
            pool: Pool::new(
                connector,
                pool_size,
                times,
                url.pooler == Some(true),
                prepare,
            ),
            qualified_table,
        })
    }

    fn query(&self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Row>, StoreError> {
        let sql = match &self.qualified_table {
            None => Cow::Borrowed(sql),
            Some(qualified) => Cow::Owned(sql.replace(TABLE, qualified)),
        };
        self.pool.query(&sql, params)
    }

    /// Reads a login with its row's version (`xmin`) and the database's time.
    fn row(&self, key: Key) -> Result<Option<(Login, String, UnixMs)>, StoreError> {
        let (sql, param) = match key {
            Key::Device(key) => (select_where!("device_code = $1"), key.as_str()),
            Key::User(user_code) => (
                select_where!("user_code = $1 AND status IN ('pending', 'exchanging')"),
                user_code.as_str(),
            ),
            Key::State(state) => (select_where!("state = $1"), state.as_str()),
        };
        let rows = self.query(sql, &[Some(param)])?;
        rows.first().map(record).transpose()
    }

    /// Writes a login's row, unless it has another version by now or is locked. Returns whether it was written.
    fn write(&self, login: &Login, version: &str) -> Result<bool, StoreError> {
        let lease = login.lease.as_ref();
        let lease_until = lease.map(|lease| lease.until.to_string());
        let expires_at = login.expires_at.to_string();
        let (grant, client) = (login.grant.as_ref(), login.client.as_ref());
        let written = self.query(
            "UPDATE device_requests SET status = $3, lease = $4,
                 lease_until = timestamptz 'epoch' + $5::bigint * interval '1 millisecond',
                 claimed_at = CASE $3 WHEN 'exchanging' THEN
                     timestamptz 'epoch' + $5::bigint * interval '1 millisecond' - interval '30 seconds' END,
                 state = $6, browser = $7, access_token = $8, api_url = $9, organization_id = $10, scope = $11,
                 refused_codes = $12, exchanged_codes = $13,
                 expires_at = timestamptz 'epoch' + $14::bigint * interval '1 millisecond',
                 registered_client = $15, registered_verifier = $16, redirect_uri = $17
             WHERE device_code = (
                 SELECT device_code FROM device_requests WHERE device_code = $1 AND xmin::text = $2
                 FOR UPDATE SKIP LOCKED)
             RETURNING 1",
            &[
                Some(login.key.as_str()),
                Some(version),
                Some(login.status.name()),
                lease.map(|lease| lease.holder.as_str()),
                lease_until.as_deref(),
                login.state.as_ref().map(StateHash::as_str),
                login.browser.as_ref().map(BrowserKeyHash::as_str),
                grant.map(|grant| grant.token.as_str()),
                grant.map(|grant| grant.api_url.as_str()),
                grant.and_then(|grant| grant.organization_id.as_deref()),
                grant.and_then(|grant| grant.scope.as_deref()),
                Some(&login.refused_codes),
                Some(&login.exchanged_codes),
                Some(&expires_at),
                client.map(|client| client.id.as_str()),
                client.map(|client| client.verifier.as_str()),
                client.map(|client| client.redirect_uri.as_str()),
            ],
        )?;
        Ok(!written.is_empty())
    }

    /// Runs a `DELETE`, and returns the number of deleted rows.
    fn delete(&self, sql: &'static str, limit: u32) -> Result<u64, StoreError> {
        Ok(self.query(sql, &[Some(&limit.to_string())])?.len() as u64)
    }
}

/// Says what a start would find in the database and do, line by line. Changes nothing.
pub fn inspect(url: &DatabaseUrl) -> Result<Vec<String>, StoreError> {
    let connector = Connector::new(url).map_err(StoreError::Unusable)?;
    let mut client = connector.connect(None).map_err(|failed| failed.error)?;
    let found = migrations::inspect(&mut client, quoted_schema(url).as_deref());
    let found = found.map_err(|failed| connector.with_location(failed.error))?;
    let answers = format!("PostgreSQL answers: {}", connector.location());
    let weak = connector.weakness().map(|text| format!("WARNING: {text}"));
    Ok([answers].into_iter().chain(found).chain(weak).collect())
}

fn quoted_schema(url: &DatabaseUrl) -> Option<String> {
    let schema = url.schema.as_ref();
    schema.map(|name| format!("\"{}\"", name.replace('"', "\"\"")))
}

/// The pauses between retries while another transaction locks the row: 0.3 s in all.
const LOCK_RETRY_PAUSES_MS: [u64; 5] = [10, 20, 40, 80, 150];

impl Store for Postgres {
    fn insert(&self, new: &[NewLogin]) -> Result<Vec<Inserted>, StoreError> {
        let record = |new: &NewLogin| {
            json!({
                "device_code": new.key.as_str(),
                "user_code": new.user_code.as_str(),
                "address": new.starter.address,
                "network": new.starter.network,
                "agent": new.starter.agent,
                "machine": new.starter.machine,
                "lifetime": LIFETIME.as_secs(),
            })
        };
        let records: Value = new.iter().map(record).collect();
        let rows = self.query(
            "INSERT INTO device_requests
                 (device_code, user_code, client_address, client_network, client_agent, client_machine, expires_at)
             SELECT device_code, user_code, address, network, agent, machine, now() + lifetime * interval '1 second'
             FROM json_to_recordset($1::json) AS new (device_code text, user_code text, address text, network text,
                 agent text, machine text, lifetime integer)
             ON CONFLICT DO NOTHING RETURNING device_code",
            &[Some(&records.to_string())],
        )?;
        let added: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let result = |new: &NewLogin| match added.contains(&new.key.as_str()) {
            true => Inserted::Yes,
            false => Inserted::UserCodeTaken,
        };
        Ok(new.iter().map(result).collect())
    }

    fn poll(&self, logins: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError> {
        let logins: Vec<&str> = logins.iter().map(DeviceCodeHash::as_str).collect();
        // One row for each login, in order. The text is split by PostgreSQL, since array parameters make the program 30 kB larger.
        let rows = self.query(
            concat!(
                "SELECT status, coalesce(",
                lease_until!(),
                " <= now(), true), expires_at <= now()
                 FROM unnest(string_to_array($1, ' ')) WITH ORDINALITY AS asked (device_code, position)
                 LEFT JOIN device_requests USING (device_code) ORDER BY position"
            ),
            &[Some(&logins.join(" "))],
        )?;
        let polled_row = |row: &Row| match row.get::<_, Option<&str>>(0) {
            None => Ok(Polled::Unknown),
            Some(name) => Ok(polled(status(name)?.settled(row.get(1)), row.get(2))),
        };
        rows.iter().map(polled_row).collect()
    }

    fn read(&self, key: Key) -> Result<Option<(Login, UnixMs)>, StoreError> {
        let row = self.row(key)?;
        Ok(row.map(|(login, _, now)| (login, now)))
    }

    fn change(&self, key: Key, transition: &mut Transition) -> Result<bool, StoreError> {
        let mut last_version = String::new();
        let mut pauses_ms = LOCK_RETRY_PAUSES_MS.into_iter();
        loop {
            let Some((before, version, now)) = self.row(key)? else {
                return Ok(false);
            };
            let mut login = before.clone();
            transition(&mut login, now);
            if login == before || self.write(&login, &version)? {
                return Ok(true);
            }
            // The row was changed (then its version differs: retry at once), or another transaction locks it.
            if version == last_version {
                let pause_ms = pauses_ms.next().ok_or(StoreError::Locked)?;
                thread::sleep(Duration::from_millis(pause_ms));
            }
            last_version = version;
        }
    }

    fn make_room(&self, limit: u32) -> Result<u64, StoreError> {
        let finished = self.delete(
            "DELETE FROM device_requests WHERE device_code IN (
                 SELECT device_code FROM device_requests
                 WHERE status = 'redeemed' OR expires_at <= now() AND status NOT IN ('exchanging', 'delivering')
                 LIMIT $1::bigint FOR UPDATE SKIP LOCKED) RETURNING 1",
            limit,
        )?;
        if finished > 0 {
            return Ok(finished);
        }
        // Ranks each network's logins: confirmed before unconfirmed, then newest first. The highest ranks are deleted, so that
        // the networks that hold the most lose the most.
        self.delete(
            "DELETE FROM device_requests WHERE device_code IN (
                 SELECT device_code FROM device_requests WHERE device_code IN (
                     SELECT device_code FROM (
                         SELECT device_code, created_at, confirmed, row_number() OVER (
                             PARTITION BY client_network ORDER BY confirmed DESC, created_at DESC) AS rank
                         FROM (SELECT *, status = 'pending' AND browser IS NOT NULL AS confirmed
                               FROM device_requests WHERE status IN ('pending', 'denied')) AS removable) AS ranked
                     ORDER BY rank DESC, confirmed, created_at LIMIT $1::bigint)
                 AND status IN ('pending', 'denied') FOR UPDATE SKIP LOCKED) RETURNING 1",
            limit,
        )
    }

    fn purge(&self, limit: u32) -> Result<Vec<Purged>, StoreError> {
        let rows = self.query(
            "DELETE FROM device_requests WHERE device_code IN (
                 SELECT device_code FROM device_requests WHERE expires_at < now() - $1::float8 * interval '1 second'
                 LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
             RETURNING device_code, status NOT IN ('redeemed', 'denied')",
            &[
                Some(&EXPIRED_FOR.as_secs().to_string()),
                Some(&limit.to_string()),
            ],
        )?;
        let purged = |row: &Row| Purged {
            key: DeviceCodeHash::from_store(row.get(0)),
            expired: row.get(1),
        };
        Ok(rows.iter().map(purged).collect())
    }

    fn count(&self) -> Result<u64, StoreError> {
        let rows = self.query("SELECT count(*) FROM device_requests", &[])?;
        Ok(rows
            .first()
            .map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
    }

    fn ping(&self) -> Result<(), StoreError> {
        // Fails without the table or the right to read it, on a standby, and on a database that its host made read-only
        // because the disk is full.
        let rows = self.query(
            "SELECT current_setting('transaction_read_only') = 'on', EXISTS (SELECT 1 FROM device_requests)",
            &[],
        )?;
        if rows.first().is_some_and(|row| row.get(0)) {
            // Open sessions would keep a read-only default of the role or the database after it is changed.
            self.pool.drop_idle();
            return Err(StoreError::Unavailable(
                "the database is read-only".to_owned(),
            ));
        }
        Ok(())
    }

    fn pool(&self) -> Option<PoolCounts> {
        Some(self.pool.counts())
    }
}

/// Reads a row of `select_where`: the login, its row's version, and the database's time.
fn record(row: &Row) -> Result<(Login, String, UnixMs), StoreError> {
    let ms = |column| row.get::<_, i64>(column).unsigned_abs();
    let text = |column| row.get::<_, Option<String>>(column);
    let lease_until: Option<i64> = row.get(4);
    let lease = lease_until.map(|until| Lease {
        holder: LeaseId::from_store(text(3).unwrap_or_default()),
        until: until.unsigned_abs(),
    });
    let grant = text(7).map(|token| SealedGrant {
        token: SealedToken::from_store(token),
        api_url: text(8).unwrap_or_default(),
        organization_id: text(9),
        scope: text(10),
    });
    let client = text(21).map(|id| SealedClient {
        id,
        verifier: SealedToken::from_store(text(22).unwrap_or_default()),
        redirect_uri: text(23).unwrap_or_default(),
    });
    let login = Login {
        key: DeviceCodeHash::from_store(row.get(0)),
        user_code: UserCode::from_store(row.get(1)),
        status: status(row.get(2))?,
        lease,
        state: text(5).map(StateHash::from_store),
        browser: text(6).map(BrowserKeyHash::from_store),
        client,
        grant,
        refused_codes: row.get(11),
        exchanged_codes: row.get(12),
        starter: Starter {
            address: row.get(13),
            network: row.get(14),
            agent: row.get(15),
            machine: row.get(20),
        },
        created_at: ms(16),
        expires_at: ms(17),
    };
    Ok((login, row.get(18), ms(19)))
}

fn status(name: &str) -> Result<Status, StoreError> {
    Status::from_name(name)
        .ok_or_else(|| StoreError::Unusable(format!("a login has the status {name:?}")))
}

#[cfg(test)]
mod tests {
    use crate::server::login::EXCHANGE_LEASE;

    #[test]
    fn exchange_lease_in_sql_is_that_of_the_state_machine() {
        let text = format!("interval '{} seconds'", EXCHANGE_LEASE.as_secs());
        assert!(lease_until!().contains(&text));
    }
}
