//! The public socket. It admits a bounded number of connections, reads one whole, bounded request after the other from each,
//! has it answered in the same thread, and writes the answer.
//!
//! It alone knows the client's socket, so it also sees to it that a token counts as delivered only when its client has it.
//!
//! tiny_http prints the answers (writer.rs), but its `Server` does not run. Measured on tiny_http 0.12: one endless header line
//! made it grow by 427 MB in 4 s, a client that dribbles holds a thread for ever, and its accept loop ends for good on any
//! error of accept and panics when it gets no thread (behind a front of ours, 11 of 12 requests then got 503 until a
//! restart). There is no other way in, so requests are read here (request_reader.rs, with httparse).

mod admission;
pub(crate) mod one_request;
mod stream;
mod watchdog;
mod writer;

pub(crate) mod listener;
pub(crate) mod process_limits;
pub(crate) mod request_reader;
pub(crate) mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::client_address::TrustedProxies;
use crate::server::front::admission::{Admission, Admitted, ConnectionCounts};
use crate::server::front::request_reader::{End, Framing, Rejection, RequestReader};
use crate::server::front::stream::Stream;
use crate::server::front::tls::Certificate;
use crate::server::front::watchdog::{OpenRequest, Watchdog};
use crate::server::http::{App, Reply, Request, RequestId};
use crate::server::log::Log;
use crate::server::times::Times;
use crate::shared::random;

/// What a client with a bad request may still send before its connection is closed.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;
/// How long to wait when the system has no descriptors, threads or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// So often is a thread for a new connection tried for, while connections that wait make room.
const SPAWN_TRIES_MAX: u32 = 25;
/// A connection's thread, in which handlers, TLS and the database's client run: 128 levels of JSON fit without optimization,
/// too. What is not used takes no memory.
const STACK_BYTES: usize = 1024 * 1024;

/// What the front is to do.
pub(crate) struct FrontSettings {
    pub(crate) max_connections: u32,
    pub(crate) max_connections_per_address: u32,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) idle_timeout: Duration,
    pub(crate) times: Times,
    /// https, with this certificate.
    pub(crate) certificate: Option<Arc<Certificate>>,
}

/// The front of a running server.
pub(crate) struct Front {
    settings: FrontSettings,
    app: Arc<App>,
    admission: Arc<Admission>,
    watchdog: Arc<Watchdog>,
    next_request_id: AtomicU32,
    /// No more connections are accepted.
    closing: AtomicBool,
    /// The one warning about a proxy that is not trusted was written.
    warned_of_proxy: AtomicBool,
    failure_logged: Mutex<Option<Instant>>,
    log: Arc<Log>,
}

impl Front {
    /// A front for `app`, and its watchdog's thread.
    pub(crate) fn start(settings: FrontSettings, app: Arc<App>) -> io::Result<Arc<Front>> {
        let watchdog = Arc::<Watchdog>::default();
        watchdog.start(Arc::clone(&app))?;
        let (max, max_per_address) = (
            settings.max_connections,
            settings.max_connections_per_address,
        );
        let log = Arc::clone(&app.log);
        Ok(Arc::new(Front {
            settings,
            app,
            admission: Admission::new(max, max_per_address),
            watchdog,
            next_request_id: AtomicU32::new(u32::from_le_bytes(random::bytes())),
            closing: AtomicBool::new(false),
            warned_of_proxy: AtomicBool::new(false),
            failure_logged: Mutex::new(None),
            log,
        }))
    }

    /// Accepts connections from `listener` until the front is stopped, those included that have connected by then.
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

