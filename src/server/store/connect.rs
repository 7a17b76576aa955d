//! Makes one connection to PostgreSQL, and says in words why it could not: where it tried, as whom, and what to do.

use std::error::Error as _;
use std::io;

use postgres::Client;
use postgres::config::{ChannelBinding, SslMode};
use postgres::error::SqlState;

use crate::server::store::StoreError;
use crate::server::store::database_url::{DatabaseUrl, Endpoint, Place};
use crate::server::store::pool::classify;
use crate::server::store::tls::{Roots, Tls, Verify};

/// Connects to the database of one URL.
pub(crate) struct Connector {
    url: DatabaseUrl,
    tls: Tls,
}

/// Why there is no connection.
pub(crate) struct ConnectError {
    /// Names every host that was tried. Unusable: waiting cannot mend it at any of them.
    pub(crate) error: StoreError,
    /// What the last server said, if it said anything.
    pub(crate) code: Option<SqlState>,
}

impl From<postgres::Error> for ConnectError {
    fn from(error: postgres::Error) -> ConnectError {
        ConnectError {
            error: classify(&error),
            code: error.code().cloned(),
        }
    }
}

/// Reads the certificates and keys that a URL names, if it names any; an error says which file is wrong.
pub(crate) fn check_files(url: &DatabaseUrl) -> Result<(), String> {
    match (&url.tls.verify, &url.tls.client) {
        // The system's roots take a while, and say themselves what is wrong with them.
        (
            Verify::Nothing
            | Verify::Authority(Roots::System)
            | Verify::AuthorityAndName(Roots::System),
            None,
        ) => Ok(()),
        _ => Tls::new(&url.tls).map(drop),
    }
}

impl Connector {
    /// Reads the files that the URL names once, so that the error can say which is wrong.
    pub(crate) fn new(url: &DatabaseUrl) -> Result<Connector, String> {
        Ok(Connector {
            url: url.clone(),
            tls: Tls::new(&url.tls)?,
        })
    }

    /// Tries the hosts in turn. `options` are the session's, beside those of the URL: `-c name=value`.
    pub(crate) fn connect(&self, options: Option<&str>) -> Result<Client, ConnectError> {
        let mut endpoints: Vec<&Endpoint> = self.url.endpoints().iter().collect();
        if self.url.is_balanced() {
            shuffle(&mut endpoints);
        }
        let (mut texts, mut can_wait, mut code) = (Vec::new(), false, None);
        for endpoint in endpoints {
            match self.connect_to(endpoint, options) {
                Ok(client) => return Ok(client),
                Err(failed) => {
                    can_wait |= matches!(failed.error, StoreError::Unavailable(_));
                    texts.push(failed.error.cause().to_owned());
                    code = failed.code;
                }
            }
        }
        let text = texts.join("; ");
        let error = match can_wait {
            true => StoreError::Unavailable(text),
            false => StoreError::Unusable(text),
        };
        Err(ConnectError { error, code })
    }

