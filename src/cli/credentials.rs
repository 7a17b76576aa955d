//! The credentials file: where it is, and the login in it, byte-compatible with the npm CLI's. Who is signed in, which may
//! be by an API key too, is signed_in.rs.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::json_file::JsonFile;
use crate::shared::secret::Secret;

/// The Postiz API when nothing names another.
pub(crate) const DEFAULT_API_URL: &str = "https://api.postiz.com";

pub(crate) struct Stored {
    pub(crate) access_token: Secret<String>,
    pub(crate) api_url: Option<String>,
    /// As the auth server sent it: text, a number, or null.
    pub(crate) organization_id: Option<Value>,
}

impl Stored {
    /// The login in `file`; `None` without a file, or without an `accessToken` in it. A file that cannot be read or parsed
    /// is an error: otherwise a command could act for another account.
    pub(crate) fn load(file: &JsonFile) -> Result<Option<Stored>, CliError> {
        match file.load()? {
            Some(object) => Stored::from_object(&object).map_err(|why| file.broken(why)),
            None => Ok(None),
        }
    }

    /// The login in the file's `object`; `None` without an `accessToken` in it. The error says what is wrong.
    pub(crate) fn from_object(object: &Map<String, Value>) -> Result<Option<Stored>, &'static str> {
        let access_token = match object.get("accessToken") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(token)) if token.is_empty() => return Ok(None),
            Some(Value::String(token)) => Secret::new(token.clone()),
            Some(_) => return Err("its accessToken is not text"),
        };
        let api_url = match object.get("apiUrl") {
            None | Some(Value::Null) => None,
            Some(Value::String(url)) => Some(url.trim().to_owned()).filter(|url| !url.is_empty()),
            Some(_) => return Err("its apiUrl is not text"),
        };
        Ok(Some(Stored {
            access_token,
            api_url,
            organization_id: object.get("organizationId").cloned(),
        }))
    }

    /// Saves the login in `file`, and keeps the fields of an earlier file that we do not know.
    pub(crate) fn save(&self, file: &JsonFile) -> io::Result<()> {
        let mut object = Map::new();
        let token = self.access_token.expose().as_str();
        object.insert("accessToken".to_owned(), token.into());
        let api_url = self.api_url.as_deref().unwrap_or(DEFAULT_API_URL);
        object.insert("apiUrl".to_owned(), api_url.into());
        if let Some(id) = &self.organization_id {
            object.insert("organizationId".to_owned(), id.clone());
        }
        // A login overwrites a broken file: nothing in that is worth keeping.
        let mut earlier = file.load().ok().flatten().unwrap_or_default();
        earlier.remove("organizationId");
        for (name, value) in earlier {
            object.entry(name).or_insert(value);
        }
        file.save(&object)
    }
}

/// The credentials file: `--credentials` or `POSTIZ_CREDENTIALS_FILE`, else `~/.postiz/credentials.json`.
pub(crate) fn locate(context: &Context) -> Result<JsonFile, CliError> {
    find(context)?.ok_or_else(no_home)
}

/// As [`locate`], but `None` where neither a variable nor a home folder says where the file is (a container, a cron job).
pub(crate) fn find(context: &Context) -> Result<Option<JsonFile>, CliError> {
    // A relative path is no home: the next command may run in another folder.
    let home = context.home.as_deref().filter(|home| home.is_absolute());
    let named = match context.vars.raw(FILE_VARIABLE) {
        Some(name) => named_path(name, home)?,
        None => None,
    };
    let default = || home.map(|home| home.join(".postiz").join("credentials.json"));
    Ok(named.or_else(default).map(JsonFile::new))
}

/// The path that [`FILE_VARIABLE`] names; `None` when it is blank. No shell has read the value: it may have blanks or a CR
/// at its ends from a file of settings, and may begin with `~/`.
fn named_path(name: &OsStr, home: Option<&Path>) -> Result<Option<PathBuf>, CliError> {
    let path = Path::new(OsStr::from_bytes(name.as_bytes().trim_ascii()));
    let mut components = path.components();
    let first = match components.next() {
        None => return Ok(None),
        Some(Component::Normal(first)) => first,
        Some(_) => return Ok(Some(path.to_owned())),
    };
    if first == "~" {
        let home = home.ok_or_else(no_home)?;
        return Ok(Some(home.join(components.as_path())));
    }
    if first.as_encoded_bytes().starts_with(b"~") {
        let message = format!(
            "{FILE_VARIABLE} `{}` begins with another user's home",
            path.display()
        );
        return Err(
            CliError::usage(message).hint("write the whole path, or ./~… for a file of that name")
        );
    }
    Ok(Some(path.to_owned()))
}

pub(crate) fn no_home() -> CliError {
    CliError::failed("no home folder is known").hint(
        "set HOME to a whole path, or name the file with --credentials or POSTIZ_CREDENTIALS_FILE",
    )
}

/// May `secret` be the value of a header? Other characters than visible ASCII and blanks do not arrive as they were sent.
pub(crate) fn is_sendable(secret: &str) -> bool {
    secret.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Is `token` a usable access token, so that it may be stored?
pub(crate) fn is_token(token: &str) -> bool {
    !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && is_sendable(token)
}

/// Is `id` an organisation's ID that may be stored: short text, a short number, or null?
pub(crate) fn is_organization_id(id: &Value) -> bool {
    match id {
        Value::Null => true,
        Value::String(id) => id.chars().count() <= ORGANIZATION_ID_CHARACTERS_MAX,
        Value::Number(id) => id.as_str().len() <= ORGANIZATION_ID_CHARACTERS_MAX,
        _ => false,
    }
}

pub(crate) const FILE_VARIABLE: &str = "POSTIZ_CREDENTIALS_FILE";

/// Longer than any token of Postiz, shorter than what HTTP servers accept as a header.
const TOKEN_BYTES_MAX: usize = 4096;

/// Longer than any ID of Postiz.
const ORGANIZATION_ID_CHARACTERS_MAX: usize = 256;
