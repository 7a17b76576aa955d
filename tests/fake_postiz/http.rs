//! A small HTTP/1.1 server for tests on loopback, with one thread and one request for each connection. It can also deliver
//! answers slowly, partly or not at all. A handler makes the answers: that of Postiz is in `mod.rs`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Largest request head; the connection of a client that sends more is closed.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How many bytes of a body are kept. The rest is only counted, so that uploads of any size can be tested.
const BODY_BYTES_KEPT: usize = 1024 * 1024;
/// Read timeout, so that no thread outlives its test for long.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The most that [`Delivery::Endless`] sends: more than the limit of any client, but bounded for a client without one.
const ENDLESS_BYTES: usize = 64 * 1024 * 1024;

/// A running server; stops when dropped.
pub struct HttpServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl HttpServer {
    /// Listens on `port` of 127.0.0.1, or on a free port if it is 0. `handler` runs on the connections' threads.
    pub fn start<H, R>(port: u16, handler: H) -> io::Result<HttpServer>
    where
        H: Fn(&Request) -> R + Send + Sync + 'static,
        R: Into<Reply>,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let server = HttpServer {
            address: listener.local_addr()?,
            stopping: Arc::default(),
        };
        let stopping = Arc::clone(&server.stopping);
        let handler = Arc::new(handler);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, stopping) = (Arc::clone(&handler), Arc::clone(&stopping));
                // A client may close its connection early.
                thread::spawn(move || serve(stream, &stopping, |r| handler(r).into()).ok());
            }
        });
        Ok(server)
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accept loop. If that fails, the thread ends with the process.
        TcpStream::connect(self.address).ok();
    }
}

/// A request, for the handler and for the record.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was received completely.
    pub at: Instant,
    /// `GET`, `POST` …
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// In the order sent, names as sent.
    pub headers: Vec<(String, String)>,
    /// The body, at most its first MiB.
    pub body: Vec<u8>,
    /// The length of the whole body.
    pub body_bytes: u64,
}

impl Request {
    /// The path alone, still percent-encoded.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A field of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        form_field(self.target.split_once('?')?.1, name)
    }

    /// A field of a form body, decoded.
    pub fn form(&self, name: &str) -> Option<String> {
        form_field(&self.text(), name)
    }

    /// A header's value; names are case-insensitive.
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.headers.iter().find(same).map(|(_, v)| v.as_str())
    }

    /// A cookie's value.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let mut pairs = self.header("cookie")?.split("; ");
        pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Method and target: `GET /health`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All headers but `Content-Length` and `Connection`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer of any type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        Response {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: body.into(),
        }
    }

    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Response {
        Response::new(status, "application/json; charset=utf-8", body.to_string())
    }

    /// A page.
    pub fn html(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response::new(status, "text/html; charset=utf-8", body)
    }

    /// A redirect.
    pub fn redirect(status: u16, url: &str) -> Response {
        Response::html(status, "").with_header("Location", url)
    }

    /// The same with one more header.
    pub fn with_header(mut self, name: &str, value: &str) -> Response {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// An answer, and how it is delivered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The answer.
    pub response: Response,
    /// Its delivery.
    pub delivery: Delivery,
}

impl From<Response> for Reply {
    fn from(response: Response) -> Reply {
        Reply {
            response,
            delivery: Delivery::Prompt,
        }
    }
}

/// How an answer is delivered.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Completely and at once.
    Prompt,
    /// Completely, after this time.
    Late(Duration),
    /// Completely, once the gate is open.
    Held(Gate),
    /// Not at all: the connection stays open until the client closes it.
    Hang,
    /// Not at all: the connection is closed.
    Cut,
    /// These bytes instead of the answer, then the connection is closed.
    Raw(Vec<u8>),
    /// The head and half of the body, then the connection is closed.
    CutShort,
    /// The head, then one byte of the body every 0.1 s.
    Trickle,
    /// The head without a length, then blanks while the client reads (up to a limit).
    Endless,
}

