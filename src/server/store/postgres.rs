//! The store of any number of instances: one table in PostgreSQL. Connections are pool.rs, its schema is `sql/`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postgres::types::ToSql;
use postgres::{Client, Row};

use serde_json::{Value, json};

use crate::server::codes::{BrowserKeyHash, DeviceCodeHash, StateHash, UserCode};
use crate::server::seal::{Seal, SealedToken};
use crate::server::store::connect::Connector;
pub use crate::server::store::database_url::DatabaseUrl;
use crate::server::store::pool::{Pool, Pooled, classify};
use crate::server::store::{
    Claim, Denier, EXPIRED_FOR, Inserted, NewRequest, PendingRequest, Polled, REDEEMABLE_FOR,
    Redemption, SealedGrant, Store, StoreError,
};
use crate::shared::secret::Secret;

/// The steps that bring the schema up, in order; the database keeps how many of them it has seen.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../../sql/0001_reference.sql"),
    include_str!("../../../sql/0002_hashed_and_bound.sql"),
];

/// Instances that start together take turns under this advisory lock: any number nobody else uses.
const MIGRATION_LOCK: i64 = 0x706f_7374_697a;

/// Is the exchange of this row claimed, by somebody who may still be alive? ([`CLAIM_LASTS`], which a test compares.)
macro_rules! claimed {
    () => {
        "(status = 'exchanging' AND claimed_at >= now() - interval '30 seconds')"
    };
}

/// Does this row wait for its user? A claim that its owner did not live to end is as good as none.
macro_rules! live {
    () => {
        concat!(
            "status IN ('pending', 'exchanging') AND NOT ",
            claimed!(),
            " AND expires_at > now()"
        )
    };
}

/// The store in PostgreSQL.
pub struct Postgres {
    pool: Arc<Pool>,
}

impl Postgres {
    /// A store on up to `pool_size` connections. Connects to nothing yet: a database that is not there is a normal event.
    /// The schema is brought up on the first connection. `seal` is for the tokens that the reference server left in clear.
    pub fn new(url: &DatabaseUrl, pool_size: usize, seal: Arc<Seal>) -> Result<Postgres, String> {
        let connector = Connector::new(url)?;
        let is_ready = AtomicBool::new(false);
        let one_at_a_time = Mutex::new(());
        let prepare = move |client: &mut Client| {
            let _turn = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_ready.load(Ordering::Acquire) {
                migrate(client, &seal)?;
                is_ready.store(true, Ordering::Release);
            }
            Ok(())
        };
        Ok(Postgres {
            pool: Pool::new(connector, pool_size, prepare),
        })
    }

    /// Runs a statement, and gives back its rows. (All statements go this way, as each of the client's others would cost the
    /// program some kilobytes.)
    fn query(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.pool.with(|pooled| pooled.query(sql, params))
    }

    /// The same, of a statement that answers with at most one row.
    fn query_opt(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, params)?.pop())
    }
}

impl Store for Postgres {
    fn insert(&self, new: &[NewRequest]) -> Result<Vec<Inserted>, StoreError> {
        let records: Vec<_> = new.iter().map(as_json).collect();
        let rows = self.query(
            "INSERT INTO device_requests (device_code, user_code, client_address, client_agent, expires_at)
             SELECT device_code, user_code, address, agent, now() + lifetime * interval '1 second'
             FROM json_to_recordset($1::text::json)
                 AS new (device_code text, user_code text, address text, agent text, lifetime integer)
             ON CONFLICT DO NOTHING RETURNING device_code",
            &[&Value::from(records).to_string()],
        )?;
        let added: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let became = |new: &NewRequest| match added.contains(&new.login.as_str()) {
            true => Inserted::Yes,
            false => Inserted::UserCodeTaken,
        };
        Ok(new.iter().map(became).collect())
    }

