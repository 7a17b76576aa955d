//! The credentials file, byte-compatible with the npm CLI's, and who is signed in with what.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::private_file;
use crate::shared::base_url::BaseUrl;
use crate::shared::secret::Secret;

/// The Postiz API when nothing names another.
pub(crate) const DEFAULT_API_URL: &str = "https://api.postiz.com";

/// Where the login is kept.
pub(crate) struct CredentialsFile {
    path: PathBuf,
}

/// What the file holds: a JSON object with an access token in it.
pub(crate) struct Stored {
    pub(crate) access_token: Secret<String>,
    pub(crate) api_url: Option<String>,
    /// As the auth server sent it: text, a number, or null.
    pub(crate) organization_id: Option<Value>,
}

impl CredentialsFile {
    /// `--credentials` or `POSTIZ_CREDENTIALS_FILE`, else `~/.postiz/credentials.json`.
    pub(crate) fn locate(context: &Context) -> Result<CredentialsFile, CliError> {
        CredentialsFile::find(context)?.ok_or_else(no_home)
    }

    /// `None` where nothing says where the file is: no variable, and no home folder (a container, a cron job).
    fn find(context: &Context) -> Result<Option<CredentialsFile>, CliError> {
        // A folder under the current one is no home: the next command may run elsewhere.
        let home = context.home.as_deref().filter(|home| home.is_absolute());
        let named = match context.vars.raw(FILE_VARIABLE) {
            Some(name) => named_path(name, home)?,
            None => None,
        };
        let usual = || home.map(|home| home.join(".postiz").join("credentials.json"));
        Ok(named.or_else(usual).map(|path| CredentialsFile { path }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// A file beside this one, its name with `suffix`.
    pub(crate) fn beside(&self, suffix: &str) -> CredentialsFile {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        CredentialsFile {
            path: PathBuf::from(name),
        }
    }

    /// The login in the file; `None` without a file, or without an `accessToken` in it. A file that cannot be read or
    /// parsed is an error: skipping it in silence would act for another account.
    pub(crate) fn load(&self) -> Result<Option<Stored>, CliError> {
        let Some(fields) = self.load_object()? else {
            return Ok(None);
        };
        Stored::from_object(&fields).map_err(|why| self.broken(why))
    }

    /// The JSON object in the file; `None` when there is no file, or nothing in it.
    pub(crate) fn load_object(&self) -> Result<Option<Map<String, Value>>, CliError> {
        let read =
            private_file::read(&self.path).map_err(|error| self.broken(&error.to_string()))?;
        match read {
            Some(bytes) => object_in(&bytes).map_err(|why| self.broken(&why)),
            None => Ok(None),
        }
    }

    fn broken(&self, why: &str) -> CliError {
        CliError::failed(format!("cannot use {}: {why}", self.shown()))
            .word("broken_file")
            .hint("run `postiz auth:login` to write it anew, or `postiz auth:logout` to remove it")
    }

    /// Saves a login. Fields of an earlier file that we do not know stay.
    pub(crate) fn save(&self, stored: &Stored) -> io::Result<()> {
        let mut fields = Map::new();
        fields.insert(
            "accessToken".to_owned(),
            stored.access_token.expose().as_str().into(),
        );
        fields.insert(
            "apiUrl".to_owned(),
            stored.api_url.as_deref().unwrap_or(DEFAULT_API_URL).into(),
        );
        if let Some(id) = &stored.organization_id {
            fields.insert("organizationId".to_owned(), id.clone());
        }
        // A login may overwrite a broken file, which then has no fields worth keeping.
        let mut earlier = self.load_object().ok().flatten().unwrap_or_default();
        earlier.remove("organizationId");
        for (name, value) in earlier {
            fields.entry(name).or_insert(value);
        }
        self.write_object(fields)
    }

    /// Replaces the file: two-space indented, no newline at its end.
    pub(crate) fn write_object(&self, fields: Map<String, Value>) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&Value::Object(fields))?;
        private_file::replace(&self.path, text.as_bytes())
    }

    /// Finds out whether [`CredentialsFile::save`] will work, before anyone is asked to do anything.
    pub(crate) fn check_writable(&self) -> Result<(), CliError> {
        private_file::check_replaceable(&self.path).map_err(|error| {
            CliError::failed(format!("cannot write {}: {error}", self.shown()))
                .word("cannot_save")
                .hint(
                    "name a file that can be written with --credentials or POSTIZ_CREDENTIALS_FILE",
                )
        })
    }

    /// Removes the file, whatever is in it; `false` when there was none.
    pub(crate) fn remove(&self) -> io::Result<bool> {
        private_file::remove(&self.path)
    }

    /// Can other users of this machine read the file?
    #[cfg(unix)]
    pub(crate) fn is_open_to_others(&self) -> bool {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(&self.path)
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    }

    /// Windows keeps a home folder's files to its user.
    #[cfg(not(unix))]
    pub(crate) fn is_open_to_others(&self) -> bool {
        false
    }
}

impl Stored {
    /// The login that a file's object holds; `None` without an `accessToken` in it. The error says what is wrong.
    pub(crate) fn from_object(fields: &Map<String, Value>) -> Result<Option<Stored>, &'static str> {
        let access_token = match fields.get("accessToken") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(token)) if token.is_empty() => return Ok(None),
            Some(Value::String(token)) => Secret::new(token.clone()),
            Some(_) => return Err("its accessToken is not text"),
        };
        let api_url = match fields.get("apiUrl") {
            None | Some(Value::Null) => None,
            Some(Value::String(url)) => Some(url.trim().to_owned()).filter(|url| !url.is_empty()),
            Some(_) => return Err("its apiUrl is not text"),
        };
        Ok(Some(Stored {
            access_token,
            api_url,
            organization_id: fields.get("organizationId").cloned(),
        }))
    }
}