/// Delays answers until it is opened. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Opens it for good.
    pub fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: TcpStream,
    stopping: &AtomicBool,
    handler: impl Fn(&Request) -> Reply,
) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    stream.set_nodelay(true)?;
    let request = read_request(&mut stream)?;
    let Reply { response, delivery } = handler(&request);
    // The answer to HEAD has the length of the body, but no body (RFC 9110 §9.3.2).
    let body = match request.method.as_str() {
        "HEAD" => &[][..],
        _ => &response.body,
    };
    let start = Instant::now();
    match delivery {
        Delivery::Prompt => send(&mut stream, &response, body),
        Delivery::Late(wait) => {
            pause_until(&mut stream, stopping, || start.elapsed() >= wait)?;
            send(&mut stream, &response, body)
        }
        Delivery::Held(gate) => {
            pause_until(&mut stream, stopping, || gate.is_open())?;
            send(&mut stream, &response, body)
        }
        Delivery::Hang => pause_until(&mut stream, stopping, || false),
        Delivery::Cut => Ok(()),
        Delivery::Raw(bytes) => stream.write_all(&bytes),
        Delivery::CutShort => send(&mut stream, &response, &body[..body.len() / 2]),
        Delivery::Trickle => {
            send(&mut stream, &response, b"")?;
            for byte in body {
                let next = Instant::now() + Duration::from_millis(100);
                pause_until(&mut stream, stopping, || Instant::now() >= next)?;
                stream.write_all(&[*byte])?;
            }
            Ok(())
        }
        Delivery::Endless => {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
            stream.write_all(head.as_bytes())?;
            let blanks = [b' '; 16 * 1024];
            (0..ENDLESS_BYTES / blanks.len()).try_for_each(|_| stream.write_all(&blanks))
        }
    }
}

fn send(stream: &mut TcpStream, response: &Response, body_sent: &[u8]) -> io::Result<()> {
    let status = response.status;
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let length = response.body.len();
    head += &format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body_sent)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        500 => "Internal Server Error",
        _ => "Whatever",
    }
}

/// Waits for `done`. It is an error if the client disconnects before that, or the server stops.
fn pause_until(
    stream: &mut TcpStream,
    stopping: &AtomicBool,
    done: impl Fn() -> bool,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(10)))?;
    while !done() {
        match stream.read(&mut [0]) {
            Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Err(e) if !is_no_end(&e) => return Err(e),
            _ if stopping.load(Ordering::SeqCst) => return Err(io::ErrorKind::Interrupted.into()),
            _ => {}
        }
    }
    Ok(())
}

/// A timeout, or a signal for this process, which interrupts reads that have a timeout (signal(7)).
fn is_no_end(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn read_request(stream: &mut TcpStream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    loop {
        if let Some((mut request, head_bytes)) = parse_head(&bytes)? {
            let body = bytes.split_off(head_bytes);
            read_body(stream, &mut request, body)?;
            return Ok(request);
        }
        let mut chunk = [0; 4096];
        let count = match stream.read(&mut chunk) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if count == 0 || bytes.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// The request without its body, and the length of its head; `None` until the head is complete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(head_bytes) = status else {
        return Ok(None);
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = parsed.headers.iter();
    let request = Request {
        at: Instant::now(),
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        headers: headers
            .map(|h| (h.name.to_owned(), text(h.value)))
            .collect(),
        body: Vec::new(),
        body_bytes: 0,
    };
    Ok(Some((request, head_bytes)))
}

/// Reads the rest of a body that begins with `start`.
fn read_body(stream: &mut TcpStream, request: &mut Request, start: Vec<u8>) -> io::Result<()> {
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding") == Some("chunked") {
        request.body = read_chunks(&mut start.as_slice().chain(stream))?;
        request.body_bytes = request.body.len() as u64;
        request.at = Instant::now();
        return Ok(());
    }
    let length = request.header("content-length").unwrap_or("0");
    let length: u64 = length.parse().map_err(io::Error::other)?;
    request.body_bytes = length;
    let mut rest = start.as_slice().chain(stream).take(length);
    rest.by_ref()
        .take(BODY_BYTES_KEPT as u64)
        .read_to_end(&mut request.body)?;
    io::copy(&mut rest, &mut io::sink())?;
    if rest.limit() > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    request.at = Instant::now();
    Ok(())
}

/// A whole chunked body, decoded (RFC 9112 §7.1).
fn read_chunks(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            input.read_exact(&mut byte)?;
            line.extend(byte);
        }
        let size = String::from_utf8_lossy(&line);
        let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        input.by_ref().take(size).read_to_end(&mut body)?;
        input.read_exact(&mut [0; 2])?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// The first field of this name in a query or form body, decoded.
pub fn form_field(form: &str, name: &str) -> Option<String> {
    let mut pairs = form
        .split('&')
        .map(|p| p.split_once('=').unwrap_or((p, "")));
    let (_, value) = pairs.find(|(n, _)| decode(n) == name)?;
    Some(decode(value))
}

fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}
