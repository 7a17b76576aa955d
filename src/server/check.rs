//! `--check`: what a start would meet and do. It reads, and changes nothing: nothing is written, made or migrated.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::server::client_address::TrustedProxies;
use crate::server::config::{Config, StoreLocation, TlsFiles};
use crate::server::front::process_limits;
use crate::server::front::tls::{Pair, Validity};
use crate::server::postiz::{Postiz, PostizError, ProbeError};
use crate::server::store::{StoreError, embedded, postgres};
use crate::server::{in_time, server_url};
use crate::shared::base_url::BaseUrl;

/// What a check found, line by line.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is well, and warnings.
    pub notes: Vec<String>,
    /// What the configuration must mend.
    pub wrong: Vec<String>,
    /// What cannot be reached or used as it is.
    pub failed: Vec<String>,
}

/// Looks at everything that a server needs.
pub fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let warnings = config.warnings.iter();
    findings.notes = warnings.map(|text| format!("WARNING: {text}")).collect();
    if let Err(error) = process_limits::sufficient_descriptors(config.pool_size()) {
        findings.failed.push(error);
    }
    findings.store(config);
    findings.postiz(config);
    findings.public_url(config);
    findings.metrics(config.metrics_listen);
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
        let location = config.store.clone();
        match in_time(config.times.ping, move || match &location {
            StoreLocation::Postgres(url) => postgres::inspect(url),
            StoreLocation::File(path) => embedded::inspect(path),
        }) {
            Ok(lines) => self.notes.extend(lines),
            Err(StoreError::Unusable(cause)) => {
                self.failed
                    .push(format!("the store cannot be used: {cause}"));
            }
            Err(error) => self.failed.push(error.to_string()),
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
            Err(ProbeError::NotPostiz(what)) => self.wrong.push(format!(
                "POSTIZ_API_URL {url} is not the API of a Postiz: {what}; a self-hosted one has it at https://host/api"
            )),
            Err(ProbeError::Postiz(
                error @ (PostizError::InvalidClient | PostizError::Unregistered(_)),
            )) => self.wrong.push(error.to_string()),
            Err(ProbeError::Postiz(error)) => self.failed.push(error.to_string()),
        }
    }

    fn public_url(&mut self, config: &Config) {
        if let Some(files) = &config.tls {
            self.certificate(files, config.server_url.as_ref());
        }
        let Some(url) = &config.server_url else {
            return self.note("SERVER_URL is not set: only this machine can log in");
        };
        self.note(format!("clients are sent to {url}"));
        if url.is_loopback() {
            return;
        }
        if !url.is_https() {
            self.warn("SERVER_URL is plain http: tokens would cross the network in clear; put https in front");
        }
        if config.tls.is_none() && config.trusted_proxies == TrustedProxies::default() {
            self.warn("TRUSTED_PROXIES names loopback alone: a proxy on another machine, or before a container, must be named there, or all its clients count as one");
        }
    }

    fn metrics(&mut self, listen: Option<SocketAddr>) {
        if let Some(address) = listen.filter(|address| !address.ip().is_loopback()) {
            self.warn(&format!("METRICS_LISTEN {address} is not loopback: whoever reaches it reads the metrics, which hold no secrets"));
        }
    }

    /// Its dates and names. Behind a proxy that makes TLS connections of its own another name may be right.
    fn certificate(&mut self, files: &TlsFiles, url: Option<&BaseUrl>) {
        // A pair that cannot be used is a problem of the configuration, which is told before.
        let Ok(pair) = Pair::read(files) else { return };
        let path = files.certificate.display();
        let [from, until] = [pair.not_before, pair.not_after].map(httpdate::fmt_http_date);
        let text = format!("the certificate in TLS_CERT_FILE {path} is valid until {until}");
        match pair.validity(SystemTime::now()) {
            Validity::Good => self.note(text),
            Validity::EndsSoon => self.warn(&format!("{text}: renew it")),
            Validity::Expired => self.wrong.push(format!("{text}: it has expired")),
            Validity::TooNew => self.wrong.push(format!(
                "the certificate in TLS_CERT_FILE {path} is not valid before {from}"
            )),
        }
        let Some(url) = url.filter(|url| url.is_https()) else {
            return;
        };
        let host = url.host().trim_start_matches('[').trim_end_matches(']');
        if !pair.is_for(host) {
            let names = match pair.names.as_slice() {
                [] => "no host at all (subjectAltName is empty)".to_owned(),
                names => names.join(", "),
            };
            self.warn(&format!(
                "the certificate in TLS_CERT_FILE {path} is not for {host}, which SERVER_URL names; it is for {names}"
            ));
        }
    }
}
