//! The listener of the metrics: one thread, which serves one connection after the other. It shares no limit with the public
//! socket, so it also answers while that has no room.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::server::front::one_request;
use crate::server::http::{Reply, Request};
use crate::server::metrics::Sources;
use crate::server::metrics::text::CONTENT_TYPE;

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `METRICS_LISTEN`.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| {
        format!("cannot listen on {address}: {error}; METRICS_LISTEN says where metrics are served")
    })
}

/// Starts the thread that serves metrics until the process ends.
pub(crate) fn start(listener: TcpListener, sources: Sources) -> io::Result<()> {
    let url = format!("http://{}/metrics", listener.local_addr()?);
    let log = Arc::clone(&sources.app.log);
    let timeout = sources.app.times.metrics;
    let serve = move || loop {
        match listener.accept() {
            Ok((socket, peer)) => {
                let answer = |request: &Request| answer(&sources, request);
                let serve = || one_request::serve(socket, peer.ip(), timeout, answer);
                // A panic ends one request, and is logged.
                let _ = catch_unwind(AssertUnwindSafe(serve));
            }
            // The client gave up before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Not logged here, since the public socket fails in the same way.
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
    };
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(serve)?;
    log.info("metrics_listening", &[("url", &url)]);
    Ok(())
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
