//! A client's connection, http or https. Every read and write ends at a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};

use crate::server::front::request_reader::DeadlineStream;
use crate::server::times::Times;

/// Most bytes that are discarded while waiting for a client to close.
const AHEAD_BYTES_MAX: u64 = 64 * 1024;

pub(super) struct Stream {
    socket: DeadlineSocket,
    /// `None`: http.
    tls: Option<Box<ServerConnection>>,
}

impl Stream {
    /// Wraps a client's socket. With `tls`, makes the handshake, within the timeout of a request.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        tls: Option<Arc<ServerConfig>>,
        times: &Times,
    ) -> io::Result<Stream> {
        // Answers are written whole, so Nagle's algorithm would only delay them.
        socket.set_nodelay(true)?;
        let mut socket = DeadlineSocket {
            tcp: socket,
            deadline: Instant::now() + times.request,
            answer_timeout: times.write,
            read_timeout: None,
            write_timeout: None,
        };
        let tls = tls.map(ServerConnection::new).transpose();
        let mut tls = tls.map_err(io::Error::other)?.map(Box::new);
        if let Some(tls) = &mut tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
        }
        Ok(Stream { socket, tls })
    }

    /// Sends one whole answer.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.socket.answer_timeout;
        self.set_deadline(deadline);
        self.write_all(bytes)?;
        self.flush()
    }

    /// Sends as much of an answer as the socket's buffer takes, and closes.
    pub(super) fn send_without_blocking(mut self, bytes: &[u8]) {
        // If the buffer is full, the client does not get the rest.
        if self.socket.tcp.set_nonblocking(true).is_ok() {
            let _ = self.send(bytes);
        }
        self.send_close_notify_now();
        let _ = self.socket.tcp.shutdown(Shutdown::Both);
    }

    /// Whether the client has closed or reset the connection, as far as this side knows by now. Unread bytes before the end
    /// hide it.
    pub(super) fn is_client_gone(&mut self) -> bool {
        if let Some(tls) = &mut self.tls {
            // The end of TLS is a message in the stream, so what has arrived must be decrypted.
            let is_gone = nonblocking(&self.socket.tcp, |socket| {
                let read = tls.read_tls(&mut &*socket)?;
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                Ok(read == 0 || state.peer_has_closed())
            });
            return is_gone.unwrap_or(true);
        }
        nonblocking(&self.socket.tcp, |socket| Ok(socket.peek(&mut [0])? == 0)).unwrap_or(true)
    }

    /// Waits up to `time` for the client to close the connection, as it does after a last answer. True: it was reset instead,
    /// since the client ended before it had read all. A client that neither closes nor resets counts as having the answer.
    pub(super) fn is_reset_within(&mut self, time: Duration) -> bool {
        self.set_deadline(Instant::now() + time);
        // Pipelined requests are discarded, and so is TLS's close_notify.
        let ended = io::copy(
            &mut (&mut self.socket).take(AHEAD_BYTES_MAX),
            &mut io::sink(),
        );
        ended.is_err_and(|error| error.kind() != ErrorKind::TimedOut)
    }

    /// Closes the write side, and discards what the client is still sending. Closing with unread bytes would reset the
    /// connection, and the client might not read its answer (RFC 9112 §9.6).
    pub(super) fn close_gently(&mut self, bytes_max: usize, time_max: Duration) {
        self.set_deadline(Instant::now() + time_max);
        self.send_close_notify_now();
        let socket = &mut self.socket;
        let mut left = bytes_max;
        let mut discarded = [0; 4096];
        // The caller closes the connection next, whatever fails here.
        if socket.tcp.shutdown(Shutdown::Write).is_err() {
            return;
        }
        while let Ok(read) = socket.read(&mut discarded) {
            if read == 0 || read > left {
                return;
            }
            left -= read;
        }
    }

    /// Sends TLS's close_notify, by which clients know that the data is complete (RFC 8446 §6.1). Does not block.
    fn send_close_notify_now(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // If the socket's buffer is full, there is none.
            let _ = nonblocking(&self.socket.tcp, |socket| {
                tls.write_tls(&mut &*socket).map(|_| true)
            });
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.send_close_notify_now();
    }
}

impl DeadlineStream for Stream {
    fn set_deadline(&mut self, deadline: Instant) {
        self.socket.deadline = deadline;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(buffer),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => self.socket.flush(),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).flush(),
        }
    }
}

/// Runs `operation` while the socket is non-blocking; false if it would block.
fn nonblocking(
    socket: &TcpStream,
    operation: impl FnOnce(&TcpStream) -> io::Result<bool>,
) -> io::Result<bool> {
    socket.set_nonblocking(true)?;
    let result = operation(socket);
    socket.set_nonblocking(false)?;
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        other => other,
    }
}

/// A socket whose reads and writes end at a deadline.
pub(super) struct DeadlineSocket {
    /// Shared with [`Admission`](super::admission::Admission), which may shut it down.
    tcp: Arc<TcpStream>,
    deadline: Instant,
    /// For writing one answer.
    answer_timeout: Duration,
    /// The timeouts that are set on the socket, since setting them is a system call.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl DeadlineSocket {
    /// The time until the deadline; an error if it has passed.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(ErrorKind::TimedOut.into())
        } else {
            Ok(in_tenths(left))
        }
    }
}

/// Rounded up to tenths of a second, so that successive reads rarely need another socket timeout.
fn in_tenths(duration: Duration) -> Duration {
    Duration::from_millis((duration.as_millis() as u64).div_ceil(100) * 100)
}

/// Retries when a signal interrupts (on Linux also SIGCONT, if the socket has a timeout). A socket's timeout comes as
/// `WouldBlock`, on which rustls would retry, so it becomes `TimedOut`.
fn retry_interrupted(mut act: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match act() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            other => return other,
        }
    }
}

impl Read for DeadlineSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = Some(self.left()?);
        if self.read_timeout != left {
            self.tcp.set_read_timeout(left)?;
            self.read_timeout = left;
        }
        retry_interrupted(|| (&*self.tcp).read(buffer))
    }
}

impl Write for DeadlineSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = Some(self.left()?);
        if self.write_timeout != left {
            self.tcp.set_write_timeout(left)?;
            self.write_timeout = left;
        }
        retry_interrupted(|| (&*self.tcp).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.tcp).flush()
    }
}
