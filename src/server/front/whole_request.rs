//! Reads one whole request, head and body, within the limits, and writes it down again for tiny_http: complete, bounded,
//! and of one meaning only. What it cannot vouch for it refuses.
//!
//! Where a head ends and what it says is httparse's to tell; this file adds what httparse lets pass (RFC 9112 §2.2, §11.2).

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Header, Status};

use crate::shared::base_url::BaseUrl;

/// Most bytes of a request line and its headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers.
const HEADERS_MAX: usize = 100;
/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 8 * 1024;
/// Time for one whole request, from its first byte.
pub(super) const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Time that a connection may stay open between requests.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);

/// The headers that handlers read; no other goes any further than here.
const PASSED_ON: [&str; 6] = [
    "content-type",
    "cookie",
    "origin",
    "sec-fetch-site",
    "user-agent",
    "accept",
];

/// A client's connection, whose reads and writes end at a deadline.
pub(crate) trait Client: Read + Write {
    /// When the next reads and writes end at the latest, however little each of them brings.
    fn set_deadline(&mut self, deadline: Instant);
}

/// A request that was read whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WholeRequest {
    /// Method and target, `GET /health`.
    line: String,
    /// Headers for tiny_http, each with its line end.
    headers: String,
    body: Vec<u8>,
    /// All `X-Forwarded-For` headers, in order.
    pub(crate) forwarded_for: Vec<String>,
    /// May the client's connection stay open?
    pub(crate) keep_alive: bool,
    /// An answer to HEAD has no body, whatever its Content-Length says.
    pub(crate) is_head: bool,
}

