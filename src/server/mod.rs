//! The server: issues codes, sends the browser to Postiz, exchanges its code for a token, and delivers that once.
//!
//! A request passes these layers in the thread of its connection. Each layer calls only the next:
//!
//! - `front`: the public socket; admits connections, reads whole requests, writes answers;
//! - `http`: routes requests to handlers, which render `pages`;
//! - `flow`: the device flow, over `postiz` and the store; the states of a login are in [`login`];
//! - [`store`]: keeps the logins, with hashed [`codes`] and [sealed](seal) tokens.
//!
//! [`config`] parses the environment, `janitor` and `metrics` have threads of their own, [`healthcheck()`] requests `/ready`
//! of a running server, and [`check()`] reports what a start would find.

pub mod config;
pub(crate) mod front;
pub(crate) mod http;
pub(crate) mod pages;
pub mod times;

pub(crate) mod flow;
pub mod login;
pub(crate) mod postiz;
pub mod store;

pub mod codes;
pub mod keys;
pub mod seal;

mod check;
pub(crate) mod client_address;
pub(crate) mod counts;
mod file_rights;
mod healthcheck;
mod janitor;
pub(crate) mod limits;
mod live_logins;
pub mod log;
pub(crate) mod metrics;
pub mod notify;
mod retry;
mod x509;

pub use check::{Findings, check};
pub use healthcheck::healthcheck;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::server::config::{Config, StoreLocation};
use crate::server::flow::Flow;
use crate::server::front::certificate::Certificate;
use crate::server::front::{Front, listener, process_limits};
use crate::server::http::App;
use crate::server::keys::Keys;
use crate::server::log::Log;
use crate::server::metrics::Sources;
use crate::server::postiz::Postiz;
use crate::server::store::embedded::Embedded;
use crate::server::store::{Store, StoreError, postgres::Postgres, secret_file};
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client::{self, Proxies};
use crate::shared::secret::Secret;

/// A running server.
pub struct Server {
    local_url: String,
    front: Arc<Front>,
    listening_at: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    stop_delay: Duration,
    log: Arc<Log>,
}

impl Server {
    /// Opens the store, listens, and starts the threads that serve. The error is for the operator.
    pub fn start(config: Config, log: Arc<Log>) -> Result<Server, String> {
        let proxies = Proxies::from_vars(&http_client::environment);
        if let Some(notice) = proxies.notice(config.api_url.is_https()) {
            log.warn("proxy_passed_over", &[("why", &notice)]);
        }
        if config.oauth_app.is_none() {
            let note = ("note", "each login registers a client at Postiz");
            log.info("no_oauth_app", &[note]);
        }
        let (connections, pool_size) = (config.limits.connections, config.pool_size());
        let max_connections = process_limits::affordable_connections(connections, pool_size, &log)?;
        let (store, keys) = open_store(&config)?;
        let pinged = Arc::clone(&store);
        match with_timeout(config.times.ping, move || pinged.ping()) {
            Ok(()) => log.info("store_ready", &[("store", config.store.kind())]),
            Err(StoreError::Unusable(cause)) => {
                return Err(format!("the store cannot be used: {cause}"));
            }
            // The database may come back. Until then requests get 503.
            Err(error) => log.warn("store_unavailable", &[("error", &error.to_string())]),
        }
        let open = |files| Certificate::open(files, Arc::clone(&log)).map(Arc::new);
        let certificate = config.tls.as_ref().map(open).transpose()?;
        let listener = listener::listen(config.host, config.port)?;
        let failed = |error: io::Error| format!("cannot start serving: {error}");
        let listening_at = listener.local_addr().map_err(failed)?;
        let metrics_listener = config.metrics_listen.map(metrics::bind).transpose()?;
        let local_url = local_url(config.scheme(), listening_at);
        let server_url = server_url(&config, listening_at);

        let app = Arc::new(app(&config, store, keys, server_url, &log));
        let (serving, certificate_in_use) = (Arc::clone(&app), certificate.clone());
        let front = Front::start(serving, &config, max_connections, certificate_in_use);
        let front = front.map_err(failed)?;
        let period = config.times.purge_period;
        janitor::start(Arc::clone(&app), certificate.clone(), period).map_err(failed)?;

        log.listening(&local_url);
        if let Some(listener) = metrics_listener {
            let sources = Sources {
                app,
                front: Arc::clone(&front),
                certificate: certificate.clone(),
                started: SystemTime::now(),
            };
            metrics::start(listener, sources).map_err(failed)?;
        }
        let accepting = Arc::clone(&front);
        spawn("accept", move || accepting.run(&listener)).map_err(failed)?;
        Ok(Server {
            local_url,
            front,
            listening_at,
            certificate,
            stop_delay: config.stop_delay,
            log,
        })
    }

