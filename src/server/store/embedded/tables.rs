//! The tables of the embedded store, and their schema versions. A login is a JSON record under the hash of its device code.
//! Three more tables are indexes: by user code (until the login is decided), by OAuth state, and by expiry.

use redb::{Database, ReadableTable, TableDefinition};
use serde_json::Value;

use crate::server::codes::{BrowserKeyHash, DeviceCodeHash, StateHash, UserCode};
use crate::server::login::{Login, SealedGrant, Starter, Status, UnixMs};
use crate::server::seal::SealedToken;
use crate::server::store::{Inserted, Key, NewLogin};

/// All tables map text to text: each further pair of types would add a copy of the B-tree's code to the program.
type Text = TableDefinition<'static, &'static str, &'static str>;

/// A table of any transaction.
pub(super) trait TextTable: ReadableTable<&'static str, &'static str> {}
impl<T: ReadableTable<&'static str, &'static str>> TextTable for T {}

pub(super) const REQUESTS: Text = TableDefinition::new("requests");
pub(super) const BY_USER_CODE: Text = TableDefinition::new("by_user_code");
pub(super) const BY_STATE: Text = TableDefinition::new("by_state");
/// The keys are those of `expiry_key`; the values are empty.
pub(super) const BY_EXPIRY: Text = TableDefinition::new("by_expiry");

/// Holds the version of the schema, so that an older server rejects a newer file.
pub(super) const META: Text = TableDefinition::new("meta");
pub(super) const SCHEMA_VERSION: u64 = 2;

/// The tables of one write transaction.
pub(super) struct Tables<'t> {
    /// Whether there is something to commit: an fsync for every wrong code would be a cheap denial of service.
    changed: bool,
    requests: redb::Table<'t, &'static str, &'static str>,
    by_user_code: redb::Table<'t, &'static str, &'static str>,
    by_state: redb::Table<'t, &'static str, &'static str>,
    by_expiry: redb::Table<'t, &'static str, &'static str>,
}

impl Tables<'_> {
    /// Adds a login, unless its user code is taken.
    pub(super) fn add(&mut self, new: &NewLogin, now: UnixMs) -> Result<Inserted, redb::Error> {
        if self.by_user_code.get(new.user_code.as_str())?.is_some() {
            return Ok(Inserted::UserCodeTaken);
        }
        let (key, user_code) = (new.key.clone(), new.user_code.clone());
        self.put(&Login::new(key, user_code, new.starter.clone(), now))?;
        Ok(Inserted::Yes)
    }

    pub(super) fn find(&self, key: Key) -> Result<Option<Login>, redb::Error> {
        match key {
            Key::Device(key) => read_login(&self.requests, key.as_str()),
            Key::User(code) => read_login_by(&self.by_user_code, code.as_str(), &self.requests),
            Key::State(state) => read_login_by(&self.by_state, state.as_str(), &self.requests),
        }
    }

    /// Writes `text`, which is not a login, to see whether writing works.
    pub(super) fn probe(&mut self, text: &str) -> Result<(), redb::Error> {
        self.changed = true;
        self.by_state.insert("", text)?;
        Ok(())
    }

    /// Writes a login and its index entries.
    pub(super) fn put(&mut self, login: &Login) -> Result<(), redb::Error> {
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

    pub(super) fn remove(&mut self, login: &Login) -> Result<(), redb::Error> {
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

/// Whether the login is in the index of user codes.
fn is_undecided(login: &Login) -> bool {
    matches!(login.status, Status::Pending | Status::Exchanging)
}

/// Makes missing tables, upgrades an older schema, and returns the schema's version. Leaves a newer schema as it is.
pub(super) fn prepare_tables(database: &Database) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    let mut meta = write.open_table(META)?;
    let version = schema_version(&meta)?;
    if let Some(newer) = version.filter(|version| *version > SCHEMA_VERSION) {
        drop(meta);
        write.abort()?;
        return Ok(newer);
    }
    let mut tables = Tables::open(&write)?;
    if version.is_some_and(|version| version < SCHEMA_VERSION) {
        tables.upgrade()?;
    }
    if version != Some(SCHEMA_VERSION) {
        meta.insert("schema_version", SCHEMA_VERSION.to_string().as_str())?;
    }
    drop((meta, tables));
    write.commit()?;
    Ok(SCHEMA_VERSION)
}

/// The schema's version; `None` in a new file. What is not a number was written by a newer server.
pub(super) fn schema_version(meta: &impl TextTable) -> Result<Option<u64>, redb::Error> {
    let version = meta.get("schema_version")?;
    Ok(version.map(|version| version.value().parse().unwrap_or(u64::MAX)))
}

/// Converts a record of schema version 1. A running exchange becomes pending again, as after a crash.
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
    /// Rewrites all records of schema version 1.
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

/// Runs `act` in one transaction. Commits only if something changed.
pub(super) fn write_to<T>(
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

pub(super) fn read_login(table: &impl TextTable, key: &str) -> Result<Option<Login>, redb::Error> {
    match table.get(key)? {
        Some(json) => parse_login(json.value()).map(Some),
        None => Ok(None),
    }
}

pub(super) fn parse_login(json: &str) -> Result<Login, redb::Error> {
    serde_json::from_str(json).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// The login whose key `index` holds under `name`.
pub(super) fn read_login_by(
    index: &impl TextTable,
    name: &str,
    table: &impl TextTable,
) -> Result<Option<Login>, redb::Error> {
    match index.get(name)? {
        Some(key) => read_login(table, key.value()),
        None => Ok(None),
    }
}

/// The time of expiry, of fixed width so that the text sorts as the number does, and the login's key.
fn expiry_key(login: &Login) -> String {
    expiry_prefix(login.expires_at) + login.key.as_str()
}

pub(super) fn expiry_prefix(expires_at: UnixMs) -> String {
    format!("{expires_at:020} ")
}

/// The key of the login that an `expiry_key` is about.
pub(super) fn device_key_in(expiry_key: &str) -> &str {
    expiry_key.split_once(' ').map_or("", |(_, key)| key)
}
