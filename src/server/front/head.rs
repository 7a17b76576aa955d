//! The head of a request: its target, its headers, and how its body and its answer are framed. httparse has parsed it before.

use std::net::IpAddr;

use httparse::Header;
use percent_encoding::{AsciiSet, utf8_percent_encode};

use crate::server::http::request::{HEADERS, Request, RequestId};
use crate::shared::base_url::BaseUrl;

/// A status code and the error's name.
pub(crate) type Rejection = (u16, &'static str);

pub(super) const BAD_REQUEST: Rejection = (400, "bad_request");
pub(super) const BODY_TOO_LARGE: Rejection = (413, "body_too_large");
const EXPECTATION_FAILED: Rejection = (417, "expectation_failed");

/// What the writer of an answer must know of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    /// Whether the client lets the connection stay open.
    pub(crate) keep_alive: bool,
    /// HTTP/1.0 needs `Connection: keep-alive` in the answer.
    pub(crate) is_http_1_1: bool,
    /// An answer to HEAD has no body, whatever its Content-Length says.
    pub(crate) is_head: bool,
}

impl Framing {
    /// For a request that could not be read.
    pub(crate) const CLOSE: Framing = Framing {
        keep_alive: false,
        is_http_1_1: false,
        is_head: false,
    };
}

/// A parsed head, and how its body is framed.
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) framing: Framing,
    pub(super) body: Body,
    pub(super) expects_continue: bool,
}

/// How a body is framed (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(usize),
    Chunked,
}

/// Interprets a head that httparse has parsed, and rejects what httparse lets pass.
pub(super) fn interpret(parsed: &httparse::Request, peer: IpAddr) -> Result<Head, Rejection> {
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(BAD_REQUEST);
    };
    let headers = Headers(parsed.headers);
    let target = origin_form(method, target)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let is_http_1_1 = version == 1;
    // RFC 9112 §3.2: exactly one Host with HTTP/1.1, at most one before.
    let hosts = headers.all("host").count();
    if hosts > 1 || hosts == 0 && is_http_1_1 {
        return Err(BAD_REQUEST);
    }
    let body = body(&headers, is_http_1_1)?;
    let expects_continue = match headers.all("expect").next() {
        None => false,
        Some(expect) if expect.value.eq_ignore_ascii_case(b"100-continue") => is_http_1_1,
        Some(_) => return Err(EXPECTATION_FAILED),
    };
    Ok(Head {
        framing: Framing {
            keep_alive: match is_http_1_1 {
                true => !headers.has_connection_option("close"),
                false => headers.has_connection_option("keep-alive"),
            },
            is_http_1_1,
            is_head: method == "HEAD",
        },
        request: Request {
            id: RequestId(0),
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers.for_handlers(),
            body: Vec::new(),
            client: peer,
        },
        body,
        expects_continue,
    })
}

/// The request target as `/path?query`. Scheme and host of a whole URL are dropped (RFC 9112 §3.2.2); `*` is for OPTIONS only,
/// and `host:port` is for CONNECT, which is rejected.
fn origin_form(method: &str, target: &str) -> Result<String, Rejection> {
    let path = match after_scheme(target) {
        Some(rest) => {
            let path_at = target.len() - rest.len() + rest.find(['/', '?']).unwrap_or(rest.len());
            BaseUrl::parse(&target[..path_at]).map_err(|_| BAD_REQUEST)?;
            &target[path_at..]
        }
        None if target.starts_with('/') => target,
        None if method == "OPTIONS" && target == "*" => target,
        None => return Err(BAD_REQUEST),
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    // Browsers percent-encode other bytes than ASCII. For clients that do not, they are encoded here.
    let encoded = utf8_percent_encode(path, &AsciiSet::EMPTY);
    Ok(format!("{slash}{encoded}"))
}

fn after_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// How the body is framed. Servers disagree about two lengths, and about a length beside a transfer encoding, so both are
/// rejected (RFC 9112 §6.3). HTTP/1.0 has no transfer encodings.
fn body(headers: &Headers, is_http_1_1: bool) -> Result<Body, Rejection> {
    let (mut lengths, mut encodings) = (
        headers.all("content-length"),
        headers.all("transfer-encoding"),
    );
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(Body::Length(0)),
        (None, Some(encoding)) => {
            let is_chunked = encoding.value.eq_ignore_ascii_case(b"chunked");
            match is_chunked && is_http_1_1 && encodings.next().is_none() {
                true => Ok(Body::Chunked),
                false => Err(BAD_REQUEST),
            }
        }
        (Some(length), None) if lengths.next().is_none() => content_length(length.value),
        (Some(_), _) => Err(BAD_REQUEST),
    }
}

fn content_length(value: &[u8]) -> Result<Body, Rejection> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits);
    match number.map(str::parse::<usize>) {
        Some(Ok(number)) => Ok(Body::Length(number)),
        // A length that does not fit into a number.
        Some(Err(_)) => Err(BODY_TOO_LARGE),
        None => Err(BAD_REQUEST),
    }
}

struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a Header<'a>> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
    }

    /// Whether `Connection` lists this option.
    fn has_connection_option(&self, option: &str) -> bool {
        let mut options = self
            .all("connection")
            .flat_map(|header| header.value.split(|byte| *byte == b','));
        options.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    }

    /// The headers that handlers read.
    fn for_handlers(&self) -> Vec<(&'static str, String)> {
        let known = |header: &Header<'_>| {
            let mut names = HEADERS.iter();
            let name = names.find(|name| header.name.eq_ignore_ascii_case(name))?;
            Some((*name, ascii(header.value)))
        };
        self.0.iter().filter_map(known).collect()
    }
}

/// Replaces all but printable ASCII by `?`. No header that handlers read needs more.
fn ascii(value: &[u8]) -> String {
    let visible = |byte: &u8| match byte {
        b'\t' | b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    value.iter().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_form_drops_scheme_and_host() {
        for (target, expected) in [
            ("/", "/"),
            ("//", "//"),
            ("/\\", "/\\"),
            ("http://h/x?y", "/x?y"),
            ("HTTP://h", "/"),
            ("https://h?y", "/?y"),
            ("/ü", "/%C3%BC"),
            ("/%2e%2e/x", "/%2e%2e/x"),
        ] {
            assert_eq!(
                origin_form("GET", target),
                Ok(expected.to_owned()),
                "{target}"
            );
        }
        assert_eq!(origin_form("OPTIONS", "*"), Ok("/*".to_owned()));
    }
}
