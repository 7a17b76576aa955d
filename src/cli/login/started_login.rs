//! A login between `auth:login --start` and `--finish`, saved in a file beside the credentials.
//!
//! The file holds the device code, which is as secret as the token. It is never put on a command line or on stdout.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::json_file::JsonFile;
use crate::cli::login::auth_server::Codes;
use crate::cli::login::wait::Wait;
use crate::shared::base_url::BaseUrl;
use crate::shared::secret::Secret;
use crate::shared::utc::unix_seconds;

/// What `--finish` needs.
pub(crate) struct StartedLogin {
    pub(super) server: BaseUrl,
    pub(super) device_code: Secret<String>,
    pub(super) interval: Duration,
    /// Unix time in seconds.
    expires_at: u64,
    /// Unix time in seconds of the earliest next poll.
    ask_again_at: u64,
}

impl StartedLogin {
    pub(super) fn begin(server: &BaseUrl, codes: &Codes, date: SystemTime) -> StartedLogin {
        StartedLogin {
            server: server.clone(),
            device_code: codes.device_code.clone(),
            interval: codes.interval,
            expires_at: unix_seconds(date) + codes.expires_in.as_secs(),
            ask_again_at: 0,
        }
    }

    /// The file for the login, beside the credentials in `file`.
    pub(crate) fn file_beside(file: &JsonFile) -> JsonFile {
        file.beside(".login")
    }

    /// The time until the codes expire.
    pub(super) fn left(&self, date: SystemTime) -> Duration {
        let left = Duration::from_secs(self.expires_at.saturating_sub(unix_seconds(date)));
        left.min(LIFETIME_MAX)
    }

    /// The pause before the next poll; no longer than usual, also when this machine's date was set back.
    pub(super) fn pause(&self, date: SystemTime) -> Duration {
        let pause = Duration::from_secs(self.ask_again_at.saturating_sub(unix_seconds(date)));
        pause.min(Wait::usual_pause(self.interval))
    }

    /// Notes a poll at `date`, and the `interval` that its answer asked for.
    pub(super) fn ask_again_at(&mut self, date: SystemTime, interval: Duration) {
        self.interval = interval;
        self.ask_again_at = unix_seconds(date) + Wait::usual_pause(interval).as_secs() + 1;
    }

    pub(super) fn save(&self, login_file: &JsonFile) -> Result<(), CliError> {
        let fields = json!({
            "authServer": self.server.as_str(),
            "deviceCode": self.device_code.expose(),
            "interval": self.interval.as_secs_f64(),
            "expiresAt": self.expires_at,
            "askAgainAt": self.ask_again_at,
        });
        login_file.save(&fields).map_err(|error| {
            let message = format!("cannot write {}: {error}", login_file.shown());
            CliError::failed(message).word("cannot_save")
        })
    }

    /// Does the file still hold this login? A later `--start` overwrites it.
    pub(super) fn is_at(&self, login_file: &JsonFile) -> bool {
        StartedLogin::load(login_file).is_ok_and(|found| found.device_code == self.device_code)
    }

    pub(super) fn load(login_file: &JsonFile) -> Result<StartedLogin, CliError> {
        let not_started = |message: String| {
            CliError::failed(message)
                .word("not_started")
                .hint("run `postiz auth:login --start` first")
        };
        let Some(fields) = login_file.load()? else {
            return Err(not_started("no login has been started".to_owned()));
        };
        let read = || {
            Some(StartedLogin {
                server: BaseUrl::parse(fields.get("authServer")?.as_str()?).ok()?,
                device_code: Secret::new(fields.get("deviceCode")?.as_str()?.to_owned()),
                interval: Duration::try_from_secs_f64(fields.get("interval")?.as_f64()?)
                    .ok()
                    .filter(|interval| *interval <= INTERVAL_MAX)?,
                expires_at: fields.get("expiresAt")?.as_u64()?,
                ask_again_at: fields.get("askAgainAt")?.as_u64()?,
            })
        };
        read().ok_or_else(|| not_started(format!("{} is broken", login_file.shown())))
    }
}

/// Longest interval that a file may hold: longer than a server may ask for.
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// Longest lifetime of codes, whatever this machine's date.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
