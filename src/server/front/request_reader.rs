//! Reads one whole request within size and time limits: finds the end of its head, and reads its body. What the head says is
//! head.rs. A request that two servers could read differently is rejected (RFC 9112 §2.2, §11.2).

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Status};

use crate::server::front::head::{
    BAD_REQUEST, BODY_TOO_LARGE, Body, Framing, Head, Rejection, interpret,
};
use crate::server::http::Request;

/// Most bytes of a request line and its headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers.
const HEADERS_MAX: usize = 100;
/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of a chunk's size line with its extensions, and of all trailers (RFC 9112 §7.1).
const CHUNK_LINE_BYTES_MAX: usize = 1024;

/// A client's connection, whose reads and writes end at a deadline.
pub(crate) trait DeadlineStream: Read + Write {
    /// Sets when later reads and writes end, however few bytes each of them transfers.
    fn set_deadline(&mut self, deadline: Instant);
}

/// Why there is no next request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The client closed the connection, or the idle timeout passed. It gets no answer.
    Closed,
    /// The request is not acceptable. It gets this answer, and the connection ends.
    Rejected(Rejection),
}

const TIMED_OUT: Rejection = (408, "request_timeout");
const HEAD_TOO_LARGE: Rejection = (431, "headers_too_large");

/// Reads the requests of one connection, one after the other.
pub(crate) struct RequestReader {
    peer: IpAddr,
    idle_timeout: Duration,
    request_timeout: Duration,
    /// Bytes that were received and not parsed yet, perhaps of pipelined requests.
    buffer: Vec<u8>,
    lines: LineScanner,
}

impl RequestReader {
    /// A reader for the connection of `peer`. `idle_timeout` holds between requests, `request_timeout` from a request's first
    /// byte to its last.
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
            lines: LineScanner::default(),
        }
    }

    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The next request. Its `client` is the peer, and its `id` is 0: the caller sets both.
    pub(crate) fn next(
        &mut self,
        stream: &mut impl DeadlineStream,
    ) -> Result<(Request, Framing), ReadError> {
        if self.buffer.is_empty() {
            stream.set_deadline(Instant::now() + self.idle_timeout);
            match self.fill(stream) {
                Ok(0) | Err(_) => return Err(ReadError::Closed),
                Ok(_) => {}
            }
        }
        stream.set_deadline(Instant::now() + self.request_timeout);
        self.lines = LineScanner::default();
        let head = loop {
            if let Some(head) = self.parse_head().map_err(ReadError::Rejected)? {
                break head;
            }
            self.fill_more(stream)?;
        };
        self.read_body(stream, head)
    }

    /// Takes the head from the buffer; `None` if it is not complete. Blank lines before it are dropped (RFC 9112 §2.2).
    fn parse_head(&mut self) -> Result<Option<Head>, Rejection> {
        if self.lines.scanned < 2 {
            let pairs = self.buffer.chunks_exact(2);
            let blank = pairs.take_while(|pair| *pair == b"\r\n").count() * 2;
            self.buffer.drain(..blank);
            self.lines = LineScanner::default();
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
            Ok(Status::Complete(bytes)) if bytes == end => interpret(&parsed, self.peer)?,
            // The blank line is there, but httparse wants more: not a head.
            Ok(_) => return Err(BAD_REQUEST),
            Err(httparse::Error::TooManyHeaders) => return Err(HEAD_TOO_LARGE),
            Err(_) => return Err(BAD_REQUEST),
        };
        self.buffer.drain(..end);
        Ok(Some(head))
    }

    fn read_body(
        &mut self,
        stream: &mut impl DeadlineStream,
        head: Head,
    ) -> Result<(Request, Framing), ReadError> {
        let mut request = head.request;
        let is_there = match head.body {
            Body::Length(length) if length > BODY_BYTES_MAX => {
                return Err(ReadError::Rejected(BODY_TOO_LARGE));
            }
            Body::Length(length) => self.buffer.len() >= length,
            Body::Chunked => !self.buffer.is_empty(),
        };
        if head.expects_continue && !is_there {
            let go_on = stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .and_then(|()| stream.flush());
            go_on.map_err(|_| ReadError::Closed)?;
        }
        request.body = match head.body {
            Body::Length(length) => self.take(stream, length)?,
            Body::Chunked => self.read_chunks(stream)?,
        };
        Ok((request, head.framing))
    }

    /// A chunked body (RFC 9112 §7.1). Extensions and trailers are dropped.
    fn read_chunks(&mut self, stream: &mut impl DeadlineStream) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line(stream, CHUNK_LINE_BYTES_MAX)?;
            let has_size = line.first().is_some_and(u8::is_ascii_hexdigit);
            let size = match httparse::parse_chunk_size(&line) {
                // httparse reads an empty size as 0.
                Ok(Status::Complete((bytes, size))) if has_size && bytes == line.len() => size,
                _ => return Err(ReadError::Rejected(BAD_REQUEST)),
            };
            let left = BODY_BYTES_MAX - body.len();
            let size = usize::try_from(size).ok().filter(|size| *size <= left);
            let size = size.ok_or(ReadError::Rejected(BODY_TOO_LARGE))?;
            if size == 0 {
                break;
            }
            body.append(&mut self.take(stream, size)?);
            if self.take(stream, 2)? != b"\r\n" {
                return Err(ReadError::Rejected(BAD_REQUEST));
            }
        }
        let mut left = CHUNK_LINE_BYTES_MAX;
        loop {
            let trailer = self.take_line(stream, left)?;
            left -= trailer.len();
            if trailer == b"\r\n" {
                return Ok(body);
            }
        }
    }

    /// The next line, with its end, of `bytes_max` at most.
    fn take_line(
        &mut self,
        stream: &mut impl DeadlineStream,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let mut lines = LineScanner::default();
        loop {
            let window = &self.buffer[..self.buffer.len().min(bytes_max)];
            if let Some(end) = lines.end_of_line(window).map_err(ReadError::Rejected)? {
                return Ok(self.buffer.drain(..end).collect());
            }
            if self.buffer.len() >= bytes_max {
                return Err(ReadError::Rejected(BAD_REQUEST));
            }
            self.fill_more(stream)?;
        }
    }

    fn take(
        &mut self,
        stream: &mut impl DeadlineStream,
        length: usize,
    ) -> Result<Vec<u8>, ReadError> {
        while self.buffer.len() < length {
            self.fill_more(stream)?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads more of an unfinished request.
    fn fill_more(&mut self, stream: &mut impl DeadlineStream) -> Result<(), ReadError> {
        match self.fill(stream) {
            Ok(0) => Err(ReadError::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(ReadError::Rejected(TIMED_OUT))
            }
            Err(_) => Err(ReadError::Closed),
        }
    }

    fn fill(&mut self, stream: &mut impl DeadlineStream) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }
}

