//! `DATABASE_URL` as libpq means it, and the parameters of other programs whose meaning is clear. Connecting is connect.rs.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use postgres::Config;
use postgres::config::{
    ChannelBinding, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
};

use crate::server::store::passfile;
use crate::server::store::tls::{ClientCertificate, Roots, Settings, Verify};

/// Where the database is and how to talk to it: a checked `DATABASE_URL`.
#[derive(Clone, Debug)]
pub struct DatabaseUrl {
    /// Everything but hosts and ports.
    config: Config,
    endpoints: Vec<Endpoint>,
    pub(crate) tls: Settings,
    /// Where the password is looked up, if none was given.
    passfile: Option<PathBuf>,
    /// `schema`: where the tables are, if not where the role's `search_path` leads.
    pub schema: Option<String>,
    /// `connection_limit`: most connections at once.
    pub pool_size: Option<usize>,
    /// `pgbouncer`: is there a pooler in between that hands out connections by transaction? `None`: not said.
    pub pooler: Option<bool>,
}

/// One of the places where the database may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) place: Place,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The folder of a Unix socket.
    Socket(PathBuf),
    /// A host's name or address, and its address where `hostaddr` gives it.
    Host(String, Option<IpAddr>),
}

impl DatabaseUrl {
    /// Parses a `postgres://` or `postgresql://` URL. `variable` answers like the environment. The error says what is wrong,
    /// and never holds the password.
    pub fn parse(
        url: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<DatabaseUrl, String> {
        let parameters = Parameters::read(url)?;
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let account = passfile::account();
        let user = match parameters.get("user").map(str::to_owned) {
            Some(user) => user,
            None => variable("PGUSER")
                .or_else(|| account.as_ref().map(|account| account.name.clone()))
                .ok_or("names no user, and the account of this process has no name")?,
        };
        let mut config = Config::new();
        config.user(&user);
        config.dbname(parameters.get("dbname").unwrap_or(&user));
        let mut passfile = None;
        match parameters
            .get("password")
            .map(str::to_owned)
            .or_else(|| variable("PGPASSWORD"))
        {
            Some(password) => {
                config.password(password);
            }
            None => {
                let home = || {
                    variable("HOME")
                        .map(PathBuf::from)
                        .or(account.map(|account| account.home))
                };
                let named = parameters
                    .get("passfile")
                    .map(str::to_owned)
                    .or_else(|| variable("PGPASSFILE"));
                passfile = named
                    .map(PathBuf::from)
                    .or_else(|| Some(home()?.join(".pgpass")));
            }
        }
        let (mode, tls) = parameters.tls(&variable)?;
        config.ssl_mode(mode);
        if tls.is_direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        parameters.session(&mut config)?;
        parameters.limits(&mut config)?;
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

    /// Where the database may be, in the order in which it is tried.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Is the order of the endpoints to be random?
    pub(crate) fn is_balanced(&self) -> bool {
        self.config.get_load_balance_hosts() == LoadBalanceHosts::Random
    }

    pub(crate) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(crate) fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// How to connect to one endpoint; and why the password file does not count, if it does not.
    pub(crate) fn config(&self, endpoint: &Endpoint) -> (Config, Option<String>) {
        let mut config = self.config.clone();
        config.port(endpoint.port);
        let mut name = match &endpoint.place {
            Place::Socket(folder) => {
                config.host_path(folder);
                // A socket has no TLS, whatever sslmode says.
                config.ssl_mode(SslMode::Disable);
                folder.to_string_lossy()
            }
            Place::Host(name, address) => {
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

/// Where libpq looks when no host is named: Debian's folder, and PostgreSQL's own.
const DEFAULT_SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.place {
            Place::Socket(folder) => write!(f, "socket {}/.s.PGSQL.{port}", folder.display()),
            Place::Host(name, address) => {
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

/// Parameters that are taken; any other is refused.
const KNOWN: [&str; 34] = [
    // libpq's.
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "passfile",
    "options",
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "target_session_attrs",
    "load_balance_hosts",
    "channel_binding",
    "gssencmode",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslsni",
    "sslcompression",
    "requiressl",
    // The postgres crate's name for keepalives_count.
    "keepalives_retries",
    // Those of other programs whose meaning is clear.
    "schema",
    "pgbouncer",
    "connection_limit",
    "ssl",
];

/// All that a URL says, by libpq's names, decoded. An empty value says nothing.
struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    fn read(url: &str) -> Result<Parameters, String> {
        let reading = Reading::of(url)?;
        let mut parameters = Parameters(Vec::new());
        let (hosts, ports): (Vec<&str>, Vec<&str>) = reading.hosts.into_iter().unzip();
        let (hosts, ports) = (hosts.join(","), ports.join(","));
        for (name, value) in [
            ("user", reading.user),
            ("password", reading.password),
            ("host", &hosts),
            ("port", &ports),
            ("dbname", reading.dbname),
        ] {
            if !value.is_empty() {
                parameters.0.push((name, decode(name, value)?));
            }
        }
        // As in libpq, a parameter wins over what stands before the `?`.
        let mut named: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in reading.query {
            let Some(&known) = KNOWN.iter().find(|known| **known == name) else {
                return Err(format!(
                    "has the parameter {name}, which this server does not know"
                ));
            };
            let value = decode(known, value)?;
            match named.iter().find(|(other, _)| *other == known) {
                Some((_, other)) if *other != value => {
                    return Err(format!("has {known} twice, with different values"));
                }
                _ => named.push((known, value)),
            }
        }
        for (name, value) in named {
            parameters.0.retain(|(other, _)| *other != name);
            if !value.is_empty() {
                parameters.0.push((name, value));
            }
        }
        Ok(parameters)
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<Option<u32>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // libpq takes negative numbers for "the default".
        match text.trim().parse::<i64>() {
            Ok(number) => Ok(Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX))),
            Err(_) => Err(expected(name, "a whole number")),
        }
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let choices: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
                Err(expected(name, &choices.join(", ")))
            }
        }
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, String> {
        let list = |name| {
            self.get(name)
                .map_or_else(Vec::new, |text| text.split(',').collect())
        };
        let (hosts, addresses, ports): (Vec<&str>, Vec<&str>, Vec<&str>) =
            (list("host"), list("hostaddr"), list("port"));
        let count = hosts.len().max(addresses.len()).max(1);
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err("has not as many hostaddr as host".to_owned());
        }
        if ports.len() > 1 && ports.len() != count {
            return Err("has not as many ports as hosts".to_owned());
        }
        let mut endpoints = Vec::new();
        for at in 0..count {
            let port = match ports.get(at).or(ports.first()).copied().unwrap_or_default() {
                "" => DEFAULT_PORT,
                text => match text.parse::<u16>() {
                    Ok(port @ 1..) => port,
                    _ => return Err(expected("port", "a number from 1 to 65535")),
                },
            };
            let address = match addresses.get(at).copied().unwrap_or_default() {
                "" => None,
                text => Some(
                    text.parse::<IpAddr>()
                        .map_err(|_| expected("hostaddr", "an IP address"))?,
                ),
            };
            let place = match (hosts.get(at).copied().unwrap_or_default(), address) {
                ("", Some(address)) => Place::Host(address.to_string(), Some(address)),
                ("", None) => {
                    endpoints.extend(DEFAULT_SOCKETS.map(|folder| Endpoint {
                        place: Place::Socket(folder.into()),
                        port,
                    }));
                    continue;
                }
                (folder, _) if folder.starts_with('/') => Place::Socket(folder.into()),
                (host, _) if host.starts_with('@') => {
                    return Err("names an abstract socket, which is not supported".to_owned());
                }
                (host, address) => Place::Host(host.to_owned(), address),
            };
            endpoints.push(Endpoint { place, port });
        }
        Ok(endpoints)
    }

    fn tls(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(SslMode, Settings), String> {
        let or_variable = |name: &str, other: &str| {
            self.get(name)
                .map(str::to_owned)
                .or_else(|| variable(other))
        };
        let roots = match or_variable("sslrootcert", "PGSSLROOTCERT").as_deref() {
            None => None,
            Some("system") => Some(Roots::System),
            Some(path) => Some(Roots::File(path.into())),
        };
        let sslmode = match self.ssl()? {
            Some(sslmode) => sslmode,
            None => variable("PGSSLMODE").unwrap_or_else(|| match roots {
                // As in libpq: trusting all public authorities takes a check of the name.
                Some(Roots::System) => "verify-full".to_owned(),
                _ => "prefer".to_owned(),
            }),
        };
        let (mode, verify) = match (sslmode.as_str(), roots) {
            ("verify-full", roots) => (
                SslMode::Require,
                Verify::AuthorityAndName(roots.unwrap_or(Roots::System)),
            ),
            ("no-verify", _) => (SslMode::Require, Verify::Nothing),
            ("disable", _) => (SslMode::Disable, Verify::Nothing),
            ("prefer" | "allow" | "require" | "verify-ca", Some(Roots::System)) => {
                return Err("sslrootcert=system needs sslmode=verify-full, as in libpq".to_owned());
            }
            ("prefer" | "allow", _) => (SslMode::Prefer, Verify::Nothing),
            ("require", None) => (SslMode::Require, Verify::Nothing),
            ("require" | "verify-ca", roots) => (
                SslMode::Require,
                Verify::Authority(roots.unwrap_or(Roots::System)),
            ),
            _ => {
                return Err(expected(
                    "sslmode",
                    "disable, prefer, require, verify-ca or verify-full",
                ));
            }
        };
        let client = match (self.get("sslcert"), self.get("sslkey")) {
            (Some(certificate), Some(key)) => Some(ClientCertificate {
                certificate: certificate.into(),
                key: key.into(),
            }),
            (None, None) => None,
            _ => return Err("has one of sslcert and sslkey, and needs both or none".to_owned()),
        };
        let direct = self.choice("sslnegotiation", &[("postgres", false), ("direct", true)])?;
        let is_direct = direct.unwrap_or(false);
        if is_direct && mode != SslMode::Require {
            return Err("sslnegotiation=direct needs sslmode=require or stronger".to_owned());
        }
        Ok((
            mode,
            Settings {
                verify,
                client,
                is_direct,
            },
        ))
    }

    /// The sslmode that is written, in whichever way.
    fn ssl(&self) -> Result<Option<String>, String> {
        let plain = match self.get("ssl") {
            Some("true" | "1" | "on") => Some("require"),
            Some("false" | "0" | "off") => Some("disable"),
            other => other,
        };
        let old = self.choice("requiressl", &[("1", "require"), ("0", "prefer")])?;
        match (self.get("sslmode"), plain.or(old)) {
            // "true" says no more than that there is to be TLS.
            (Some(sslmode), None) => Ok(Some(sslmode.to_owned())),
            (
                Some(sslmode @ ("require" | "no-verify" | "verify-ca" | "verify-full")),
                Some("require" | "prefer"),
            ) => Ok(Some(sslmode.to_owned())),
            (Some(sslmode), Some(ssl)) if sslmode != ssl => {
                Err("has sslmode and ssl, which contradict each other".to_owned())
            }
            (_, ssl) => Ok(ssl.map(str::to_owned)),
        }
    }

    /// What the session is to be like.
    fn session(&self, config: &mut Config) -> Result<(), String> {
        let name = self
            .get("application_name")
            .or(self.get("fallback_application_name"));
        config.application_name(name.unwrap_or("postiz-auth-server"));
        self.get("options").map(|options| config.options(options));
        let binding = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        self.choice("channel_binding", &binding)?
            .map(|binding| config.channel_binding(binding));
        // A server that writes has no use for a standby.
        let wanted = [
            ("any", TargetSessionAttrs::Any),
            ("read-write", TargetSessionAttrs::ReadWrite),
            ("primary", TargetSessionAttrs::ReadWrite),
        ];
        self.choice("target_session_attrs", &wanted)?
            .map(|wanted| config.target_session_attrs(wanted));
        let order = [
            ("disable", LoadBalanceHosts::Disable),
            ("random", LoadBalanceHosts::Random),
        ];
        self.choice("load_balance_hosts", &order)?
            .map(|order| config.load_balance_hosts(order));
        // These can ask for what is the case anyway.
        let utf8 = [
            ("UTF8", ()),
            ("utf8", ()),
            ("UTF-8", ()),
            ("utf-8", ()),
            ("auto", ()),
        ];
        self.choice("client_encoding", &utf8)?;
        self.choice("gssencmode", &[("disable", ()), ("prefer", ())])?;
        self.choice("sslsni", &[("1", ())])?;
        self.choice("sslcompression", &[("0", ()), ("1", ())])?;
        Ok(())
    }

    /// A database that is gone without a word must not hold a request for long.
    fn limits(&self, config: &mut Config) -> Result<(), String> {
        // Seconds, but for tcp_user_timeout, as in libpq; 0 means the default.
        let number = |name, default| match self.number(name) {
            Ok(None | Some(0)) => Ok(default),
            Ok(Some(number)) => Ok(number),
            Err(error) => Err(error),
        };
        let seconds = |name, default| number(name, default).map(|s| Duration::from_secs(s.into()));
        config.connect_timeout(seconds("connect_timeout", 2)?);
        let tcp_user_timeout_ms = number("tcp_user_timeout", 5_000)?;
        config.tcp_user_timeout(Duration::from_millis(tcp_user_timeout_ms.into()));
        config.keepalives(self.number("keepalives")? != Some(0));
        config.keepalives_idle(seconds("keepalives_idle", 30)?);
        config.keepalives_interval(seconds("keepalives_interval", 5)?);
        config.keepalives_retries(number(
            "keepalives_count",
            number("keepalives_retries", 3)?,
        )?);
        Ok(())
    }
}

/// The value is not shown: a password that was cut in pieces may be anywhere.
fn expected(name: &str, what: &str) -> String {
    format!("has a wrong {name}, which must be {what}")
}

fn decode(name: &str, value: &str) -> Result<String, String> {
    match percent_decode_str(value).decode_utf8() {
        Ok(text) if text.contains('\0') => Err(format!("has a zero byte in its {name}")),
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(format!("has a {name} that is not UTF-8")),
    }
}

/// A URL taken apart, nothing decoded. What is missing is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading<'a> {
    user: &'a str,
    password: &'a str,
    /// Host and port.
    hosts: Vec<(&'a str, &'a str)>,
    dbname: &'a str,
    query: Vec<(&'a str, &'a str)>,
}

impl<'a> Reading<'a> {
    /// Passwords are often pasted as they are, and may hold what ends them elsewhere: `@ / ? #`. Each `@` may be the one that
    /// ends them. The URL is taken where one of these readings makes sense.
    fn of(url: &'a str) -> Result<Reading<'a>, String> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or("must begin with postgres:// or postgresql://")?;
        let cut = |at: usize| Reading::cut(&rest[..at], &rest[at + 1..]);
        // RFC 3986: the authority ends at the first of these, and its last `@` ends the credentials.
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let standard = match authority.rfind('@') {
            Some(at) => cut(at),
            None => Reading::cut("", rest),
        };
        let others = rest.match_indices('@').filter_map(|(at, _)| cut(at).ok());
        let reading = match &standard {
            // In all other readings, what looks like a query is part of the password.
            Ok(reading) => {
                let mut others =
                    others.filter(|other| other != reading && !other.has_query_in_password());
                match others.next() {
                    None => standard,
                    Some(_) => Err(AMBIGUOUS),
                }
            }
            Err(_) => {
                let mut others: Vec<Reading> = others.collect();
                match (others.pop(), others.pop()) {
                    (Some(reading), None) => Ok(reading),
                    (Some(_), Some(_)) => Err(AMBIGUOUS),
                    // The last one says best what is wrong.
                    (None, _) => rest.rfind('@').map_or(standard, cut),
                }
            }
        }?;
        // Whatever else is misread: TLS that was asked for is not lost.
        let written = url.matches("sslmode=").count();
        let read = reading
            .query
            .iter()
            .filter(|(name, _)| *name == "sslmode")
            .count();
        if written != read {
            return Err(format!(
                "has an sslmode in a place where it does not count; {ENCODE}"
            ));
        }
        Ok(reading)
    }

    /// Takes `rest` apart, which follows the credentials.
    fn cut(credentials: &'a str, rest: &'a str) -> Result<Reading<'a>, &'static str> {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        if user.contains(['/', '?', '#']) {
            return Err("has a user name with / ? or #, which must be written %2F %3F %23");
        }
        let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, dbname) = before_query.split_once('/').unwrap_or((before_query, ""));
        if dbname.contains(['/', '#']) {
            return Err("has a database name with / or #, which must be written %2F %23");
        }
        let hosts = match hosts {
            "" => Vec::new(),
            hosts => hosts
                .split(',')
                .map(host_and_port)
                .collect::<Result<_, _>>()?,
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) if is_name(name) && !value.contains('#') => Ok((name, value)),
                _ => Err("has parameters that are not name=value&name=value, with # written %23"),
            });
        Ok(Reading {
            user,
            password,
            hosts,
            dbname,
            query: query.collect::<Result<_, _>>()?,
        })
    }

