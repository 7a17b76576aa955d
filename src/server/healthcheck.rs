//! `postiz-auth-server healthcheck`: requests `/ready` from the server with the same environment. For containers that have no
//! HTTP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::server::config::Config;

/// Requests `/ready`. The error says, for the operator, why the server is not ready.
pub fn healthcheck(config: &Config) -> Result<(), String> {
    if config.port == 0 {
        return Err("PORT is 0, so the server's port is unknown".to_owned());
    }
    let mut last = Ok(());
    for ip in addresses(config.host) {
        last = request_ready(SocketAddr::new(ip, config.port), config);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// The addresses at which a server that listens on `host` is reached from its own machine.
fn addresses(host: IpAddr) -> Vec<IpAddr> {
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    match host {
        // On a machine without IPv6 the server listens on IPv4.
        IpAddr::V6(all) if all.is_unspecified() => vec![v6, v4],
        IpAddr::V4(all) if all.is_unspecified() => vec![v4],
        one => vec![one],
    }
}

fn request_ready(server: SocketAddr, config: &Config) -> Result<(), String> {
    // The certificate is for the public name, not for this address. No secret is sent, so it is not verified.
    let any_certificate = TlsConfig::builder()
        .disable_verification(true)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(config.times.healthcheck))
        .proxy(None)
        .tls_config(any_certificate)
        .build()
        .into();
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = format!("{scheme}://{server}/ready");
    match agent.get(&url).call() {
        Ok(answer) if answer.status() == 200 => Ok(()),
        Ok(answer) => Err(format!("{url} answers {}", answer.status())),
        Err(error) => Err(format!("{url} does not answer: {error}")),
    }
}
