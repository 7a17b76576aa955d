//! Migrates the schema of a PostgreSQL database: runs the missing steps of `sql/` in one transaction.

use postgres::error::SqlState;
use postgres::types::{ToSql, Type};
use postgres::{Client, Row};

use crate::server::codes::DeviceCodeHash;
use crate::server::keys::Keys;
use crate::server::seal::SealedToken;
use crate::server::store::postgres_error::PostgresError;
use crate::server::store::{StoreError, schema_plan};
use crate::shared::secret::Secret;

/// The steps, in order. The database records how many of them it has run.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../../sql/0001_reference.sql"),
    include_str!("../../../sql/0002_hashed_and_bound.sql"),
    include_str!("../../../sql/0003_leases.sql"),
];

/// The advisory lock under which instances that start together migrate one after another. The number ("postiz" in ASCII) only
/// has to differ from those of other programs.
const MIGRATION_LOCK: i64 = 0x706f_7374_697a;

/// Instances of an earlier version hold locks on the table for a moment each. A step that waits longer fails and is retried, so
/// that it does not block them.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '1s'";
const TRIES_MAX: usize = 10;

/// An instance that hangs during a migration must not block the others for ever.
const IDLE_TIMEOUT: &str = "SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// Migrates the schema to the newest version. Fails if the schema is newer than this server.
///
/// `schema` is the quoted name of the schema with the tables; `None`: the role's `search_path` finds them. After an error the
/// client must be dropped, which ends the open transaction.
pub(super) fn migrate(
    client: &mut Client,
    keys: &Keys,
    schema: Option<&str>,
) -> Result<(), PostgresError> {
    let mut tries = 1;
    loop {
        match migrate_once(client, keys, schema) {
            Err(failed)
                if failed.code == Some(SqlState::LOCK_NOT_AVAILABLE) && tries < TRIES_MAX =>
            {
                tries += 1;
                client.batch_execute("ROLLBACK")?;
            }
            done => return done,
        }
    }
}

fn begin(client: &mut Client, begin: &str, schema: Option<&str>) -> Result<(), postgres::Error> {
    client.batch_execute(begin)?;
    match schema {
        Some(schema) => client.batch_execute(&format!("SET LOCAL search_path = {schema}")),
        None => Ok(()),
    }
}

fn migrate_once(
    client: &mut Client,
    keys: &Keys,
    schema: Option<&str>,
) -> Result<(), PostgresError> {
    begin(client, "BEGIN", schema)?;
    client.batch_execute(IDLE_TIMEOUT)?;
    let version = lock_and_read_version(client)?;
    let newest = MIGRATIONS.len();
    schema_plan(Some(version), newest as u64)?;
    let done = usize::try_from(version).unwrap_or(newest);
    if done < newest {
        check_server_version(client)?;
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
        seal_clear_tokens(client, keys)?;
    }
    Ok(client.batch_execute("COMMIT")?)
}

/// The second step calls `sha256()`, which PostgreSQL has since version 11.
fn check_server_version(client: &mut Client) -> Result<(), PostgresError> {
    let is_old = "SELECT current_setting('server_version_num')::integer < 110000";
    match client.query_typed(is_old, &[])?.first() {
        Some(row) if row.get(0) => {
            Err(StoreError::Unusable("it is older than PostgreSQL 11".to_owned()).into())
        }
        _ => Ok(()),
    }
}

/// Takes the migration lock, and returns how many steps the database has run.
fn lock_and_read_version(client: &mut Client) -> Result<u64, postgres::Error> {
    // `CREATE TABLE IF NOT EXISTS` fails when two instances run it at the same time. The lock belongs to the transaction and
    // not to the session, since a pooler may change the session between transactions.
    client.batch_execute(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))?;
    let exists = "SELECT 1 FROM pg_class WHERE oid = to_regclass('device_requests_schema')";
    if client.query_typed(exists, &[])?.is_empty() {
        client.batch_execute("CREATE TABLE device_requests_schema (version integer NOT NULL)")?;
    }
    newest_version(client)
}