    fn has_query_in_password(&self) -> bool {
        let queries = self.password.split(['?', '&']).skip(1);
        queries.into_iter().any(|query| {
            query
                .split_once('=')
                .is_some_and(|(name, _)| KNOWN.contains(&name))
        })
    }
}

const ENCODE: &str = "in a password write @ as %40, / as %2F, ? as %3F, # as %23";
const AMBIGUOUS: &str =
    "can be read in more than one way: in a password write @ as %40, / as %2F, ? as %3F, # as %23";

/// `host`, `host:port`, `[address]:port`.
fn host_and_port(text: &str) -> Result<(&str, &str), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => match text.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => (address, port),
            _ => return Err("has a host in brackets that is not [address] or [address]:port"),
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_host =
        |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b"-._~%:".contains(&byte);
    if !host.bytes().all(is_host) {
        return Err("has a host name with characters that no host name has");
    }
    match port.strip_prefix(':').unwrap_or_default() {
        port if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host, port)),
        _ => Err("has a port that is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn parse(url: &str, variables: Variables) -> Result<DatabaseUrl, String> {
        DatabaseUrl::parse(url, &|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    /// user, password, database and the endpoints.
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
    fn hosts_users_and_passwords_are_read_as_libpq_does() {
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
            // Passwords pasted as they are.
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
    fn variables_count_where_the_url_says_nothing() {
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
        let account = passfile::account().unwrap().name;
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
    fn sslmode_means_what_libpq_means() {
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
    fn parameters_of_other_programs_are_taken_where_they_are_clear() {
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
        assert!(!config.get_keepalives() && parsed.is_balanced() && parsed.tls.is_direct);
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(9));
        assert_eq!(config.get_keepalives_retries(), Some(4));
        let client = parsed.tls.client.unwrap();
        assert_eq!((client.certificate, client.key), ("/c".into(), "/k".into()));
    }

    #[test]
    fn a_socket_has_no_tls() {
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
    fn bad_urls_are_refused_without_their_password() {
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
            // Both are hosts as well as parts of a password.
            ("postgres://u:hunter2@h/hunter2@x", "%40"),
            ("postgres://u:12/hunter2@h", "%2F"),
            ("postgres://u:hunter2?sslmode=require@h/db", "sslmode"),
        ] {
            let error = parse(url, &[]).expect_err(url);
            assert!(error.contains(word), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    /// Whatever two characters stand anywhere before the parameters.
    #[test]
    fn an_sslmode_that_was_written_is_never_lost() {
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
