//! The public socket. tiny_http cannot face a network alone: it bounds neither time nor size nor numbers. So the front
//! admits a bounded number of clients, reads one whole, bounded request from each, and only then hands it to tiny_http
//! over a private socket; it reads the whole answer back and sends it on.
//!
//! It alone knows the client's socket, so it also sees to it that a token counts as handed over only when its client was
//! still there.

mod admission;
mod inner;
mod stream;

pub(crate) mod descriptors;
pub(crate) mod tls;
pub(crate) mod whole_request;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::server::client_address::TrustedProxies;
use crate::server::front::admission::{Admission, Admitted};
use crate::server::front::inner::Inner;
use crate::server::front::stream::Stream;
use crate::server::front::whole_request::{Client, End, Reader, Refusal, WholeRequest};
use crate::server::http::{Deliveries, FRONT_HEADER, OnDelivered};
use crate::server::log::Log;
use crate::shared::secret::Secret;

/// Time for a client to take one answer.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long to see whether a client takes its token: long enough for the answer's way there and the end of the connection's way
/// back, and less than a poll waits for a connection to the database, since each hand-over holds one.
const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(1);
/// What a refused client may still send, and how long, before its connection is closed.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;
const UNREAD_TIME_MAX: Duration = Duration::from_secs(2);
/// How long to wait when the system has no descriptors or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection's thread needs little; the system's default of 8 MiB each would only frighten.
const STACK_BYTES: usize = 256 * 1024;

/// What the front is to do.
pub(crate) struct FrontSettings {
    pub(crate) max_connections: u32,
    pub(crate) max_connections_per_address: u32,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// The front of a running server.
pub(crate) struct Front {
    settings: FrontSettings,
    admission: Arc<Admission>,
    inner: Inner,
    secret: Secret<String>,
    deliveries: Arc<Deliveries>,
    next_request_id: AtomicU64,
    in_flight: InFlight,
    log: Arc<Log>,
}

impl Front {
    /// A front, and the private socket that tiny_http is to listen on. Requests that come over it are the front's only if
    /// they carry `secret`.
    pub(crate) fn new(
        settings: FrontSettings,
        secret: Secret<String>,
        deliveries: Arc<Deliveries>,
        log: Arc<Log>,
    ) -> io::Result<(Arc<Front>, std::os::unix::net::UnixListener)> {
        let (listener, address) = inner::private_socket()?;
        let front = Front {
            admission: Admission::new(
                settings.max_connections,
                settings.max_connections_per_address,
            ),
            settings,
            inner: Inner::new(address, greeting(&secret)),
            secret,
            deliveries,
            next_request_id: AtomicU64::new(1),
            in_flight: InFlight::default(),
            log,
        };
        Ok((Arc::new(front), listener))
    }

    /// Takes clients from `listener` until the front is stopped.
    pub(crate) fn run(self: &Arc<Front>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.in_flight.is_stopping() {
                return;
            }
            match accepted {
                Ok((socket, peer)) => self.take(socket, peer),
                // The client gave up before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.log
                        .error("accept_failed", &[("error", &error.to_string())]);
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Takes no more requests, and waits for those in flight, `patience` at most. True: all are answered.
    pub(crate) fn stop(&self, listening_at: SocketAddr, patience: Duration) -> bool {
        self.in_flight.stop();
        // Wakes the accept loop, which then ends and closes the listener.
        let _ = TcpStream::connect_timeout(&reachable(listening_at), Duration::from_secs(1));
        self.in_flight.wait(patience)
    }

    fn take(self: &Arc<Front>, socket: TcpStream, peer: SocketAddr) {
        let peer = peer.ip();
        let is_proxy = self.settings.trusted_proxies.trusts(peer);
        let Some(admitted) = self.admission.admit(peer, is_proxy) else {
            // Closed at once: whoever opens too many is not owed an answer.
            return;
        };
        let front = Arc::clone(self);
        let serve = move || front.serve(socket, peer, admitted);
        let spawned = thread::Builder::new()
            .name(format!("client-{peer}"))
            .stack_size(STACK_BYTES)
            .spawn(serve);
        if let Err(error) = spawned {
            self.log
                .error("thread_failed", &[("error", &error.to_string())]);
            thread::sleep(ACCEPT_PAUSE);
        }
    }

    /// One client's connection, from its first request to its end.
    fn serve(&self, socket: TcpStream, peer: IpAddr, _admitted: Admitted) {
        let Ok(mut stream) = Stream::new(socket, self.settings.tls.as_ref()) else {
            return;
        };
        let mut reader = Reader::new();
        loop {
            let request = match reader.next(&mut stream) {
                Ok(request) => request,
                Err(End::Silent) => return,
                Err(End::Refused(refusal)) => return self.refuse(&mut stream, peer, refusal),
            };
            let Some(_flight) = self.in_flight.begin() else {
                return;
            };
            if !matches!(self.relay(&mut stream, peer, &request), Ok(true)) {
                return;
            }
        }
    }

    /// Hands a whole request to tiny_http, and the whole answer back. True: another request may follow.
    fn relay(&self, stream: &mut Stream, peer: IpAddr, request: &WholeRequest) -> io::Result<bool> {
        let request_id = self.next_request_id.fetch_add(1, Ordering::Relaxed);
        let client = self
            .settings
            .trusted_proxies
            .client(peer, request.forwarded_for.iter().map(String::as_str));
        let vouch = format!("{} {request_id} {client}", self.secret.expose());
        let answer = self
            .inner
            .exchange(&request.bytes(FRONT_HEADER, &vouch), request.is_head);
        // Taken out in any case: what is not delivered is dropped here, and undone.
        let on_delivered = self.deliveries.take(request_id);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.log
                    .error("http_unanswered", &[("error", &error.to_string())]);
                write(stream, UNANSWERED)?;
                return Err(error);
            }
        };
        let keep_alive =
            request.keep_alive && on_delivered.is_none() && !self.in_flight.is_stopping();
        let bytes = answer.bytes((!keep_alive).then_some("close"));
        match on_delivered {
            None => write(stream, &bytes)?,
            Some(on_delivered) => hand_over(stream, &bytes, on_delivered)?,
        }
        Ok(keep_alive)
    }

