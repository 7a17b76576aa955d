//! Serves one request on a connection and closes it, beside the public socket: without admission, watchdog and TLS.

use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::server::front::request_reader::{End, Framing, RequestReader};
use crate::server::front::stream::Stream;
use crate::server::front::{UNREAD_BYTES_MAX, UNREAD_TIMEOUT, writer};
use crate::server::http::{Reply, Request};

/// How long a connection may be silent before its request.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads a request, within the public socket's limits on size and time, and answers it.
pub(crate) fn serve(socket: TcpStream, peer: IpAddr, answer: impl FnOnce(&Request) -> Reply) {
    let Ok(mut stream) = Stream::new(Arc::new(socket), None) else {
        return;
    };
    match RequestReader::new(peer, FIRST_BYTE_TIMEOUT).next(&mut stream) {
        Ok((request, framing)) => {
            send(&mut stream, answer(&request), framing);
        }
        Err(End::Bad((status, error))) => {
            let reply = Reply::plain_error(status, error);
            if send(&mut stream, reply, Framing::CLOSE) {
                stream.close_gently(UNREAD_BYTES_MAX, UNREAD_TIMEOUT);
            }
        }
        Err(End::Closed) => {}
    }
}

fn send(stream: &mut Stream, reply: Reply, framing: Framing) -> bool {
    let printed = writer::print(reply, framing, false);
    printed.is_ok_and(|bytes| stream.send(&bytes).is_ok())
}
