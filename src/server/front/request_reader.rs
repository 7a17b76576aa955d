//! Reads one whole request, head and body, within the limits: complete, bounded, and of one meaning only. What cannot be read
//! like that is an error for its client.
//!
//! Where a head ends and what it says is httparse's to tell; this file adds what httparse lets pass (RFC 9112 §2.2, §11.2).

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Header, Status};

use crate::server::http::request::{HEADERS, Request, RequestId};
use crate::shared::base_url::BaseUrl;

/// Most bytes of a request line and its headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers.
const HEADERS_MAX: usize = 100;
/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of the line that says a chunk's size, with its extensions; and of all trailers (RFC 9112 §7.1).
const CHUNK_LINE_BYTES_MAX: usize = 1024;

/// A client's connection, whose reads and writes end at a deadline.
pub(crate) trait Client: Read + Write {
    /// When the next reads and writes end at the latest, however little each of them brings.
    fn set_deadline(&mut self, deadline: Instant);
}

/// What an answer must know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    /// May the connection stay open?
    pub(crate) keep_alive: bool,
    /// In HTTP/1.0 a connection that stays open says so.
    pub(crate) is_http_1_1: bool,
    /// An answer to HEAD has no body, whatever its Content-Length says.
    pub(crate) is_head: bool,
}

impl Framing {
    /// Of a request that could not be read.
    pub(crate) const CLOSE: Framing = Framing {
        keep_alive: false,
        is_http_1_1: false,
        is_head: false,
    };
}

/// Why there is no next request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client left, or idled for too long: nothing to say.
    Closed,
    /// It sent what is not taken: answer this, and close.
    Bad(Rejection),
}

/// A status and its reason.
pub(crate) type Rejection = (u16, &'static str);

const BAD_REQUEST: Rejection = (400, "bad_request");
const TIMED_OUT: Rejection = (408, "request_timeout");
const BODY_TOO_LARGE: Rejection = (413, "body_too_large");
const EXPECTATION_FAILED: Rejection = (417, "expectation_failed");
const HEAD_TOO_LARGE: Rejection = (431, "headers_too_large");

/// Reads requests off one connection, one after the other.
pub(crate) struct RequestReader {
    peer: IpAddr,
    idle_timeout: Duration,
    request_timeout: Duration,
    /// Bytes that were read and not used yet: the rest of a request, or the next ones that a client sent ahead.
    buffer: Vec<u8>,
    lines: Lines,
}

/// A head that was understood, and how its body is framed.
struct Head {
    request: Request,
    framing: Framing,
    body: Body,
    expects_continue: bool,
}

/// How long a body is (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
}

impl RequestReader {
    /// A reader for the connection of `peer`, with its timeouts between requests and for a whole one, from its first byte.
    pub(crate) fn new(
        peer: IpAddr,
        idle_timeout: Duration,
        request_timeout: Duration,
    ) -> RequestReader {
        RequestReader {
            peer,
            idle_timeout,
            request_timeout,
            buffer: Vec::with_capacity(1024),
            lines: Lines::default(),
        }
    }

    /// The other end of the connection.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The next whole request, as if its peer had sent it itself.
    pub(crate) fn next(&mut self, client: &mut impl Client) -> Result<(Request, Framing), End> {
        if self.buffer.is_empty() {
            client.set_deadline(Instant::now() + self.idle_timeout);
            match self.fill(client) {
                Ok(0) | Err(_) => return Err(End::Closed),
                Ok(_) => {}
            }
        }
        client.set_deadline(Instant::now() + self.request_timeout);
        self.lines = Lines::default();
        let head = loop {
            if let Some(head) = self.parse_head().map_err(End::Bad)? {
                break head;
            }
            self.fill_more(client)?;
        };
        self.read_body(client, head)
    }

    /// The head at the beginning of the buffer; `None` when more of it must come. Blank lines before it are dropped
    /// (RFC 9112 §2.2).
    fn parse_head(&mut self) -> Result<Option<Head>, Rejection> {
        if self.lines.scanned < 2 {
            let pairs = self.buffer.chunks_exact(2);
            let blank = pairs.take_while(|pair| *pair == b"\r\n").count() * 2;
            self.buffer.drain(..blank);
            self.lines = Lines::default();
        }
        let window = &self.buffer[..self.buffer.len().min(HEAD_BYTES_MAX)];
        let Some(end) = self.lines.end_of_head(window)? else {
            return if self.buffer.len() >= HEAD_BYTES_MAX {
                Err(HEAD_TOO_LARGE)
            } else {
                Ok(None)
            };
        };
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let head = match parsed.parse(&window[..end]) {
            Ok(Status::Complete(bytes)) if bytes == end => understand(&parsed, self.peer)?,
            // The blank line is there, so a head that is not complete is none.
            Ok(_) => return Err(BAD_REQUEST),
            Err(httparse::Error::TooManyHeaders) => return Err(HEAD_TOO_LARGE),
            Err(_) => return Err(BAD_REQUEST),
        };
        self.buffer.drain(..end);
        Ok(Some(head))
    }

