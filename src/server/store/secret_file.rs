//! The root secret of a server that was given none. The first start makes it, in a file beside the embedded store's.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::server::file_rights;
use crate::server::keys::SECRET_BYTES_MIN;
use crate::server::store::StoreError;
use crate::server::store::embedded::open_private_file;
use crate::shared::hash::hex;
use crate::shared::random;
use crate::shared::secret::Secret;
use crate::shared::small_file;

/// Reads the secret beside the store's file at `path`, or makes one that only the file's owner may read.
pub(crate) fn read_or_make(path: &Path) -> Result<Secret<String>, StoreError> {
    let file = with_suffix(path, ".secret");
    let unusable = |what: &dyn fmt::Display| {
        StoreError::Unusable(format!(
            "cannot keep a secret in {}: {what}",
            file.display()
        ))
    };
    match small_file::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
        Ok(text) if text.trim().len() >= SECRET_BYTES_MIN => {
            return Ok(Secret::new(text.trim().to_owned()));
        }
        Ok(_) => {
            return Err(unusable(
                &"it is too short; delete it and a new one is made",
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(&file_rights::explain_store(&file, &error))),
    }
    let secret = hex(&random::bytes::<32>());
    // Renamed when it is complete, so that a crash does not leave a part of it.
    let new = with_suffix(path, ".secret.new");
    let write = || {
        let mut opened = open_private_file(&new)?;
        opened.set_len(0)?;
        opened.write_all(secret.as_bytes())?;
        opened.sync_all()?;
        std::fs::rename(&new, &file)
    };
    write().map_err(|error| unusable(&file_rights::explain_store(&new, &error)))?;
    Ok(Secret::new(secret))
}

/// `path` with `suffix` after its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
