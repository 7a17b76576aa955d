//! `--check`: reports what a start would find, without changing anything: it writes, creates and migrates nothing.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::server::client_address::TrustedProxies;
use crate::server::config::{Config, StoreLocation, TlsFiles};
use crate::server::file_rights;
use crate::server::front::tls::{ChainAndKey, Validity};
use crate::server::front::{listener, process_limits};
use crate::server::metrics;
use crate::server::postiz::{Postiz, PostizError};
use crate::server::store::{StoreError, embedded, postgres};
use crate::server::{server_url, with_timeout};
use crate::shared::base_url::BaseUrl;

/// The findings of a check, line by line.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is right, and warnings.
    pub notes: Vec<String>,
    /// What must be changed in the configuration.
    pub misconfigured: Vec<String>,
    /// What cannot be reached or used.
    pub unreachable: Vec<String>,
}

/// Checks everything that a server needs.
pub fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let warnings = config.warnings.iter();
    findings.notes = warnings.map(|text| format!("WARNING: {text}")).collect();
    if let Err(error) = process_limits::sufficient_descriptors(config.pool_size()) {
        findings.unreachable.push(error);
    }
    findings.store(config);
    findings.postiz(config);
    findings.public_url(config);
    findings.metrics(config.metrics_listen);
    findings.listeners(config);
    findings
}

impl Findings {
    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn warn(&mut self, text: &str) {
        self.note(format!("WARNING: {text}"));
    }

    fn store(&mut self, config: &Config) {
        if let StoreLocation::File(path) = &config.store
            && let Some(problem) = file_rights::store_problem(path)
        {
            let file = path.display();
            let text = format!("a start as this user would fail: {file}: {problem}");
            self.unreachable.push(text);
        }
        let location = config.store.clone();
        match with_timeout(config.times.ping, move || match &location {
            StoreLocation::Postgres(url) => postgres::inspect(url),
            StoreLocation::File(path) => embedded::inspect(path),
        }) {
            Ok(lines) => self.notes.extend(lines),
            Err(StoreError::Unusable(cause)) => {
                self.unreachable
                    .push(format!("the store cannot be used: {cause}"));
            }
            Err(error) => self.unreachable.push(error.to_string()),
        }
    }

    fn postiz(&mut self, config: &Config) {
        let url = &config.api_url;
        let here = SocketAddr::from(([127, 0, 0, 1], config.port));
        match Postiz::new(config, &server_url(config, here)).probe() {
            Ok(registers) => {
                self.note(match config.oauth_app {
                    Some(_) => format!("Postiz answers at {url}, and knows the OAuth app"),
                    None => format!("Postiz answers at {url}; there is no OAuth app, so each login registers a client"),
                });
                self.note(match registers {
                    true => "it registers clients (POST /oauth/register)",
                    false => "it is too old to register clients (POST /oauth/register)",
                });
            }
            Err(PostizError::NotPostiz(what)) => self.misconfigured.push(format!(
                "POSTIZ_API_URL {url} is not the API of a Postiz: {what}; a self-hosted one has it at https://host/api"
            )),
            Err(error @ (PostizError::InvalidClient | PostizError::Unregistered(_))) => {
                self.misconfigured.push(error.to_string());
            }
            Err(error) => self.unreachable.push(error.to_string()),
        }
    }

    fn public_url(&mut self, config: &Config) {
        if let Some(files) = &config.tls {
            self.certificate(files, config.server_url.as_ref());
        }
        let Some(url) = &config.server_url else {
            return self.note("SERVER_URL is not set: only people on this machine can sign in");
        };
        self.note(format!("clients are sent to {url}"));
        if url.is_loopback() {
            return;
        }
        if !url.is_https() {
            self.warn("SERVER_URL is plain http: tokens would cross the network in clear; put https in front");
        }
        if config.tls.is_none() && config.trusted_proxies == TrustedProxies::default() {
            self.warn("TRUSTED_PROXIES names loopback alone: a proxy on another machine, or outside the server's container, must be named there, or all its clients count as one");
        }
    }

    fn metrics(&mut self, listen: Option<SocketAddr>) {
        if let Some(address) = listen.filter(|address| !address.ip().is_loopback()) {
            self.warn(&format!("METRICS_LISTEN {address} is not loopback: anybody who reaches it can read the metrics, which hold no secrets"));
        }
    }

    /// Checks that the addresses are this machine's, and the ports permitted. A port that is taken is no problem: the server
    /// itself may be running.
    fn listeners(&mut self, config: &Config) {
        self.unreachable
            .extend(listener::problem(config.host, config.port));
        let metrics = config.metrics_listen.and_then(metrics::problem);
        self.unreachable.extend(metrics);
    }

    /// Checks dates and names. Another name is only a warning, since a proxy that connects by TLS may use it.
    fn certificate(&mut self, files: &TlsFiles, url: Option<&BaseUrl>) {
        // Files that cannot be used are reported before, as a problem of the configuration.
        let Ok(certificate) = ChainAndKey::read(files) else {
            return;
        };
        let path = files.certificate.display();
        let [from, until] =
            [certificate.not_before, certificate.not_after].map(httpdate::fmt_http_date);
        let text = format!("the certificate in TLS_CERT_FILE {path} is valid until {until}");
        match certificate.validity(SystemTime::now()) {
            Validity::Valid => self.note(text),
            Validity::ExpiresSoon => self.warn(&format!("{text}: renew it")),
            Validity::Expired => self.misconfigured.push(format!("{text}: it has expired")),
            Validity::NotYetValid => self.misconfigured.push(format!(
                "the certificate in TLS_CERT_FILE {path} is not valid before {from}"
            )),
        }
        let Some(url) = url.filter(|url| url.is_https()) else {
            return;
        };
        let host = url.host().trim_start_matches('[').trim_end_matches(']');
        if !certificate.is_for(host) {
            let names = match certificate.names.as_slice() {
                [] => "no host at all (subjectAltName is empty)".to_owned(),
                names => names.join(", "),
            };
            self.warn(&format!(
                "the certificate in TLS_CERT_FILE {path} is not for {host}, which SERVER_URL names; it is for {names}"
            ));
        }
    }
}