    fn find(&self, user_code: &UserCode) -> Result<Option<PendingRequest>, StoreError> {
        let row = self.query_opt(
            concat!(
                "SELECT device_code, client_address, client_agent, extract(epoch FROM now() - created_at)::float8
                 FROM device_requests WHERE user_code = $1 AND ",
                live!()
            ),
            &[&user_code.as_str()],
        )?;
        Ok(row.map(|row| PendingRequest {
            login: DeviceCodeHash::from_store(row.get(0)),
            client_address: row.get(1),
            client_agent: row.get(2),
            age: Duration::try_from_secs_f64(row.get(3)).unwrap_or_default(),
        }))
    }

    fn bind(
        &self,
        user_code: &UserCode,
        state: &StateHash,
        browser: &BrowserKeyHash,
    ) -> Result<Option<DeviceCodeHash>, StoreError> {
        let row = self.query_opt(
            concat!(
                "UPDATE device_requests SET state = $2, browser = $3, status = 'pending', claimed_at = NULL
                 WHERE user_code = $1 AND ",
                live!(),
                " RETURNING device_code"
            ),
            &[&user_code.as_str(), &state.as_str(), &browser.as_str()],
        )?;
        Ok(row.map(login))
    }

    fn claim(&self, state: &StateHash, browser: &BrowserKeyHash) -> Result<Claim, StoreError> {
        let claimed = self.query_opt(
            concat!(
                "UPDATE device_requests SET status = 'exchanging', claimed_at = now()
                 WHERE state = $1 AND browser = $2 AND ",
                live!(),
                " RETURNING device_code"
            ),
            &[&state.as_str(), &browser.as_str()],
        )?;
        if let Some(row) = claimed {
            return Ok(Claim::Mine(login(row)));
        }
        let row = self.query_opt(
            concat!(
                "SELECT device_code, status, ",
                claimed!(),
                " FROM device_requests WHERE state = $1 AND browser = $2"
            ),
            &[&state.as_str(), &browser.as_str()],
        )?;
        let Some(row) = row else {
            return Ok(Claim::Unknown);
        };
        Ok(match (row.get(1), row.get(2)) {
            ("completed" | "redeemed", _) => Claim::Done,
            ("exchanging", true) => Claim::Taken(login(row)),
            _ => Claim::Unknown,
        })
    }

    fn release(&self, login: &DeviceCodeHash) -> Result<(), StoreError> {
        self.query(
            "UPDATE device_requests SET status = 'pending', claimed_at = NULL
             WHERE device_code = $1 AND status = 'exchanging'",
            &[&login.as_str()],
        )?;
        Ok(())
    }

    fn complete(&self, login: &DeviceCodeHash, grant: &SealedGrant) -> Result<bool, StoreError> {
        // A second try after a connection died in the middle finds its own work done, hence the token's comparison.
        let completed = self.query_opt(
            "UPDATE device_requests
             SET status = 'completed', claimed_at = NULL, access_token = $2, api_url = $3, organization_id = $4,
                 scope = $5, expires_at = greatest(expires_at, now() + $6 * interval '1 second')
             WHERE device_code = $1 AND (status = 'exchanging' OR status = 'completed' AND access_token = $2)
             RETURNING device_code",
            &[
                &login.as_str(),
                &grant.token.as_str(),
                &grant.api_url,
                &grant.organization_id,
                &grant.scope,
                &REDEEMABLE_FOR.as_secs_f64(),
            ],
        )?;
        Ok(completed.is_some())
    }

    fn deny(&self, who: Denier) -> Result<Option<DeviceCodeHash>, StoreError> {
        let row = match who {
            Denier::User(user_code) => self.query_opt(
                concat!(
                    "UPDATE device_requests SET status = 'denied' WHERE user_code = $1 AND ",
                    live!(),
                    " RETURNING device_code"
                ),
                &[&user_code.as_str()],
            ),
            Denier::Browser(state, browser) => self.query_opt(
                concat!(
                    "UPDATE device_requests SET status = 'denied' WHERE state = $1 AND browser = $2 AND ",
                    live!(),
                    " RETURNING device_code"
                ),
                &[&state.as_str(), &browser.as_str()],
            ),
        }?;
        Ok(row.map(login))
    }

