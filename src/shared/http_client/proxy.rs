//! Chooses the proxy of a request from the environment, as curl does. connect.rs connects to it.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use ureq::http::Uri;

use super::{Lookup, VariableProblem};
use crate::shared::base_url::BaseUrl;
use crate::shared::base64::base64;
use crate::shared::secret::Secret;

/// The proxies that the environment names.
#[derive(Debug, Default)]
pub struct Proxies {
    http: Choice,
    https: Choice,
    exceptions: Exceptions,
}

/// The proxy for one scheme, and what is wrong with the variables for it.
#[derive(Debug, Default)]
struct Choice {
    server: Option<(&'static str, ProxyServer)>,
    /// The first variable that names a SOCKS proxy, which is skipped.
    skipped: Option<&'static str>,
    problem: Option<VariableProblem>,
}

/// A proxy that speaks HTTP.
#[derive(Clone, Debug)]
pub(super) struct ProxyServer {
    pub(super) url: BaseUrl,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<Secret<String>>,
}

impl Proxies {
    /// Reads the variables. A proxy that cannot be used is left out, and reported by [`Proxies::problem`].
    pub fn from_vars(vars: Lookup) -> Proxies {
        let exceptions = ["no_proxy", "NO_PROXY"].into_iter().find_map(|name| {
            let value = vars(name)?.to_string_lossy().into_owned();
            (!value.is_empty()).then_some(value)
        });
        Proxies {
            http: Choice::of(&HTTP_VARIABLES, vars),
            https: Choice::of(&HTTPS_VARIABLES, vars),
            exceptions: Exceptions::parse(&exceptions.unwrap_or_default()),
        }
    }

    /// Does a request to `uri` go through a proxy?
    pub fn applies_to(&self, uri: &Uri) -> bool {
        self.server_for(uri).is_some()
    }

    /// Is the proxy for `https` URLs, or the one for `http`, connected to by TLS?
    pub fn needs_tls(&self, https: bool) -> bool {
        let server = &self.choice(https).server;
        server
            .as_ref()
            .is_some_and(|(_, server)| server.url.is_https())
    }

    /// What is wrong with the variable for `https` URLs, or for `http`.
    pub fn problem(&self, https: bool) -> Option<&VariableProblem> {
        self.choice(https).problem.as_ref()
    }

    /// Says that a proxy for `https` URLs, or for `http`, was skipped.
    pub fn notice(&self, https: bool) -> Option<String> {
        let choice = self.choice(https);
        let name = choice.skipped?;
        let instead = match &choice.server {
            Some((used, _)) => format!("{used} is used instead"),
            None => "no proxy is used".to_owned(),
        };
        Some(format!(
            "{name} is not the URL of an HTTP proxy (SOCKS is not supported), so {instead}"
        ))
    }

    pub(super) fn server_for(&self, uri: &Uri) -> Option<&ProxyServer> {
        let https = uri.scheme_str() == Some("https");
        let (_, server) = self.choice(https).server.as_ref()?;
        (!self.exceptions.contain(uri)).then_some(server)
    }

