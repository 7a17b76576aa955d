//! Reads the settings from the environment's variables, and collects all problems.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::server::config::secret_source;
use crate::server::config::settings::{self, Kind, setting};
use crate::server::config::values::{
    Parsed, host, log_format, log_level, server_secret, server_url, shown, socket_address, store,
    trimmed, trusted_proxies, url,
};
use crate::server::config::{
    Config, ConfigProblems, Limits, OAuthApp, Problem, StoreLocation, TlsFiles,
};
use crate::server::file_rights;
use crate::server::front::tls;
use crate::server::times::{self, Times};
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client;
use crate::shared::secret::Secret;
use crate::shared::small_file;

/// Reads settings one by one. A setting with a problem gets some value of its type, which is not used in the end.
#[derive(Default)]
pub(super) struct Reader {
    variables: BTreeMap<OsString, OsString>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Of two variables with the same name the first counts.
    pub(super) fn new<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Reader {
        let mut reader = Reader::default();
        for (name, value) in variables {
            let value = || value.into();
            reader.variables.entry(name.into()).or_insert_with(value);
        }
        reader
    }

    pub(super) fn config(mut self) -> Result<Config, ConfigProblems> {
        let api_url = self.value("POSTIZ_API_URL", url);
        let config = Config {
            oauth_app: self.oauth_app(),
            server_secret: self
                .optional("SERVER_SECRET", server_secret)
                .map(Secret::new),
            store: self.store(),
            database_pool_size: self.number("DATABASE_POOL_SIZE"),
            host: self.value("HOST", host),
            port: self.number("PORT"),
            server_url: self.optional("SERVER_URL", server_url),
            frontend_url: self.value("POSTIZ_FRONTEND_URL", url),
            public_api_url: self
                .optional("POSTIZ_PUBLIC_API_URL", url)
                .unwrap_or_else(|| api_url.clone()),
            api_url,
            trusted_proxies: self.value("TRUSTED_PROXIES", trusted_proxies),
            tls: self.tls(),
            log_format: self.value("LOG_FORMAT", log_format),
            log_level: self.value("LOG_LEVEL", log_level),
            metrics_listen: self.optional("METRICS_LISTEN", socket_address),
            idle_timeout: Duration::from_secs(self.number("IDLE_TIMEOUT")),
            stop_delay: Duration::from_secs(self.number("STOP_DELAY")),
            limits: self.limits(),
            times: self.times(),
            warnings: self.warnings(),
        };
        if config.oauth_app.is_none() {
            self.check_registration(&config);
        }
        self.check_metrics_address(&config);
        self.check_http_client();
        match self.problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigProblems(self.problems, config.warnings)),
        }
    }

    /// Tests shorten the times by a variable that release builds do not read.
    fn times(&self) -> Times {
        if !cfg!(debug_assertions) {
            return Times::DEFAULT;
        }
        let text = self.variables.get(OsStr::new(times::TEST_VARIABLE));
        text.map_or(Times::DEFAULT, |text| {
            serde_json::from_slice(text.as_encoded_bytes()).expect("tests write valid times")
        })
    }

    /// Notes the first problem of each variable; further ones may only follow from it.
    fn problem(&mut self, name: &'static str, what: impl Into<String>) {
        if self.problems.iter().all(|problem| problem.name != name) {
            let what = what.into();
            self.problems.push(Problem { name, what });
        }
    }

    /// The value of a variable. A blank one counts as missing.
    fn variable(&mut self, name: &'static str) -> Option<String> {
        let Some(text) = self.variables.get(OsStr::new(name))?.to_str() else {
            self.problem(name, "is not UTF-8 text");
            return None;
        };
        Some(trimmed(text).to_owned()).filter(|text| !text.is_empty())
    }

    /// The value of a setting: that of its variable or, for a secret, the contents of its file.
    fn get(&mut self, name: &'static str) -> Option<String> {
        let value = self.variable(name);
        let Kind::Secret(file) = setting(name).0 else {
            return value;
        };
        let Some(path) = self.variable(file) else {
            return value;
        };
        if value.is_some() {
            self.problem(name, format!("and {file} are both set: keep one of them"));
            return value;
        }
        let what = match secret_source::read(Path::new(&path)).map(String::from_utf8) {
            Ok(Ok(text)) if !trimmed(&text).is_empty() => return Some(trimmed(&text).to_owned()),
            Ok(Ok(_)) => "is empty".to_owned(),
            Ok(Err(_)) => "is not UTF-8 text".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        self.problem(file, format!("names {}, which {what}", shown(&path)));
        None
    }

    fn oauth_app(&mut self) -> Option<OAuthApp> {
        let [id, secret] = APP.map(|(name, other)| {
            let value = self.get(name);
            if value.as_ref().is_some_and(|value| value.starts_with(other)) {
                self.problem(name, format!("begins with {other}, but an ID begins with pca_ and a secret with pcs_: were they swapped?"));
            }
            value
        });
        match (id, secret.map(Secret::new)) {
            (Some(id), Some(secret)) => return Some(OAuthApp { id, secret }),
            (None, None) => {}
            (id, _) => {
                let [missing, set] = [id.is_some(), id.is_none()].map(|at| APP[usize::from(at)].0);
                // If its file cannot be read, that is reported already.
                if !self.has_problem(missing) {
                    self.problem(missing, format!("is not set, but {set} is: take both from the OAuth app in Postiz (Settings > Developers), or set neither"));
                }
            }
        }
        None
    }

    /// Whether the variable, or the one that names its file, has a problem.
    fn has_problem(&self, name: &str) -> bool {
        let mut problems = self.problems.iter();
        problems.any(|problem| problem.name.starts_with(name))
    }

    /// Reports what prevents a server without an OAuth app from registering clients at Postiz.
    fn check_registration(&mut self, config: &Config) {
        if APP.iter().any(|(name, _)| self.has_problem(name)) {
            return;
        }
        let server_url = config.server_url.as_ref();
        let is_https = server_url.map_or(config.tls.is_some(), BaseUrl::is_https);
        let host = server_url
            .map_or("localhost", BaseUrl::host)
            .to_ascii_lowercase();
        let is_loopback = !is_https && LOOPBACK_CALLBACKS.contains(&host.as_str());
        if !is_loopback && config.api_url.host().eq_ignore_ascii_case(CLOUD_API) {
            self.problem(APP[0].0, format!("is not set: {CLOUD_API} lets no server register clients, so make an OAuth app there (Settings > Developers) with the callback SERVER_URL/device/callback"));
        } else if !is_loopback && !is_https {
            self.problem("SERVER_URL", "is plain http, for which Postiz registers no clients: right would be https, or an OAuth app in POSTIZ_OAUTH_CLIENT_ID");
        }
        if config.server_secret.is_none() && matches!(config.store, StoreLocation::Postgres(_)) {
            self.problem("SERVER_SECRET", "is not set: without an OAuth app, all instances on a database need the same one (openssl rand -hex 32 makes one)");
        }
    }

    /// The parsed value of a setting; `None` if it is not set or wrong.
    fn optional<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let text = self.get(name)?;
        let what = match parse(&text) {
            Ok(value) => return Some(value),
            Err(what) if matches!(setting(name).0, Kind::Secret(_)) => {
                format!("(its value is not shown) {what}")
            }
            Err(what) => format!("is {}, which {what}", shown(&text)),
        };
        self.problem(name, what);
        None
    }

    /// The parsed value of a setting, or of its default.
    pub(super) fn value<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Parsed<T>) -> T {
        let default = || parse(setting(name).1).expect("unit tests parse every default");
        self.optional(name, &parse).unwrap_or_else(default)
    }

    fn number<N: TryFrom<u64>>(&mut self, name: &'static str) -> N {
        let Kind::Number(least, most) = setting(name).0 else {
            unreachable!("unit tests read every number, and {name} is not one");
        };
        self.value(name, |text| {
            let number = text.parse().ok().filter(|n| (least..=most).contains(n));
            let number = number.and_then(|n| N::try_from(n).ok());
            number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
        })
    }

    fn store(&mut self) -> StoreLocation {
        let folder = self.value("DATA_DIR", |path| Ok(PathBuf::from(path)));
        let file = StoreLocation::File(folder.join("postiz-auth.redb"));
        // libpq's variables fill in what the URL leaves out.
        let variables = self.variables.clone();
        let libpq = |name: &str| variables.get(OsStr::new(name))?.to_str().map(str::to_owned);
        let parse = |url: &str| store(url, &libpq);
        self.optional("DATABASE_URL", parse).unwrap_or(file)
    }

    fn tls(&mut self) -> Option<TlsFiles> {
        let [certificate, key] = TLS.map(|name| self.get(name).map(PathBuf::from));
        let files = match (certificate, key) {
            (Some(certificate), Some(key)) => TlsFiles { certificate, key },
            (None, None) => return None,
            (certificate, _) => {
                let missing = TLS[usize::from(certificate.is_some())];
                self.problem(missing, "is not set: https needs both, certificate and key");
                return None;
            }
        };
        for (name, path) in TLS.into_iter().zip([&files.certificate, &files.key]) {
            if let Err(error) = small_file::open(path) {
                let error = file_rights::explain(path, &error);
                let path = path.display();
                self.problem(name, format!("names {path}, which cannot be read: {error}"));
            }
        }
        if let Err(error) = tls::ChainAndKey::read(&files) {
            // The error begins with the variable's name.
            let name = TLS[usize::from(error.starts_with(TLS[1]))];
            self.problem(name, error.trim_start_matches(name).trim_start());
        }
        Some(files)
    }

    /// The metrics need an address that the server itself does not listen on.
    fn check_metrics_address(&mut self, config: &Config) {
        let taken = |metrics: &SocketAddr| {
            metrics.port() == config.port && overlap(config.host, metrics.ip())
        };
        if let Some(metrics) = config.metrics_listen.filter(taken)
            && config.port != 0
            && !self.has_problem("PORT")
        {
            let what = format!(
                "is {metrics}, where HOST and PORT let the server listen: take another port"
            );
            self.problem("METRICS_LISTEN", what);
        }
    }

    /// Checks the variables of the HTTP client: proxies and certificates.
    fn check_http_client(&mut self) {
        let variables = self.variables.clone();
        for problem in http_client::problems(&|name| variables.get(OsStr::new(name)).cloned()) {
            self.problem(problem.name, format!(": {}", problem.text));
        }
    }

    pub(super) fn limits(&mut self) -> Limits {
        Limits {
            logins_per_minute: self.number("LIMIT_LOGINS_PER_MINUTE"),
            wrong_codes_per_minute: self.number("LIMIT_WRONG_CODES_PER_MINUTE"),
            wrong_codes_per_minute_total: self.number("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL"),
            callbacks_per_minute: self.number("LIMIT_CALLBACKS_PER_MINUTE"),
            live_logins: self.number("LIMIT_LIVE_LOGINS"),
            connections: self.number("LIMIT_CONNECTIONS"),
            connections_per_address: self.number("LIMIT_CONNECTIONS_PER_ADDRESS"),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let names = self.variables.keys().filter_map(|name| name.to_str());
        let warning = |name| {
            let meant = settings::meant_by(name)?;
            Some(format!(
                "{name} is set, but nothing reads it: is {meant} meant?"
            ))
        };
        names.filter_map(warning).collect()
    }
}

/// Whether one port cannot be listened on at both addresses: `::` takes the IPv4 addresses, too.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let takes = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a == b || takes(a, b) || takes(b, a)
}

/// The variables of the app's ID and secret, each with the prefix of the other one's value.
const APP: [(&str, &str); 2] = [
    ("POSTIZ_OAUTH_CLIENT_ID", "pcs_"),
    ("POSTIZ_OAUTH_CLIENT_SECRET", "pca_"),
];

/// Postiz' cloud, which registers clients for loopback callbacks only.
const CLOUD_API: &str = "api.postiz.com";

/// The hosts that Postiz allows in plain http callbacks.
const LOOPBACK_CALLBACKS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The variables of certificate and key.
const TLS: [&str; 2] = ["TLS_CERT_FILE", "TLS_KEY_FILE"];
