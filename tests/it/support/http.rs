//! A small HTTP client: it sends exact bytes and returns the whole answer with its headers in order, within a timeout.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Read and write timeout.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// One connection, for several requests in turn.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// In the order sent, names as sent.
    pub headers: Vec<(String, String)>,
    /// The body, with its transfer encoding decoded.
    pub body: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Connection {
        Connection::try_open(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    /// Connects, or returns the error.
    pub fn try_open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            unread: Vec::new(),
        })
    }

    /// Sends exactly these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the server takes the request");
    }

    /// Sends these bytes, ignoring an error: the server may have closed the connection, which reading the answer will show.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).ok();
    }

    /// Sends these bytes. It is an error when the server has closed the connection, or when the write times out.
    pub fn send_or_fail(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Closes one or both directions.
    pub fn shut_down(&self, how: Shutdown) {
        self.stream.shutdown(how).expect("it is open");
    }

    /// The same on a connection that may be closed already.
    pub fn try_shut_down(&self, how: Shutdown) {
        self.stream.shutdown(how).ok();
    }

    /// Waits until the first byte of an answer has arrived, and leaves it unread.
    pub fn wait_for_bytes(&self) {
        let there = self.stream.peek(&mut [0]).expect("an answer comes");
        assert!(there > 0, "the server closed the connection");
    }

    /// The next answer.
    pub fn answer(&mut self) -> Answer {
        self.try_answer(true).expect("a whole answer")
    }

    /// The next answer, to a HEAD request: with a length, but without a body.
    pub fn answer_to_head(&mut self) -> Answer {
        self.try_answer(false).expect("an answer's head")
    }

    /// The next answer, or an error.
    pub fn try_answer(&mut self, has_body: bool) -> io::Result<Answer> {
        loop {
            let mut answer = self.read_head()?;
            if answer.status == 100 {
                continue;
            }
            if has_body {
                answer.body = self.read_body(&answer)?;
            }
            return Ok(answer);
        }
    }

    /// All bytes until the server closes the connection. It is an error when it does not close in time.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.read_more()? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    fn read_head(&mut self) -> io::Result<Answer> {
        loop {
            if let Some((answer, head_bytes)) = parse_head(&self.unread)? {
                self.unread.drain(..head_bytes);
                return Ok(answer);
            }
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        if answer.header("transfer-encoding").is_some() {
            return self.read_chunks();
        }
        if answer.status == 204 {
            return Ok(Vec::new());
        }
        match answer.header("content-length") {
            Some(length) => self.take(length.parse().map_err(io::Error::other)?),
            None => self.rest(),
        }
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            body.extend(self.take(size)?);
            self.take_line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn take_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
                let line = self.take(end + 1)?;
                return String::from_utf8(line).map_err(io::Error::other);
            }
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.unread.drain(..count).collect())
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = loop {
            match self.stream.read(&mut chunk) {
                // A signal for this process interrupts reads that have a timeout (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.unread.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

impl Answer {
    /// A header's value; names are case-insensitive.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).first().copied()
    }

    /// All values of a header.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        let same = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|e| panic!("{e}: {}: {}", self.status, self.text()))
    }

    /// The value of `error`, or `""`.
    pub fn error(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// One request on a connection of its own.
pub fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::open(address);
    connection.send(request);
    connection.answer()
}

/// The bytes of a request. It adds `Host`, `Connection: close` and, with a body, `Content-Length`.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        head += "Host: localhost\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "Connection: close\r\n\r\n";
    [head.as_bytes(), body].concat()
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut headers);
    let status = parsed.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(head_bytes) = status else {
        return Ok(None);
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = parsed.headers.iter();
    let answer = Answer {
        status: parsed.code.unwrap_or_default(),
        headers: headers
            .map(|h| (h.name.to_owned(), text(h.value)))
            .collect(),
        body: Vec::new(),
    };
    Ok(Some((answer, head_bytes)))
}