    fn choice(&self, https: bool) -> &Choice {
        if https { &self.https } else { &self.http }
    }
}

impl Choice {
    fn of(names: &[&'static str], vars: Lookup) -> Choice {
        let mut choice = Choice::default();
        for &name in names {
            let Some(value) = vars(name) else { continue };
            let server = match value.to_str().map(str::trim) {
                Some("") => continue,
                Some(value) => ProxyServer::parse(value),
                None => Err(Unusable::NotAProxy("is not UTF-8")),
            };
            match server {
                Ok(server) => {
                    choice.server = Some((name, server));
                    break;
                }
                Err(Unusable::Socks) => choice.skipped = choice.skipped.or(Some(name)),
                // The value is not shown, since it may hold a password.
                Err(Unusable::NotAProxy(why)) => {
                    let text = format!("the value {why}; it must look like http://host:port");
                    choice.problem = Some(VariableProblem { name, text });
                    break;
                }
            }
        }
        choice
    }
}

enum Unusable {
    Socks,
    NotAProxy(&'static str),
}

impl ProxyServer {
    /// Parses `http://user:password@host:port`, of which only the host is required. The default port is 80 (curl's is 1080).
    fn parse(text: &str) -> Result<ProxyServer, Unusable> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let scheme = scheme.to_ascii_lowercase();
        match &*scheme {
            "http" | "https" => {}
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => return Err(Unusable::Socks),
            _ => return Err(Unusable::NotAProxy("has a scheme that no proxy has")),
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('@') {
            let why =
                "has a user name or password with a character in it that must be percent-encoded";
            return Err(Unusable::NotAProxy(why));
        }
        let (user, host) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(user, host)| (Some(user), host));
        let url = BaseUrl::parse(&format!("{scheme}://{host}")).map_err(Unusable::NotAProxy)?;
        let authorization = user.filter(|user| !user.is_empty()).map(|user| {
            let user = if user.contains(':') {
                user.to_owned()
            } else {
                format!("{user}:")
            };
            let bytes: Vec<u8> = percent_decode_str(&user).collect();
            Secret::new(format!("Basic {}", base64(&bytes)))
        });
        Ok(ProxyServer { url, authorization })
    }
}

impl fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// The hosts that are reached without a proxy: `NO_PROXY`.
#[derive(Debug, Default)]
struct Exceptions(Vec<Exception>);

/// One entry of `NO_PROXY`. An entry with a port holds for that port alone.
#[derive(Debug)]
enum Exception {
    Everything,
    /// A domain and all below it, in lower case, without dots around it.
    Domain(String, Option<u16>),
    /// The addresses that begin with these bits of this one.
    Network(IpAddr, u8, Option<u16>),
}

impl Exceptions {
    /// Entries are separated by commas, blanks, or both. An entry that cannot be parsed is ignored.
    fn parse(text: &str) -> Exceptions {
        let entries = text.split(|c: char| c == ',' || c.is_whitespace());
        Exceptions(entries.filter_map(Exception::parse).collect())
    }

