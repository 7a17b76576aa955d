//! What the server is told by its environment: every variable checked at the start, all problems reported at once.

mod settings;

pub use settings::help;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::server::client_address::TrustedProxies;
use crate::server::config::settings::{Kind, setting};
use crate::server::file_rights;
use crate::server::front::tls;
use crate::server::keys::SECRET_BYTES_MIN;
use crate::server::log::{Format, Level};
use crate::server::store::connect;
use crate::server::store::database_url::DatabaseUrl;
use crate::server::times::{self, Times};
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client;
use crate::shared::secret::Secret;

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `POSTIZ_OAUTH_CLIENT_ID` and `POSTIZ_OAUTH_CLIENT_SECRET`. `None`: each login registers a client of its own.
    pub oauth_app: Option<OAuthApp>,
    /// `SERVER_SECRET`, if it is set.
    pub server_secret: Option<Secret<String>>,
    /// `DATABASE_URL` or `DATA_DIR`: where logins are kept.
    pub store: StoreLocation,
    /// `DATABASE_POOL_SIZE`: most connections to PostgreSQL at once.
    pub database_pool_size: usize,
    /// `HOST`: the address to listen on.
    pub host: IpAddr,
    /// `PORT`: the port to listen on; 0 takes a free one.
    pub port: u16,
    /// `SERVER_URL`, if it is set; else the server is at `http://localhost:{port}`.
    pub server_url: Option<BaseUrl>,
    /// `POSTIZ_FRONTEND_URL`: where the browser is sent.
    pub frontend_url: BaseUrl,
    /// `POSTIZ_API_URL`: where codes are exchanged.
    pub api_url: BaseUrl,
    /// `POSTIZ_PUBLIC_API_URL`: what clients are told as `api_url`.
    pub public_api_url: BaseUrl,
    /// `TRUSTED_PROXIES`: whose `X-Forwarded-For` counts.
    pub trusted_proxies: TrustedProxies,
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`: serve https.
    pub tls: Option<TlsFiles>,
    /// `LOG_FORMAT`.
    pub log_format: Format,
    /// `LOG_LEVEL`: the least urgent lines that are written.
    pub log_level: Level,
    /// `METRICS_LISTEN`: where Prometheus reads metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// `IDLE_TIMEOUT`: how long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// `STOP_DELAY`: how long `/ready` says that the server is stopping before it stops accepting.
    pub stop_delay: Duration,
    /// The budgets and ceilings.
    pub limits: Limits,
    /// What no setting says: the defaults, but in tests.
    pub times: Times,
    /// What looks like a mistake, but does not keep the server from starting. Holds no values.
    pub warnings: Vec<String>,
}

/// The OAuth app made in Postiz.
#[derive(Clone, Debug)]
pub struct OAuthApp {
    /// Its public name.
    pub id: String,
    /// Its secret, which never leaves but to Postiz.
    pub secret: Secret<String>,
}

/// Where logins are kept.
#[derive(Clone, Debug)]
pub enum StoreLocation {
    /// In PostgreSQL, for any number of instances.
    Postgres(Box<DatabaseUrl>),
    /// In this file, for one instance.
    File(PathBuf),
}

/// Certificate chain and key, as PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// `TLS_CERT_FILE`.
    pub certificate: PathBuf,
    /// `TLS_KEY_FILE`.
    pub key: PathBuf,
}

/// How much is let in; 0 switches a budget off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `LIMIT_LOGINS_PER_MINUTE`: logins that one address may start.
    pub logins_per_minute: u32,
    /// `LIMIT_WRONG_CODES_PER_MINUTE`: wrong user codes from one address.
    pub wrong_codes_per_minute: u32,
    /// `LIMIT_WRONG_CODES_PER_MINUTE_TOTAL`: wrong user codes from all addresses together.
    pub wrong_codes_per_minute_total: u32,
    /// `LIMIT_CALLBACKS_PER_MINUTE`: callbacks from one address.
    pub callbacks_per_minute: u32,
    /// `LIMIT_LIVE_LOGINS`: logins kept at once.
    pub live_logins: u32,
    /// `LIMIT_CONNECTIONS`: connections at once, in all.
    pub connections: u32,
    /// `LIMIT_CONNECTIONS_PER_ADDRESS`: connections at once from one address.
    pub connections_per_address: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Reader::default().limits()
    }
}

/// One variable's problem, and what would be right. Never holds a secret's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with it.
    pub what: String,
}

/// All that is wrong with a configuration, and the warnings, which may say why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<Problem>, pub Vec<String>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let s = if count == 1 { "" } else { "s" };
        writeln!(f, "the configuration has {count} problem{s}:")?;
        for problem in &self.0 {
            let space = if problem.what.starts_with(':') {
                ""
            } else {
                " "
            };
            writeln!(f, "  {}{space}{}", problem.name, problem.what)?;
        }
        for warning in &self.1 {
            writeln!(f, "  {warning}")?;
        }
        write!(f, "postiz-auth-server --help names every variable")
    }
}

impl Config {
    /// What the server's keys are derived from. `None`: the embedded store keeps a secret of its own.
    pub fn root_secret(&self) -> Option<&Secret<String>> {
        let app_secret = self.oauth_app.as_ref().map(|app| &app.secret);
        self.server_secret.as_ref().or(app_secret)
    }

    /// Most connections to PostgreSQL: what the URL says counts first.
    pub fn pool_size(&self) -> usize {
        match &self.store {
            StoreLocation::Postgres(url) => url.pool_size.unwrap_or(self.database_pool_size),
            StoreLocation::File(_) => 0,
        }
    }

    /// Reads the configuration out of the environment's variables. Of two with one name the first counts, as for `getenv`.
    pub fn from_vars<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Config, ConfigProblems> {
        let mut reader = Reader::default();
        for (name, value) in variables {
            let value = || value.into();
            reader.variables.entry(name.into()).or_insert_with(value);
        }
        reader.config()
    }
}

/// Reads variables one by one. A variable with a problem yields any value of its type: the problem is what counts.
#[derive(Default)]
struct Reader {
    variables: BTreeMap<OsString, OsString>,
    problems: Vec<Problem>,
}

impl Reader {
    fn config(mut self) -> Result<Config, ConfigProblems> {
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
        self.outbound();
        match self.problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigProblems(self.problems, config.warnings)),
        }
    }

    /// Tests shorten the times. What is released does not read the variable.
    fn times(&self) -> Times {
        let text = self.variables.get(OsStr::new(times::TEST_VARIABLE));
        let text = text.filter(|_| cfg!(debug_assertions));
        text.map_or(Times::DEFAULT, |text| {
            serde_json::from_slice(text.as_encoded_bytes()).expect("tests write what is read here")
        })
    }

    /// One problem a variable is enough: what else is wrong with it may follow from the first.
    fn problem(&mut self, name: &'static str, what: impl Into<String>) {
        if self.problems.iter().all(|problem| problem.name != name) {
            let what = what.into();
            self.problems.push(Problem { name, what });
        }
    }

    /// What a variable holds; a blank one counts as missing.
    fn variable(&mut self, name: &'static str) -> Option<String> {
        let Some(text) = self.variables.get(OsStr::new(name))?.to_str() else {
            self.problem(name, "is not UTF-8 text");
            return None;
        };
        Some(trimmed(text).to_owned()).filter(|text| !text.is_empty())
    }

    /// The same, or for a secret what stands in its file.
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
        let what = match std::fs::read(&path).map(String::from_utf8) {
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
                // What is wrong with its file is told already.
                if !self.has_problem(missing) {
                    self.problem(missing, format!("is not set, but {set} is: take both from the OAuth app in Postiz (Settings > Developers), or set neither"));
                }
            }
        }
        None
    }

    /// Is anything wrong with the variable, or with the one that names its file?
    fn has_problem(&self, name: &str) -> bool {
        let mut problems = self.problems.iter();
        problems.any(|problem| problem.name.starts_with(name))
    }

    /// What keeps a server without an OAuth app from registering clients at Postiz.
    fn check_registration(&mut self, config: &Config) {
        if APP.iter().any(|(name, _)| self.has_problem(name)) {
            return;
        }
        let server_url = config.server_url.as_ref();
        let https = server_url.map_or(config.tls.is_some(), BaseUrl::is_https);
        let host = server_url
            .map_or("localhost", BaseUrl::host)
            .to_ascii_lowercase();
        let loopback = !https && LOOPBACK_CALLBACKS.contains(&host.as_str());
        if !loopback && config.api_url.host().eq_ignore_ascii_case(CLOUD_API) {
            self.problem(APP[0].0, format!("is not set: {CLOUD_API} lets no server register clients, so make an OAuth app there (Settings > Developers) with the callback SERVER_URL/device/callback"));
        } else if !loopback && !https {
            self.problem("SERVER_URL", "is plain http, for which Postiz registers no clients: right would be https, or an OAuth app in POSTIZ_OAUTH_CLIENT_ID");
        }
        if config.server_secret.is_none() && matches!(config.store, StoreLocation::Postgres(_)) {
            self.problem("SERVER_SECRET", "is not set: without an OAuth app, all instances on a database need the same one (openssl rand -hex 32 makes one)");
        }
    }

    /// What `parse` makes of a variable that is set.
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

    /// The same with the default.
    fn value<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Parsed<T>) -> T {
        let default = || parse(setting(name).1).expect("a test parses every default");
        self.optional(name, &parse).unwrap_or_else(default)
    }

    fn number<N: TryFrom<u64>>(&mut self, name: &'static str) -> N {
        let (Kind::Number(least, most) | Kind::Seconds(least, most)) = setting(name).0 else {
            unreachable!("{name} is read as a number and is one, as a test finds");
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
        // libpq's own variables say what the URL leaves out.
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
            if let Err(error) = std::fs::File::open(path) {
                let error = file_rights::explain(path, &error);
                let path = path.display();
                self.problem(name, format!("names {path}, which cannot be read: {error}"));
            }
        }
        if let Err(error) = tls::Pair::read(&files) {
            // It begins with the variable's name.
            let name = TLS[usize::from(error.starts_with(TLS[1]))];
            self.problem(name, error.trim_start_matches(name).trim_start());
        }
        Some(files)
    }

    /// The proxies and certificates of the way to Postiz.
    fn outbound(&mut self) {
        let variables = self.variables.clone();
        for problem in http_client::problems(&|name| variables.get(OsStr::new(name)).cloned()) {
            self.problem(problem.name, format!(": {}", problem.text));
        }
    }

    fn limits(&mut self) -> Limits {
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

/// The app's ID and secret, and how the other one of them begins.
const APP: [(&str, &str); 2] = [
    ("POSTIZ_OAUTH_CLIENT_ID", "pcs_"),
    ("POSTIZ_OAUTH_CLIENT_SECRET", "pca_"),
];

/// Postiz' cloud, which registers no https callbacks of strangers.
const CLOUD_API: &str = "api.postiz.com";

/// Where Postiz lets plain http callbacks lead.
const LOOPBACK_CALLBACKS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Certificate and key.
const TLS: [&str; 2] = ["TLS_CERT_FILE", "TLS_KEY_FILE"];

/// Where our own routes lie below `SERVER_URL`, which people take for a part of it.
const ROUTES: [&str; 6] = [
    "/device/verify",
    "/device/callback",
    "/device/code",
    "/device/token",
    "/health",
    "/ready",
];

/// A value, or what is wrong with its text, to be put after it.
type Parsed<T> = Result<T, String>;

/// Text without the blanks, line ends and byte order mark that editors and shells put around it.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// A value for a message, unless a password stands in it, or a secret that belongs into another variable.
fn shown(text: &str) -> String {
    match text.contains('@') || text.contains("pcs_") {
        true => "(not shown)".to_owned(),
        false => format!("{text:?}"),
    }
}

fn url(text: &str) -> Parsed<BaseUrl> {
    BaseUrl::parse(text).map_err(|error| format!("{error}; right would be https://example.com"))
}

fn server_url(text: &str) -> Parsed<BaseUrl> {
    let url = url(text)?;
    let base = |route: &&str| url.as_str().strip_suffix(*route);
    match ROUTES.iter().find_map(base) {
        Some(base) => Err(format!(
            "ends in a route that the server adds; right would be {base}"
        )),
        None => Ok(url),
    }
}

fn server_secret(text: &str) -> Parsed<String> {
    match text.len() {
        SECRET_BYTES_MIN.. => Ok(text.to_owned()),
        _ => Err(format!(
            "must have {SECRET_BYTES_MIN} characters or more (openssl rand -hex 32 makes one)"
        )),
    }
}

fn store(url: &str, libpq: &dyn Fn(&str) -> Option<String>) -> Parsed<StoreLocation> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => {
            let url = DatabaseUrl::parse(url, libpq)?;
            connect::check_files(&url)?;
            Ok(StoreLocation::Postgres(Box::new(url)))
        }
        Some(("file", path)) => file_path(path).map(StoreLocation::File),
        _ => Err("must begin with postgres://, postgresql:// or file:".to_owned()),
    }
}

/// The path of a `file:` URL, from what follows the colon (RFC 8089; a relative path is allowed as well).
fn file_path(rest: &str) -> Parsed<PathBuf> {
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    if !(host.is_empty() || host.eq_ignore_ascii_case("localhost")) {
        Err(
            "names a file on another machine; right would be file:///var/lib/postiz/auth.redb"
                .to_owned(),
        )
    } else if path.is_empty() || path.ends_with('/') {
        Err("names no file; right would be file:///var/lib/postiz/auth.redb".to_owned())
    } else {
        Ok(path.into())
    }
}

fn host(text: &str) -> Parsed<IpAddr> {
    let address = match text.trim_start_matches('[').trim_end_matches(']') {
        "localhost" => "127.0.0.1",
        address => address,
    };
    let parsed = address.parse();
    parsed.map_err(|_| "must be an IP address: 0.0.0.0, ::, 127.0.0.1".to_owned())
}

fn socket_address(text: &str) -> Parsed<SocketAddr> {
    let numeric = text.strip_prefix("localhost:");
    let numeric = numeric.map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
    let parsed = numeric.parse();
    parsed.map_err(|_| "must be an IP address and a port: 127.0.0.1:9464, [::1]:9464".to_owned())
}

fn trusted_proxies(text: &str) -> Parsed<TrustedProxies> {
    TrustedProxies::parse(text).map_err(|entry| {
        let entry = shown(&entry);
        format!("holds {entry}, and must list addresses or ranges: 127.0.0.1, 10.0.0.0/8, fc00::/7, or none")
    })
}

fn log_format(text: &str) -> Parsed<Format> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

fn log_level(text: &str) -> Parsed<Level> {
    let level = Level::from_name(text);
    level.ok_or_else(|| "must be error, warn, info or debug".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigProblems> {
        Config::from_vars(vars.iter().copied())
    }

    const APP_VARS: [(&str, &str); 2] = [
        ("POSTIZ_OAUTH_CLIENT_ID", "id"),
        ("POSTIZ_OAUTH_CLIENT_SECRET", "hunter2"),
    ];

    #[test]
    fn the_app_alone_is_enough() {
        let config = read(&APP_VARS).unwrap();
        assert_eq!((config.port, config.database_pool_size), (3111, 8));
        assert_eq!(config.public_api_url.as_str(), "https://api.postiz.com");
        assert_eq!(config.frontend_url.as_str(), "https://platform.postiz.com");
        assert!(config.host.is_unspecified() && config.host.is_ipv6());
        assert!(
            matches!(config.store, StoreLocation::File(path) if path.ends_with("data/postiz-auth.redb"))
        );
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn times_are_those_that_a_test_sets() {
        let times = Times {
            request: Duration::from_millis(1_500),
            ..Times::DEFAULT
        };
        let text = serde_json::to_string(&times).unwrap();
        let config = read(&[(times::TEST_VARIABLE, &text)]).unwrap();
        assert_eq!(config.times, times);
        assert_eq!(read(&[]).unwrap().times, Times::DEFAULT);
    }

    const SELF_HOSTED: (&str, &str) = ("POSTIZ_API_URL", "https://postiz.example/api");

    /// Neither the app's ID nor its secret: each login registers a client, where Postiz lets this server.
    #[test]
    fn without_an_app_the_callback_must_be_one_that_postiz_registers() {
        let cloud = ("POSTIZ_API_URL", "https://API.postiz.com");
        let url = |url| ("SERVER_URL", url);
        for vars in [
            &[][..],
            &[url("http://localhost:3111")],
            &[url("http://127.0.0.1:3111"), cloud],
            &[url("http://[::1]/x"), SELF_HOSTED],
            &[url("https://auth.example"), SELF_HOSTED],
            &[url("https://localhost"), SELF_HOSTED],
        ] {
            let config = read(vars).unwrap();
            assert!(
                config.oauth_app.is_none() && config.root_secret().is_none(),
                "{vars:?}"
            );
        }
        for (vars, name, words) in [
            (
                &[url("https://auth.example")][..],
                "POSTIZ_OAUTH_CLIENT_ID",
                "make an OAuth app there",
            ),
            (
                &[url("https://auth.example"), cloud],
                "POSTIZ_OAUTH_CLIENT_ID",
                "api.postiz.com lets no server register",
            ),
            (
                &[url("http://auth.example"), cloud],
                "POSTIZ_OAUTH_CLIENT_ID",
                "make an OAuth app there",
            ),
            (
                &[url("https://127.0.0.1")],
                "POSTIZ_OAUTH_CLIENT_ID",
                "make an OAuth app there",
            ),
            (
                &[url("http://auth.example"), SELF_HOSTED],
                "SERVER_URL",
                "right would be https",
            ),
            (
                &[url("http://127.0.0.2"), SELF_HOSTED],
                "SERVER_URL",
                "plain http",
            ),
            (
                &[SELF_HOSTED, ("DATABASE_URL", "postgres://u@h/d")],
                "SERVER_SECRET",
                "all instances",
            ),
            (
                &[("POSTIZ_OAUTH_CLIENT_ID", "pca_1")],
                "POSTIZ_OAUTH_CLIENT_SECRET",
                "POSTIZ_OAUTH_CLIENT_ID is",
            ),
            (
                &[("POSTIZ_OAUTH_CLIENT_SECRET", "hunter2")],
                "POSTIZ_OAUTH_CLIENT_ID",
                "POSTIZ_OAUTH_CLIENT_SECRET is",
            ),
            (
                &[
                    ("POSTIZ_OAUTH_CLIENT_ID", "pca_1"),
                    ("POSTIZ_OAUTH_CLIENT_SECRET_FILE", "/nowhere"),
                ],
                "POSTIZ_OAUTH_CLIENT_SECRET_FILE",
                "cannot be read",
            ),
            (
                &[("SERVER_SECRET", "hunter2")],
                "SERVER_SECRET",
                "16 characters",
            ),
            (
                &[("SERVER_SECRET_FILE", "/nowhere")],
                "SERVER_SECRET_FILE",
                "cannot be read",
            ),
        ] {
            let problems = read(vars).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{vars:?}: {problems}");
            assert_eq!(problems.0[0].name, name, "{vars:?}");
            assert!(problems.0[0].what.contains(words), "{vars:?}: {problems}");
            assert!(!problems.to_string().contains("hunter2"), "{problems}");
        }
    }

    #[test]
    fn server_secret_comes_before_the_apps() {
        let own = ("SERVER_SECRET", "0123456789abcdef");
        let root =
            |vars: &[(&str, &str)]| read(vars).unwrap().root_secret().unwrap().expose().clone();
        assert_eq!(root(&APP_VARS), "hunter2");
        assert_eq!(root(&[APP_VARS[0], APP_VARS[1], own]), "0123456789abcdef");
        let database = ("DATABASE_URL", "postgres://u@h/d");
        assert_eq!(root(&[own, SELF_HOSTED, database]), "0123456789abcdef");
    }

    #[test]
    fn every_problem_is_reported_at_once_and_no_secret_with_it() {
        let vars = [
            ("POSTIZ_OAUTH_CLIENT_ID", "  "),
            ("POSTIZ_OAUTH_CLIENT_SECRET", "hunter2"),
            ("POSTIZ_OAUTH_CLIENT_SECRET_FILE", "/nowhere"),
            ("DATABASE_URL", "mysql://u:hunter2@h/db"),
            ("DATABASE_POOL_SIZE", "0"),
            ("PORT", "3111x"),
            ("HOST", "here"),
            ("SERVER_URL", "localhost:3111"),
            ("POSTIZ_API_URL", "not a url"),
            ("POSTIZ_FRONTEND_URL", "ftp://x"),
            ("TRUSTED_PROXIES", "10.0.0.0/99"),
            ("TLS_KEY_FILE", "/k"),
            ("LOG_FORMAT", "xml"),
            ("LOG_LEVEL", "loud"),
            ("LIMIT_CONNECTIONS", "-1"),
        ];
        let problems = read(&vars).unwrap_err();
        let names: Vec<_> = problems.0.iter().map(|problem| problem.name).collect();
        for name in [
            "POSTIZ_OAUTH_CLIENT_ID",
            "POSTIZ_OAUTH_CLIENT_SECRET",
            "DATABASE_URL",
            "DATABASE_POOL_SIZE",
            "PORT",
            "HOST",
            "SERVER_URL",
            "POSTIZ_API_URL",
            "POSTIZ_FRONTEND_URL",
            "TRUSTED_PROXIES",
            "TLS_CERT_FILE",
            "LOG_FORMAT",
            "LOG_LEVEL",
            "LIMIT_CONNECTIONS",
        ] {
            assert!(names.contains(&name), "{name} is missing in {problems}");
        }
        assert!(!problems.to_string().contains("hunter2"));
    }

    #[test]
    fn stores_are_named_by_their_scheme() {
        let store = |url| {
            read(&[APP_VARS[0], APP_VARS[1], ("DATABASE_URL", url)]).map(|config| config.store)
        };
        for url in ["postgres://u@h/d", "postgresql://u@h/d?sslmode=verify-full"] {
            assert!(
                matches!(store(url), Ok(StoreLocation::Postgres(_))),
                "{url}"
            );
        }
        for (url, file) in [
            ("file:/x/y.redb", "/x/y.redb"),
            ("file:x/y.redb", "x/y.redb"),
            ("file:///x/y.redb", "/x/y.redb"),
            ("file://localhost/x/y.redb", "/x/y.redb"),
            ("file://LOCALHOST/x", "/x"),
        ] {
            let path = match store(url) {
                Ok(StoreLocation::File(path)) => path,
                other => panic!("{url}: {other:?}"),
            };
            assert_eq!(path.to_str(), Some(file), "{url}");
        }
        for url in [
            "file:",
            "file://",
            "file:///",
            "file://localhost",
            "file:/x/",
            "file://elsewhere/x",
            "file://x",
        ] {
            let problems = store(url).unwrap_err().to_string();
            assert!(problems.contains("DATABASE_URL"), "{url}: {problems}");
        }
    }

    /// The only problem of the app with `vars`.
    fn problem(vars: &[(&str, &str)]) -> (&'static str, String) {
        let mut problems = read(&[vars, &APP_VARS[..]].concat()).unwrap_err().0;
        assert_eq!(problems.len(), 1, "{problems:?}");
        let problem = problems.remove(0);
        (problem.name, problem.what)
    }

    #[test]
    fn ranges_come_from_the_table() {
        let config = read(&[
            APP_VARS[0],
            APP_VARS[1],
            ("IDLE_TIMEOUT", "3600"),
            ("STOP_DELAY", "0"),
        ]);
        let config = config.unwrap();
        assert_eq!(
            (config.idle_timeout.as_secs(), config.stop_delay.as_secs()),
            (3_600, 0)
        );
        for (name, value, right) in [
            ("IDLE_TIMEOUT", "0", "from 1 to 3600"),
            ("STOP_DELAY", "301", "from 0 to 300"),
            ("PORT", "65536", "from 0 to 65535"),
            ("LIMIT_CONNECTIONS", "0", "from 1 to 100000"),
            ("LIMIT_CALLBACKS_PER_MINUTE", "1.5", "from 0 to 1000000000"),
        ] {
            let (found, what) = problem(&[(name, value)]);
            assert!(found == name && what.contains(right), "{name}: {what}");
        }
        assert_eq!(
            config.limits,
            Limits {
                logins_per_minute: 30,
                wrong_codes_per_minute: 10,
                wrong_codes_per_minute_total: 300,
                callbacks_per_minute: 60,
                live_logins: 100_000,
                connections: 1_024,
                connections_per_address: 64,
            }
        );
    }

    #[test]
    fn values_that_cannot_be_right_are_refused() {
        let swapped = [
            ("POSTIZ_OAUTH_CLIENT_ID", "pcs_hunter2"),
            ("POSTIZ_OAUTH_CLIENT_SECRET", "pca_1"),
        ];
        let problems = read(&swapped).unwrap_err();
        assert_eq!(problems.0.len(), 2, "{problems}");
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
        for route in ROUTES {
            let (name, what) = problem(&[("SERVER_URL", &format!("https://a.example/x{route}/"))]);
            assert_eq!(name, "SERVER_URL");
            assert!(
                what.ends_with("right would be https://a.example/x"),
                "{what}"
            );
        }
        // A secret in the wrong variable.
        for name in [
            "POSTIZ_API_URL",
            "DATABASE_URL_FILE",
            "TRUSTED_PROXIES",
            "PORT",
        ] {
            for value in ["https://u:hunter2@h", "pcs_hunter2"] {
                let (found, what) = problem(&[(name, value)]);
                assert!(found == name && !what.contains("hunter2"), "{what}");
            }
        }
    }

    #[test]
    fn values_of_files_are_cleaned() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(path(name), bytes).unwrap();
            path(name)
        };
        let secret = write("secret", b"\xef\xbb\xbf hunter2\r\n\r\n");
        let url = write("url", b"\xef\xbb\xbffile:/x\r\n");
        let vars = [
            APP_VARS[0],
            ("POSTIZ_OAUTH_CLIENT_SECRET_FILE", &secret),
            ("DATABASE_URL_FILE", &url),
        ];
        let config = read(&vars).unwrap();
        assert_eq!(config.oauth_app.unwrap().secret.expose(), "hunter2");
        assert!(matches!(config.store, StoreLocation::File(file) if file.to_str() == Some("/x")));
        for (file, word) in [
            (
                write("utf16", b"\xff\xfeh\0u\0n\0t\0e\0r\0"),
                "is not UTF-8",
            ),
            (write("empty", b"\xef\xbb\xbf \r\n"), "empty"),
            (path("nowhere"), "cannot be read"),
            (path(""), "cannot be read"),
        ] {
            let (name, what) = problem(&[("DATABASE_URL_FILE", &file)]);
            assert!(
                name == "DATABASE_URL_FILE" && what.contains(word),
                "{name} {what}"
            );
        }
    }

    #[test]
    #[cfg(unix)]
    fn variables_that_are_not_utf8_are_named() {
        use std::os::unix::ffi::OsStrExt;
        for name in ["POSTIZ_OAUTH_CLIENT_SECRET", "DATABASE_URL", "DATA_DIR"] {
            let broken = OsStr::from_bytes(b"hunter\xff");
            let vars = [(name, broken)];
            let rest = APP_VARS.map(|(name, value)| (name, OsStr::new(value)));
            let problems = Config::from_vars(vars.into_iter().chain(rest)).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{problems}");
            assert_eq!(
                (problems.0[0].name, problems.0[0].what.as_str()),
                (name, "is not UTF-8 text")
            );
        }
    }

    #[test]
    fn tls_files_are_checked_with_the_rest() {
        let vars = [
            ("TLS_CERT_FILE", "/nowhere/c"),
            ("TLS_KEY_FILE", "/nowhere/k"),
            SELF_HOSTED,
        ];
        let problems = read(&vars).unwrap_err();
        let names: Vec<_> = problems.0.iter().map(|problem| problem.name).collect();
        assert_eq!(names, ["TLS_CERT_FILE", "TLS_KEY_FILE"]);
    }

    #[test]
    fn misspelt_names_are_warnings() {
        let config = read(&[
            APP_VARS[0],
            APP_VARS[1],
            ("TRUSTED_PROXYES", "hunter2"),
            ("X", ""),
        ])
        .unwrap();
        assert_eq!(
            config.warnings,
            ["TRUSTED_PROXYES is set, but nothing reads it: is TRUSTED_PROXIES meant?"]
        );
        // Where there are problems, it may be why.
        let slip = ("POSTIZ_OAUTH_CLIENT_SECRETFILE", "/x");
        let problems = read(&[APP_VARS[0], slip]).unwrap_err().to_string();
        assert!(
            problems.contains("POSTIZ_OAUTH_CLIENT_SECRET_FILE meant?"),
            "{problems}"
        );
    }
}