    fn read_body(
        &mut self,
        client: &mut impl Client,
        head: Head,
    ) -> Result<(Request, Framing), End> {
        let mut request = head.request;
        let is_there = match head.body {
            Body::Length(length) if length > BODY_BYTES_MAX => {
                return Err(End::Bad(BODY_TOO_LARGE));
            }
            Body::Length(length) => self.buffer.len() >= length,
            Body::Chunked => !self.buffer.is_empty(),
        };
        if head.expects_continue && !is_there {
            let go_on = client
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .and_then(|()| client.flush());
            go_on.map_err(|_| End::Closed)?;
        }
        request.body = match head.body {
            Body::Length(length) => self.take(client, length)?,
            Body::Chunked => self.read_chunks(client)?,
        };
        Ok((request, head.framing))
    }

    /// A chunked body (RFC 9112 §7.1). Extensions and trailers are dropped.
    fn read_chunks(&mut self, client: &mut impl Client) -> Result<Vec<u8>, End> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line(client, CHUNK_LINE_BYTES_MAX)?;
            let has_size = line.first().is_some_and(u8::is_ascii_hexdigit);
            let size = match httparse::parse_chunk_size(&line) {
                // httparse takes no digits for 0.
                Ok(Status::Complete((bytes, size))) if has_size && bytes == line.len() => size,
                _ => return Err(End::Bad(BAD_REQUEST)),
            };
            let left = BODY_BYTES_MAX - body.len();
            let size = usize::try_from(size).ok().filter(|size| *size <= left);
            let size = size.ok_or(End::Bad(BODY_TOO_LARGE))?;
            if size == 0 {
                break;
            }
            body.append(&mut self.take(client, size)?);
            if self.take(client, 2)? != b"\r\n" {
                return Err(End::Bad(BAD_REQUEST));
            }
        }
        let mut left = CHUNK_LINE_BYTES_MAX;
        loop {
            let trailer = self.take_line(client, left)?;
            left -= trailer.len();
            if trailer == b"\r\n" {
                return Ok(body);
            }
        }
    }

    /// The next line, with its end, of `bytes_max` at most.
    fn take_line(&mut self, client: &mut impl Client, bytes_max: usize) -> Result<Vec<u8>, End> {
        let mut lines = Lines::default();
        loop {
            let window = &self.buffer[..self.buffer.len().min(bytes_max)];
            if let Some(end) = lines.end_of_line(window).map_err(End::Bad)? {
                return Ok(self.buffer.drain(..end).collect());
            }
            if self.buffer.len() >= bytes_max {
                return Err(End::Bad(BAD_REQUEST));
            }
            self.fill_more(client)?;
        }
    }

    fn take(&mut self, client: &mut impl Client, length: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < length {
            self.fill_more(client)?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads on in the middle of a request.
    fn fill_more(&mut self, client: &mut impl Client) -> Result<(), End> {
        match self.fill(client) {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(End::Bad(TIMED_OUT)),
            Err(_) => Err(End::Closed),
        }
    }

    fn fill(&mut self, client: &mut impl Client) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        let read = client.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }
}

/// Finds line ends in a window that grows, and looks at each byte once. Each line end must be CR LF and no byte NUL: what
/// servers read differently is what smuggling is made of (RFC 9112 §11.2).
#[derive(Default)]
struct Lines {
    scanned: usize,
    line_start: usize,
}

