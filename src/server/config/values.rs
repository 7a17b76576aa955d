//! Parses the value of one setting each. An error says what would be right, and contains no secret.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::server::client_address::TrustedProxies;
use crate::server::config::StoreLocation;
use crate::server::keys::SECRET_BYTES_MIN;
use crate::server::log::{Format, Level};
use crate::server::store::connect;
use crate::server::store::database_url::DatabaseUrl;
use crate::shared::base_url::BaseUrl;

/// The server's routes. People put them into `SERVER_URL` by mistake.
pub(super) const ROUTES: [&str; 6] = [
    "/device/verify",
    "/device/callback",
    "/device/code",
    "/device/token",
    "/health",
    "/ready",
];

/// A value, or what is wrong with its text. The error is put after the text and ", which".
pub(super) type Parsed<T> = Result<T, String>;

/// `text` without the blanks, line ends and byte order mark that editors and shells add.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// A value as a message shows it: not at all, if it may contain a password or a secret meant for another variable.
pub(super) fn shown(text: &str) -> String {
    match text.contains('@') || text.contains("pcs_") {
        true => "(not shown)".to_owned(),
        false => format!("{text:?}"),
    }
}

pub(super) fn url(text: &str) -> Parsed<BaseUrl> {
    BaseUrl::parse(text).map_err(|error| format!("{error}; right would be https://example.com"))
}

pub(super) fn server_url(text: &str) -> Parsed<BaseUrl> {
    let url = url(text)?;
    let base = |route: &&str| url.as_str().strip_suffix(*route);
    match ROUTES.iter().find_map(base) {
        Some(base) => Err(format!(
            "ends in a route that the server adds; right would be {base}"
        )),
        None => Ok(url),
    }
}

pub(super) fn server_secret(text: &str) -> Parsed<String> {
    match text.len() {
        SECRET_BYTES_MIN.. => Ok(text.to_owned()),
        _ => Err(format!(
            "must have {SECRET_BYTES_MIN} characters or more (openssl rand -hex 32 makes one)"
        )),
    }
}

pub(super) fn store(url: &str, libpq: &dyn Fn(&str) -> Option<String>) -> Parsed<StoreLocation> {
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

/// The path of a `file:` URL; `rest` follows the colon (RFC 8089). Relative paths are allowed as well.
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

pub(super) fn host(text: &str) -> Parsed<IpAddr> {
    let address = match text.trim_start_matches('[').trim_end_matches(']') {
        "localhost" => "127.0.0.1",
        address => address,
    };
    let parsed = address.parse();
    parsed.map_err(|_| "must be an IP address: 0.0.0.0, ::, 127.0.0.1".to_owned())
}

pub(super) fn socket_address(text: &str) -> Parsed<SocketAddr> {
    let numeric = text.strip_prefix("localhost:");
    let numeric = numeric.map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
    let parsed = numeric.parse();
    parsed.map_err(|_| "must be an IP address and a port: 127.0.0.1:9464, [::1]:9464".to_owned())
}

pub(super) fn trusted_proxies(text: &str) -> Parsed<TrustedProxies> {
    TrustedProxies::parse(text).map_err(|entry| {
        let entry = shown(&entry);
        format!("holds {entry}, and must list addresses or ranges: 127.0.0.1, 10.0.0.0/8, fc00::/7, or none")
    })
}

pub(super) fn log_format(text: &str) -> Parsed<Format> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Parsed<Level> {
    let level = Level::from_name(text);
    level.ok_or_else(|| "must be error, warn, info or debug".to_owned())
}
