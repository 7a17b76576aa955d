//! `postiz-auth-server healthcheck`: requests `/ready` from the server with the same environment. For containers that have no
//! HTTP client.

use std::net::SocketAddr;
use std::sync::Arc;

use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::server::config::Config;
use crate::server::front::listener;

/// Requests `/ready`. The error says, for the operator, why the server is not ready.
pub fn healthcheck(config: &Config) -> Result<(), String> {
    if config.port == 0 {
        return Err("PORT is 0, so the server's port is unknown".to_owned());
    }
    let mut last = Ok(());
    for ip in listener::local_addresses(config.host) {
        last = request_ready(SocketAddr::new(ip, config.port), config);
        if last.is_ok() {
            break;
        }
    }
    last
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
    let url = format!("{}://{server}/ready", config.scheme());
    match agent.get(&url).call() {
        Ok(answer) if answer.status() == 200 => Ok(()),
        Ok(answer) => Err(format!("{url} answers {}", answer.status())),
        Err(error) => Err(format!("{url} does not answer: {error}")),
    }
}
