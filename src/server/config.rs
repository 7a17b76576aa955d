//! What the server is told by its environment: every variable checked at the start, all problems reported at once.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::server::client_address::TrustedProxies;
use crate::server::log::Format;
use crate::server::store::database_url::DatabaseUrl;
use crate::shared::base_url::BaseUrl;
use crate::shared::secret::Secret;

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `POSTIZ_OAUTH_CLIENT_ID`: the OAuth app made in Postiz.
    pub client_id: String,
    /// `POSTIZ_OAUTH_CLIENT_SECRET`: its secret, which never leaves but to Postiz.
    pub client_secret: Secret<String>,
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
    /// The budgets and ceilings.
    pub limits: Limits,
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
    /// `LIMIT_LIVE_LOGINS`: logins kept at once.
    pub live_logins: u32,
    /// `LIMIT_CONNECTIONS`: connections at once, in all.
    pub connections: u32,
    /// `LIMIT_CONNECTIONS_PER_ADDRESS`: connections at once from one address.
    pub connections_per_address: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            logins_per_minute: 30,
            wrong_codes_per_minute: 10,
            wrong_codes_per_minute_total: 300,
            live_logins: 100_000,
            connections: 1_024,
            connections_per_address: 64,
        }
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

/// All that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<Problem>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(
            f,
            "the configuration has {count} problem{}:",
            if count == 1 { "" } else { "s" }
        )?;
        for problem in &self.0 {
            writeln!(f, "  {} {}", problem.name, problem.what)?;
        }
        write!(f, "postiz-auth-server --help names every variable")
    }
}

impl Config {
    /// Reads the configuration out of `variable`, which answers like the environment: `None` for what is not set.
    pub fn from_vars(variable: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigProblems> {
        let mut reader = Reader {
            variable: &variable,
            problems: Vec::new(),
        };
        let api_url = reader.url("POSTIZ_API_URL", "https://api.postiz.com");
        let config = Config {
            client_id: reader.required("POSTIZ_OAUTH_CLIENT_ID"),
            client_secret: Secret::new(reader.required_secret("POSTIZ_OAUTH_CLIENT_SECRET")),
            store: reader.store(),
            database_pool_size: reader.number("DATABASE_POOL_SIZE", 8, 1..=1_000),
            host: reader.host(),
            port: reader.number("PORT", 3111, 0..=65_535),
            server_url: reader.optional_url("SERVER_URL"),
            frontend_url: reader.url("POSTIZ_FRONTEND_URL", "https://platform.postiz.com"),
            public_api_url: reader
                .optional_url("POSTIZ_PUBLIC_API_URL")
                .unwrap_or_else(|| api_url.clone()),
            api_url,
            trusted_proxies: reader.trusted_proxies(),
            tls: reader.tls(),
            log_format: reader.log_format(),
            limits: reader.limits(),
        };
        match reader.problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigProblems(reader.problems)),
        }
    }
}