    /// The system has no descriptor or no thread for another connection: one that waits makes room.
    fn make_room(&self, event: &'static str, error: &io::Error) {
        let mut logged = self
            .failure_logged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= self.settings.times.failure_log_pause) {
            *logged = Some(Instant::now());
            self.log.error(event, &[("error", &error.to_string())]);
        }
        self.admission.evict_any();
        thread::sleep(ACCEPT_PAUSE);
    }

    /// Says that the server stops, goes on for `delay`, accepts no more, and gives open connections time for their last
    /// requests. True: all requests are answered.
    pub(crate) fn stop(&self, listening_at: SocketAddr, delay: Duration) -> bool {
        self.app.stop();
        thread::sleep(delay);
        self.closing.store(true, Ordering::Release);
        // Wakes the accept loop, which then ends and closes the listener.
        let _ = TcpStream::connect_timeout(&reachable(listening_at), Duration::from_secs(1));
        let stopped_at = Instant::now();
        self.wait_for_connections(stopped_at + self.settings.times.last_request);
        self.admission.evict_all();
        self.wait_for_connections(stopped_at + self.settings.times.stop)
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> ConnectionCounts {
        self.admission.counts()
    }

    /// Waits until no connection is open, at most until `deadline`. True: none is.
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
        // What the listener was told meanwhile, its sockets inherit on some systems.
        if socket.set_nonblocking(false).is_err() {
            return;
        }
        let (socket, is_proxy) = (Arc::new(socket), self.settings.trusted_proxies.trusts(peer));
        let Some(admitted) = self.admission.admit(&socket, peer, is_proxy) else {
            // Closed at once: who opens too many is owed no answer.
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

    /// One client's connection, from its first request to its end.
    fn serve(&self, socket: Arc<TcpStream>, peer: IpAddr, admitted: &Admitted) {
        let certificate = self.settings.certificate.as_ref();
        let tls = certificate.map(|certificate| certificate.server_config());
        let Ok(mut stream) = Stream::new(socket, tls, &self.settings.times) else {
            return;
        };
        let mut reader = RequestReader::new(
            peer,
            self.settings.idle_timeout,
            self.settings.times.request,
        );
        while let Some(kept) = self.serve_request(stream, &mut reader, admitted) {
            stream = kept;
        }
    }

    /// Reads one request and answers it. `None`: the connection is over.
    fn serve_request(
        &self,
        mut stream: Stream,
        reader: &mut RequestReader,
        admitted: &Admitted,
    ) -> Option<Stream> {
        let (mut request, framing) = match reader.next(&mut stream) {
            Ok(read) => read,
            Err(End::Closed) => return None,
            Err(End::Bad(problem)) => {
                self.reject(&mut stream, reader.peer(), problem);
                return None;
            }
        };
        if !admitted.begin_request() {
            return None;
        }
        request.id = RequestId(self.next_request_id.fetch_add(1, Ordering::Relaxed));
        self.find_client(&mut request);
        let (routed, started) = (self.app.route(&request), Instant::now());
        let deadline = started + routed.timeout(&self.app);
        let open = self.watchdog.open(
            request.id,
            OpenRequest {
                stream,
                deadline,
                routed,
                framing,
            },
        );
        let mut reply = self.app.answer_routed(&routed, &request);
        let token = reply.token.take();
        let Some(mut stream) = open.close() else {
            // The watchdog has answered: a token that comes too late is there for the next poll.
            if let Some(token) = token {
                self.app.end_delivery(token, false);
            }
            return None;
        };
        self.app.log_answer(&request, &routed, &reply, started);
        let keep_alive = framing.keep_alive && token.is_none() && !self.app.is_stopping();
        if token.is_none() {
            // A client that does not take its answer may have to make room.
            admitted.wait_again();
        }
        let written = self.write(&mut stream, reply, framing, keep_alive, token.is_some());
        if let Some(token) = token {
            self.app.end_delivery(token, written.is_ok());
        }
        written.is_ok_and(|()| keep_alive).then_some(stream)
    }

    /// Writes an answer. One that only one client gets (`delivers`) is an error unless this client has it.
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
        if delivers && stream.breaks_within(self.settings.times.delivery) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// Answers what cannot be read as a request, and closes.
    fn reject(&self, stream: &mut Stream, client: IpAddr, (status, error): Rejection) {
        let fields = [
            ("status", &*status.to_string()),
            ("reason", error),
            ("client", &client.to_string()),
        ];
        self.log.info("bad_request", &fields);
        let reply = Reply::plain_error(status, error);
        let sent =
            writer::print(reply, Framing::CLOSE, false).and_then(|bytes| stream.send(&bytes));
        if sent.is_ok() {
            stream.close_gently(UNREAD_BYTES_MAX, self.settings.times.unread);
        }
    }

    /// Finds out who asks. A peer that sends `X-Forwarded-For` and is not trusted is probably a proxy that nobody has set.
    fn find_client(&self, request: &mut Request) {
        let peer = request.client;
        let proxies = &self.settings.trusted_proxies;
        let client = proxies.client(peer, request.headers("x-forwarded-for"));
        let ignored = request.header("x-forwarded-for").is_some() && !proxies.trusts(peer);
        if ignored && !self.warned_of_proxy.swap(true, Ordering::Relaxed) {
            let hint = "if this is your proxy, set TRUSTED_PROXIES: until then all its clients count as one";
            let fields = [("peer", &*peer.to_string()), ("hint", hint)];
            self.log.warn("forwarded_for_ignored", &fields);
        }
        request.client = client;
    }
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
