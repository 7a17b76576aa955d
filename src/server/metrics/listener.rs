//! The listener of the metrics: one thread that accepts, and one for each of a few connections. It shares no limit with the public
//! socket, so it also answers while that has no room. A new connection takes the place of one that has sent no request yet.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::server::front::{listener, one_request};
use crate::server::http::{Reply, Request};
use crate::server::metrics::Sources;
use crate::server::metrics::text::CONTENT_TYPE;

/// Most connections that are served at once.
const CONNECTIONS_MAX: usize = 8;

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `METRICS_LISTEN`.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| cannot_listen(address, &error))
}

/// Why [`bind`] would fail, other than that the port is taken.
pub(crate) fn problem(address: SocketAddr) -> Option<String> {
    let error = listener::try_bind(address).err()?;
    Some(cannot_listen(address, &error))
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    format!("cannot listen on {address}: {error}; METRICS_LISTEN says where metrics are served")
}

/// Starts the thread that serves metrics until the process ends.
pub(crate) fn start(listener: TcpListener, sources: Sources) -> io::Result<()> {
    let url = format!("http://{}/metrics", listener.local_addr()?);
    let log = Arc::clone(&sources.app.log);
    let serving = Arc::new(Serving {
        timeout: sources.app.times.metrics,
        sources,
        connections: Mutex::default(),
        ended: Condvar::new(),
    });
    let accept = move || loop {
        match listener.accept() {
            Ok((socket, peer)) => Serving::start(&serving, socket, peer.ip()),
            // The client gave up before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Not logged here, since the public socket fails in the same way.
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
    };
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(accept)?;
    log.info("metrics_listening", &[("url", &url)]);
    Ok(())
}

/// The connections that are served.
struct Serving {
    sources: Sources,
    /// For each step of a request.
    timeout: Duration,
    /// The oldest first.
    connections: Mutex<Vec<Arc<Connection>>>,
    ended: Condvar,
}

struct Connection {
    socket: Arc<TcpStream>,
    peer: IpAddr,
    /// Its request has been read, and is being answered.
    has_request: AtomicBool,
}

impl Serving {
    /// Serves a connection in its own thread, when there is room.
    fn start(serving: &Arc<Serving>, socket: TcpStream, peer: IpAddr) {
        let connection = Arc::new(Connection {
            socket: Arc::new(socket),
            peer,
            has_request: AtomicBool::new(false),
        });
        serving.make_room().push(Arc::clone(&connection));
        let (own, started) = (Arc::clone(serving), Arc::clone(&connection));
        let serve = move || {
            // A panic ends one request, and is logged.
            let _ = catch_unwind(AssertUnwindSafe(|| own.serve(&started)));
            own.end(&started);
        };
        let thread = thread::Builder::new().name("metrics".to_owned());
        if thread.spawn(serve).is_err() {
            serving.end(&connection);
        }
    }

    /// Waits until there is room for one more connection. Closes the oldest one without a request, if there is none.
    fn make_room(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        let connections = self.lock();
        let is_full = |connections: &mut Vec<_>| connections.len() >= CONNECTIONS_MAX;
        if connections.len() >= CONNECTIONS_MAX
            && let Some(idle) = connections.iter().find(|one| !one.has_request())
        {
            // Its thread ends then. An error means that the client has closed it.
            let _ = idle.socket.shutdown(Shutdown::Both);
        }
        let waited = self.ended.wait_while(connections, is_full);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: &Connection) {
        let answer = |request: &Request| {
            connection.has_request.store(true, Ordering::Relaxed);
            answer(&self.sources, request)
        };
        let socket = Arc::clone(&connection.socket);
        one_request::serve(socket, connection.peer, self.timeout, answer);
    }

    fn end(&self, connection: &Arc<Connection>) {
        self.lock().retain(|one| !Arc::ptr_eq(one, connection));
        self.ended.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn has_request(&self) -> bool {
        self.has_request.load(Ordering::Relaxed)
    }
}

fn answer(sources: &Sources, request: &Request) -> Reply {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/metrics") => Reply::text(CONTENT_TYPE, sources.print()),
        ("GET" | "HEAD", "/") => Reply::redirect(302, "/metrics"),
        (_, "/metrics" | "/") => {
            Reply::plain_error(405, "method_not_allowed").with("Allow", "GET, HEAD")
        }
        _ => Reply::plain_error(404, "not_found"),
    }
}
