//! The public socket: admits a bounded number of connections, each with a thread of its own, which reads bounded requests one
//! after the other, calls the handler, and writes the answer.
//!
//! Only this layer sees the client's socket, so it also decides whether a client has received its token.
//!
//! tiny_http formats the answers (writer.rs), but its `Server` is not used. Measured on tiny_http 0.12: one endless header line
//! made it grow by 427 MB in 4 s; a slow client holds a thread for ever; its accept loop ends on any error of `accept`, and
//! panics when it cannot start a thread (with a proxy of ours before it, 11 of 12 requests then got 503 until a restart).
//! tiny_http parses requests in its `Server` only, so request_reader.rs does it here, with httparse.

pub(crate) mod admission;
mod head;
pub(crate) mod one_request;
mod stream;
mod watchdog;
mod writer;

pub(crate) mod certificate;
pub(crate) mod listener;
pub(crate) mod process_limits;
pub(crate) mod request_reader;
pub(crate) mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::server::client_address::TrustedProxies;
use crate::server::config::Config;
use crate::server::front::admission::{Admission, Admitted, ConnectionCounts};
use crate::server::front::certificate::Certificate;
use crate::server::front::head::{Framing, Rejection};
use crate::server::front::listener::local_addresses;
use crate::server::front::request_reader::{ReadError, RequestReader};
use crate::server::front::stream::Stream;
use crate::server::front::watchdog::{OpenRequest, Watchdog};
use crate::server::http::{App, Reply, Request, RequestId, Routed};
use crate::shared::random;

/// Most bytes that are read and discarded after a bad request before its connection is closed.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;
/// How long to wait when the system has no descriptor, thread or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How often starting a thread for a new connection is tried; each failure evicts a waiting connection.
const SPAWN_TRIES_MAX: u32 = 25;
/// Stack of a connection's thread, which runs TLS, handlers and the database client. 128 levels of JSON fit, also in a debug
/// build. Unused stack takes no memory.
const STACK_BYTES: usize = 1024 * 1024;

/// The public socket of a running server.
pub(crate) struct Front {
    app: Arc<App>,
    trusted_proxies: TrustedProxies,
    idle_timeout: Duration,
    /// Serves https with this certificate; `None`: http.
    certificate: Option<Arc<Certificate>>,
    admission: Arc<Admission>,
    watchdog: Arc<Watchdog>,
    next_request_id: AtomicU32,
    /// The accept loop is to end.
    closing: AtomicBool,
    /// The warning about an untrusted proxy is logged once.
    proxy_warning_logged: AtomicBool,
    failure_logged_at: Mutex<Option<Instant>>,
}

impl Front {
    /// Makes the front for `app`, and starts the watchdog.
    pub(crate) fn start(
        app: Arc<App>,
        config: &Config,
        max_connections: u32,
        certificate: Option<Arc<Certificate>>,
    ) -> io::Result<Arc<Front>> {
        let watchdog = Arc::<Watchdog>::default();
        watchdog.start(Arc::clone(&app))?;
        let max_per_address = config.limits.connections_per_address;
        Ok(Arc::new(Front {
            app,
            trusted_proxies: config.trusted_proxies.clone(),
            idle_timeout: config.idle_timeout,
            certificate,
            admission: Admission::new(max_connections, max_per_address),
            watchdog,
            next_request_id: AtomicU32::new(u32::from_le_bytes(random::bytes())),
            closing: AtomicBool::new(false),
            proxy_warning_logged: AtomicBool::new(false),
            failure_logged_at: Mutex::new(None),
        }))
    }

    /// Accepts connections until the front is stopped; then also those that are in the backlog already.
    pub(crate) fn run(self: &Arc<Front>, listener: &TcpListener) {
        loop {
            let closing = self.closing.load(Ordering::Acquire);
            if closing && listener.set_nonblocking(true).is_err() {
                return;
            }
            match listener.accept() {
                Ok((socket, peer)) => self.admit(socket, peer.ip()),
                // The client gave up before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) if closing => return,
                Err(error) => self.make_room("accept_failed", &error),
            }
        }
    }

    /// Evicts a waiting connection, since the system has no descriptor or thread for another one.
    fn make_room(&self, event: &'static str, error: &io::Error) {
        let mut logged = self.failure_logged_at.lock();
        if logged.is_none_or(|at| at.elapsed() >= self.app.times.failure_log_pause) {
            *logged = Some(Instant::now());
            self.app.log.error(event, &[("error", &error.to_string())]);
        }
        self.admission.evict_any();
        thread::sleep(ACCEPT_PAUSE);
    }

    /// Lets `/ready` say that the server stops, waits for `delay`, stops accepting, and gives open connections time for a last
    /// request. Returns whether all requests were answered.
    pub(crate) fn stop(&self, listening_at: SocketAddr, delay: Duration) -> bool {
        self.app.stop();
        thread::sleep(delay);
        self.closing.store(true, Ordering::Release);
        // Wakes the accept loop, which then ends and closes the listener.
        let own = SocketAddr::new(local_addresses(listening_at.ip())[0], listening_at.port());
        let _ = TcpStream::connect_timeout(&own, Duration::from_secs(1));
        let stopped_at = Instant::now();
        self.wait_for_connections(stopped_at + self.app.times.last_request);
        self.admission.evict_all();
        self.wait_for_connections(stopped_at + self.app.times.stop)
    }

    pub(crate) fn connections(&self) -> ConnectionCounts {
        self.admission.counts()
    }

