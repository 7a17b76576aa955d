//! A client's connection, in clear or in TLS, on which every wait ends at a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::front::request_reader::Client;
use crate::server::times::Times;

/// How much a client may send ahead while the end of its connection is waited for.
const AHEAD_BYTES_MAX: u64 = 64 * 1024;

/// The connection.
pub(super) enum Stream {
    /// http.
    Plain(Deadlined),
    /// https.
    Tls(Box<StreamOwned<ServerConnection, Deadlined>>),
}

impl Stream {
    /// Takes a client's socket; with `tls`, makes the handshake, in no more time than a request may take.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        tls: Option<Arc<ServerConfig>>,
        times: &Times,
    ) -> io::Result<Stream> {
        // Answers are written whole: waiting for more to send would only add delay.
        socket.set_nodelay(true)?;
        let mut socket = Deadlined {
            socket,
            deadline: Instant::now() + times.request,
            answer_timeout: times.write,
            read_timeout: None,
            write_timeout: None,
        };
        Ok(match tls {
            None => Stream::Plain(socket),
            Some(config) => {
                let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
                while connection.is_handshaking() {
                    connection.complete_io(&mut socket)?;
                }
                Stream::Tls(Box::new(StreamOwned::new(connection, socket)))
            }
        })
    }

    /// Sends one whole answer.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.deadlined().answer_timeout;
        self.set_deadline(deadline);
        self.write_all(bytes)?;
        self.flush()
    }

    /// Sends as much of an answer as the client's side of the connection takes at once, and closes.
    pub(super) fn send_without_waiting(mut self, bytes: &[u8]) {
        // A client that takes no more misses the rest.
        if self.deadlined().socket.set_nonblocking(true).is_ok() {
            let _ = self.send(bytes);
        }
        self.say_goodbye();
        let _ = self.deadlined().socket.shutdown(Shutdown::Both);
    }

    /// Has the client closed its side, or is it gone altogether? Looks, and waits for nothing. What the client may have
    /// sent ahead says that it is there.
    pub(super) fn is_client_gone(&mut self) -> bool {
        if let Stream::Tls(tls) = self {
            // The end of TLS is a message in the stream: take in what is there.
            let socket = &mut tls.sock.socket;
            let taken_in = without_waiting(socket, |socket| {
                let read = tls.conn.read_tls(&mut &*socket)?;
                let state = tls.conn.process_new_packets().map_err(io::Error::other)?;
                Ok(read == 0 || state.peer_has_closed())
            });
            return taken_in.unwrap_or(true);
        }
        let socket = &self.deadlined().socket;
        without_waiting(socket, |socket| Ok(socket.peek(&mut [0])? == 0)).unwrap_or(true)
    }

    /// Waits for the client to close the connection, which it does after an answer that ends it. True: it broke the connection
    /// instead, as a client's system does that went away with bytes unread or still to come. A client that keeps it open
    /// for all of `time` has its answer.
    pub(super) fn breaks_within(&mut self, time: Duration) -> bool {
        self.set_deadline(Instant::now() + time);
        // What it may have sent ahead is not answered any more; in TLS its goodbye comes first.
        let ended = io::copy(&mut self.deadlined().take(AHEAD_BYTES_MAX), &mut io::sink());
        ended.is_err_and(|error| error.kind() != ErrorKind::TimedOut)
    }

    /// Says that no more will come, and takes what the client is still sending, so that it gets to read the answer:
    /// closing with bytes unread would reset the connection (RFC 9112 §9.6).
    pub(super) fn close_gently(&mut self, bytes_max: usize, time_max: Duration) {
        self.set_deadline(Instant::now() + time_max);
        self.say_goodbye();
        let socket = self.deadlined();
        let mut left = bytes_max;
        let mut discarded = [0; 4096];
        // Whatever fails here, the connection is closed right after.
        if socket.socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        while let Ok(read) = socket.read(&mut discarded) {
            if read == 0 || read > left {
                return;
            }
            left -= read;
        }
    }

    /// TLS wants its end told apart from a connection that was cut (RFC 8446 §6.1). Waits for nothing.
    fn say_goodbye(&mut self) {
        if let Stream::Tls(tls) = self {
            tls.conn.send_close_notify();
            // A client that takes no more bytes misses nothing.
            let _ = without_waiting(&tls.sock.socket, |socket| {
                tls.conn.write_tls(&mut &*socket).map(|_| true)
            });
        }
    }

    fn deadlined(&mut self) -> &mut Deadlined {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &mut tls.sock,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

impl Client for Stream {
    fn set_deadline(&mut self, deadline: Instant) {
        self.deadlined().deadline = deadline;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

/// Runs `look` on a socket that answers at once. `WouldBlock` means that nothing has happened: false.
fn without_waiting(
    socket: &TcpStream,
    look: impl FnOnce(&TcpStream) -> io::Result<bool>,
) -> io::Result<bool> {
    socket.set_nonblocking(true)?;
    let looked = look(socket);
    socket.set_nonblocking(false)?;
    match looked {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        other => other,
    }
}

/// A socket whose every read and write waits no longer than until the deadline.
pub(super) struct Deadlined {
    /// Shared with the list of open connections, which may shut it down to make room.
    socket: Arc<TcpStream>,
    deadline: Instant,
    /// For the client to take one answer.
    answer_timeout: Duration,
    /// What the socket was told last, since telling it is a system call.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Deadlined {
    /// What is left until the deadline, or an error when nothing is.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(ErrorKind::TimedOut.into())
        } else {
            Ok(coarse(left))
        }
    }
}

/// Whole tenths of a second, so that many waits in a row can share one setting.
fn coarse(duration: Duration) -> Duration {
    Duration::from_millis((duration.as_millis() as u64).div_ceil(100) * 100)
}

/// Tries again when a signal interrupts: Linux ends a read with a timeout when the process goes on after a stop. A socket's
/// timeout comes as `WouldBlock`, which rustls would take for a reason to try again.
fn uninterrupted(mut act: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
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

impl Read for Deadlined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = Some(self.left()?);
        if self.read_timeout != left {
            self.socket.set_read_timeout(left)?;
            self.read_timeout = left;
        }
        uninterrupted(|| (&*self.socket).read(buffer))
    }
}

impl Write for Deadlined {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = Some(self.left()?);
        if self.write_timeout != left {
            self.socket.set_write_timeout(left)?;
            self.write_timeout = left;
        }
        uninterrupted(|| (&*self.socket).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.socket).flush()
    }
}
