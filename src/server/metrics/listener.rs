//! The listener of the metrics: one thread that accepts, and one for each of a few connections. It shares no limit with the public
//! socket, so it also answers while that has no room. A new connection takes the place of one that has sent no request yet.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::server::front::admission::{Admission, Admitted};
use crate::server::front::{listener, one_request};
use crate::server::http::{Reply, Request};
use crate::server::metrics::Sources;
use crate::server::metrics::text::CONTENT_TYPE;
use crate::server::spawn;

/// Most connections that are served at once.
const CONNECTIONS_MAX: u32 = 8;

/// How long to wait when the system has no descriptor for another connection, or all connections are being answered.
const PAUSE: Duration = Duration::from_millis(100);

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
    let (sources, admission) = (Arc::new(sources), Admission::new(CONNECTIONS_MAX, 0));
    let log = Arc::clone(&sources.app.log);
    let accept = move || loop {
        match listener.accept() {
            Ok((socket, peer)) => admit(&sources, &admission, socket, peer.ip()),
            // The client gave up before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Not logged here, since the public socket fails in the same way.
            Err(_) => thread::sleep(PAUSE),
        }
    };
    spawn("metrics", accept)?;
    log.info("metrics_listening", &[("url", &url)]);
    Ok(())
}

/// Serves a connection in its own thread, when there is room.
fn admit(sources: &Arc<Sources>, admission: &Arc<Admission>, socket: TcpStream, peer: IpAddr) {
    let socket = Arc::new(socket);
    // As a proxy: the limit for one address does not hold, and the connection that has waited longest makes room.
    let admitted = loop {
        match admission.admit(&socket, peer, true) {
            Some(admitted) => break admitted,
            None => thread::sleep(PAUSE),
        }
    };
    let sources = Arc::clone(sources);
    // If the thread cannot be started, the connection is closed.
    let _ = spawn("metrics", move || serve(&sources, socket, peer, &admitted));
}

fn serve(sources: &Sources, socket: Arc<TcpStream>, peer: IpAddr, admitted: &Admitted) {
    let timeout = sources.app.times.metrics;
    one_request::serve(socket, peer, timeout, |request| {
        // If the connection was evicted just now, the answer cannot be sent.
        admitted.begin_request();
        answer(sources, request)
    });
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