    fn poll(&self, logins: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError> {
        let logins: Vec<&str> = logins.iter().map(DeviceCodeHash::as_str).collect();
        // A row for each, in order. Arrays of text would cost the program 30 kB.
        let rows = self.query(
            concat!(
                "SELECT status, expires_at <= now(), ",
                claimed!(),
                " FROM unnest(string_to_array($1, ' ')) WITH ORDINALITY AS asked (device_code, place)
                 LEFT JOIN device_requests USING (device_code) ORDER BY place"
            ),
            &[&logins.join(" ")],
        )?;
        Ok(rows.iter().map(polled).collect())
    }

    fn redeem(&self, login: &DeviceCodeHash) -> Result<Option<Redemption>, StoreError> {
        // A transaction around the delivery: whatever ends before its commit, a killed process included, undoes it.
        let mut delivery = Delivery::begin(&self.pool)?;
        let taken = delivery.take(login);
        let Some(grant) = taken.map_err(|error| delivery.pooled.failed(&error))? else {
            return Ok(None);
        };
        Ok(Some(Redemption::new(grant, move || delivery.commit())))
    }

    fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let purged = self.query(
            "DELETE FROM device_requests WHERE device_code IN (
                 SELECT device_code FROM device_requests WHERE expires_at < now() - $1 * interval '1 second'
                 LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING 1",
            &[&EXPIRED_FOR.as_secs_f64(), &i64::from(limit)],
        )?;
        Ok(purged.len() as u64)
    }

    fn count(&self) -> Result<u64, StoreError> {
        let row = self.query_opt("SELECT count(*) FROM device_requests", &[])?;
        Ok(row.map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
    }

    fn ping(&self) -> Result<(), StoreError> {
        // Reads the table, so that a database without it, or without the right to it, is not called ready.
        self.query_opt("SELECT 1 FROM device_requests LIMIT 1", &[])
            .map(drop)
    }
}

/// A hand-over in progress: an open transaction that holds the lock of one row.
struct Delivery {
    pooled: Pooled,
    committed: bool,
}

impl Delivery {
    fn begin(pool: &Arc<Pool>) -> Result<Delivery, StoreError> {
        // On a connection that died since its last use, BEGIN is what notices, and is tried again on a new one.
        let (pooled, ()) = pool.kept_with(|pooled| pooled.client().batch_execute("BEGIN"))?;
        Ok(Delivery {
            pooled,
            committed: false,
        })
    }

    /// Locks the row and reads its token out. Racers on any instance skip a locked row, and so find none.
    fn take(&mut self, login: &DeviceCodeHash) -> Result<Option<SealedGrant>, postgres::Error> {
        let rows = self.pooled.query(
            "SELECT access_token, api_url, organization_id, scope FROM device_requests
             WHERE device_code = $1 AND status = 'completed' AND expires_at > now()
             FOR UPDATE SKIP LOCKED",
            &[&login.as_str()],
        )?;
        let [row] = &rows[..] else {
            return Ok(None);
        };
        let grant = SealedGrant {
            token: SealedToken::from_store(row.get::<_, Option<String>>(0).unwrap_or_default()),
            api_url: row.get::<_, Option<String>>(1).unwrap_or_default(),
            organization_id: row.get(2),
            scope: row.get(3),
        };
        // The row stays until it expires, so that the browser's page can be reloaded; its token does not.
        self.pooled.query(
            "UPDATE device_requests SET status = 'redeemed', access_token = NULL WHERE device_code = $1",
            &[&login.as_str()],
        )?;
        Ok(Some(grant))
    }