/// Finds line ends in a growing window, and reads each byte once. It rejects NUL, and CR and LF outside of CR LF: servers read
/// them differently, which allows request smuggling (RFC 9112 §11.2).
#[derive(Default)]
struct LineScanner {
    scanned: usize,
    line_start: usize,
}

impl LineScanner {
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

    /// The end of the blank line after the head.
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
    fn parse_head_keeps_target_and_known_headers() {
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

    /// The body of the request in `text`, or the status of its rejection; the same whether it arrives whole or in pieces.
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
                Err(ReadError::Rejected((status, _))) => Err(status),
                Err(ReadError::Closed) => Err(0),
            }
        });
        assert_eq!(bodies[0], bodies[1], "{text:?}");
        assert_eq!(bodies[0], bodies[2], "{text:?}");
        std::mem::replace(&mut bodies[0], Err(0))
    }

    #[test]
    fn chunked_bodies_are_decoded_within_the_limits() {
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
    fn ambiguous_requests_are_rejected() {
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
    fn endless_head_is_rejected() {
        assert!(head(&"a".repeat(HEAD_BYTES_MAX - 1)).unwrap().is_none());
        assert_eq!(problem(&"a".repeat(HEAD_BYTES_MAX)), 431);
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "x: y\r\n".repeat(HEADERS_MAX)
        );
        assert_eq!(problem(&many), 431);
    }

    /// A stream that yields one byte for each read, and records the deadline of each.
    struct SlowStream<'a> {
        bytes: std::slice::Iter<'a, u8>,
        deadline: Instant,
        deadlines: Vec<Instant>,
    }

    impl DeadlineStream for SlowStream<'_> {
        fn set_deadline(&mut self, deadline: Instant) {
            self.deadline = deadline;
        }
    }

    impl Read for SlowStream<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.deadlines.push(self.deadline);
            let Some(byte) = self.bytes.next() else {
                return Err(io::ErrorKind::TimedOut.into());
            };
            buffer[0] = *byte;
            Ok(1)
        }
    }

    impl Write for SlowStream<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn deadline_of_a_request_does_not_move() {
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nhalf a body";
        let mut client = SlowStream {
            bytes: request.iter(),
            deadline: Instant::now(),
            deadlines: Vec::new(),
        };
        let start = Instant::now();
        let mut reader = RequestReader::new(PEER, Duration::from_secs(33), Times::DEFAULT.request);
        assert_eq!(
            reader.next(&mut client).err(),
            Some(ReadError::Rejected(TIMED_OUT))
        );
        let idle = client.deadlines[0] - start;
        assert_eq!(idle.as_secs(), 33, "before its first byte");
        let deadlines = &client.deadlines[1..];
        assert_eq!((deadlines[0] - start).as_secs(), 10);
        assert_eq!(deadlines.len(), request.len());
        assert!(deadlines.iter().all(|deadline| *deadline == deadlines[0]));
    }

    #[test]
    fn idle_timeout_closes_without_an_answer() {
        let mut client = SlowStream {
            bytes: [].iter(),
            deadline: Instant::now(),
            deadlines: Vec::new(),
        };
        assert_eq!(reader("").next(&mut client).err(), Some(ReadError::Closed));
    }

    #[test]
    fn keep_alive_follows_version_and_header() {
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