impl WholeRequest {
    /// The bytes for tiny_http, with one more header of the front's own.
    pub(crate) fn bytes(&self, own_name: &str, own_value: &str) -> Vec<u8> {
        let length = self.body.len();
        let head = format!(
            "{} HTTP/1.1\r\n{own_name}: {own_value}\r\nContent-Length: {length}\r\n{}\r\n",
            self.line, self.headers
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Why there is no next request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client left, or idled for too long: nothing to say.
    Silent,
    /// It sent what is not taken: answer this, and close.
    Refused(Refusal),
}

/// A status and its reason.
pub(crate) type Refusal = (u16, &'static str);

const BAD_REQUEST: Refusal = (400, "bad_request");
const TIMED_OUT: Refusal = (408, "request_timeout");
const LENGTH_REQUIRED: Refusal = (411, "length_required");
const BODY_TOO_LARGE: Refusal = (413, "body_too_large");
const EXPECTATION_FAILED: Refusal = (417, "expectation_failed");
const HEAD_TOO_LARGE: Refusal = (431, "headers_too_large");

/// Reads requests off one connection, one after the other.
pub(crate) struct Reader {
    /// Bytes that were read and not used yet: the rest of a request, or the next ones that a client sent ahead.
    buffer: Vec<u8>,
}

/// A head that was understood, and how its body is framed.
struct Head {
    request: WholeRequest,
    bytes: usize,
    content_length: Option<usize>,
    expects_continue: bool,
}

impl Reader {
    pub(crate) fn new() -> Reader {
        Reader {
            buffer: Vec::with_capacity(1024),
        }
    }

    /// The next whole request.
    pub(crate) fn next(&mut self, client: &mut impl Client) -> Result<WholeRequest, End> {
        if self.buffer.is_empty() {
            client.set_deadline(Instant::now() + IDLE_TIME_MAX);
            match self.fill(client) {
                Ok(0) | Err(_) => return Err(End::Silent),
                Ok(_) => {}
            }
        }
        let deadline = Instant::now() + REQUEST_TIME_MAX;
        let head = loop {
            if let Some(head) = parse_head(&mut self.buffer).map_err(End::Refused)? {
                break head;
            }
            client.set_deadline(deadline);
            self.fill_more(client)?;
        };
        self.buffer.drain(..head.bytes);
        client.set_deadline(deadline);
        self.read_body(client, head)
    }

    fn read_body(&mut self, client: &mut impl Client, head: Head) -> Result<WholeRequest, End> {
        let Head {
            mut request,
            content_length,
            expects_continue,
            ..
        } = head;
        let length = content_length.unwrap_or(0);
        if length > BODY_BYTES_MAX {
            return Err(End::Refused(BODY_TOO_LARGE));
        }
        if expects_continue && self.buffer.len() < length {
            let go_on = client
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .and_then(|()| client.flush());
            go_on.map_err(|_| End::Silent)?;
        }
        while self.buffer.len() < length {
            self.fill_more(client)?;
        }
        request.body = self.buffer.drain(..length).collect();
        Ok(request)
    }

    /// Reads on in the middle of a request.
    fn fill_more(&mut self, client: &mut impl Client) -> Result<(), End> {
        match self.fill(client) {
            Ok(0) => Err(End::Silent),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(End::Refused(TIMED_OUT)),
            Err(_) => Err(End::Silent),
        }
    }

    fn fill(&mut self, client: &mut impl Client) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        let read = client.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }
}

/// The head at the beginning of `buffer`; `None` when more of it must come. Blank lines before it are dropped
/// (RFC 9112 §2.2).
fn parse_head(buffer: &mut Vec<u8>) -> Result<Option<Head>, Refusal> {
    let blank = buffer
        .chunks_exact(2)
        .take_while(|pair| *pair == b"\r\n")
        .count()
        * 2;
    buffer.drain(..blank);
    let window = &buffer[..buffer.len().min(HEAD_BYTES_MAX)];
    let Some(end) = end_of_head(window)? else {
        return if buffer.len() >= HEAD_BYTES_MAX {
            Err(HEAD_TOO_LARGE)
        } else {
            Ok(None)
        };
    };
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(&window[..end]) {
        Ok(Status::Complete(bytes)) if bytes == end => understand(&parsed, end).map(Some),
        // The blank line is there, so a head that is not complete is none.
        Ok(_) => Err(BAD_REQUEST),
        Err(httparse::Error::TooManyHeaders) => Err(HEAD_TOO_LARGE),
        Err(_) => Err(BAD_REQUEST),
    }
}

/// Where the blank line ends. Until there each line end must be CR LF and no byte NUL: what servers read differently is
/// what smuggling is made of (RFC 9112 §11.2).
fn end_of_head(window: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut line_start = 0;
    for (at, byte) in window.iter().enumerate() {
        match byte {
            0 => return Err(BAD_REQUEST),
            b'\n' if at == 0 || window[at - 1] != b'\r' => return Err(BAD_REQUEST),
            b'\n' if at - 1 == line_start => return Ok(Some(at + 1)),
            b'\n' => line_start = at + 1,
            _ if at > 0 && window[at - 1] == b'\r' => return Err(BAD_REQUEST),
            _ => {}
        }
    }
    Ok(None)
}

fn understand(parsed: &httparse::Request, bytes: usize) -> Result<Head, Refusal> {
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(BAD_REQUEST);
    };
    let headers = Headers(parsed.headers);
    let line = format!("{method} {}", origin_form(method, target)?);
    // RFC 9112 §3.2: exactly one Host with HTTP/1.1, at most one before.
    let hosts = headers.all("host").count();
    if hosts > 1 || hosts == 0 && version == 1 {
        return Err(BAD_REQUEST);
    }
    let content_length = content_length(&headers)?;
    let is_http_1_1 = version == 1;
    let request = WholeRequest {
        line,
        headers: headers.passed_on(),
        body: Vec::new(),
        forwarded_for: headers
            .all("x-forwarded-for")
            .map(|header| ascii(header.value))
            .collect(),
        keep_alive: if is_http_1_1 {
            !headers.connection("close")
        } else {
            headers.connection("keep-alive")
        },
        is_head: method == "HEAD",
    };
    let expects_continue = match headers.all("expect").next() {
        None => false,
        Some(expect) if expect.value.eq_ignore_ascii_case(b"100-continue") => is_http_1_1,
        Some(_) => return Err(EXPECTATION_FAILED),
    };
    Ok(Head {
        request,
        bytes,
        content_length,
        expects_continue,
    })
}

/// The target as `/path?query`. A full URL loses scheme and host (RFC 9112 §3.2.2); `*` and `host:port` are of methods
/// that are not served here.
fn origin_form(method: &str, target: &str) -> Result<String, Refusal> {
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
    // Browsers send ASCII; what other clients send raw is what a browser would have encoded.
    let encode = |byte: u8| {
        if byte.is_ascii() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    Ok(format!(
        "{slash}{}",
        path.bytes().map(encode).collect::<String>()
    ))
}

fn after_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// The length of the body. Two lengths, or a length and an encoding, would mean different things to different servers
/// (RFC 9112 §6.3); an encoding alone is refused with 411, which tells the client to send a length.
fn content_length(headers: &Headers) -> Result<Option<usize>, Refusal> {
    let mut lengths = headers.all("content-length");
    let length = lengths.next();
    let is_encoded = headers.all("transfer-encoding").next().is_some();
    match length {
        None if is_encoded => Err(LENGTH_REQUIRED),
        None => Ok(None),
        Some(_) if is_encoded || lengths.next().is_some() => Err(BAD_REQUEST),
        Some(length) => {
            let digits = !length.value.is_empty() && length.value.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(length.value).ok().filter(|_| digits);
            match number.map(str::parse::<usize>) {
                Some(Ok(number)) => Ok(Some(number)),
                // Digits, but more than fit into a number: a length, and too large a one.
                Some(Err(_)) => Err(BODY_TOO_LARGE),
                None => Err(BAD_REQUEST),
            }
        }
    }
}

struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a Header<'a>> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
    }