    fn contain(&self, uri: &Uri) -> bool {
        let is_https = uri.scheme_str() == Some("https");
        let default_port = if is_https { 443 } else { 80 };
        let host = without_brackets(uri.host().unwrap_or_default());
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(default_port);
        let address: Option<IpAddr> = host.parse().ok();
        let address = address.map(|address| address.to_canonical());
        let mut entries = self.0.iter();
        entries.any(|entry| entry.contains(&host, address, port))
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Exception> {
        if text == "*" {
            return Some(Exception::Everything);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = without_brackets(address).parse().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
            return Some(Exception::Network(address, bits, None));
        }
        // The last part of an IPv6 address is no port.
        let is_address = without_brackets(text).parse::<IpAddr>().is_ok();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !is_address => (host, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        if let Ok(address) = without_brackets(host).parse::<IpAddr>() {
            let address = address.to_canonical();
            return Some(Exception::Network(address, width(address), port));
        }
        let domain = host
            .trim_start_matches('*')
            .trim_matches('.')
            .to_ascii_lowercase();
        (!domain.is_empty()).then_some(Exception::Domain(domain, port))
    }

    /// Does the entry hold for `host`? `address` is the host as an address, if it is one.
    fn contains(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let (holds, only) = match self {
            Exception::Everything => (true, &None),
            Exception::Domain(domain, only) => {
                let above = host.strip_suffix(domain.as_str());
                let below = above.is_some_and(|above| above.is_empty() || above.ends_with('.'));
                (below && address.is_none(), only)
            }
            Exception::Network(network, bits, only) => {
                let within = |address| begins_with(address, *network, *bits);
                (address.is_some_and(within), only)
            }
        };
        holds && only.is_none_or(|only| only == port)
    }
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn begins_with(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differing = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()),
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
        _ => return false,
    };
    // For 0 bits, a shift by all 128 would overflow; every address begins with no bits.
    let first = differing.checked_shr(u32::from(width(address) - bits));
    first.is_none_or(|first| first == 0)
}

/// Lower case comes first. curl ignores `HTTP_PROXY`, which a client of a CGI program could set by a header; ours are no CGI
/// programs.
const HTTP_VARIABLES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
const HTTPS_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(vars: &[(&str, &str)]) -> Proxies {
        Proxies::from_vars(&|name| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn chosen(vars: &[(&str, &str)], url: &str) -> String {
        let proxies = proxies(vars);
        let server = proxies.server_for(&url.parse().unwrap());
        server.map_or("direct".to_owned(), ToString::to_string)
    }

    #[test]
    fn proxy_is_chosen_by_the_scheme_of_the_url() {
        let (http, https) = ("http://api.test/", "https://api.test/");
        let clash = [
            ("http_proxy", "http://127.0.0.1:7890"),
            ("https_proxy", "http://127.0.0.1:7890"),
            ("all_proxy", "socks5://127.0.0.1:7890"),
        ];
        for (vars, url, expected) in [
            (&[][..], http, "direct"),
            (&[("http_proxy", "http://a:1")], http, "http://a:1"),
            (&[("http_proxy", "http://a:1")], https, "direct"),
            (&[("https_proxy", "http://a:1")], https, "http://a:1"),
            (&[("https_proxy", "http://a:1")], http, "direct"),
            (&[("HTTPS_PROXY", "http://a:1")], https, "http://a:1"),
            (&[("HTTP_PROXY", "http://a:1")], http, "http://a:1"),
            (
                &[("http_proxy", "http://a:1"), ("HTTP_PROXY", "http://b:1")],
                http,
                "http://a:1",
            ),
            (&[("all_proxy", "http://a:1")], http, "http://a:1"),
            (&[("ALL_PROXY", "http://a:1")], https, "http://a:1"),
            (
                &[("all_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b:1")],
                https,
                "http://b:1",
            ),
            // Empty is not set.
            (
                &[("https_proxy", " "), ("all_proxy", "http://a:1")],
                https,
                "http://a:1",
            ),
            (&clash, http, "http://127.0.0.1:7890"),
            (&clash, https, "http://127.0.0.1:7890"),
            (
                &[("https_proxy", "socks5h://a:1"), ("all_proxy", "b:8080")],
                https,
                "http://b:8080",
            ),
            (&[("all_proxy", "socks5://a:1")], https, "direct"),
            (
                &[("https_proxy", "https://a"), ("no_proxy", "api.test")],
                https,
                "direct",
            ),
            (
                &[
                    ("https_proxy", "https://a"),
                    ("no_proxy", ""),
                    ("NO_PROXY", "api.test"),
                ],
                https,
                "direct",
            ),
            (
                &[
                    ("https_proxy", "https://a"),
                    ("no_proxy", "x"),
                    ("NO_PROXY", "*"),
                ],
                https,
                "https://a",
            ),
        ] {
            assert_eq!(chosen(vars, url), expected, "{vars:?} {url}");
        }
        assert_eq!(proxies(&clash).notice(true), None);
        assert_eq!(
            proxies(&[("all_proxy", "socks5://a:1")])
                .notice(false)
                .unwrap(),
            "all_proxy is not the URL of an HTTP proxy (SOCKS is not supported), so no proxy is used"
        );
        let both = [
            ("https_proxy", "socks5h://a:1"),
            ("all_proxy", "http://b:1"),
        ];
        assert!(
            proxies(&both)
                .notice(true)
                .unwrap()
                .ends_with("so all_proxy is used instead")
        );
    }

    #[test]
    fn proxy_urls_are_read_with_their_credentials() {
        for (value, url, credentials) in [
            ("proxy.test", "http://proxy.test", None),
            ("proxy.test:3128", "http://proxy.test:3128", None),
            ("HTTP://proxy.test:3128/", "http://proxy.test:3128", None),
            (
                "http://proxy.test:3128/path?q",
                "http://proxy.test:3128",
                None,
            ),
            ("https://proxy.test", "https://proxy.test", None),
            ("http://[::1]:3128", "http://[::1]:3128", None),
            ("http://me@a:1", "http://a:1", Some("Basic bWU6")),
            (
                "http://me:secret@a:1",
                "http://a:1",
                Some("Basic bWU6c2VjcmV0"),
            ),
            (
                "me:p%40ss%3a%2F@a:1",
                "http://a:1",
                Some("Basic bWU6cEBzczov"),
            ),
            (
                "http://me:p@ss@a:1",
                "http://a:1",
                Some("Basic bWU6cEBzcw=="),
            ),
            ("http://:x@a:1", "http://a:1", Some("Basic Ong=")),
            ("http://@a:1", "http://a:1", None),
        ] {
            let proxies = proxies(&[("http_proxy", value)]);
            let (_, server) = proxies.http.server.as_ref().expect(value);
            assert_eq!(server.url.as_str(), url, "{value}");
            let authorization = server.authorization.as_ref();
            assert_eq!(
                authorization.map(|value| value.expose().as_str()),
                credentials,
                "{value}"
            );
            assert!(!format!("{proxies:?}").contains("c2VjcmV0"), "{proxies:?}");
        }
    }

    #[test]
    fn values_that_are_no_proxy_are_problems_without_their_secrets() {
        for value in [
            "http://[bad:secret",
            "http://",
            "http://me:secret@",
            "ftp://me:secret@a:1",
            "http://me:secret@a:99999",
            "http://me:12/secret@a:1",
            "http://me:secret@a b",
        ] {
            let proxies = proxies(&[("https_proxy", value), ("all_proxy", "http://b:1")]);
            let problem = proxies.problem(true).expect(value);
            assert_eq!(problem.name, "https_proxy");
            assert!(!problem.text.contains("secret"), "{problem}");
            assert!(proxies.problem(false).is_none());
        }
    }

    /// `NO_PROXY`, a host (and port) of an http URL, whether it is excepted, and whether curl 7.88 sees it the same way.
    const TABLE: [(&str, &str, bool, bool); 66] = [
        ("*", "api.test", true, true),
        ("*", "192.0.2.1", true, true),
        ("*", "[::1]", true, true),
        ("other.test,*", "api.test", true, false),
        ("", "api.test", false, true),
        (",", "api.test", false, true),
        (" , ,", "api.test", false, true),
        ("api.test", "api.test", true, true),
        ("API.Test", "api.test", true, true),
        ("api.test", "API.TEST", true, true),
        ("api.test", "api.test:8080", true, true),
        ("api.test", "a.api.test", true, true),
        ("api.test", "a.b.api.test", true, true),
        ("api.test", "xapi.test", false, true),
        ("api.test", "api.test.evil", false, true),
        ("api.test", "test", false, true),
        (".api.test", "api.test", true, true),
        (".api.test", "a.api.test", true, true),
        (".api.test", "xapi.test", false, true),
        ("*.api.test", "a.api.test", true, false),
        ("*.api.test", "api.test", true, false),
        ("*.api.test", "xapi.test", false, true),
        ("api.test.", "api.test", true, true),
        ("api.test", "api.test.", true, true),
        ("test", "api.test", true, true),
        (".", "api.test", false, true),
        ("a.test,api.test", "api.test", true, true),
        ("a.test, api.test", "api.test", true, true),
        ("a.test ,\tapi.test ", "api.test", true, true),
        ("a.test api.test", "api.test", true, true),
        ("a.test,b.test", "api.test", false, true),
        ("api.test:80", "api.test", true, false),
        ("api.test:8080", "api.test:8080", true, false),
        ("api.test:8080", "a.api.test:8080", true, false),
        ("api.test:8080", "api.test:8081", false, true),
        ("api.test:8080", "api.test", false, true),
        (".api.test:8080", "api.test:8080", true, false),
        ("api.test:x", "api.test", false, true),
        ("localhost", "localhost", true, true),
        ("localhost", "127.0.0.1", false, true),
        ("127.0.0.1", "localhost", false, true),
        ("192.0.2.1", "192.0.2.1", true, true),
        ("192.0.2.1", "192.0.2.1:8080", true, true),
        ("192.0.2.1", "192.0.2.11", false, true),
        ("192.0.2.1:8080", "192.0.2.1:8080", true, false),
        ("192.0.2.1:8080", "192.0.2.1", false, true),
        ("2.1", "192.0.2.1", false, true),
        ("192.0.2.0/24", "192.0.2.200", true, true),
        ("192.0.2.0/24", "192.0.3.1", false, true),
        ("192.0.2.128/25", "192.0.2.127", false, true),
        ("192.0.2.1/32", "192.0.2.1", true, true),
        ("192.0.2.1/32", "192.0.2.2", false, true),
        ("192.0.2.0/24", "api.test", false, true),
        ("192.0.2.0/33", "192.0.2.1", false, true),
        ("10.0.0.0/8, 192.0.2.0/24", "192.0.2.1", true, true),
        ("0.0.0.0/0", "192.0.2.1", true, false),
        ("::1", "[::1]", true, true),
        ("[::1]", "[::1]", true, false),
        ("[::1]:8080", "[::1]:8080", true, false),
        ("[::1]:8080", "[::1]", false, true),
        ("::1", "[::2]", false, true),
        ("2001:db8::/32", "[2001:db8::5]", true, false),
        ("2001:db8::/32", "[2001:db9::5]", false, true),
        ("0:0:0:0:0:0:0:1", "[::1]", true, false),
        ("2001:db8::/32", "192.0.2.1", false, true),
        ("192.0.2.0/24", "[2001:db8::5]", false, true),
    ];

    #[test]
    fn exceptions_are_understood_in_all_their_forms() {
        for (value, host, expected, _) in TABLE {
            let uri = format!("http://{host}/").parse().unwrap();
            let excepted = Exceptions::parse(value).contain(&uri);
            assert_eq!(excepted, expected, "NO_PROXY={value:?} {host}");
        }
        // The port of https is another one.
        let uri = "https://api.test/".parse().unwrap();
        assert!(Exceptions::parse("api.test:443").contain(&uri));
        assert!(!Exceptions::parse("api.test:80").contain(&uri));
    }

    /// The rows that curl understands, asked of curl itself: everything it connects to is a listener on loopback.
    #[test]
    fn exceptions_are_those_of_curl() {
        use std::io::{Read, Write};
        use std::net::{Ipv4Addr, TcpListener};
        use std::process::Command;

        if Command::new("curl").arg("--version").output().is_err() {
            println!("skipped: curl is not installed");
            return;
        }
        let answering = |status: &'static str, body: &'static str| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || {
                for mut client in listener.incoming().flatten() {
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    // A client that goes early fails the row it belongs to.
                    let _ = client
                        .read(&mut [0; 4096])
                        .and_then(|_| client.write_all(head.as_bytes()));
                }
            });
            port
        };
        let (proxy, server) = (answering("418", ""), answering("200", "direct"));
        for (value, host, expected, of_curl) in TABLE {
            if !of_curl {
                continue;
            }
            let mut curl = Command::new("curl");
            curl.args(["-q", "-s", "-S", "--max-time", "10"])
                .args(["--connect-to", &format!("::127.0.0.1:{server}")])
                .arg(format!("http://{host}/"))
                .env_clear()
                .env("http_proxy", format!("http://127.0.0.1:{proxy}"))
                .env("no_proxy", value);
            let output = curl.output().unwrap();
            // With --connect-to, curl asks its proxy for a tunnel.
            let is_direct = output.stdout == b"direct";
            let is_proxied = String::from_utf8_lossy(&output.stderr).contains("418");
            assert_ne!(is_direct, is_proxied, "{output:?}");
            assert_eq!(is_direct, expected, "no_proxy={value:?} {host}: {output:?}");
        }
    }
}