/// Reads variables one by one. A variable with a problem yields any value of its type: the problem is what counts.
struct Reader<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// A blank value counts as missing.
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn problem(&mut self, name: &'static str, what: impl Into<String>) {
        self.problems.push(Problem {
            name,
            what: what.into(),
        });
    }

    fn required(&mut self, name: &'static str) -> String {
        self.get(name).unwrap_or_else(|| {
            self.problem(
                name,
                "is not set: take it from the OAuth app in Postiz (Settings > Developers)",
            );
            String::new()
        })
    }

    fn required_secret(&mut self, name: &'static str) -> String {
        let problems_before = self.problems.len();
        let value = self.secret(name, "POSTIZ_OAUTH_CLIENT_SECRET_FILE");
        if value.is_none() && self.problems.len() == problems_before {
            self.problem(name, "is not set (nor POSTIZ_OAUTH_CLIENT_SECRET_FILE): take it from the OAuth app in Postiz");
        }
        value.unwrap_or_default()
    }

    /// A secret, from its variable or from the file that `file_name` names.
    fn secret(&mut self, name: &'static str, file_name: &'static str) -> Option<String> {
        let (value, path) = (self.get(name), self.get(file_name));
        if value.is_some() && path.is_some() {
            self.problem(
                name,
                format!("and {file_name} are both set: keep one of them"),
            );
            return None;
        }
        let Some(path) = path else { return value };
        match std::fs::read_to_string(&path).map(|text| text.trim().to_owned()) {
            Ok(text) if text.is_empty() => {
                self.problem(file_name, format!("names an empty file: {path}"))
            }
            Ok(text) => return Some(text),
            Err(error) => self.problem(
                file_name,
                format!("names a file that cannot be read: {path}: {error}"),
            ),
        }
        None
    }

    fn store(&mut self) -> StoreLocation {
        let Some(url) = self.secret("DATABASE_URL", "DATABASE_URL_FILE") else {
            let folder = self.get("DATA_DIR").unwrap_or_else(|| "./data".to_owned());
            return StoreLocation::File(PathBuf::from(folder).join("postiz-auth.redb"));
        };
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "postgres" | "postgresql" => match DatabaseUrl::parse(&url, self.variable) {
                Ok(url) => return StoreLocation::Postgres(Box::new(url)),
                Err(error) => {
                    self.problem("DATABASE_URL", format!("(its value is not shown): {error}"))
                }
            },
            "file" => match url["file:".len()..].trim_start_matches("//") {
                "" => self.problem(
                    "DATABASE_URL",
                    "is \"file:\" and names no file: file:/var/lib/postiz/auth.redb",
                ),
                path => return StoreLocation::File(path.into()),
            },
            // The value is not shown: it may be a password pasted into the wrong variable.
            _ => self.problem(
                "DATABASE_URL",
                "(its value is not shown) must begin with postgres://, postgresql:// or file:",
            ),
        }
        StoreLocation::File(PathBuf::new())
    }

    fn number<N>(&mut self, name: &'static str, default: N, range: std::ops::RangeInclusive<N>) -> N
    where
        N: std::str::FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.get(name) else {
            return default;
        };
        match text.parse::<N>() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let what = format!(
                    "is {text:?}, and must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                );
                self.problem(name, what);
                default
            }
        }
    }

    fn host(&mut self) -> IpAddr {
        let everywhere = IpAddr::from([0_u16; 8]);
        let Some(text) = self.get("HOST") else {
            return everywhere;
        };
        match text.trim_start_matches('[').trim_end_matches(']') {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            address => address.parse().unwrap_or_else(|_| {
                self.problem(
                    "HOST",
                    format!("is {text:?}, and must be an IP address: 0.0.0.0, ::, 127.0.0.1"),
                );
                everywhere
            }),
        }
    }

    fn url(&mut self, name: &'static str, default: &str) -> BaseUrl {
        self.optional_url(name).unwrap_or_else(|| {
            BaseUrl::parse(default).expect("the defaults are URLs, and a test reads them")
        })
    }

    fn optional_url(&mut self, name: &'static str) -> Option<BaseUrl> {
        let text = self.get(name)?;
        match BaseUrl::parse(&text) {
            Ok(url) => Some(url),
            Err(error) => {
                self.problem(
                    name,
                    format!("is {text:?}, which {error}; right would be https://example.com"),
                );
                None
            }
        }
    }

    fn trusted_proxies(&mut self) -> TrustedProxies {
        let Some(text) = self.get("TRUSTED_PROXIES") else {
            return TrustedProxies::default();
        };
        TrustedProxies::parse(&text).unwrap_or_else(|entry| {
            let what = format!("holds {entry:?}, and must list addresses or ranges: 127.0.0.1, 10.0.0.0/8, fc00::/7, or none");
            self.problem("TRUSTED_PROXIES", what);
            TrustedProxies::default()
        })
    }

    fn tls(&mut self) -> Option<TlsFiles> {
        match (self.get("TLS_CERT_FILE"), self.get("TLS_KEY_FILE")) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.into(),
                key: key.into(),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.problem(
                    "TLS_KEY_FILE",
                    "is not set, though TLS_CERT_FILE is: https needs both",
                );
                None
            }
            (None, Some(_)) => {
                self.problem(
                    "TLS_CERT_FILE",
                    "is not set, though TLS_KEY_FILE is: https needs both",
                );
                None
            }
        }
    }

    fn log_format(&mut self) -> Format {
        match self.get("LOG_FORMAT").as_deref() {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => {
                self.problem(
                    "LOG_FORMAT",
                    format!("is {other:?}, and must be text or json"),
                );
                Format::Text
            }
        }
    }

    fn limits(&mut self) -> Limits {
        let usual = Limits::default();
        let most = 1_000_000_000;
        Limits {
            logins_per_minute: self.number(
                "LIMIT_LOGINS_PER_MINUTE",
                usual.logins_per_minute,
                0..=most,
            ),
            wrong_codes_per_minute: self.number(
                "LIMIT_WRONG_CODES_PER_MINUTE",
                usual.wrong_codes_per_minute,
                0..=most,
            ),
            wrong_codes_per_minute_total: self.number(
                "LIMIT_WRONG_CODES_PER_MINUTE_TOTAL",
                usual.wrong_codes_per_minute_total,
                0..=most,
            ),
            live_logins: self.number("LIMIT_LIVE_LOGINS", usual.live_logins, 0..=most),
            connections: self.number("LIMIT_CONNECTIONS", usual.connections, 1..=100_000),
            connections_per_address: self.number(
                "LIMIT_CONNECTIONS_PER_ADDRESS",
                usual.connections_per_address,
                0..=100_000,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigProblems> {
        let vars: Vec<(String, String)> = vars
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        Config::from_vars(|name| vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
    }

    const APP: [(&str, &str); 2] = [
        ("POSTIZ_OAUTH_CLIENT_ID", "id"),
        ("POSTIZ_OAUTH_CLIENT_SECRET", "hunter2"),
    ];

    #[test]
    fn the_app_alone_is_enough() {
        let config = read(&APP).unwrap();
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
            "LIMIT_CONNECTIONS",
        ] {
            assert!(names.contains(&name), "{name} is missing in {problems}");
        }
        assert!(!problems.to_string().contains("hunter2"));
    }

    #[test]
    fn stores_are_named_by_their_scheme() {
        for (url, is_postgres) in [
            ("postgres://u@h/d", true),
            ("postgresql://u@h/d?sslmode=verify-full", true),
            ("file:/x/y.redb", false),
            ("file:///x/y.redb", false),
        ] {
            let config = read(&[APP[0], APP[1], ("DATABASE_URL", url)]).unwrap();
            assert_eq!(
                matches!(config.store, StoreLocation::Postgres(_)),
                is_postgres,
                "{url}"
            );
        }
    }
}