    /// An error of a connection of ours that waiting cannot mend, with where that is.
    pub(crate) fn placed(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unusable(cause) => {
                StoreError::Unusable(format!("{}: {cause}", self.described()))
            }
            other => other,
        }
    }

    /// Its hosts, user and database.
    pub(crate) fn described(&self) -> String {
        let hosts: Vec<String> = self
            .url
            .endpoints()
            .iter()
            .map(ToString::to_string)
            .collect();
        self.place(&hosts.join(" or "))
    }

    /// What lets others read or change what goes to another machine, if anything does.
    pub(crate) fn weakness(&self) -> Option<String> {
        let endpoint = self.url.endpoints().iter().find(|endpoint| {
            let Place::Host(name, address) = &endpoint.place else {
                return false;
            };
            let address = address.or_else(|| name.parse().ok());
            !address.map_or(name == "localhost", |address| address.is_loopback())
        })?;
        let verifies = matches!(self.url.tls.verify, Verify::AuthorityAndName(_));
        let (config, _) = self.url.config(endpoint);
        let is_bound = config.get_channel_binding() == ChannelBinding::Require;
        (!verifies && !is_bound).then(|| {
            format!("others on the way to {endpoint} can read and change all logins, as sslmode is less than verify-full")
        })
    }

    fn place(&self, host: &str) -> String {
        let (user, database) = (self.url.user(), self.url.database());
        format!("{host}, user {user:?}, database {database:?}")
    }

    fn connect_to(
        &self,
        endpoint: &Endpoint,
        options: Option<&str>,
    ) -> Result<Client, ConnectError> {
        let (mut config, password_problem) = self.url.config(endpoint);
        if let Some(more) = options {
            let own = config
                .get_options()
                .map_or_else(String::new, |own| format!("{own} "));
            config.options(&format!("{own}{more}"));
        }
        let mut connected = config.connect(self.tls.clone());
        // As in libpq: what is only preferred is given up, where the server's TLS or its rules for it get in the way.
        if let Err(error) = &connected
            && config.get_ssl_mode() == SslMode::Prefer
            && matches!(endpoint.place, Place::Host(..))
            && (is_of_tls(error)
                || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
            && let Ok(client) = config.ssl_mode(SslMode::Disable).connect(self.tls.clone())
        {
            connected = Ok(client);
        }
        connected.map_err(|error| {
            let place = self.place(&endpoint.to_string());
            ConnectError {
                error: self.explain(&place, &error, password_problem.as_deref()),
                code: error.code().cloned(),
            }
        })
    }

    fn explain(
        &self,
        place: &str,
        error: &postgres::Error,
        password_problem: Option<&str>,
    ) -> StoreError {
        let unusable = |what: &str| StoreError::Unusable(format!("{place}: {what}"));
        if let Some(error) = rustls_error(error) {
            return unusable(&self.tls.words(error));
        }
        let classified = classify(error);
        let text = classified.cause();
        // The crate has no codes for these.
        for (its, ours) in [
            (
                "server does not support TLS",
                "it has no TLS, and sslmode wants it",
            ),
            (
                "server did not use channel binding",
                "channel_binding=require, and there is none: it takes TLS, SCRAM-SHA-256, and a certificate whose \
                 signature has a hash and whose key can be verified",
            ),
            (
                "unsupported authentication method",
                "it wants Kerberos or SSPI, which is not supported",
            ),
            (
                "unsupported SASL mechanism",
                "it wants a way of authentication that is not supported (not SCRAM-SHA-256)",
            ),
        ] {
            if text.contains(its) {
                return unusable(ours);
            }
        }
        if text.contains("password missing") {
            let hint = password_problem.unwrap_or(
                "none is set: it goes into DATABASE_URL, PGPASSWORD or libpq's password file (PGPASSFILE, ~/.pgpass)",
            );
            return unusable(&format!("it asks for a password, and {hint}"));
        }
        match classified {
            StoreError::Unusable(text) => {
                let hint = password_problem.map_or_else(String::new, |hint| format!(" ({hint})"));
                unusable(&format!("{text}{hint}"))
            }
            other => StoreError::Unavailable(format!("{place}: {}", other.cause())),
        }
    }
}

fn is_of_tls(error: &postgres::Error) -> bool {
    rustls_error(error).is_some()
        || error
            .to_string()
            .starts_with("error performing TLS handshake")
}

/// What rustls said, however deep it is wrapped.
fn rustls_error(error: &postgres::Error) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error);
        }
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// `load_balance_hosts=random`.
fn shuffle<T>(items: &mut [T]) {
    for end in (1..items.len()).rev() {
        // Fair enough for a handful of hosts; without randomness the order stays.
        let random = getrandom::u32().unwrap_or(u32::MAX) as usize;
        items.swap(end, random % (end + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weakness_is_told_of_connections_to_other_machines_alone() {
        for (url, is_weak) in [
            ("postgres://u@db.example/d", true),
            ("postgres://u@db.example/d?sslmode=require", true),
            ("postgres://u@192.0.2.1/d?sslmode=disable", true),
            ("postgres://u@localhost,db.example/d", true),
            ("postgres://u@db.example/d?sslmode=verify-full", false),
            (
                "postgres://u@db.example/d?sslmode=require&channel_binding=require",
                false,
            ),
            ("postgres://u@localhost/d", false),
            ("postgres://u@[::1]/d", false),
            ("postgres://u@db.example/d?hostaddr=127.0.0.1", false),
            ("postgres:///d?host=/run/postgresql", false),
        ] {
            let parsed = DatabaseUrl::parse(url, &|_| None).unwrap();
            let weakness = Connector::new(&parsed).unwrap().weakness();
            assert_eq!(weakness.is_some(), is_weak, "{url}: {weakness:?}");
        }
    }
}
