//! Opens one connection to PostgreSQL. An error says where it tried to connect, as which user, and what to do.

use std::error::Error as _;
use std::io;

use postgres::Client;
use postgres::config::{ChannelBinding, SslMode};
use postgres::error::SqlState;

use crate::server::store::StoreError;
use crate::server::store::database_url::{DatabaseUrl, Endpoint, Host};
use crate::server::store::postgres_error::{PostgresError, classify};
use crate::server::store::tls::{Roots, Tls, Verify};

/// Connects to the database of one URL.
pub(crate) struct Connector {
    url: DatabaseUrl,
    tls: Tls,
}

/// Reads the certificates and keys that the URL names, if any. The error says which file is wrong.
pub(crate) fn check_files(url: &DatabaseUrl) -> Result<(), String> {
    match (&url.tls.verify, &url.tls.client) {
        // No file is named, and reading the system's roots takes time.
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
    /// Reads the files that the URL names. The error says which one is wrong.
    pub(crate) fn new(url: &DatabaseUrl) -> Result<Connector, String> {
        Ok(Connector {
            url: url.clone(),
            tls: Tls::new(&url.tls)?,
        })
    }

    /// Tries the hosts one after another. `options` (`-c name=value`) are added to those of the URL. The error names every host
    /// that was tried; it is `Unusable` only if it is for each of them, and its code is the last one's.
    pub(super) fn connect(&self, options: Option<&str>) -> Result<Client, PostgresError> {
        let mut endpoints: Vec<&Endpoint> = self.url.endpoints.iter().collect();
        if self.url.is_load_balanced() {
            shuffle(&mut endpoints);
        }
        let (mut causes, mut is_retryable, mut code) = (Vec::new(), false, None);
        for endpoint in endpoints {
            match self.connect_to(endpoint, options) {
                Ok(client) => return Ok(client),
                Err(failed) => {
                    is_retryable |= matches!(failed.error, StoreError::Unavailable(_));
                    causes.push(failed.error.cause().to_owned());
                    code = failed.code;
                }
            }
        }
        let causes = causes.join("; ");
        let error = match is_retryable {
            true => StoreError::Unavailable(causes),
            false => StoreError::Unusable(causes),
        };
        Err(PostgresError { error, code })
    }

    /// Adds hosts, user and database to a permanent error of an open connection.
    pub(crate) fn with_location(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unusable(cause) => {
                StoreError::Unusable(format!("{}: {cause}", self.location()))
            }
            other => other,
        }
    }

    pub(crate) fn location(&self) -> String {
        let hosts: Vec<String> = self.url.endpoints.iter().map(ToString::to_string).collect();
        self.location_on(&hosts.join(" or "))
    }

    /// A warning if the connection to another machine can be intercepted.
    pub(crate) fn weakness(&self) -> Option<String> {
        let endpoint = self.url.endpoints.iter().find(|endpoint| {
            let Host::Name(name, address) = &endpoint.host else {
                return false;
            };
            let address = address.or_else(|| name.parse().ok());
            !address.map_or(name == "localhost", |address| address.is_loopback())
        })?;
        let verifies = matches!(self.url.tls.verify, Verify::AuthorityAndName(_));
        let (config, _) = self.url.config(endpoint);
        let is_bound = config.get_channel_binding() == ChannelBinding::Require;
        (!verifies && !is_bound).then(|| {
            format!("an attacker on the network to {endpoint} can read and change all logins, since sslmode is weaker than verify-full")
        })
    }

    fn location_on(&self, host: &str) -> String {
        let (user, database) = (self.url.user(), self.url.database());
        format!("{host}, user {user:?}, database {database:?}")
    }

    fn connect_to(
        &self,
        endpoint: &Endpoint,
        options: Option<&str>,
    ) -> Result<Client, PostgresError> {
        let (mut config, password_problem) = self.url.config(endpoint);
        if let Some(more) = options {
            let own = config
                .get_options()
                .map_or_else(String::new, |own| format!("{own} "));
            config.options(&format!("{own}{more}"));
        }
        let mut connected = config.connect(self.tls.clone());
        // As in libpq: `sslmode=prefer` falls back to no TLS if the handshake fails or pg_hba.conf rejects the connection.
        if let Err(error) = &connected
            && config.get_ssl_mode() == SslMode::Prefer
            && matches!(endpoint.host, Host::Name(..))
            && (is_tls_error(error)
                || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
            && let Ok(client) = config.ssl_mode(SslMode::Disable).connect(self.tls.clone())
        {
            connected = Ok(client);
        }
        connected.map_err(|error| {
            let location = self.location_on(&endpoint.to_string());
            PostgresError {
                error: self.explain(&location, &error, password_problem.as_deref()),
                code: error.code().cloned(),
            }
        })
    }

    /// Says in words what went wrong, after the location.
    fn explain(
        &self,
        location: &str,
        error: &postgres::Error,
        password_problem: Option<&str>,
    ) -> StoreError {
        let unusable = |what: &str| StoreError::Unusable(format!("{location}: {what}"));
        if let Some(error) = rustls_error(error) {
            return unusable(&self.tls.explain(error));
        }
        let classified = classify(error);
        let text = classified.cause();
        // The crate has only texts for these.
        for (crate_text, explanation) in [
            (
                "server does not support TLS",
                "it has no TLS, and sslmode requires it",
            ),
            (
                "server did not use channel binding",
                "channel_binding=require, and there is none: it needs TLS, SCRAM-SHA-256, and a certificate whose \
                 signature has a hash and whose key can be verified",
            ),
            (
                "unsupported authentication method",
                "it requires Kerberos or SSPI, which is not supported",
            ),
            (
                "unsupported SASL mechanism",
                "it requires an authentication method that is not supported (not SCRAM-SHA-256)",
            ),
        ] {
            if text.contains(crate_text) {
                return unusable(explanation);
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
            other => StoreError::Unavailable(format!("{location}: {}", other.cause())),
        }
    }
}

fn is_tls_error(error: &postgres::Error) -> bool {
    rustls_error(error).is_some()
        || error
            .to_string()
            .starts_with("error performing TLS handshake")
}

/// The rustls error among the causes, however deeply it is wrapped.
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
        // The modulo bias does not matter for a few hosts. If the system gives no randomness, the order stays.
        let random = getrandom::u32().unwrap_or(u32::MAX) as usize;
        items.swap(end, random % (end + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weakness_concerns_only_connections_to_other_machines() {
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
