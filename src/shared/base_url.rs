//! The base URL of a service: scheme, host, port and perhaps a path.

use std::fmt;

use ureq::http::Uri;

/// An `http://` or `https://` URL without user, query, fragment, or slash at its end, so that `{url}/path` is a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    uri: Uri,
}

impl BaseUrl {
    /// Parses `text`. The error says what is wrong, in words that go after the setting's name.
    pub fn parse(text: &str) -> Result<BaseUrl, &'static str> {
        let text = text.trim().trim_end_matches('/');
        let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("must begin with http:// or https://");
        }
        let authority = uri.authority().ok_or("has no host")?;
        if authority.host().is_empty() {
            return Err("has no host");
        }
        if authority.as_str().contains('@') {
            return Err("must not hold a user name or password");
        }
        // The `http` crate accepts `host:` and `host:99999`.
        let port_text = authority.as_str()[authority.host().len()..].strip_prefix(':');
        if port_text.is_some() && authority.port_u16().is_none() {
            return Err("has a port that is not a number from 0 to 65535");
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("must not hold a query or a fragment");
        }
        Ok(BaseUrl {
            text: text.to_owned(),
            uri,
        })
    }

    /// The whole URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same URL without `end` (a path), where it ends so.
    pub fn without_end(&self, end: &str) -> BaseUrl {
        let shorter = self.text.strip_suffix(end).map(BaseUrl::parse);
        shorter.and_then(Result::ok).unwrap_or_else(|| self.clone())
    }

    /// Is the scheme `https`?
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The path, without a slash at its end: `""` or `/cli-auth`.
    pub fn path(&self) -> &str {
        self.uri.path().trim_end_matches('/')
    }

    /// The host without the port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The host, with the port where the URL names one.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |a| a.as_str())
    }

    /// Scheme, host and port as in a browser's `Origin` header (RFC 6454 §6.2: no default port, lower case).
    pub fn origin(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let default_port = if self.is_https() { 443 } else { 80 };
        let host = self.host().to_ascii_lowercase();
        match self.uri.port_u16() {
            Some(port) if port != default_port => format!("{scheme}://{host}:{port}"),
            _ => format!("{scheme}://{host}"),
        }
    }

    /// The origin of any URL; `None` when it has none, or holds a user name (`https://known@elsewhere`).
    pub fn origin_of(uri: &Uri) -> Option<String> {
        let base = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
        BaseUrl::parse(&base).ok().map(|base| base.origin())
    }

    /// Is the host this machine itself (`localhost`, 127.0.0.0/8, `::1`)?
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        let address: Result<std::net::IpAddr, _> = host.parse();
        address.map_or(host.eq_ignore_ascii_case("localhost"), |ip| {
            ip.is_loopback()
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_drops_the_last_slash_and_keeps_the_path() {
        let url = BaseUrl::parse(" https://Example.com:8443/cli-auth// ").unwrap();
        assert_eq!(url.as_str(), "https://Example.com:8443/cli-auth");
        assert_eq!(url.path(), "/cli-auth");
        assert_eq!(url.origin(), "https://example.com:8443");
        assert_eq!(
            BaseUrl::parse("http://[::1]:80/").unwrap().origin(),
            "http://[::1]"
        );
        assert_eq!(BaseUrl::parse("http://a/").unwrap().path(), "");
    }

    #[test]
    fn base_url_refuses_other_text() {
        for bad in [
            "",
            "localhost:3111",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a?x",
            "http://a#x",
            "http://a:99999",
            "http://a:",
            "not a url",
            "//a",
            "/path",
            "http://a b",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:3", true),
            ("http://example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(
                BaseUrl::parse(url).unwrap().is_loopback(),
                expected,
                "{url}"
            );
        }
    }
}
