//! A JSON object in a file that only its owner may read: the credentials, and what is kept beside them. private_file.rs
//! reads and writes the bytes.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::error::CliError;
use crate::cli::private_file;

/// Where the object is kept.
pub(crate) struct JsonFile {
    path: PathBuf,
}

impl JsonFile {
    pub(crate) fn new(path: PathBuf) -> JsonFile {
        JsonFile { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path, for messages.
    pub(crate) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// The file in the same folder whose name is this one's with `suffix` at its end.
    pub(crate) fn beside(&self, suffix: &str) -> JsonFile {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        JsonFile::new(name.into())
    }

    /// The object; `None` when there is no file, or nothing in it.
    pub(crate) fn load(&self) -> Result<Option<Map<String, Value>>, CliError> {
        let read = private_file::read(&self.path);
        let bytes = read.map_err(|error| self.broken(&error.to_string()))?;
        match bytes {
            Some(bytes) => object_in(&bytes).map_err(|why| self.broken(&why)),
            None => Ok(None),
        }
    }

    /// The error for a file whose content cannot be used.
    pub(crate) fn broken(&self, why: &str) -> CliError {
        CliError::failed(format!("cannot use {}: {why}", self.shown()))
            .word("broken_file")
            .hint("run `postiz auth:login` to write it anew, or `postiz auth:logout` to remove it")
    }

    /// Replaces the file: two-space indented, no newline at its end.
    pub(crate) fn save(&self, object: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(object)?;
        private_file::replace(&self.path, text.as_bytes())
    }

    /// Checks that [`JsonFile::save`] will work, before the user is asked to do anything.
    pub(crate) fn check_writable(&self) -> Result<(), CliError> {
        private_file::check_replaceable(&self.path).map_err(|error| {
            CliError::failed(format!("cannot write {}: {error}", self.shown()))
                .word("cannot_save")
                .hint(
                    "name a file that can be written with --credentials or POSTIZ_CREDENTIALS_FILE",
                )
        })
    }

    /// Removes the file, whatever its content; `false` when there was none.
    pub(crate) fn remove(&self) -> io::Result<bool> {
        private_file::remove(&self.path)
    }

    /// Can other users of this machine read the file?
    pub(crate) fn is_open_to_others(&self) -> bool {
        private_file::is_open_to_others(&self.path)
    }
}

/// The JSON object that `bytes` hold; `None` when they are blank. The error says what is wrong with them.
pub(crate) fn object_in(bytes: &[u8]) -> Result<Option<Map<String, Value>>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not valid UTF-8")?;
    // Windows editors write a byte order mark first.
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        Err(error) => Err(format!("it is not JSON ({error})")),
    }
}