/// The JSON object that a file's bytes are, or what is wrong with them; `None` when there are none.
pub(crate) fn object_in(bytes: &[u8]) -> Result<Option<Map<String, Value>>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not valid UTF-8")?;
    // Editors of Windows put a byte order mark first.
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        Err(error) => Err(format!("it is not JSON ({error})")),
    }
}

/// The path that a setting names. No shell has read it: the blanks and the CR of a careless file of settings are still at
/// its ends, and `~/` still means the home folder. `None` when nothing is left.
fn named_path(name: &OsStr, home: Option<&Path>) -> Result<Option<PathBuf>, CliError> {
    let path = Path::new(trimmed(name));
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

#[cfg(unix)]
fn trimmed(name: &OsStr) -> &OsStr {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(name.as_bytes().trim_ascii())
}

#[cfg(not(unix))]
fn trimmed(name: &OsStr) -> &OsStr {
    name.to_str().map_or(name, |name| OsStr::new(name.trim()))
}

fn no_home() -> CliError {
    CliError::failed("no home folder is known").hint(
        "set HOME to a whole path, or name the file with --credentials or POSTIZ_CREDENTIALS_FILE",
    )
}

/// A credential in use, and where it sends requests.
pub(crate) struct SignedIn {
    pub(crate) secret: Secret<String>,
    pub(crate) api_url: BaseUrl,
    pub(crate) by: By,
}

/// How the user signed in.
pub(crate) enum By {
    /// `auth:login`.
    Login {
        file: CredentialsFile,
        organization_id: Option<Value>,
        /// The file names an API URL, which comes before `POSTIZ_API_URL`.
        has_api_url: bool,
    },
    /// `POSTIZ_API_KEY`.
    ApiKey,
}

impl SignedIn {
    /// The stored login if there is one, else the API key, else an error that names both ways.
    pub(crate) fn find(context: &Context) -> Result<SignedIn, CliError> {
        let file = CredentialsFile::find(context)?;
        let stored = match &file {
            Some(file) => file.load()?,
            None => None,
        };
        match (file, stored, context.vars.text(API_KEY_VARIABLE)) {
            (Some(file), Some(stored), _) => SignedIn::with_login(context, file, stored),
            (_, _, Some(key)) => SignedIn::with_key(context, &key),
            (None, _, None) => Err(no_home()),
            (Some(_), None, None) => Err(CliError::not_signed_in()),
        }
    }

    fn with_login(
        context: &Context,
        file: CredentialsFile,
        stored: Stored,
    ) -> Result<SignedIn, CliError> {
        let api_url = match &stored.api_url {
            Some(url) => BaseUrl::parse(url)
                .map_err(|wrong| file.broken(&format!("its apiUrl `{url}` {wrong}")))?,
            None => api_url_from_environment(context)?,
        };
        if !is_sendable(stored.access_token.expose()) {
            return Err(file.broken("its accessToken holds characters that cannot be sent"));
        }
        Ok(SignedIn {
            secret: stored.access_token,
            api_url,
            by: By::Login {
                file,
                organization_id: stored.organization_id,
                has_api_url: stored.api_url.is_some(),
            },
        })
    }

    fn with_key(context: &Context, key: &str) -> Result<SignedIn, CliError> {
        if !is_sendable(key) {
            let message =
                format!("{API_KEY_VARIABLE} holds characters that cannot be sent (a line break?)");
            return Err(CliError::usage(message)
                .hint("copy the key again from Postiz: Settings > Public API"));
        }
        Ok(SignedIn {
            secret: Secret::new(key.to_owned()),
            api_url: api_url_from_environment(context)?,
            by: By::ApiKey,
        })
    }

    /// As much of the secret as may be shown: 8 characters, never more than a quarter.
    pub(crate) fn secret_start(&self) -> &str {
        let secret = self.secret.expose();
        let shown = 8.min(secret.len() / 4);
        secret.get(..shown).unwrap_or_default()
    }
}

/// May `secret` be the value of a header? Only visible ASCII, and blanks inside it, arrive as they were sent.
pub(crate) fn is_sendable(secret: &str) -> bool {
    secret.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// `POSTIZ_API_URL`, else the cloud's.
pub(crate) fn api_url_from_environment(context: &Context) -> Result<BaseUrl, CliError> {
    let url = context
        .vars
        .text(API_URL_VARIABLE)
        .unwrap_or_else(|| DEFAULT_API_URL.to_owned());
    BaseUrl::parse(&url)
        .map_err(|wrong| CliError::usage(format!("{API_URL_VARIABLE} `{url}` {wrong}")))
}

pub(crate) const API_KEY_VARIABLE: &str = "POSTIZ_API_KEY";
pub(crate) const AUTH_SERVER_VARIABLE: &str = "POSTIZ_AUTH_SERVER";
pub(crate) const API_URL_VARIABLE: &str = "POSTIZ_API_URL";
pub(crate) const FILE_VARIABLE: &str = "POSTIZ_CREDENTIALS_FILE";
