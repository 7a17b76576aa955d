//! Serves one request on a connection of the metrics listener, and closes it. No admission, no watchdog, no TLS.

use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::server::front::head::Framing;
use crate::server::front::request_reader::{ReadError, RequestReader};
use crate::server::front::stream::Stream;
use crate::server::front::{UNREAD_BYTES_MAX, writer};
use crate::server::http::{Reply, Request};
use crate::server::times::Times;

/// Reads a request, within the size limits of the public socket, and answers it. `timeout` limits each step.
pub(crate) fn serve(
    socket: TcpStream,
    peer: IpAddr,
    timeout: Duration,
    answer: impl FnOnce(&Request) -> Reply,
) {
    let times = Times {
        write: timeout,
        ..Times::DEFAULT
    };
    let Ok(mut stream) = Stream::new(Arc::new(socket), None, &times) else {
        return;
    };
    match RequestReader::new(peer, timeout, timeout).next(&mut stream) {
        Ok((request, framing)) => {
            send(&mut stream, answer(&request), framing);
        }
        Err(ReadError::Rejected((status, error))) => {
            let reply = Reply::plain_error(status, error);
            if send(&mut stream, reply, Framing::CLOSE) {
                stream.close_gently(UNREAD_BYTES_MAX, timeout);
            }
        }
        Err(ReadError::Closed) => {}
    }
}

fn send(stream: &mut Stream, reply: Reply, framing: Framing) -> bool {
    let printed = writer::print(reply, framing, false);
    printed.is_ok_and(|bytes| stream.send(&bytes).is_ok())
}