    /// Waits until no connection is open, at most until `deadline`. Returns whether none is.
    fn wait_for_connections(&self, deadline: Instant) -> bool {
        while !self.admission.is_empty() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Serves a new connection in a thread of its own, if there is room.
    fn admit(self: &Arc<Front>, socket: TcpStream, peer: IpAddr) {
        // On some systems an accepted socket inherits non-blocking mode from its listener.
        if socket.set_nonblocking(false).is_err() {
            return;
        }
        let (socket, is_proxy) = (Arc::new(socket), self.trusted_proxies.is_trusted(peer));
        let Some(admitted) = self.admission.admit(&socket, peer, is_proxy) else {
            // Dropping the socket closes it without an answer.
            self.admission.count_refused();
            return;
        };
        let admitted = Arc::new(admitted);
        for _ in 0..SPAWN_TRIES_MAX {
            let (front, socket, admitted) =
                (Arc::clone(self), Arc::clone(&socket), Arc::clone(&admitted));
            let spawned = thread::Builder::new()
                .name("connection".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || front.serve(socket, peer, &admitted));
            match spawned {
                Ok(_) => return,
                Err(error) => self.make_room("thread_failed", &error),
            }
        }
    }

    /// Serves a connection until it ends.
    fn serve(&self, socket: Arc<TcpStream>, peer: IpAddr, admitted: &Admitted) {
        let certificate = self.certificate.as_ref();
        let tls = certificate.map(|certificate| certificate.server_config());
        let Ok(mut stream) = Stream::new(socket, tls, &self.app.times) else {
            return;
        };
        let mut reader = RequestReader::new(peer, self.idle_timeout, self.app.times.request);
        while let Some(kept) = self.serve_request(stream, &mut reader, admitted) {
            stream = kept;
        }
    }

    /// Reads one request and answers it. `None`: the connection has ended.
    fn serve_request(
        &self,
        mut stream: Stream,
        reader: &mut RequestReader,
        admitted: &Admitted,
    ) -> Option<Stream> {
        let (mut request, framing) = match reader.next(&mut stream) {
            Ok(read) => read,
            Err(ReadError::Closed) => return None,
            Err(ReadError::Rejected(rejection)) => {
                self.reject(&mut stream, reader.peer(), rejection);
                return None;
            }
        };
        if !admitted.begin_request() {
            return None;
        }
        request.id = RequestId(self.next_request_id.fetch_add(1, Ordering::Relaxed));
        self.set_client_address(&mut request);
        let (routed, started) = (Routed::of(&self.app, &request), Instant::now());
        let deadline = started + routed.timeout(&self.app);
        let watched = self.watchdog.watch(
            request.id,
            OpenRequest {
                stream,
                client: request.client,
                deadline,
                routed,
                framing,
            },
        );
        let mut reply = self.app.answer_routed(&routed, &request);
        let delivery = reply.delivery.take();
        let Some(mut stream) = watched.take_stream() else {
            // The watchdog has answered. A token that came too late is kept for the next poll.
            if let Some(delivery) = delivery {
                self.app.end_delivery(&delivery, false);
            }
            return None;
        };
        self.app.log_answer(&request, &routed, &reply, started);
        let keep_alive = framing.keep_alive && delivery.is_none() && !self.app.is_stopping();
        if delivery.is_none() {
            // From here on a slow reader may be evicted.
            admitted.wait_again();
        }
        let written = self.write(&mut stream, reply, framing, keep_alive, delivery.is_some());
        if let Some(delivery) = delivery {
            self.app.end_delivery(&delivery, written.is_ok());
        }
        written.is_ok_and(|()| keep_alive).then_some(stream)
    }

    /// Writes an answer. If it `delivers` a token, a client that seems not to have received it is an error.
    fn write(
        &self,
        stream: &mut Stream,
        reply: Reply,
        framing: Framing,
        keep_alive: bool,
        delivers: bool,
    ) -> io::Result<()> {
        if delivers && stream.is_client_gone() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        stream.send(&writer::print(reply, framing, keep_alive)?)?;
        if delivers && stream.is_reset_within(self.app.times.delivery) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// Answers a request that could not be read, and closes.
    fn reject(&self, stream: &mut Stream, client: IpAddr, (status, error): Rejection) {
        let fields = [
            ("status", &*status.to_string()),
            ("reason", error),
            ("client", &client.to_string()),
        ];
        self.app.log.info("bad_request", &fields);
        reject(stream, (status, error), self.app.times.unread);
    }

    /// Replaces a trusted proxy's address by its client's. An untrusted peer that sends `X-Forwarded-For` is probably a proxy
    /// that is missing in TRUSTED_PROXIES.
    fn set_client_address(&self, request: &mut Request) {
        let peer = request.client;
        let proxies = &self.trusted_proxies;
        let client = proxies.client(peer, request.headers("x-forwarded-for"));
        let ignored = request.header("x-forwarded-for").is_some() && !proxies.is_trusted(peer);
        if ignored && !self.proxy_warning_logged.swap(true, Ordering::Relaxed) {
            let hint = "if this is your proxy, set TRUSTED_PROXIES: until then all its clients count as one";
            let fields = [("peer", &*peer.to_string()), ("hint", hint)];
            self.app.log.warn("forwarded_for_ignored", &fields);
        }
        request.client = client;
    }
}

/// Answers a request that could not be read. What its client still sends is discarded for up to `unread`.
fn reject(stream: &mut Stream, (status, error): Rejection, unread: Duration) {
    let printed = writer::print(Reply::plain_error(status, error), Framing::CLOSE, false);
    if printed.is_ok_and(|bytes| stream.send(&bytes).is_ok()) {
        stream.close_gently(UNREAD_BYTES_MAX, unread);
    }
}
