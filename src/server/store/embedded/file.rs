//! The file of the embedded store: makes it, opens it, and says why it cannot be opened.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTableMetadata, StorageBackend};

use crate::server::file_rights;
use crate::server::store::embedded::tables::{
    META, REQUESTS, SCHEMA_VERSION, prepare_tables, schema_version,
};
use crate::server::store::{StoreError, schema_plan};
use crate::shared::small_file;

/// redb's page cache. Its default of 1 GiB is more than a small server has.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Where the database is kept.
pub(super) enum Storage {
    File(PathBuf),
    Memory,
}

impl Storage {
    /// Opens the database, and brings its tables up to date.
    pub(super) fn open(&self) -> Result<Database, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let opened = match self {
            Storage::File(path) => {
                open_private_file(path).map_err(|error| {
                    cannot_open(path, &file_rights::explain_store(path, &error))
                })?;
                builder
                    .create(path)
                    .map_err(|error| cannot_open(path, &explain(&error)))?
            }
            Storage::Memory => builder
                .create_with_backend(InMemoryBackend::new())
                .map_err(|error| StoreError::Unusable(error.to_string()))?,
        };
        let version =
            prepare_tables(&opened).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        schema_plan(Some(version), SCHEMA_VERSION)?;
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
                "it is damaged or not a store of this server ({what}); move it away to start with an empty one"
            )
        }
        other => other.to_string(),
    }
}

/// Makes the folder of the file at `path` for its owner alone, if it is missing.
pub(super) fn make_parent_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| {
        let why = file_rights::explain_store(path, &error);
        let folder = folder.display();
        StoreError::Unusable(format!("cannot make the folder {folder}: {why}"))
    })
}

/// Opens or creates a file for its owner alone. The store's file is created here because redb would leave its mode to the umask.
pub(in crate::server::store) fn open_private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

/// Says what a start would find at `path` and do, line by line. Changes nothing, and needs no right to write.
pub fn inspect(path: &Path) -> Result<Vec<String>, StoreError> {
    let file = path.display();
    let mut lines = vec![format!("the store is the embedded file {file}")];
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
    // redb treats an empty file as a new one.
    if bytes.is_empty() {
        lines.push(schema_plan(None, SCHEMA_VERSION)?);
        return Ok(lines);
    }
    let database = open_copy(&bytes).map_err(|error| cannot_open(path, &explain(&error)))?;
    let read = || {
        let snapshot = database.begin_read()?;
        let version = schema_version(&snapshot.open_table(META)?)?;
        Ok((version, snapshot.open_table(REQUESTS)?.len()?))
    };
    let (version, count) =
        read().map_err(|error: redb::Error| cannot_open(path, &error.to_string()))?;
    lines.push(schema_plan(version, SCHEMA_VERSION)?);
    lines.push(format!("it holds {count} logins"));
    Ok(lines)
}

/// Reads the file; `None` while another process has it open.
fn read_unlocked(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = small_file::open(path)?;
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Opens a copy in memory, since opening repairs a database that was not closed properly.
fn open_copy(bytes: &[u8]) -> Result<Database, DatabaseError> {
    let memory = InMemoryBackend::new();
    memory
        .set_len(bytes.len() as u64)
        .and_then(|()| memory.write(0, bytes))
        .map_err(redb::StorageError::from)?;
    Database::builder().create_with_backend(memory)
}