impl Lines {
    /// Where the next line ends.
    fn end_of_line(&mut self, window: &[u8]) -> Result<Option<usize>, Rejection> {
        while let Some(byte) = window.get(self.scanned) {
            let after_cr = self.scanned > self.line_start && window[self.scanned - 1] == b'\r';
            self.scanned += 1;
            match byte {
                0 => return Err(BAD_REQUEST),
                b'\n' if after_cr => {
                    self.line_start = self.scanned;
                    return Ok(Some(self.scanned));
                }
                b'\n' => return Err(BAD_REQUEST),
                _ if after_cr => return Err(BAD_REQUEST),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Where the blank line ends that ends a head.
    fn end_of_head(&mut self, window: &[u8]) -> Result<Option<usize>, Rejection> {
        loop {
            let line_start = self.line_start;
            match self.end_of_line(window)? {
                Some(end) if end == line_start + 2 => return Ok(Some(end)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}

fn understand(parsed: &httparse::Request, peer: IpAddr) -> Result<Head, Rejection> {
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
                true => !headers.connection("close"),
                false => headers.connection("keep-alive"),
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

/// The target as `/path?query`. A full URL loses scheme and host (RFC 9112 §3.2.2); `*` and `host:port` are of methods
/// that are not served here.
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

/// How the body is framed. Two lengths, or a length and an encoding, would mean different things to different servers
/// (RFC 9112 §6.3), and HTTP/1.0 has no encodings.
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
        // Digits, but more than fit into a number: a length, and too large a one.
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

    /// Does `Connection` list this option?
    fn connection(&self, option: &str) -> bool {
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

/// Nothing that handlers read needs a byte that is not visible ASCII.
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
    use crate::fuzzing::Pieces;
    use crate::server::times::Times;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn reader(text: &str) -> RequestReader {
        let mut reader = RequestReader::new(PEER, Duration::from_secs(75), Times::DEFAULT.request);
        reader.buffer.extend_from_slice(text.as_bytes());
        reader
    }

    fn head(text: &str) -> Result<Option<Head>, Rejection> {
        reader(text).parse_head()
    }

    fn problem(text: &str) -> u16 {
        match head(text) {
            Err((status, _)) => status,
            Ok(_) => 0,
        }
    }

    #[test]
    fn request_is_read_as_it_was_sent() {
        let text = "POST /x?y=1 HTTP/1.1\r\nHost: a\r\nCOOKIE: c=\u{e4}\r\nX-Other: x\r\nContent-Length: 2\r\n\r\nok";
        let head = head(text).unwrap().unwrap();
        assert_eq!(
            (head.body, head.framing.keep_alive),
            (Body::Length(2), true)
        );
        let request = head.request;
        let target = (&*request.method, &*request.path, &*request.query);
        assert_eq!(target, ("POST", "/x", "y=1"));
        let headers = [("host", "a".to_owned()), ("cookie", "c=??".to_owned())];
        assert_eq!(request.headers, headers);
    }

    /// What a client that sends `text`, whole or bit by bit, is read as.
    fn body_of(text: &str) -> Result<String, u16> {
        let mut bodies = [text.len(), 1, 3].map(|piece| {
            let mut client = Pieces {
                bytes: text.as_bytes(),
                piece,
            };
            match RequestReader::new(PEER, Duration::from_secs(75), Times::DEFAULT.request)
                .next(&mut client)
            {
                Ok((request, _)) => Ok(String::from_utf8(request.body).unwrap()),
                Err(End::Bad((status, _))) => Err(status),
                Err(End::Closed) => Err(0),
            }
        });
        assert_eq!(bodies[0], bodies[1], "{text:?}");
        assert_eq!(bodies[0], bodies[2], "{text:?}");
        std::mem::replace(&mut bodies[0], Err(0))
    }

    #[test]
    fn chunks_are_decoded_within_the_limits() {
        let head = "\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long = "x".repeat(BODY_BYTES_MAX);
        let extension = "y".repeat(CHUNK_LINE_BYTES_MAX);
        for (chunks, expected) in [
            ("0\r\n\r\n", Ok("")),
            ("5\r\nhello\r\n0\r\n\r\n", Ok("hello")),
            (
                "2\r\nhe\r\n003;a=b\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
                Ok("hello"),
            ),
            ("a\r\n0123456789\r\n0\r\n\r\n", Ok("0123456789")),
            (&*format!("2000\r\n{long}\r\n0\r\n\r\n"), Ok(&*long)),
            (&format!("2000\r\n{long}\r\n1\r\nx\r\n0\r\n\r\n"), Err(413)),
            ("2001\r\n", Err(413)),
            ("ffffffffffffffff\r\n", Err(413)),
            ("fffffffffffffffff\r\n", Err(400)),
            ("5\r\nhelloX\r\n0\r\n\r\n", Err(400)),
            ("5\nhello\n0\n\n", Err(400)),
            ("5;a\nb\r\nhello\r\n0\r\n\r\n", Err(400)),
            ("-5\r\nhello\r\n0\r\n\r\n", Err(400)),
            ("0x5\r\nhello\r\n0\r\n\r\n", Err(400)),
            ("\r\n", Err(400)),
            (&format!("0;{extension}\r\n\r\n"), Err(400)),
            (&format!("0\r\nT: {extension}\r\n\r\n"), Err(400)),
            ("5\r\nhel", Err(0)),
        ] {
            let body = body_of(&format!("{head}{chunks}"));
            assert_eq!(body, expected.map(str::to_owned), "{chunks:?}");
        }
    }

    #[test]
    fn requests_of_two_meanings_are_refused() {
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
                400,
                "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            ),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            ),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
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
            assert_eq!(problem(text), status, "{text:?}");
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
        assert_eq!(problem(&"a".repeat(HEAD_BYTES_MAX)), 431);
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "x: y\r\n".repeat(HEADERS_MAX)
        );
        assert_eq!(problem(&many), 431);
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
        let mut reader = RequestReader::new(PEER, Duration::from_secs(33), Times::DEFAULT.request);
        assert_eq!(reader.next(&mut client).err(), Some(End::Bad(TIMED_OUT)));
        let idle = client.deadlines[0] - start;
        assert_eq!(idle.as_secs(), 33, "before its first byte");
        let deadlines = &client.deadlines[1..];
        assert_eq!((deadlines[0] - start).as_secs(), 10);
        assert_eq!(deadlines.len(), request.len());
        assert!(deadlines.iter().all(|deadline| *deadline == deadlines[0]));
    }

    #[test]
    fn client_that_idles_too_long_is_told_nothing() {
        let mut client = Dribbler {
            bytes: [].iter(),
            deadline: Instant::now(),
            deadlines: Vec::new(),
        };
        assert_eq!(reader("").next(&mut client).err(), Some(End::Closed));
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
                head(&text).unwrap().unwrap().framing.keep_alive,
                expected,
                "{text:?}"
            );
        }
    }
}
