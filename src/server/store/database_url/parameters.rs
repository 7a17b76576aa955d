//! The parameters of a `DATABASE_URL`, by libpq's names, and what they mean for a connection.

use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use postgres::Config;
use postgres::config::{ChannelBinding, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use crate::server::store::database_url::url_parts::{PARAMETERS, UrlParts};
use crate::server::store::database_url::{DEFAULT_PORT, DEFAULT_SOCKETS, Endpoint, Host};
use crate::server::store::tls::{ClientCertificate, Roots, TlsSettings, Verify};

/// The parameters of a URL, percent-decoded, its user, password, hosts and database included. Empty values are left out.
pub(super) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    pub(super) fn parse(url: &str) -> Result<Parameters, String> {
        let parts = UrlParts::parse(url)?;
        let mut parameters = Parameters(Vec::new());
        let (hosts, ports): (Vec<&str>, Vec<&str>) = parts.hosts.into_iter().unzip();
        let (hosts, ports) = (hosts.join(","), ports.join(","));
        for (name, value) in [
            ("user", parts.user),
            ("password", parts.password),
            ("host", &hosts),
            ("port", &ports),
            ("dbname", parts.dbname),
        ] {
            if !value.is_empty() {
                parameters.0.push((name, decode(name, value)?));
            }
        }
        // As in libpq, the query overrides what stands before the `?`.
        let mut query: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in parts.query {
            let Some(&known) = PARAMETERS.iter().find(|known| **known == name) else {
                return Err(format!(
                    "has the parameter {name}, which this server does not know"
                ));
            };
            let value = decode(known, value)?;
            match query.iter().find(|(other, _)| *other == known) {
                Some((_, other)) if *other != value => {
                    return Err(format!("has {known} twice, with different values"));
                }
                _ => query.push((known, value)),
            }
        }
        for (name, value) in query {
            parameters.0.retain(|(other, _)| *other != name);
            if !value.is_empty() {
                parameters.0.push((name, value));
            }
        }
        Ok(parameters)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // As in libpq, a negative number means the default, like 0.
        match text.trim().parse::<i64>() {
            Ok(number) => Ok(Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX))),
            Err(_) => Err(expected(name, "a whole number")),
        }
    }

    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, String> {
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

    /// The hosts with their ports.
    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, String> {
        let list = |name| {
            self.get(name)
                .map_or_else(Vec::new, |text| text.split(',').collect())
        };
        let (hosts, addresses, ports): (Vec<&str>, Vec<&str>, Vec<&str>) =
            (list("host"), list("hostaddr"), list("port"));
        let count = hosts.len().max(addresses.len()).max(1);
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err("has a different number of hostaddr and host".to_owned());
        }
        if ports.len() > 1 && ports.len() != count {
            return Err("has a different number of ports and hosts".to_owned());
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
            let host = match (hosts.get(at).copied().unwrap_or_default(), address) {
                ("", Some(address)) => Host::Name(address.to_string(), Some(address)),
                ("", None) => {
                    endpoints.extend(DEFAULT_SOCKETS.map(|folder| Endpoint {
                        host: Host::SocketFolder(folder.into()),
                        port,
                    }));
                    continue;
                }
                (folder, _) if folder.starts_with('/') => Host::SocketFolder(folder.into()),
                (host, _) if host.starts_with('@') => {
                    return Err("names an abstract socket, which is not supported".to_owned());
                }
                (host, address) => Host::Name(host.to_owned(), address),
            };
            endpoints.push(Endpoint { host, port });
        }
        Ok(endpoints)
    }

    /// What the SSL parameters and variables ask for.
    pub(super) fn tls(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(SslMode, TlsSettings), String> {
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
        let sslmode = match self.sslmode()? {
            Some(sslmode) => sslmode,
            None => variable("PGSSLMODE").unwrap_or_else(|| match roots {
                // As in libpq: where all public authorities are trusted, the name must be checked.
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
            TlsSettings {
                verify,
                client,
                is_direct,
            },
        ))
    }

    /// The `sslmode` of the URL, or what `ssl` or `requiressl` mean by it.
    fn sslmode(&self) -> Result<Option<String>, String> {
        let ssl = match self.get("ssl") {
            Some("true" | "1" | "on") => Some("require"),
            Some("false" | "0" | "off") => Some("disable"),
            other => other,
        };
        let requiressl = self.choice("requiressl", &[("1", "require"), ("0", "prefer")])?;
        match (self.get("sslmode"), ssl.or(requiressl)) {
            (Some(sslmode), None) => Ok(Some(sslmode.to_owned())),
            // `ssl=true` goes with every sslmode that requires TLS.
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

    /// Sets what concerns the session and the choice of the host.
    pub(super) fn session(&self, config: &mut Config) -> Result<(), String> {
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
        // The values that ask for a standby are refused, since the store has to write.
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
        // These are accepted only with the values that hold anyway.
        let utf8 = ["UTF8", "utf8", "UTF-8", "utf-8", "auto"].map(|name| (name, ()));
        self.choice("client_encoding", &utf8)?;
        self.choice("gssencmode", &[("disable", ()), ("prefer", ())])?;
        self.choice("sslsni", &[("1", ())])?;
        self.choice("sslcompression", &[("0", ()), ("1", ())])?;
        Ok(())
    }

    /// Sets the timeouts. The defaults are short, so that a database that does not answer does not hold up requests.
    pub(super) fn timeouts(&self, config: &mut Config) -> Result<(), String> {
        // As in libpq, tcp_user_timeout is in milliseconds, the others are in seconds; 0 means the default.
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

/// The error about a wrong value. The value is not shown: in a URL that was split wrongly it may be a part of the password.
pub(super) fn expected(name: &str, what: &str) -> String {
    format!("has a wrong {name}, which must be {what}")
}

fn decode(name: &str, value: &str) -> Result<String, String> {
    match percent_decode_str(value).decode_utf8() {
        Ok(text) if text.contains('\0') => Err(format!("has a zero byte in its {name}")),
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(format!("has a {name} that is not UTF-8")),
    }
}
