//! Serves one request on a connection of the metrics listener, and closes it. No watchdog, no TLS.

use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::server::front::request_reader::{ReadError, RequestReader};
use crate::server::front::stream::Stream;
use crate::server::front::{reject, writer};
use crate::server::http::{Reply, Request};
use crate::server::times::Times;

/// Reads a request, within the size limits of the public socket, and answers it. `timeout` limits each step.
pub(crate) fn serve(
    socket: Arc<TcpStream>,
    peer: IpAddr,
    timeout: Duration,
    answer: impl FnOnce(&Request) -> Reply,
) {
    let times = Times {
        write: timeout,
        ..Times::DEFAULT
    };
    let Ok(mut stream) = Stream::new(socket, None, &times) else {
        return;
    };
    match RequestReader::new(peer, timeout, timeout).next(&mut stream) {
        Ok((request, framing)) => {
            if let Ok(bytes) = writer::print(answer(&request), framing, false) {
                // If the client has gone, there is nothing left to do.
                let _ = stream.send(&bytes);
            }
        }
        Err(ReadError::Rejected(rejection)) => reject(&mut stream, rejection, timeout),
        Err(ReadError::Closed) => {}
    }
}