fn newest_version(client: &mut Client) -> Result<u64, postgres::Error> {
    let newest = "SELECT version FROM device_requests_schema ORDER BY version DESC LIMIT 1";
    let rows = client.query_typed(newest, &[])?;
    // A negative version was not written by this program, and counts as too new.
    let version = |row: &Row| u64::try_from(row.get::<_, i32>(0)).unwrap_or(u64::MAX);
    Ok(rows.first().map_or(0, version))
}

/// The state of the database and the rights of the role before a migration, in one row. The table's name is resolved as in the
/// store's own statements.
const FOUND: &str = "
    SELECT to_regclass('device_requests_schema') IS NOT NULL,
        to_regclass('device_requests') IS NOT NULL,
        pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
        coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('device_requests')), true),
        (SELECT string_agg(privilege, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
            WHERE NOT has_table_privilege(to_regclass('device_requests'), privilege)),
        (SELECT string_agg(rolname::text, ' and ') FROM pg_roles WHERE rolname IN ('anon', 'authenticated')
            AND has_table_privilege(oid, to_regclass('device_requests'), 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE'))";

/// Says what a start would do to the database, line by line. Uses a read-only transaction. After an error the client must be
/// dropped.
pub(super) fn inspect(
    client: &mut Client,
    schema: Option<&str>,
) -> Result<Vec<String>, PostgresError> {
    begin(client, "BEGIN READ ONLY", schema)?;
    check_server_version(client)?;
    let rows = client.query_typed(FOUND, &[])?;
    let unusable = |what: String| Err(StoreError::Unusable(what).into());
    let Some(row) = rows.first() else {
        return unusable("it returned no row".to_owned());
    };
    let is = |column| row.get::<_, bool>(column);
    let list = |column| row.get::<_, Option<&str>>(column);
    let (has_version, has_table) = (is(0), is(1));
    let newest = MIGRATIONS.len() as u64;
    let version = match has_version {
        true => Some(newest_version(client)?),
        false => has_table.then_some(0),
    };
    let mut lines = vec![schema_plan(version, newest)?];
    if is(2) {
        return Err(StoreError::Unavailable("the database is read-only".to_owned()).into());
    }
    if version != Some(newest) {
        if !has_version && !is(3) {
            return unusable("there is no schema in which the role may make tables".to_owned());
        }
        if !is(4) {
            return unusable(
                "a start would have to alter device_requests, which the role does not own"
                    .to_owned(),
            );
        }
        return Ok(lines);
    }
    if let Some(missing) = list(5) {
        return unusable(format!("the role lacks {missing} on device_requests"));
    }
    if let Some(roles) = list(6) {
        lines.push(format!(
            "WARNING: {roles} may change device_requests, and so take a token: revoke these rights"
        ));
    }
    let rows = client.query_typed("SELECT count(*) FROM device_requests", &[])?;
    let count: i64 = rows.first().map_or(0, |row| row.get(0));
    lines.push(format!("it holds {count} logins"));
    client.batch_execute("ROLLBACK")?;
    Ok(lines)
}

/// Encrypts the tokens that the original Node.js auth server stored in clear.
fn seal_clear_tokens(client: &mut Client, keys: &Keys) -> Result<(), postgres::Error> {
    let in_clear = "SELECT device_code, access_token FROM device_requests WHERE access_token <> ''";
    for row in client.query_typed(in_clear, &[])? {
        let (key, token) = (
            DeviceCodeHash::from_store(row.get(0)),
            row.get::<_, String>(1),
        );
        if !SealedToken::is_sealed(&token) {
            let sealed = keys.seal(&key, &Secret::new(token));
            let text = |value| (value as &(dyn ToSql + Sync), Type::TEXT);
            client.query_typed(
                "UPDATE device_requests SET access_token = $2 WHERE device_code = $1",
                &[text(&key.as_str()), text(&sealed.as_str())],
            )?;
        }
    }
    Ok(())
}
