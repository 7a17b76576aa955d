//! The one HTTP client: which roots it trusts, its proxy, its time limits. What is asked and answered is elsewhere.

mod connect;
mod early_answer;
mod proxy;
mod tcp;

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use ureq::Agent;
use ureq::http::Uri;
use ureq::unversioned::resolver::DefaultResolver;

use crate::shared::problem::{Lookup, Problem};
use crate::shared::trust;
use connect::{OutboundConnector, TargetResolver};

pub use crate::shared::trust::{distrust, system_roots};
pub use connect::ProxyError;
pub use early_answer::Sending;
pub use proxy::Proxies;

/// What one client may do.
pub struct ClientSettings<'a> {
    /// The `User-Agent` header.
    pub user_agent: &'a str,
    /// Longest wait for a connection once the name is looked up: all addresses, proxies, TLS. As long for the name.
    pub connect_timeout: Duration,
    /// Longest time for a request and its whole answer; none for uploads.
    pub total_timeout: Option<Duration>,
}

/// The way out, as the environment describes it: proxies, and which certificates are trusted.
pub struct Outbound {
    /// The proxies.
    pub proxies: Arc<Proxies>,
    /// What of the environment cannot be used; requests then go as if it were not set.
    pub problems: Vec<Problem>,
    /// How far the last request has come.
    pub sending: Arc<Sending>,
    roots: Vec<CertificateDer<'static>>,
}

impl Outbound {
    /// The way to `https` URLs, or to `http`. Roots are read only where there is TLS: it takes longer than all the rest
    /// of a start-up.
    pub fn new(vars: Lookup, https: bool) -> Outbound {
        let proxies = Proxies::from_vars(vars);
        let mut problems: Vec<Problem> = proxies.problem(https).cloned().into_iter().collect();
        let mut roots = Vec::new();
        if https || proxies.needs_tls(https) {
            let (found, wrong) = trust::roots(vars);
            roots = found;
            problems.extend(wrong);
        }
        Outbound {
            proxies: Arc::new(proxies),
            problems,
            sending: Arc::default(),
            roots,
        }
    }
}

/// All that is wrong with the variables that describe the way out, whatever URL is asked for.
pub fn problems(vars: Lookup) -> Vec<Problem> {
    let proxies = Proxies::from_vars(vars);
    let of_http = proxies.problem(false);
    let of_https = proxies.problem(true).filter(|one| Some(*one) != of_http);
    let mut problems: Vec<Problem> = of_http.into_iter().chain(of_https).cloned().collect();
    problems.extend(trust::problems(vars));
    problems
}

/// A variable of this process, for the one caller whose configuration is read without them.
#[allow(
    clippy::disallowed_methods,
    reason = "the server's Config does not hold the variables that every program honours"
)]
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// A blocking client that answers with any status (none is an error), follows no redirect, and takes `outbound`.
pub fn agent(settings: &ClientSettings, outbound: Outbound) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(settings.user_agent)
        .timeout_resolve(Some(settings.connect_timeout))
        .timeout_connect(Some(settings.connect_timeout))
        .timeout_global(settings.total_timeout)
        // The connector knows which one.
        .proxy(None)
        .output_buffer_size(OUTPUT_BYTES)
        .build();
    let connector = OutboundConnector {
        proxies: Arc::clone(&outbound.proxies),
        tls: Arc::new(tls_config(outbound.roots)),
        resolver: DefaultResolver::default(),
        user_agent: settings.user_agent.to_owned(),
        sending: outbound.sending,
    };
    let resolver = TargetResolver {
        proxies: outbound.proxies,
        resolver: DefaultResolver::default(),
    };
    Agent::with_parts(config, connector, resolver)
}

/// What is sent at once. No more than a socket has room for when it has any, so that sending does not block, and an early
/// answer is noticed.
const OUTPUT_BYTES: usize = 16 * 1024;

fn tls_config(roots: Vec<CertificateDer<'static>>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(trust::verifier(roots))
        .with_no_client_auth()
}

/// What TLS has against the other side, if that is what failed.
pub fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// What the proxy did, if it is why there is no answer.
pub fn proxy_error(error: &ureq::Error) -> Option<&ProxyError> {
    match error {
        ureq::Error::Other(error) => error.downcast_ref(),
        _ => None,
    }
}

/// Whether an answer of this status is the refusal of the proxy that forwarded the request to `uri`. Only a proxy says 407;
/// a 403 may be a server's, which then says why in JSON.
pub fn refused_by_proxy(
    proxies: &Proxies,
    uri: &Uri,
    status: u16,
    is_json: bool,
) -> Option<ProxyError> {
    let server = proxies.server_for(uri)?;
    let is_forwarded = uri.scheme_str() == Some("http");
    let is_refusal = status == 407 || status == 403 && !is_json;
    (is_forwarded && is_refusal).then(|| ProxyError::answered(server, status, None))
}

/// Why a connection failed, in lower case.
pub fn io_error_in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "the connection was lost".to_owned(),
        // The system's own words for it name neither the host nor the network.
        _ if error.to_string().starts_with("failed to lookup address") => NO_HOST.to_owned(),
        _ => error.to_string(),
    }
}

/// Why there is no connection to a name that is not known.
pub const NO_HOST: &str = "no host of that name is known (or there is no network)";
