//! The way to tiny_http: a private Unix socket, over which whole requests go in and whole answers come back.

use std::io::{self, Read, Write};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Status};

/// Longest wait for tiny_http's answer: the longest exchange, the longest outage that a token is kept through, and more.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(45);

/// Largest answer: pages are below 10 kB.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Connections to tiny_http, reused: as many as there are requests at the same moment.
pub(super) struct Inner {
    address: SocketAddr,
    idle: Mutex<Vec<UnixStream>>,
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
    /// The way to a tiny_http that listens at `address`.
    pub(super) fn new(address: SocketAddr) -> Inner {
        Inner {
            address,
            idle: Mutex::default(),
        }
    }

    /// Sends one whole request and reads its whole answer.
    pub(super) fn exchange(&self, request: &[u8], is_head: bool) -> io::Result<Answer> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => UnixStream::connect_addr(&self.address)?,
        };
        connection.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        connection.write_all(request)?;
        let answer = read_answer(&mut connection, is_head)?;
        // A connection that failed is dropped above; this one is between two requests again.
        self.idle().push(connection);
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<UnixStream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_answer(connection: &mut UnixStream, is_head: bool) -> io::Result<Answer> {
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