    /// Reads the certificate's files again. Everything else needs a restart.
    pub fn reload(&self) {
        match &self.certificate {
            Some(certificate) => certificate.reload(SystemTime::now()),
            None => {
                let why = "there is no certificate to read again (TLS_CERT_FILE); for anything else, restart";
                self.log.info("nothing_to_reload", &[("note", why)]);
            }
        }
    }

    /// Stops accepting, answers the requests in flight and those that arrive on open connections, for up to 10 s.
    pub fn stop(self) {
        self.log.info("stopping", &[]);
        if self.front.stop(self.listening_at, self.stop_delay) {
            self.log.info("stopped", &[]);
        } else {
            self.log.warn("stopped_with_requests_unfinished", &[]);
        }
    }

    /// The URL of the server on this machine.
    pub fn local_url(&self) -> &str {
        &self.local_url
    }
}

impl StoreLocation {
    /// The kind of store, for the log.
    fn kind(&self) -> &'static str {
        match self {
            StoreLocation::Postgres(_) => "PostgreSQL",
            StoreLocation::File(_) => "embedded file",
        }
    }
}

/// Runs `act` in a thread of this name.
fn spawn(name: &str, act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(act).map(drop)
}

/// Runs an operation of the store in its own thread, for up to `timeout`: a database can accept a connection and then not
/// respond.
fn with_timeout<T: Send + 'static>(
    timeout: Duration,
    operation: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (sender, receiver) = mpsc::channel();
    // After the timeout nothing receives the result.
    let run = move || drop(sender.send(operation()));
    let timed_out = || {
        Err(StoreError::Unavailable(format!(
            "no answer within {} s",
            timeout.as_secs()
        )))
    };
    match spawn("ping", run) {
        Ok(()) => receiver
            .recv_timeout(timeout)
            .unwrap_or_else(|_| timed_out()),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}

/// Opens the store, and derives the keys. If no secret is configured, the embedded store keeps one beside its file.
fn open_store(config: &Config) -> Result<(Arc<dyn Store>, Arc<Keys>), String> {
    let failed = |error: StoreError| error.to_string();
    let keys = |secret: &Secret<String>| Arc::new(Keys::new(secret));
    let configured = config.root_secret().map(keys);
    match &config.store {
        StoreLocation::Postgres(url) => {
            let keys = configured.ok_or("SERVER_SECRET is not set")?;
            let (size, times) = (config.pool_size(), &config.times);
            let store = Postgres::new(url, size, Arc::clone(&keys), times);
            let store = store.map_err(|error| format!("DATABASE_URL: {error}"))?;
            Ok((Arc::new(store), keys))
        }
        StoreLocation::File(path) => {
            let store = Arc::new(Embedded::open(path, &config.times).map_err(failed)?);
            // The file is locked from here on, so no other server creates a secret.
            let own_secret = || secret_file::read_or_make(path).map_err(failed);
            let keys = configured.map_or_else(|| own_secret().map(|secret| keys(&secret)), Ok)?;
            Ok((store, keys))
        }
    }
}

/// Assembles the handlers with the layers below them.
pub(crate) fn app(
    config: &Config,
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    server_url: BaseUrl,
    log: &Arc<Log>,
) -> App {
    let flow = Flow::new(
        store,
        Postiz::new(config, &server_url),
        Arc::clone(&keys),
        config,
        Arc::clone(log),
    );
    App::new(flow, keys, server_url, config, Arc::clone(log))
}

/// The URL of the server on this machine.
fn local_url(scheme: &str, listening_at: SocketAddr) -> String {
    match listening_at.ip() {
        ip if ip.is_unspecified() => format!("{scheme}://localhost:{}", listening_at.port()),
        _ => format!("{scheme}://{listening_at}"),
    }
}

/// SERVER_URL; if it is not set, localhost and the port.
fn server_url(config: &Config, listening_at: SocketAddr) -> BaseUrl {
    let (scheme, port) = (config.scheme(), listening_at.port());
    let default = format!("{scheme}://localhost:{port}");
    let default = || BaseUrl::parse(&default).expect("localhost and a port make a URL");
    config.server_url.clone().unwrap_or_else(default)
}
