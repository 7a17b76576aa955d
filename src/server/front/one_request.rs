//! Serves one request on a connection and closes it, beside the public socket: without admission, watchdog and TLS.

use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::server::front::request_reader::{End, Framing, RequestReader};
use crate::server::front::stream::Stream;
use crate::server::front::{UNREAD_BYTES_MAX, writer};
use crate::server::http::{Reply, Request};
use crate::server::times::Times;

/// Reads a request, within the public socket's limits on size, and answers it. Each step may take `timeout`.
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
        Err(End::Bad((status, error))) => {
            let reply = Reply::plain_error(status, error);
            if send(&mut stream, reply, Framing::CLOSE) {
                stream.close_gently(UNREAD_BYTES_MAX, timeout);
            }
        }
        Err(End::Closed) => {}
    }
}

fn send(stream: &mut Stream, reply: Reply, framing: Framing) -> bool {
    let printed = writer::print(reply, framing, false);
    printed.is_ok_and(|bytes| stream.send(&bytes).is_ok())
}