    /// Does `Connection` list this option?
    fn connection(&self, option: &str) -> bool {
        let mut options = self
            .all("connection")
            .flat_map(|header| header.value.split(|byte| *byte == b','));
        options.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    }

    /// The headers that handlers read, as lines.
    fn passed_on(&self) -> String {
        let mut lines = String::new();
        for name in PASSED_ON {
            for header in self.all(name) {
                lines.push_str(&format!("{name}: {}\r\n", ascii(header.value)));
            }
        }
        lines
    }
}

/// tiny_http drops a connection over one byte that is not ASCII; nothing we read needs one.
fn ascii(value: &[u8]) -> String {
    value
        .iter()
        .map(|byte| {
            if matches!(byte, b'\t' | b' '..=b'~') {
                char::from(*byte)
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Refusal> {
        parse_head(&mut text.as_bytes().to_vec())
    }

    fn refusal(text: &str) -> u16 {
        match head(text) {
            Err((status, _)) => status,
            Ok(_) => 0,
        }
    }

    #[test]
    fn a_plain_request_is_written_down_again() {
        let head = head(
            "POST /x?y=1 HTTP/1.1\r\nHost: a\r\nCookie: c=\u{e4}\r\nX-Front: faked\r\nContent-Length: 2\r\n\r\nok",
        );
        let head = head.unwrap().unwrap();
        assert_eq!(
            (head.content_length, head.request.keep_alive),
            (Some(2), true)
        );
        let written = String::from_utf8(head.request.bytes("x-front", "secret")).unwrap();
        assert_eq!(
            written,
            "POST /x?y=1 HTTP/1.1\r\nx-front: secret\r\nContent-Length: 0\r\ncookie: c=??\r\n\r\n"
        );
    }

    #[test]
    fn what_smuggles_is_refused() {
        // R70
        for (status, text) in [
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            ),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            ),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            ),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            ),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
            ),
            (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
            (
                413,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            ),
            (
                411,
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                411,
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            ),
            (400, "GET / HTTP/1.1\nHost: a\n\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET /\r\n\r\n"),
            (400, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
            (400, "PRI * HTPP/2.0\r\n\r\n"),
            (
                417,
                "GET / HTTP/1.1\r\nHost: a\r\nExpect: the-unexpected\r\n\r\n",
            ),
        ] {
            assert_eq!(refusal(text), status, "{text:?}");
        }
    }

    #[test]
    fn targets_become_paths() {
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

    #[test]
    fn a_head_that_never_ends_is_cut_off() {
        assert!(head(&"a".repeat(HEAD_BYTES_MAX - 1)).unwrap().is_none());
        assert_eq!(refusal(&"a".repeat(HEAD_BYTES_MAX)), 431);
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "x: y\r\n".repeat(HEADERS_MAX)
        );
        assert_eq!(refusal(&many), 431);
    }

    /// A client that sends a byte each time it is asked, and notes the deadline it is given.
    struct Dribbler<'a> {
        bytes: std::slice::Iter<'a, u8>,
        deadline: Instant,
        deadlines: Vec<Instant>,
    }

    impl Client for Dribbler<'_> {
        fn set_deadline(&mut self, deadline: Instant) {
            self.deadline = deadline;
        }
    }

    impl Read for Dribbler<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.deadlines.push(self.deadline);
            let Some(byte) = self.bytes.next() else {
                return Err(io::ErrorKind::TimedOut.into());
            };
            buffer[0] = *byte;
            Ok(1)
        }
    }

    impl Write for Dribbler<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_byte_moves_the_deadline_of_its_request() {
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nhalf a body";
        let mut client = Dribbler {
            bytes: request.iter(),
            deadline: Instant::now(),
            deadlines: Vec::new(),
        };
        let start = Instant::now();
        assert_eq!(
            Reader::new().next(&mut client),
            Err(End::Refused(TIMED_OUT))
        );
        let idle = client.deadlines[0] - start;
        assert_eq!(idle.as_secs(), 75, "before its first byte");
        let deadlines = &client.deadlines[1..];
        assert_eq!((deadlines[0] - start).as_secs(), 10);
        assert_eq!(deadlines.len(), request.len());
        assert!(deadlines.iter().all(|deadline| *deadline == deadlines[0]));
    }

    #[test]
    fn a_client_that_idles_too_long_hears_nothing() {
        let mut client = Dribbler {
            bytes: [].iter(),
            deadline: Instant::now(),
            deadlines: Vec::new(),
        };
        assert_eq!(Reader::new().next(&mut client), Err(End::Silent));
    }

    #[test]
    fn keeping_alive_is_the_clients_choice() {
        for (version, connection, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: te, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let text = format!("\r\n\r\nGET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
            assert_eq!(
                head(&text).unwrap().unwrap().request.keep_alive,
                expected,
                "{text:?}"
            );
        }
    }
}
