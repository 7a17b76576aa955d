//! The store of any number of instances: one table in PostgreSQL. Connections are pool.rs, its schema is `sql/`.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postgres::config::SslMode;
use postgres::{Client, Config, Row, Transaction};

use crate::server::codes::{BrowserKeyHash, DeviceCodeHash, StateHash, UserCode};
use crate::server::seal::{Seal, SealedToken};
use crate::server::store::pool::{Pool, Pooled, classify};
use crate::server::store::tls::{self, Roots, Verify};
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

/// Where the database is and how to talk to it: a checked `DATABASE_URL`.
#[derive(Clone, Debug)]
pub struct DatabaseUrl {
    config: Config,
    verify: Verify,
}

impl DatabaseUrl {
    /// Parses a `postgres://` or `postgresql://` URL with libpq's parameters; the error says what is wrong with it, and
    /// never holds its password.
    pub fn parse(url: &str) -> Result<DatabaseUrl, String> {
        let (plain, sslmode, sslrootcert) = take_ssl_parameters(url)?;
        let mut config =
            Config::from_str(&plain).map_err(|error| match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            })?;
        if config.get_hosts().is_empty() {
            return Err("names no host".to_owned());
        }
        let roots = match sslrootcert.as_deref() {
            None | Some("system") => Roots::System,
            Some(path) => Roots::File(path.into()),
        };
        let (mode, verify) = match (sslmode.as_deref().unwrap_or("prefer"), &roots) {
            ("disable", _) => (SslMode::Disable, Verify::Nothing),
            ("prefer" | "allow", _) => (SslMode::Prefer, Verify::Nothing),
            ("require", Roots::System) => (SslMode::Require, Verify::Nothing),
            ("require", Roots::File(_)) | ("verify-ca", _) => {
                (SslMode::Require, Verify::Authority(roots))
            }
            ("verify-full", _) => (SslMode::Require, Verify::AuthorityAndName(roots)),
            (other, _) => {
                return Err(format!(
                    "sslmode is {other:?}, and must be disable, prefer, require, verify-ca or verify-full"
                ));
            }
        };
        config.ssl_mode(mode);
        set_patience(&mut config);
        Ok(DatabaseUrl { config, verify })
    }
}

/// A database that is gone without a word must not hold a request for long.
fn set_patience(config: &mut Config) {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(2));
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(5));
    }
    config.keepalives_idle(Duration::from_secs(30));
    config.keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3);
    if config.get_application_name().is_none() {
        config.application_name("postiz-auth-server");
    }
}

/// `url` without `sslmode` and `sslrootcert`, of which the postgres crate knows only a part; and these two.
fn take_ssl_parameters(url: &str) -> Result<(String, Option<String>, Option<String>), String> {
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), None, None));
    };
    let (mut sslmode, mut sslrootcert, mut rest) = (None, None, Vec::new());
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = percent_encoding::percent_decode_str(value)
            .decode_utf8()
            .map(|value| value.into_owned());
        match name {
            "sslmode" => sslmode = Some(decoded.map_err(|_| "sslmode is not UTF-8")?),
            "sslrootcert" => sslrootcert = Some(decoded.map_err(|_| "sslrootcert is not UTF-8")?),
            _ => rest.push(pair),
        }
    }
    let plain = if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    Ok((plain, sslmode, sslrootcert))
}

/// The store in PostgreSQL.
pub struct Postgres {
    pool: Arc<Pool>,
}

impl Postgres {
    /// A store on up to `pool_size` connections. Connects to nothing yet: a database that is not there is a normal event.
    /// The schema is brought up on the first connection. `seal` is for the tokens that the reference server left in clear.
    pub fn new(url: &DatabaseUrl, pool_size: usize, seal: Arc<Seal>) -> Result<Postgres, String> {
        let connector = tls::connector(&url.verify)?;
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
            pool: Pool::new(url.config.clone(), connector, pool_size, prepare),
        })
    }

    /// Runs a statement that answers with at most one row.
    fn query_opt(
        &self,
        sql: &'static str,
        params: &[&(dyn postgres::types::ToSql + Sync)],
    ) -> Result<Option<Row>, StoreError> {
        self.pool.with(|pooled| {
            let (client, statement) = pooled.prepared(sql)?;
            client.query_opt(&statement, params)
        })
    }

    /// Runs a statement that answers with how many rows it touched.
    fn execute(
        &self,
        sql: &'static str,
        params: &[&(dyn postgres::types::ToSql + Sync)],
    ) -> Result<u64, StoreError> {
        self.pool.with(|pooled| {
            let (client, statement) = pooled.prepared(sql)?;
            client.execute(&statement, params)
        })
    }
}

