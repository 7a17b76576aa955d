//! Splits a `DATABASE_URL` into its parts, also if its password holds characters that should be percent-encoded.

/// The parts of a URL, still percent-encoded. A part that is missing is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UrlParts<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    /// Hosts with their ports.
    pub(super) hosts: Vec<(&'a str, &'a str)>,
    pub(super) dbname: &'a str,
    /// Names and values.
    pub(super) query: Vec<(&'a str, &'a str)>,
}

impl<'a> UrlParts<'a> {
    /// Splits a URL. A password that was not percent-encoded may contain `@ / ? #`, so each `@` may be the one that ends it. All
    /// splits are tried, and it is an error if more than one of them is valid.
    pub(super) fn parse(url: &'a str) -> Result<UrlParts<'a>, String> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or("must begin with postgres:// or postgresql://")?;
        let split_at = |at: usize| UrlParts::split(&rest[..at], &rest[at + 1..]);
        // RFC 3986: the authority ends at the first of these, and its last `@` ends the credentials.
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let standard = match authority.rfind('@') {
            Some(at) => split_at(at),
            None => UrlParts::split("", rest),
        };
        let others = rest
            .match_indices('@')
            .filter_map(|(at, _)| split_at(at).ok());
        let parts = match &standard {
            // Another split does not count if it puts a known parameter into the password.
            Ok(parts) => {
                let mut others =
                    others.filter(|other| other != parts && !other.has_parameter_in_password());
                match others.next() {
                    None => standard,
                    Some(_) => Err(AMBIGUOUS),
                }
            }
            Err(_) => {
                let mut others: Vec<UrlParts> = others.collect();
                match (others.pop(), others.pop()) {
                    (Some(parts), None) => Ok(parts),
                    (Some(_), Some(_)) => Err(AMBIGUOUS),
                    // The split at the last `@` has the most useful error.
                    (None, _) => rest.rfind('@').map_or(standard, split_at),
                }
            }
        }?;
        // However the URL was split, an sslmode in it must count: else TLS that was asked for would be off.
        let written = url.matches("sslmode=").count();
        let found = parts
            .query
            .iter()
            .filter(|(name, _)| *name == "sslmode")
            .count();
        if written != found {
            return Err(format!(
                "has an sslmode in a place where it does not count; {ENCODE}"
            ));
        }
        Ok(parts)
    }

    /// Splits the credentials, and the `rest` of the URL that follows their `@`.
    fn split(credentials: &'a str, rest: &'a str) -> Result<UrlParts<'a>, &'static str> {
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
        Ok(UrlParts {
            user,
            password,
            hosts,
            dbname,
            query: query.collect::<Result<_, _>>()?,
        })
    }

    fn has_parameter_in_password(&self) -> bool {
        let mut pieces = self.password.split(['?', '&']).skip(1);
        pieces.any(|piece| {
            let name = piece.split_once('=').map(|(name, _)| name);
            name.is_some_and(|name| PARAMETERS.contains(&name))
        })
    }
}

const ENCODE: &str = "in a password write @ as %40, / as %2F, ? as %3F, # as %23";
const AMBIGUOUS: &str =
    "can be read in more than one way: in a password write @ as %40, / as %2F, ? as %3F, # as %23";

/// Splits `host`, `host:port` or `[address]:port`.
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

/// The parameters that a URL may have: libpq's, the postgres crate's name for `keepalives_count`, and those of other programs.
#[rustfmt::skip] // Rows of names are shorter.
pub(super) const PARAMETERS: [&str; 34] = [
    "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "options", "application_name",
    "fallback_application_name", "client_encoding", "connect_timeout", "tcp_user_timeout", "keepalives", "keepalives_idle",
    "keepalives_interval", "keepalives_count", "target_session_attrs", "load_balance_hosts", "channel_binding", "gssencmode",
    "sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslsni", "sslcompression", "requiressl",
    "keepalives_retries",
    "schema", "pgbouncer", "connection_limit", "ssl",
];
