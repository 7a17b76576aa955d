//! Brings the schema of a PostgreSQL database up to date, step by step (`sql/`), in one transaction.

use postgres::Client;
use postgres::error::SqlState;
use postgres::types::{ToSql, Type};

use crate::server::codes::DeviceCodeHash;
use crate::server::seal::{Seal, SealedToken};
use crate::server::store::StoreError;
use crate::server::store::pool::classify;
use crate::shared::secret::Secret;

/// The steps, in order; the database keeps how many of them it has seen.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../../sql/0001_reference.sql"),
    include_str!("../../../sql/0002_hashed_and_bound.sql"),
    include_str!("../../../sql/0003_leases.sql"),
];

/// Instances that start together take turns under this advisory lock: any number nobody else uses.
const MIGRATION_LOCK: i64 = 0x706f_7374_697a;

/// Instances of an earlier version hold locks for a moment each; a step waits no longer, and is tried again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '1s'";
const TRIES_MAX: usize = 10;

/// Brings the schema up to date, or says why this server must not touch it. A client on which this fails is not to be used:
/// the transaction ends with its connection.
/// `schema`, quoted, is where the tables are, if not where the role's `search_path` leads.
pub(super) fn migrate(
    client: &mut Client,
    seal: &Seal,
    schema: Option<&str>,
) -> Result<(), StoreError> {
    let mut tries = 1;
    loop {
        match migrate_once(client, seal, schema) {
            Err(MigrateError::Database(error))
                if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) && tries < TRIES_MAX =>
            {
                tries += 1;
                client
                    .batch_execute("ROLLBACK")
                    .map_err(|error| classify(&error))?;
            }
            Err(MigrateError::Database(error)) => return Err(classify(&error)),
            Err(MigrateError::Version(problem)) => return Err(StoreError::Unusable(problem)),
            Ok(()) => return Ok(()),
        }
    }
}

enum MigrateError {
    Database(postgres::Error),
    Version(String),
}

impl From<postgres::Error> for MigrateError {
    fn from(error: postgres::Error) -> MigrateError {
        MigrateError::Database(error)
    }
}

fn migrate_once(
    client: &mut Client,
    seal: &Seal,
    schema: Option<&str>,
) -> Result<(), MigrateError> {
    client.batch_execute("BEGIN")?;
    if let Some(schema) = schema {
        client.batch_execute(&format!("SET LOCAL search_path = {schema}"))?;
    }
    let version = version(client)?;
    let newest = MIGRATIONS.len();
    let done = match usize::try_from(version) {
        Ok(done) if done <= newest => done,
        Ok(done) => {
            return Err(MigrateError::Version(format!(
                "its schema version is {done}, and this server knows versions up to {newest}: run a newer server"
            )));
        }
        Err(_) => {
            return Err(MigrateError::Version(format!(
                "its schema version is {version}, which no server of ours writes"
            )));
        }
    };
    if done < newest {
        client.batch_execute(LOCK_TIMEOUT)?;
    }
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        client.batch_execute(sql)?;
        let version = step + 1;
        client.batch_execute(&format!(
            "INSERT INTO device_requests_schema (version) VALUES ({version})"
        ))?;
    }
    if done < newest {
        seal_clear_tokens(client, seal)?;
    }
    Ok(client.batch_execute("COMMIT")?)
}

/// Takes the lock and reads how many steps the database has seen.
fn version(client: &mut Client) -> Result<i32, postgres::Error> {
    // `CREATE TABLE IF NOT EXISTS` alone fails when two instances run it at once. The lock is the transaction's, since a
    // pooler gives the next one another session.
    client.batch_execute(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))?;
    let exists = "SELECT 1 FROM pg_class WHERE oid = to_regclass('device_requests_schema')";
    if client.query_typed(exists, &[])?.is_empty() {
        client.batch_execute("CREATE TABLE device_requests_schema (version integer NOT NULL)")?;
    }
    let newest = "SELECT version FROM device_requests_schema ORDER BY version DESC LIMIT 1";
    let rows = client.query_typed(newest, &[])?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// The reference server kept tokens in clear.
fn seal_clear_tokens(client: &mut Client, seal: &Seal) -> Result<(), postgres::Error> {
    let in_clear = "SELECT device_code, access_token FROM device_requests WHERE access_token <> ''";
    for row in client.query_typed(in_clear, &[])? {
        let (key, token) = (
            DeviceCodeHash::from_store(row.get(0)),
            row.get::<_, String>(1),
        );
        if !SealedToken::is_sealed(&token) {
            let sealed = seal.seal(&key, &Secret::new(token));
            let text = |value| (value as &(dyn ToSql + Sync), Type::TEXT);
            client.query_typed(
                "UPDATE device_requests SET access_token = $2 WHERE device_code = $1",
                &[text(&key.as_str()), text(&sealed.as_str())],
            )?;
        }
    }
    Ok(())
}
