//! The HTTP client of both programs: its roots, proxies and time limits. The requests are built elsewhere.

mod connect;
mod early_answer;
mod proxy;
mod tcp;
mod trust;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use ureq::Agent;
use ureq::http::Uri;

use connect::{OutboundConnector, TargetResolver};

pub use connect::ProxyError;
pub use early_answer::Sending;
pub use proxy::Proxies;
pub use trust::{distrust, system_roots};

/// Looks up a variable of the environment: its value, or `None` when it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What is wrong with a variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableProblem {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with it, in words that go after its name and a colon. It holds no secret.
    pub text: String,
}

impl fmt::Display for VariableProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

/// How to reach other hosts, from the environment: proxies and trusted certificates.
pub struct Outbound {
    /// The proxies.
    pub proxies: Arc<Proxies>,
    /// Variables that cannot be used. Requests are sent as if these were not set.
    pub problems: Vec<VariableProblem>,
    /// How far the last request has come.
    pub sending: Arc<Sending>,
    roots: Vec<CertificateDer<'static>>,
}

impl Outbound {
    /// For `https` URLs, or for `http`. Roots are read only where TLS is used, since that takes longer than the rest of a start.
    pub fn new(vars: Lookup, https: bool) -> Outbound {
        let proxies = Proxies::from_vars(vars);
        let mut problems: Vec<VariableProblem> =
            proxies.problem(https).cloned().into_iter().collect();
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

    /// A blocking client. It follows no redirect, and no status is an error.
    ///
    /// `connect_timeout` is the longest wait for a connection: all addresses, proxies, TLS. The same limit holds for looking up
    /// the name before. `total_timeout` is the longest time for a request and its whole answer; `None` for no limit.
    pub fn client(
        self,
        user_agent: &str,
        connect_timeout: Duration,
        total_timeout: Option<Duration>,
    ) -> Agent {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(user_agent)
            .timeout_resolve(Some(connect_timeout))
            .timeout_connect(Some(connect_timeout))
            .timeout_global(total_timeout)
            // The connector chooses the proxy.
            .proxy(None)
            .output_buffer_size(OUTPUT_BYTES)
            .build();
        let resolver = TargetResolver(Arc::clone(&self.proxies));
        let connector = OutboundConnector {
            proxies: self.proxies,
            tls: Arc::new(tls_config(self.roots)),
            user_agent: user_agent.to_owned(),
            sending: self.sending,
        };
        Agent::with_parts(config, connector, resolver)
    }
}

/// What is wrong with the variables for proxies and certificates, whatever the URL.
pub fn problems(vars: Lookup) -> Vec<VariableProblem> {
    let proxies = Proxies::from_vars(vars);
    let of_http = proxies.problem(false);
    let of_https = proxies.problem(true).filter(|one| Some(*one) != of_http);
    let mut problems: Vec<VariableProblem> = of_http.into_iter().chain(of_https).cloned().collect();
    problems.extend(trust::Named::read(vars).problems);
    problems
}

/// A variable of this process.
#[allow(
    clippy::disallowed_methods,
    reason = "the server's Config does not hold the variables that every program honours"
)]
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Most bytes of one write: a socket that has room at all has this much. So a write does not block, and an early answer is
/// noticed.
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

/// The TLS error behind `error`, if it is one.
pub fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// The proxy's error behind `error`, if it is one.
pub fn proxy_error(error: &ureq::Error) -> Option<&ProxyError> {
    match error {
        ureq::Error::Other(error) => error.downcast_ref(),
        _ => None,
    }
}

/// The error when an answer to a request that a proxy forwarded to `uri` is the proxy's own refusal: a 407, or a 403 that is
/// not in JSON (a 403 in JSON is the server's).
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

/// Why there is no connection when the name cannot be looked up.
pub const NO_HOST: &str = "no host of that name is known (or there is no network)";