    fn commit(mut self) -> Result<(), StoreError> {
        self.pooled
            .client()
            .batch_execute("COMMIT")
            .map_err(|error| self.pooled.failed(&error))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.committed && self.pooled.client().batch_execute("ROLLBACK").is_err() {
            self.pooled.spoil();
        }
    }
}

/// How the login of a row of `poll` stands.
fn polled(row: &Row) -> Polled {
    let is = |column| row.get::<_, Option<bool>>(column).unwrap_or(false);
    let (expired, claimed) = (is(1), is(2));
    match row.get::<_, Option<&str>>(0) {
        None | Some("redeemed") => Polled::Unknown,
        Some("denied") => Polled::Denied,
        // Claimed in time: the exchange that is running decides.
        Some("exchanging") if claimed => Polled::Pending,
        _ if expired => Polled::Expired,
        Some("completed") => Polled::Completed,
        Some(_) => Polled::Pending,
    }
}

/// A login to be added, as `insert` reads it.
fn as_json(new: &NewRequest) -> Value {
    json!({
        "device_code": new.login.as_str(),
        "user_code": new.user_code.as_str(),
        "address": new.client_address,
        "agent": new.client_agent,
        "lifetime": new.lifetime.as_secs(),
    })
}

fn login(row: Row) -> DeviceCodeHash {
    DeviceCodeHash::from_store(row.get(0))
}

/// Brings the schema up to date, or says why this server must not touch it. A client on which this fails is not to be used:
/// the transaction ends with its connection.
fn migrate(client: &mut Client, seal: &Seal) -> Result<(), StoreError> {
    let from = begin_migration(client).map_err(|error| classify(&error))?;
    let Ok(done) = usize::try_from(from) else {
        return Err(StoreError::Unusable(format!(
            "its schema version is {from}, which no server of ours writes"
        )));
    };
    if done > MIGRATIONS.len() {
        return Err(StoreError::Unusable(format!(
            "its schema version is {done}, and this server knows versions up to {}: run a newer server",
            MIGRATIONS.len()
        )));
    }
    finish_migration(client, done, seal).map_err(|error| classify(&error))
}

/// Takes the lock and reads how many steps the database has seen.
fn begin_migration(client: &mut Client) -> Result<i32, postgres::Error> {
    client.batch_execute("BEGIN")?;
    // `CREATE TABLE IF NOT EXISTS` alone fails when two instances run it at once.
    query_once(
        client,
        "SELECT pg_advisory_xact_lock($1)",
        &[&MIGRATION_LOCK],
    )?;
    let exists = "SELECT 1 FROM pg_class WHERE oid = to_regclass('device_requests_schema')";
    if query_once(client, exists, &[])?.is_empty() {
        client.batch_execute("CREATE TABLE device_requests_schema (version integer NOT NULL)")?;
    }
    let newest = "SELECT version FROM device_requests_schema ORDER BY version DESC LIMIT 1";
    let rows = query_once(client, newest, &[])?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

fn finish_migration(client: &mut Client, done: usize, seal: &Seal) -> Result<(), postgres::Error> {
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        client.batch_execute(sql)?;
        let version = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let insert = "INSERT INTO device_requests_schema (version) VALUES ($1)";
        query_once(client, insert, &[&version])?;
    }
    if done < MIGRATIONS.len() {
        seal_clear_tokens(client, seal)?;
    }
    client.batch_execute("COMMIT")
}

fn seal_clear_tokens(client: &mut Client, seal: &Seal) -> Result<(), postgres::Error> {
    let in_clear = "SELECT device_code, access_token FROM device_requests WHERE access_token <> ''";
    for row in query_once(client, in_clear, &[])? {
        let (login, token) = (
            DeviceCodeHash::from_store(row.get(0)),
            row.get::<_, String>(1),
        );
        if !SealedToken::is_sealed(&token) {
            let sealed = seal.seal(&login, &Secret::new(token));
            let update = "UPDATE device_requests SET access_token = $2 WHERE device_code = $1";
            query_once(client, update, &[&login.as_str(), &sealed.as_str()])?;
        }
    }
    Ok(())
}

/// Runs a statement that is not worth keeping prepared.
fn query_once(
    client: &mut Client,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, postgres::Error> {
    let statement = client.prepare(sql)?;
    client.query(&statement, params)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_claims_time_is_the_one_that_all_stores_promise() {
        let text = format!(
            "interval '{} seconds'",
            crate::server::store::CLAIM_LASTS.as_secs()
        );
        assert!(claimed!().contains(&text));
    }
}