impl Store for Postgres {
    fn insert(&self, new: &NewRequest) -> Result<Inserted, StoreError> {
        let added = self.execute(
            "INSERT INTO device_requests
                 (device_code, user_code, client_address, client_agent, expires_at)
             VALUES ($1, $2, $3, $4, now() + $5 * interval '1 second')
             ON CONFLICT DO NOTHING",
            &[
                &new.login.as_str(),
                &new.user_code.as_str(),
                &new.client_address,
                &new.client_agent,
                &new.lifetime.as_secs_f64(),
            ],
        )?;
        Ok(if added == 1 {
            Inserted::Yes
        } else {
            Inserted::UserCodeTaken
        })
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
        self.execute(
            "UPDATE device_requests SET status = 'pending', claimed_at = NULL
             WHERE device_code = $1 AND status = 'exchanging'",
            &[&login.as_str()],
        )?;
        Ok(())
    }

    fn complete(&self, login: &DeviceCodeHash, grant: &SealedGrant) -> Result<bool, StoreError> {
        // A second try after a connection died in the middle finds its own work done, hence the token's comparison.
        let completed = self.execute(
            "UPDATE device_requests
             SET status = 'completed', claimed_at = NULL, access_token = $2, api_url = $3, organization_id = $4,
                 scope = $5, expires_at = greatest(expires_at, now() + $6 * interval '1 second')
             WHERE device_code = $1 AND (status = 'exchanging' OR status = 'completed' AND access_token = $2)",
            &[
                &login.as_str(),
                &grant.token.as_str(),
                &grant.api_url,
                &grant.organization_id,
                &grant.scope,
                &REDEEMABLE_FOR.as_secs_f64(),
            ],
        )?;
        Ok(completed == 1)
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

    fn poll(&self, login: &DeviceCodeHash) -> Result<Polled, StoreError> {
        let row = self.query_opt(
            concat!(
                "SELECT status, expires_at <= now(), ",
                claimed!(),
                " FROM device_requests WHERE device_code = $1"
            ),
            &[&login.as_str()],
        )?;
        let Some(row) = row else {
            return Ok(Polled::Unknown);
        };
        let (status, expired, claimed): (&str, bool, bool) = (row.get(0), row.get(1), row.get(2));
        Ok(match status {
            "redeemed" => Polled::Unknown,
            "denied" => Polled::Denied,
            // Claimed in time: the exchange that is running decides.
            "exchanging" if claimed => Polled::Pending,
            _ if expired => Polled::Expired,
            "completed" => Polled::Completed,
            _ => Polled::Pending,
        })
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
        self.execute(
            "DELETE FROM device_requests WHERE device_code IN (
                 SELECT device_code FROM device_requests WHERE expires_at < now() - $1 * interval '1 second'
                 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&EXPIRED_FOR.as_secs_f64(), &i64::from(limit)],
        )
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
        let (client, statement) = self.pooled.prepared(
            "SELECT access_token, api_url, organization_id, scope FROM device_requests
             WHERE device_code = $1 AND status = 'completed' AND expires_at > now()
             FOR UPDATE SKIP LOCKED",
        )?;
        let Some(row) = client.query_opt(&statement, &[&login.as_str()])? else {
            return Ok(None);
        };
        let grant = SealedGrant {
            token: SealedToken::from_store(row.get::<_, Option<String>>(0).unwrap_or_default()),
            api_url: row.get::<_, Option<String>>(1).unwrap_or_default(),
            organization_id: row.get(2),
            scope: row.get(3),
        };
        // The row stays until it expires, so that the browser's page can be reloaded; its token does not.
        let (client, statement) = self.pooled.prepared(
            "UPDATE device_requests SET status = 'redeemed', access_token = NULL WHERE device_code = $1",
        )?;
        client.execute(&statement, &[&login.as_str()])?;
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

fn login(row: Row) -> DeviceCodeHash {
    DeviceCodeHash::from_store(row.get(0))
}

/// Brings the schema up to date, or says why this server must not touch it.
fn migrate(client: &mut Client, seal: &Seal) -> Result<(), StoreError> {
    let mut transaction = client.transaction().map_err(|error| classify(&error))?;
    let from = begin_migration(&mut transaction).map_err(|error| classify(&error))?;
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
    finish_migration(transaction, done, seal).map_err(|error| classify(&error))
}

/// Takes the lock and reads how many steps the database has seen.
fn begin_migration(transaction: &mut Transaction) -> Result<i32, postgres::Error> {
    // `CREATE TABLE IF NOT EXISTS` alone fails when two instances run it at once.
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])?;
    let versions: Option<String> = transaction
        .query_one("SELECT to_regclass('device_requests_schema')::text", &[])?
        .get(0);
    if versions.is_none() {
        transaction
            .batch_execute("CREATE TABLE device_requests_schema (version integer NOT NULL)")?;
    }
    let row = transaction.query_opt("SELECT max(version) FROM device_requests_schema", &[])?;
    Ok(row.and_then(|row| row.get(0)).unwrap_or(0))
}

