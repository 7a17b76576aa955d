//! A parsed `DATABASE_URL`: libpq's syntax and parameters, and a few parameters of other programs. Connecting is connect.rs.

mod parameters;
mod url_parts;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use postgres::Config;
use postgres::config::{LoadBalanceHosts, SslMode, SslNegotiation};

use crate::server::store::database_url::parameters::{Parameters, expected};
use crate::server::store::passfile;
use crate::server::store::tls::TlsSettings;

/// Where the database is and how to connect to it: a checked `DATABASE_URL`.
#[derive(Clone, Debug)]
pub struct DatabaseUrl {
    /// The connection's settings, without hosts and ports.
    config: Config,
    /// In the order of the URL.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) tls: TlsSettings,
    /// libpq's password file, where the password is looked up if none was given.
    passfile: Option<PathBuf>,
    /// `schema`: the schema with the tables. `None`: the role's `search_path` finds them.
    pub schema: Option<String>,
    /// `connection_limit`: the size of the connection pool.
    pub pool_size: Option<usize>,
    /// `pgbouncer`: whether there is a pooler in transaction mode in between. `None`: not set.
    pub pooler: Option<bool>,
}

impl DatabaseUrl {
    /// Parses a `postgres://` or `postgresql://` URL. `variable` looks up environment variables. The error follows the name of
    /// the setting, and never contains the password.
    pub fn parse(
        url: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<DatabaseUrl, String> {
        let parameters = Parameters::parse(url)?;
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let given = |name: &str, other: &str| {
            let parameter = parameters.get(name).map(str::to_owned);
            parameter.or_else(|| variable(other))
        };
        let (account, account_home) = passfile::account().unzip();
        let user = given("user", "PGUSER")
            .or(account)
            .ok_or("names no user, and the account of this process has no name")?;
        let mut config = Config::new();
        config.user(&user);
        config.dbname(parameters.get("dbname").unwrap_or(&user));
        let mut passfile = None;
        match given("password", "PGPASSWORD") {
            Some(password) => {
                config.password(password);
            }
            None => {
                let home = || variable("HOME").map(PathBuf::from).or(account_home);
                let named = given("passfile", "PGPASSFILE").map(PathBuf::from);
                passfile = named.or_else(|| Some(home()?.join(".pgpass")));
            }
        }
        let (mode, tls) = parameters.tls(&variable)?;
        config.ssl_mode(mode);
        if tls.is_direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        parameters.session(&mut config)?;
        parameters.timeouts(&mut config)?;
        Ok(DatabaseUrl {
            endpoints: parameters.endpoints()?,
            schema: parameters.get("schema").map(str::to_owned),
            pool_size: match parameters.number("connection_limit")? {
                Some(0 | 1_001..) => return Err(expected("connection_limit", "1 to 1000")),
                limit => limit.map(|limit| limit as usize),
            },
            pooler: parameters.choice("pgbouncer", &[("true", true), ("false", false)])?,
            config,
            tls,
            passfile,
        })
    }

    /// Whether the hosts are tried in random order.
    pub(crate) fn is_load_balanced(&self) -> bool {
        self.config.get_load_balance_hosts() == LoadBalanceHosts::Random
    }

    pub(crate) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(crate) fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// The configuration for one endpoint, and why the password file is ignored, if it is.
    pub(crate) fn config(&self, endpoint: &Endpoint) -> (Config, Option<String>) {
        let mut config = self.config.clone();
        config.port(endpoint.port);
        let mut name = match &endpoint.host {
            Host::SocketFolder(folder) => {
                config.host_path(folder);
                // A socket has no TLS, whatever sslmode is.
                config.ssl_mode(SslMode::Disable);
                folder.to_string_lossy()
            }
            Host::Name(name, address) => {
                config.host(name);
                address.map(|address| config.hostaddr(address));
                name.into()
            }
        };
        let Some(path) = &self.passfile else {
            return (config, None);
        };
        if DEFAULT_SOCKETS.contains(&&*name) {
            name = "localhost".into();
        }
        match passfile::find(path, &name, endpoint.port, self.database(), self.user()) {
            Ok(password) => {
                password.map(|password| config.password(password));
                (config, None)
            }
            Err(why) => (config, Some(why)),
        }
    }
}

/// One of the hosts of a URL, with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A host, as libpq's `host` and `hostaddr` name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The folder of a Unix socket.
    SocketFolder(PathBuf),
    /// A host's name or address, and the address that `hostaddr` gives it.
    Name(String, Option<IpAddr>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::SocketFolder(folder) => write!(f, "socket {}/.s.PGSQL.{port}", folder.display()),
            Host::Name(name, address) => {
                match name.contains(':') {
                    true => write!(f, "[{name}]:{port}")?,
                    false => write!(f, "{name}:{port}")?,
                }
                match address {
                    Some(address) if address.to_string() != *name => write!(f, " ({address})"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Where sockets are looked for if no host is named: Debian's folder, and PostgreSQL's own.
const DEFAULT_SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

#[cfg(test)]
mod tests {
    use super::*;
    use postgres::config::ChannelBinding;
    use std::time::Duration;

    use crate::server::store::tls::{Roots, Verify};

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn parse(url: &str, variables: Variables) -> Result<DatabaseUrl, String> {
        DatabaseUrl::parse(url, &|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    /// User, password, database and endpoints.
    fn read(url: &str, variables: Variables) -> String {
        let url = parse(url, variables).unwrap_or_else(|error| panic!("{url}: {error}"));
        let endpoints: Vec<String> = url.endpoints.iter().map(Endpoint::to_string).collect();
        let password =
            String::from_utf8_lossy(url.config.get_password().unwrap_or(b"-")).into_owned();
        format!(
            "{} {password} {} {}",
            url.user(),
            url.database(),
            endpoints.join(" ")
        )
    }

    #[test]
    fn hosts_users_and_passwords_parse_as_in_libpq() {
        let sockets = "socket /var/run/postgresql/.s.PGSQL.5432 socket /tmp/.s.PGSQL.5432";
        for (url, expected) in [
            ("postgres://u:p@h/db", "u p db h:5432"),
            ("postgresql://u:p@h:1/db", "u p db h:1"),
            ("postgres://u@h", "u - u h:5432"),
            ("postgres://u:@h", "u - u h:5432"),
            ("postgres://u:p%40%2F%3A@h/d%20b", "u p@/: d b h:5432"),
            ("postgres://u:a:b@h/db", "u a:b db h:5432"),
            ("postgres://u:p@[::1]:2/db", "u p db [::1]:2"),
            ("postgres://u@server:p@h/db", "u@server p db h:5432"),
            (
                "postgres://u@h1:1,h2,h3:3/db?target_session_attrs=read-write",
                "u - db h1:1 h2:5432 h3:3",
            ),
            ("postgres://u@/db?host=h1,h2&port=7", "u - db h1:7 h2:7"),
            (
                "postgres://u@h/db?hostaddr=127.0.0.1",
                "u - db h:5432 (127.0.0.1)",
            ),
            (
                "postgres:///db?user=a%40b&password=p&hostaddr=::1",
                "a@b p db [::1]:5432",
            ),
            ("postgres://h/db?user=a@b", "a@b - db h:5432"),
            ("postgres://u:p@h:1/db?host=other", "u p db other:1"),
            ("postgres://u:p@h/db?application_name=a@b", "u p db h:5432"),
            // Sockets.
            (
                "postgres://u@/db?host=/run/p",
                "u - db socket /run/p/.s.PGSQL.5432",
            ),
            (
                "postgres://u@%2Frun%2Fp:6/db",
                "u - db socket /run/p/.s.PGSQL.6",
            ),
            ("postgres://u@/db", &format!("u - db {sockets}")),
            ("postgres:///db?user=u", &format!("u - db {sockets}")),
            ("postgres:///?user=u", &format!("u - u {sockets}")),
            // Passwords that are not percent-encoded.
            ("postgres://u:p@ss@h/db", "u p@ss db h:5432"),
            ("postgres://u:p?ss@h/db?sslmode=require", "u p?ss db h:5432"),
            ("postgres://u:p#ss@h/db", "u p#ss db h:5432"),
            ("postgres://u:p/ss@h/db", "u p/ss db h:5432"),
            ("postgres://u:12/ss@h/db", "u 12/ss db h:5432"),
            (
                "postgres://u:p@ss/x?y#z@h:1/db?connect_timeout=3",
                "u p@ss/x?y#z db h:1",
            ),
            ("postgres://u:100%@h/db", "u 100% db h:5432"),
        ] {
            assert_eq!(read(url, &[]), expected, "{url}");
        }
    }

    #[test]
    fn environment_variables_fill_what_the_url_leaves_out() {
        let variables: Variables = &[
            ("PGPASSWORD", "from-env"),
            ("PGUSER", "env-user"),
            ("PGHOST", "unused"),
        ];
        for (url, expected) in [
            ("postgres://h/db", "env-user from-env db h:5432"),
            ("postgres://u@h/db", "u from-env db h:5432"),
            ("postgres://u:p@h/db", "u p db h:5432"),
        ] {
            assert_eq!(read(url, variables), expected, "{url}");
        }
        let account = passfile::account().unwrap().0;
        assert_eq!(
            read("postgres://h/db", &[]),
            format!("{account} - db h:5432")
        );
        fn passfile(url: &str, variables: Variables) -> PathBuf {
            parse(url, variables).unwrap().passfile.unwrap()
        }
        let home = ("HOME", "/home/x");
        assert_eq!(
            passfile("postgres://h/db", &[home]),
            PathBuf::from("/home/x/.pgpass")
        );
        assert_eq!(
            passfile("postgres://h/db", &[home, ("PGPASSFILE", "/p")]),
            PathBuf::from("/p")
        );
        assert_eq!(
            passfile("postgres://h/db?passfile=/q", &[("PGPASSFILE", "/p")]),
            PathBuf::from("/q")
        );
        assert_eq!(
            parse("postgres://u:p@h/db", &[home]).unwrap().passfile,
            None
        );
    }

    #[test]
    fn sslmode_means_the_same_as_in_libpq() {
        let file = || Roots::File("/ca.pem".into());
        let root: Variables = &[("PGSSLROOTCERT", "/ca.pem")];
        let (disable, prefer, require) = (SslMode::Disable, SslMode::Prefer, SslMode::Require);
        for (query, variables, mode, verify) in [
            ("", &[][..], prefer, Verify::Nothing),
            ("?sslmode=disable", &[], disable, Verify::Nothing),
            ("?sslmode=prefer", &[], prefer, Verify::Nothing),
            ("?sslmode=allow", &[], prefer, Verify::Nothing),
            ("?sslmode=require", &[], require, Verify::Nothing),
            (
                "?sslmode=require&sslrootcert=%2Fca.pem",
                &[],
                require,
                Verify::Authority(file()),
            ),
            (
                "?sslrootcert=/ca.pem&sslmode=verify-ca",
                &[],
                require,
                Verify::Authority(file()),
            ),
            (
                "?sslmode=verify-ca",
                &[],
                require,
                Verify::Authority(Roots::System),
            ),
            (
                "?sslmode=verify-full",
                &[],
                require,
                Verify::AuthorityAndName(Roots::System),
            ),
            (
                "?connect_timeout=3&sslmode=verify-full",
                &[],
                require,
                Verify::AuthorityAndName(Roots::System),
            ),
            (
                "?sslrootcert=system",
                &[],
                require,
                Verify::AuthorityAndName(Roots::System),
            ),
            ("?sslmode=require", root, require, Verify::Authority(file())),
            (
                "?sslmode=verify-full",
                root,
                require,
                Verify::AuthorityAndName(file()),
            ),
            ("?sslmode=no-verify", root, require, Verify::Nothing),
            ("", root, prefer, Verify::Nothing),
            ("", &[("PGSSLMODE", "require")], require, Verify::Nothing),
            (
                "?sslmode=disable",
                &[("PGSSLMODE", "require")],
                disable,
                Verify::Nothing,
            ),
            ("?ssl=true", &[], require, Verify::Nothing),
            (
                "?ssl=true&sslmode=verify-full",
                &[],
                require,
                Verify::AuthorityAndName(Roots::System),
            ),
            ("?ssl=false", &[], disable, Verify::Nothing),
            ("?ssl=no-verify", &[], require, Verify::Nothing),
        ] {
            let parsed = parse(&format!("postgres://u:p@h/db{query}"), variables).unwrap();
            assert_eq!(
                (parsed.config.get_ssl_mode(), parsed.tls.verify),
                (mode, verify),
                "{query}"
            );
        }
    }

    #[test]
    fn parameters_of_other_programs_are_accepted() {
        let url =
            "postgres://u:p@h/db?schema=logins&pgbouncer=true&connection_limit=1&sslmode=require";
        let parsed = parse(url, &[]).unwrap();
        assert_eq!(parsed.schema.as_deref(), Some("logins"));
        assert_eq!((parsed.pool_size, parsed.pooler), (Some(1), Some(true)));
        let parsed = parse("postgres://u:p@h/db", &[]).unwrap();
        assert_eq!(
            (parsed.schema, parsed.pool_size, parsed.pooler),
            (None, None, None)
        );
    }

    #[test]
    fn session_parameters_reach_the_configuration() {
        let url = "postgres://u:p@h/db?channel_binding=require&options=-c%20x.y%3Dz&application_name=a&connect_timeout=7\
                   &tcp_user_timeout=1500&keepalives=0&keepalives_idle=9&keepalives_count=4&sslmode=require\
                   &sslcert=/c&sslkey=/k&gssencmode=disable&load_balance_hosts=random&sslnegotiation=direct";
        let parsed = parse(url, &[]).unwrap();
        let config = &parsed.config;
        assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
        assert_eq!(config.get_options(), Some("-c x.y=z"));
        assert_eq!(config.get_application_name(), Some("a"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(
            config.get_tcp_user_timeout(),
            Some(&Duration::from_millis(1500))
        );
        assert!(!config.get_keepalives() && parsed.is_load_balanced() && parsed.tls.is_direct);
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(9));
        assert_eq!(config.get_keepalives_retries(), Some(4));
        let client = parsed.tls.client.unwrap();
        assert_eq!((client.certificate, client.key), ("/c".into(), "/k".into()));
    }

    #[test]
    fn socket_has_no_tls() {
        for (url, mode) in [
            (
                "postgres://u@/db?host=/run/p&sslmode=verify-full",
                SslMode::Disable,
            ),
            ("postgres://u@h/db?sslmode=verify-full", SslMode::Require),
        ] {
            let parsed = parse(url, &[]).unwrap();
            assert_eq!(parsed.config(&parsed.endpoints[0]).0.get_ssl_mode(), mode);
        }
    }

    #[test]
    fn errors_of_bad_urls_leave_out_the_password() {
        for (url, word) in [
            ("mysql://u:hunter2@h/db", "postgres://"),
            ("postgres://u:hunter2@h/db?sslmode=maybe", "sslmode"),
            ("postgres://u:hunter2@h/db?colour=red", "colour"),
            ("postgres://u:hunter2@h/db?schema=a&schema=b", "twice"),
            (
                "postgres://u:hunter2@h/db?sslmode=disable&ssl=true",
                "contradict",
            ),
            (
                "postgres://u:hunter2@h/db?sslmode=require&sslrootcert=system",
                "verify-full",
            ),
            ("postgres://u:hunter2@h/db?sslcert=/c", "sslkey"),
            (
                "postgres://u:hunter2@h/db?channel_binding=maybe",
                "channel_binding",
            ),
            (
                "postgres://u:hunter2@h/db?target_session_attrs=standby",
                "target_session_attrs",
            ),
            (
                "postgres://u:hunter2@h/db?connection_limit=0",
                "connection_limit",
            ),
            ("postgres://u:hunter2@h/db?pgbouncer=maybe", "pgbouncer"),
            ("postgres://u:hunter2@h/db?gssencmode=require", "gssencmode"),
            (
                "postgres://u:hunter2@h/db?connect_timeout=soon",
                "connect_timeout",
            ),
            (
                "postgres://u:hunter2@h/db?sslpassword=hunter2",
                "sslpassword",
            ),
            ("postgres://u:hunter2@h/db?sslmode", "name=value"),
            ("postgres://u:hunter2@h/db&sslmode=require", "sslmode"),
            ("postgres://u:hunter2@h/db#sslmode=require", "#"),
            ("postgres://u:hunter2@h:abc/db", "port"),
            ("postgres://u:hunter2@h:0/db", "port"),
            ("postgres://u:hunter2@h:65536/db", "port"),
            ("postgres://u:hunter2@h1:1,h2:2/db?port=1,2,3", "ports"),
            (
                "postgres://u:hunter2@h1,h2/db?hostaddr=127.0.0.1",
                "hostaddr",
            ),
            ("postgres://u:hunter2@h/db?hostaddr=localhost", "hostaddr"),
            ("postgres://u:hunter2@h h/db", "host name"),
            ("postgres://u:hunter2@[::1/db", "brackets"),
            ("postgres://u:hunter2@h/d%ff", "UTF-8"),
            // What follows the @ or the / may be a host as well as a part of the password.
            ("postgres://u:hunter2@h/hunter2@x", "%40"),
            ("postgres://u:12/hunter2@h", "%2F"),
            ("postgres://u:hunter2?sslmode=require@h/db", "sslmode"),
        ] {
            let error = parse(url, &[]).expect_err(url);
            assert!(error.contains(word), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    /// Puts any two special characters anywhere before the parameters.
    #[test]
    fn sslmode_that_was_written_always_counts() {
        let (url, parameters) = (
            "postgres://u:12ab@h:1/db",
            "?sslmode=require&pgbouncer=true",
        );
        let characters = [
            "", "@", "/", "?", "#", ":", "%", "[", "]", ",", "=", "&", "?x=", "?ssl=", "é",
        ];
        let mut read = 0;
        for first in "postgres://".len()..=url.len() {
            for second in first..=url.len() {
                for (one, two) in characters
                    .iter()
                    .flat_map(|one| characters.map(|two| (one, two)))
                {
                    let (start, middle, end) = (&url[..first], &url[first..second], &url[second..]);
                    let url = format!("{start}{one}{middle}{two}{end}{parameters}");
                    if let Ok(parsed) = parse(&url, &[]) {
                        read += 1;
                        assert_eq!(parsed.config.get_ssl_mode(), SslMode::Require, "{url}");
                        assert_eq!(parsed.pooler, Some(true), "{url}");
                    }
                }
            }
        }
        assert!(read > 1_000, "{read}");
    }
}
