//! The credentials file, byte-compatible with the npm CLI's, and who is signed in with what.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::shared::base_url::BaseUrl;
use crate::shared::hash::hex;
use crate::shared::random;
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
    /// `POSTIZ_CREDENTIALS_FILE`, else `~/.postiz/credentials.json`.
    pub(crate) fn locate(context: &Context) -> Result<CredentialsFile, CliError> {
        if let Some(path) = context.vars.path(FILE_VARIABLE) {
            return Ok(CredentialsFile { path });
        }
        match &context.home {
            Some(home) => Ok(CredentialsFile {
                path: home.join(".postiz").join("credentials.json"),
            }),
            None => Err(CliError::failed("no home folder is known")
                .hint("set HOME or POSTIZ_CREDENTIALS_FILE")),
        }
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

    /// The JSON object in the file; `None` when there is no file.
    pub(crate) fn load_object(&self) -> Result<Option<Map<String, Value>>, CliError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.broken(&error.to_string())),
        };
        object_in(&bytes).map(Some).map_err(|why| self.broken(&why))
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
        let earlier = self.load_object().ok().flatten().unwrap_or_default();
        for (name, value) in earlier {
            if name != "organizationId" && !fields.contains_key(&name) {
                fields.insert(name, value);
            }
        }
        self.write_object(fields)
    }

    /// Replaces the file: two-space indented, no newline at its end, readable by its owner alone from its first byte on.
    pub(crate) fn write_object(&self, fields: Map<String, Value>) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&Value::Object(fields))?;
        self.make_folder()?;
        // A link stays a link (people keep such files elsewhere): the file it leads to is replaced.
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let temporary = temporary_beside(&target);
        let written =
            write_new(&temporary, text.as_bytes()).and_then(|()| fs::rename(&temporary, &target));
        if written.is_err() {
            // It holds the token; if even this fails there is nothing left to try.
            let _ = fs::remove_file(&temporary);
        }
        match written {
            // A single file mounted into a container cannot be replaced, only rewritten.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                rewrite(&target, text.as_bytes())
            }
            other => other,
        }
    }

    /// Finds out whether [`CredentialsFile::save`] will work, before anyone is asked to do anything.
    pub(crate) fn check_writable(&self) -> Result<(), CliError> {
        let checked = if self.path.is_dir() {
            Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "it is a folder",
            ))
        } else {
            self.probe()
        };
        checked.map_err(|error| {
            CliError::failed(format!("cannot write {}: {error}", self.shown()))
                .word("cannot_save")
                .hint("set POSTIZ_CREDENTIALS_FILE to a file that can be written")
        })
    }

    fn probe(&self) -> io::Result<()> {
        self.make_folder()?;
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let temporary = temporary_beside(&target);
        // As many bytes as a login may have, so that a full disk shows.
        let written = write_new(&temporary, &[b' '; 4096]);
        let removed = fs::remove_file(&temporary);
        written.and(removed)
    }

    fn make_folder(&self) -> io::Result<()> {
        let Some(folder) = self
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        else {
            return Ok(());
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)
    }

    /// Removes the file, whatever is in it; `false` when there was none.
    pub(crate) fn remove(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Can other users of this machine read the file?
    #[cfg(unix)]
    pub(crate) fn is_open_to_others(&self) -> bool {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
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

/// The JSON object that a file's bytes are, or what is wrong with them.
pub(crate) fn object_in(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not valid UTF-8")?;
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        Err(error) => Err(format!("it is not JSON ({error})")),
    }
}

fn temporary_beside(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{}.tmp", hex(&random::bytes::<8>())));
    PathBuf::from(name)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    write_private(options, path, bytes)
}

fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    write_private(options, path, bytes)
}

fn write_private(mut options: OpenOptions, path: &Path, bytes: &[u8]) -> io::Result<()> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
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
    },
    /// `POSTIZ_API_KEY`.
    ApiKey,
}

impl SignedIn {
    /// The stored login if there is one, else the API key, else an error that names both ways.
    pub(crate) fn find(context: &Context) -> Result<SignedIn, CliError> {
        let located = CredentialsFile::locate(context);
        let api_key = context.vars.text(API_KEY_VARIABLE);
        // Without a home folder (a container, a cron job) an API key still works.
        let file = match (located, &api_key) {
            (Ok(file), _) => file,
            (Err(_), Some(key)) => return SignedIn::with_key(context, key),
            (Err(error), None) => return Err(error),
        };
        match (file.load()?, api_key) {
            (Some(stored), _) => SignedIn::with_login(context, file, stored),
            (None, Some(key)) => SignedIn::with_key(context, &key),
            (None, None) => Err(CliError::not_signed_in()),
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

fn api_url_from_environment(context: &Context) -> Result<BaseUrl, CliError> {
    let url = context
        .vars
        .text(API_URL_VARIABLE)
        .unwrap_or_else(|| DEFAULT_API_URL.to_owned());
    BaseUrl::parse(&url)
        .map_err(|wrong| CliError::usage(format!("{API_URL_VARIABLE} `{url}` {wrong}")))
}

pub(crate) const API_KEY_VARIABLE: &str = "POSTIZ_API_KEY";
const API_URL_VARIABLE: &str = "POSTIZ_API_URL";
const FILE_VARIABLE: &str = "POSTIZ_CREDENTIALS_FILE";