fn finish_migration(
    mut transaction: Transaction,
    done: usize,
    seal: &Seal,
) -> Result<(), postgres::Error> {
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        transaction.batch_execute(sql)?;
        let version = i32::try_from(step + 1).unwrap_or(i32::MAX);
        transaction.execute(
            "INSERT INTO device_requests_schema (version) VALUES ($1)",
            &[&version],
        )?;
    }
    if done < MIGRATIONS.len() {
        seal_clear_tokens(&mut transaction, seal)?;
    }
    transaction.commit()
}

fn seal_clear_tokens(transaction: &mut Transaction, seal: &Seal) -> Result<(), postgres::Error> {
    let rows = transaction.query(
        "SELECT device_code, access_token FROM device_requests WHERE access_token <> ''",
        &[],
    )?;
    for row in rows {
        let (login, token) = (
            DeviceCodeHash::from_store(row.get(0)),
            row.get::<_, String>(1),
        );
        if !SealedToken::is_sealed(&token) {
            let sealed = seal.seal(&login, &Secret::new(token));
            transaction.execute(
                "UPDATE device_requests SET access_token = $2 WHERE device_code = $1",
                &[&login.as_str(), &sealed.as_str()],
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(url: &str) -> Verify {
        DatabaseUrl::parse(url).unwrap().verify
    }

    #[test]
    fn sslmode_means_what_libpq_means() {
        let file = || Roots::File("/ca.pem".into());
        for (query, mode, expected) in [
            ("", SslMode::Prefer, Verify::Nothing),
            ("?sslmode=disable", SslMode::Disable, Verify::Nothing),
            ("?sslmode=prefer", SslMode::Prefer, Verify::Nothing),
            ("?sslmode=require", SslMode::Require, Verify::Nothing),
            (
                "?sslmode=require&sslrootcert=%2Fca.pem",
                SslMode::Require,
                Verify::Authority(file()),
            ),
            (
                "?sslrootcert=/ca.pem&sslmode=verify-ca",
                SslMode::Require,
                Verify::Authority(file()),
            ),
            (
                "?sslmode=verify-full",
                SslMode::Require,
                Verify::AuthorityAndName(Roots::System),
            ),
            (
                "?connect_timeout=3&sslmode=verify-full",
                SslMode::Require,
                Verify::AuthorityAndName(Roots::System),
            ),
        ] {
            let url = format!("postgres://u:p@h/db{query}");
            assert_eq!(verify(&url), expected, "{query}");
            assert_eq!(
                DatabaseUrl::parse(&url).unwrap().config.get_ssl_mode(),
                mode,
                "{query}"
            );
        }
    }

    #[test]
    fn the_claims_time_is_the_one_that_all_stores_promise() {
        let text = format!(
            "interval '{} seconds'",
            crate::server::store::CLAIM_LASTS.as_secs()
        );
        assert!(claimed!().contains(&text));
    }

    #[test]
    fn bad_urls_are_refused_without_their_password() {
        for url in [
            "postgres://u:hunter2@h/db?sslmode=maybe",
            "postgres://u:hunter2@h/db?colour=red",
            "postgres://u:hunter2@h:abc/db",
            "postgres://",
        ] {
            let error = DatabaseUrl::parse(url).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
