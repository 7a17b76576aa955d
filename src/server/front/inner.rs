//! The way to tiny_http: a private Unix socket, over which whole requests go in and whole answers come back.

use std::io::{self, Read, Write};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Status};

/// Longest wait for tiny_http's answer: the longest exchange, the longest outage that a token is kept through, and more.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(45);

/// Largest answer: pages are below 10 kB.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Longest wait for a connection to tiny_http that is free.
const TURN_TIME_MAX: Duration = Duration::from_secs(10);

/// Most connections to tiny_http: each costs it a thread and two descriptors. More requests at the same moment than this
/// wait for their turn.
const CONNECTIONS_MAX: usize = 256;

/// Connections to tiny_http, reused: as many as there are requests at the same moment.
pub(super) struct Inner {
    address: SocketAddr,
    greeting: Vec<u8>,
    slots: Mutex<Slots>,
    freed: Condvar,
    /// Connections are opened one at a time, see [`Inner::connect`].
    opening: Mutex<()>,
}

#[derive(Default)]
struct Slots {
    idle: Vec<UnixStream>,
    /// Idle ones and those in use.
    open: usize,
    /// Requests that wait for their turn.
    waiting: usize,
}

/// An answer as tiny_http wrote it.
pub(super) struct Answer {
    bytes: Vec<u8>,
    /// Where the status line ends.
    line_end: usize,
}

impl Answer {
    /// The answer's bytes, with a `Connection` header where one is due.
    pub(super) fn bytes(mut self, connection: Option<&str>) -> Vec<u8> {
        if let Some(connection) = connection {
            let header = format!("Connection: {connection}\r\n");
            self.bytes
                .splice(self.line_end..self.line_end, header.into_bytes());
        }
        self.bytes
    }
}

impl Inner {
    /// The way to a tiny_http that listens at `address`, and answers `greeting` at once.
    pub(super) fn new(address: SocketAddr, greeting: Vec<u8>) -> Inner {
        Inner {
            address,
            greeting,
            slots: Mutex::default(),
            freed: Condvar::new(),
            opening: Mutex::default(),
        }
    }

    /// Sends one whole request and reads its whole answer.
    pub(super) fn exchange(&self, request: &[u8], is_head: bool) -> io::Result<Answer> {
        let mut slot = self.slot()?;
        let connection = match slot.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let answer = send(&connection, request, is_head)?;
        // One that failed is in the middle of something, and dropped; this one is between two requests again.
        slot.connection = Some(connection);
        Ok(answer)
    }

    /// A place among the connections, with one in it if one is idle; waits for its turn.
    fn slot(&self) -> io::Result<Slot<'_>> {
        let full = |slots: &mut Slots| slots.idle.is_empty() && slots.open >= CONNECTIONS_MAX;
        let mut slots = self.slots();
        slots.waiting += 1;
        let waited = self.freed.wait_timeout_while(slots, TURN_TIME_MAX, full);
        let (mut slots, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        slots.waiting -= 1;
        if waited.timed_out() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let connection = slots.idle.pop();
        if connection.is_none() {
            slots.open += 1;
        }
        Ok(Slot {
            inner: self,
            connection,
        })
    }

    /// Opens a connection and waits until it is served. In tiny_http 0.12 two connections that come at once can be given to
    /// one waiting thread, and the second one then waits until the first one closes: for ever, since ours stay open.
    fn connect(&self) -> io::Result<UnixStream> {
        let _turn = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = UnixStream::connect_addr(&self.address)?;
        connection.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        send(&connection, &self.greeting, false)?;
        Ok(connection)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections, in use; free again when dropped.
struct Slot<'a> {
    inner: &'a Inner,
    connection: Option<UnixStream>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut slots = self.inner.slots();
        match self.connection.take() {
            Some(connection) => slots.idle.push(connection),
            None => slots.open -= 1,
        }
        // A wake-up is a system call even where nobody sleeps.
        if slots.waiting > 0 {
            self.inner.freed.notify_one();
        }
    }
}

fn send(mut connection: &UnixStream, request: &[u8], is_head: bool) -> io::Result<Answer> {
    connection.write_all(request)?;
    read_answer(connection, is_head)
}

fn read_answer(mut connection: &UnixStream, is_head: bool) -> io::Result<Answer> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let mut chunk = [0; 8192];
        let read = connection.read(&mut chunk)?;
        if read == 0 || bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        if whole_length(&bytes, is_head)?.is_some_and(|length| bytes.len() >= length) {
            let line_end = bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            return Ok(Answer { bytes, line_end });
        }
    }
}

/// How long the whole answer is, once its head is there.
fn whole_length(bytes: &[u8], is_head: bool) -> io::Result<Option<usize>> {
    let mut headers = [EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    let mut headers = response.headers.iter();
    let length = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|length| {
        std::str::from_utf8(length.value)
            .ok()?
            .parse::<usize>()
            .ok()
    });
    // Our answers always say how long they are.
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(head + if is_head { 0 } else { length }))
}

/// A private socket for tiny_http to listen on. On Linux it has an abstract name, which needs no folder that can be written
/// to; other local programs can see it, so the requests that come over it carry a secret.
#[cfg(target_os = "linux")]
pub(super) fn private_socket() -> io::Result<(UnixListener, SocketAddr)> {
    use std::os::linux::net::SocketAddrExt;

    use crate::shared::{hash::hex, random};

    let name = format!("postiz-auth-server-{}", hex(&random::bytes::<16>()));
    let address = SocketAddr::from_abstract_name(name)?;
    Ok((UnixListener::bind_addr(&address)?, address))
}

/// A private socket for tiny_http to listen on: a file in a folder of the owner's alone.
#[cfg(not(target_os = "linux"))]
pub(super) fn private_socket() -> io::Result<(UnixListener, SocketAddr)> {
    use std::os::unix::fs::DirBuilderExt;

    use crate::shared::{hash::hex, random};

    let folder = std::env::temp_dir().join(format!(
        "postiz-auth-server-{}",
        hex(&random::bytes::<16>())
    ));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let path = folder.join("http.sock");
    let listener = UnixListener::bind(&path)?;
    Ok((listener, SocketAddr::from_pathname(&path)?))
}