    /// Answers what the front itself does not take, and closes.
    fn refuse(&self, stream: &mut Stream, peer: IpAddr, (status, error): Refusal) {
        self.log.info(
            "refused",
            &[
                ("status", &status.to_string()),
                ("error", error),
                ("client", &peer.to_string()),
            ],
        );
        if write(stream, &refusal_bytes(status, error)).is_ok() {
            stream.close_gently(UNREAD_BYTES_MAX, UNREAD_TIME_MAX);
        }
    }
}

/// Sends one whole answer.
fn write(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.set_deadline(Instant::now() + WRITE_TIME_MAX);
    stream.write_all(bytes)?;
    stream.flush()
}

/// Sends an answer that only one client gets, and makes sure that this one has it. Otherwise `on_delivered` is dropped, and
/// the next poll gets it.
fn hand_over(stream: &mut Stream, bytes: &[u8], on_delivered: OnDelivered) -> io::Result<()> {
    if stream.is_client_gone() {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    write(stream, bytes)?;
    if stream.breaks_within(HAND_OVER_TIME_MAX) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    on_delivered();
    Ok(())
}

/// The request that opens a connection to tiny_http: it vouches for no client, and is answered at once.
fn greeting(secret: &Secret<String>) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\n{FRONT_HEADER}: {}\r\n\r\n",
        secret.expose()
    )
    .into_bytes()
}

/// For a request that tiny_http did not answer in time: what programs poll on after.
const UNANSWERED: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nRetry-After: 5\r\nContent-Length: 35\r\nConnection: close\r\n\r\n\
    Temporarily unavailable. Try again.";

fn refusal_bytes(status: u16, error: &str) -> Vec<u8> {
    let reason = tiny_http::StatusCode(status).default_reason_phrase();
    let body = format!("{{\"error\":\"{error}\"}}");
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nPragma: no-cache\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nContent-Length: {}\r\nConnection: close\r\n\r\n\
         {body}",
        body.len()
    )
    .into_bytes()
}

/// Where a listener on all addresses can be reached from here.
fn reachable(listening_at: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listening_at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening_at.port())
}

/// Counts the requests that are being answered, so that a stopping server can wait for them.
#[derive(Default)]
struct InFlight {
    stopping: AtomicBool,
    count: Mutex<u32>,
    fewer: Condvar,
}

/// One request in flight, until it is dropped.
struct Flight<'a>(&'a InFlight);

impl InFlight {
    /// Counts a request in; none any more once the server is stopping.
    fn begin(&self) -> Option<Flight<'_>> {
        let mut count = self.count();
        if self.is_stopping() {
            return None;
        }
        *count += 1;
        Some(Flight(self))
    }

    fn stop(&self) {
        let _count = self.count();
        self.stopping.store(true, Ordering::Release);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn wait(&self, patience: Duration) -> bool {
        let waited = self
            .fewer
            .wait_timeout_while(self.count(), patience, |count| *count > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }

    fn count(&self) -> MutexGuard<'_, u32> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        // A wake-up is a system call even where nobody sleeps, and only a stopping server waits.
        if self.0.is_stopping() {
            self.0.fewer.notify_all();
        }
    }
}
