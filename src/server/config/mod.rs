//! The server's configuration, from environment variables. All are checked at the start, and all problems reported together.

mod reader;
mod secret_source;
mod settings;
mod values;

pub use settings::help;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::server::client_address::TrustedProxies;
use crate::server::config::reader::Reader;
pub use crate::server::front::tls::TlsFiles;
use crate::server::log::{Format, Level};
use crate::server::store::database_url::DatabaseUrl;
use crate::server::times::Times;
use crate::shared::base_url::BaseUrl;
use crate::shared::secret::Secret;

/// All settings, checked, by the names of their variables. settings.rs says what each means.
#[derive(Clone, Debug)]
pub struct Config {
    /// `POSTIZ_OAUTH_CLIENT_ID` and `POSTIZ_OAUTH_CLIENT_SECRET`. `None`: each login registers a client of its own.
    pub(crate) oauth_app: Option<OAuthApp>,
    pub(crate) server_secret: Option<Secret<String>>,
    /// `DATABASE_URL` or `DATA_DIR`: where logins are kept.
    pub(crate) store: StoreLocation,
    pub(crate) database_pool_size: usize,
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    /// `SERVER_URL`, if it is set; else the server is at `http://localhost:{port}`.
    pub(crate) server_url: Option<BaseUrl>,
    pub(crate) frontend_url: BaseUrl,
    pub(crate) api_url: BaseUrl,
    pub(crate) public_api_url: BaseUrl,
    pub(crate) trusted_proxies: TrustedProxies,
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`: serve https.
    pub(crate) tls: Option<TlsFiles>,
    /// `LOG_FORMAT`.
    pub log_format: Format,
    /// `LOG_LEVEL`: the lowest level that is written.
    pub log_level: Level,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) idle_timeout: Duration,
    pub(crate) stop_delay: Duration,
    pub(crate) limits: Limits,
    /// The server's timeouts: the defaults, except in tests.
    pub(crate) times: Times,
    /// What looks like a mistake, but does not prevent a start. Contains no values.
    pub warnings: Vec<String>,
}

/// The OAuth app made in Postiz.
#[derive(Clone, Debug)]
pub struct OAuthApp {
    /// Its client ID, which is public.
    pub id: String,
    /// Its client secret, which is sent to Postiz alone.
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

/// The settings that begin with LIMIT_. 0 disables a limit; LIMIT_CONNECTIONS must be at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) logins_per_minute: u32,
    pub(crate) wrong_codes_per_minute: u32,
    pub(crate) wrong_codes_per_minute_total: u32,
    pub(crate) callbacks_per_minute: u32,
    pub(crate) live_logins: u32,
    pub(crate) connections: u32,
    pub(crate) connections_per_address: u32,
}

/// The problem of one variable. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

/// All problems of a configuration, and its warnings, which may name the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<Problem>, pub Vec<String>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.what.starts_with(':') { "" } else { " " };
        write!(f, "{}{space}{}", self.name, self.what)
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let s = if count == 1 { "" } else { "s" };
        writeln!(f, "the configuration has {count} problem{s}:")?;
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        for warning in &self.1 {
            writeln!(f, "  {warning}")?;
        }
        write!(f, "postiz-auth-server --help names every variable")
    }
}

impl Config {
    /// The secret from which the server's keys are derived. `None`: there is one in a file beside the embedded store.
    pub fn root_secret(&self) -> Option<&Secret<String>> {
        let app_secret = self.oauth_app.as_ref().map(|app| &app.secret);
        self.server_secret.as_ref().or(app_secret)
    }

    /// The scheme by which the server itself is reached, behind any proxy.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The size of the pool of connections to PostgreSQL: the URL's `connection_limit`, or DATABASE_POOL_SIZE.
    pub fn pool_size(&self) -> usize {
        match &self.store {
            StoreLocation::Postgres(url) => url.pool_size.unwrap_or(self.database_pool_size),
            StoreLocation::File(_) => 0,
        }
    }

    /// Reads the configuration from environment variables. Of two with the same name the first counts, as with `getenv`.
    pub fn from_vars<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Config, ConfigProblems> {
        Reader::new(variables).config()
    }
}

/// `LOG_FORMAT` alone, for a configuration that has problems; text if it is one of them.
pub fn log_format<N: Into<OsString>, V: Into<OsString>>(
    variables: impl IntoIterator<Item = (N, V)>,
) -> Format {
    Reader::new(variables).value("LOG_FORMAT", values::log_format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::values::ROUTES;
    use crate::server::times;
    use std::ffi::OsStr;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigProblems> {
        Config::from_vars(vars.iter().copied())
    }

    const APP_VARS: [(&str, &str); 2] = [
        ("POSTIZ_OAUTH_CLIENT_ID", "id"),
        ("POSTIZ_OAUTH_CLIENT_SECRET", "hunter2"),
    ];

    #[test]
    fn oauth_app_alone_is_enough() {
        let config = read(&APP_VARS).unwrap();
        assert_eq!((config.port, config.database_pool_size), (3111, 8));
        assert_eq!(config.public_api_url.as_str(), "https://api.postiz.com");
        assert_eq!(config.frontend_url.as_str(), "https://platform.postiz.com");
        assert!(config.host.is_unspecified() && config.host.is_ipv6());
        assert!(
            matches!(config.store, StoreLocation::File(path) if path.ends_with("data/postiz-auth.redb"))
        );
        assert_eq!(config.limits, Reader::default().limits());
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

    /// With neither the app's ID nor its secret, each login registers a client, if Postiz allows it for this server's callback.
    #[test]
    fn callback_without_an_app_must_be_one_that_postiz_registers() {
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
    fn server_secret_overrides_the_apps_secret() {
        let own = ("SERVER_SECRET", "0123456789abcdef");
        let root =
            |vars: &[(&str, &str)]| read(vars).unwrap().root_secret().unwrap().expose().clone();
        assert_eq!(root(&APP_VARS), "hunter2");
        assert_eq!(root(&[APP_VARS[0], APP_VARS[1], own]), "0123456789abcdef");
        let database = ("DATABASE_URL", "postgres://u@h/d");
        assert_eq!(root(&[own, SELF_HOSTED, database]), "0123456789abcdef");
    }

    #[test]
    fn problems_are_reported_together_and_without_secrets() {
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
    fn store_is_chosen_by_the_scheme_of_the_url() {
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
    fn implausible_values_are_rejected() {
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
    fn values_from_files_are_trimmed() {
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
    fn variables_that_are_not_utf8_are_reported() {
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
        // A misspelt name may be the cause of a problem.
        let slip = ("POSTIZ_OAUTH_CLIENT_SECRETFILE", "/x");
        let problems = read(&[APP_VARS[0], slip]).unwrap_err().to_string();
        assert!(
            problems.contains("POSTIZ_OAUTH_CLIENT_SECRET_FILE meant?"),
            "{problems}"
        );
    }
}
