//! Formats an answer as the bytes for its client, with tiny_http.

use std::io::{self, Cursor};

use tiny_http::{HTTPVersion, Header, Response, StatusCode};

use crate::server::front::head::Framing;
use crate::server::http::Reply;

/// The whole answer. `keep_alive`: the connection stays open after it.
pub(super) fn print(reply: Reply, framing: Framing, keep_alive: bool) -> io::Result<Vec<u8>> {
    let (status, length) = (reply.status, reply.body.len());
    let headers = reply.headers.iter().map(|(name, value)| {
        Header::from_bytes(*name, value.as_bytes()).map_err(|()| {
            io::Error::new(io::ErrorKind::InvalidData, "a header that cannot be sent")
        })
    });
    let response = Response::new(
        StatusCode(status),
        headers.collect::<io::Result<_>>()?,
        Cursor::new(reply.body),
        Some(length),
        None,
    );
    let mut bytes = Vec::with_capacity(length + 512);
    // tiny_http would chunk bodies from 32 KiB on, which HTTP/1.0 does not know. The length is known, so no chunks are needed.
    response.with_chunked_threshold(usize::MAX).raw_print(
        &mut bytes,
        HTTPVersion(1, 1),
        &[],
        framing.is_head,
        None,
    )?;
    if status == 204 {
        // RFC 9110 §8.6: a 204 has no Content-Length.
        let surplus = b"Content-Length: 0\r\n";
        let at = bytes
            .windows(surplus.len())
            .position(|bytes| bytes == surplus);
        at.map(|at| bytes.drain(at..at + surplus.len()));
    }
    if let Some(connection) = connection(framing, keep_alive) {
        // tiny_http ignores a Connection header that is set on its response.
        let line_end = bytes.iter().position(|byte| *byte == b'\n');
        let line_end = line_end.map_or(0, |at| at + 1);
        bytes.splice(line_end..line_end, connection.bytes());
    }
    Ok(bytes)
}

/// The `Connection` header, unless the version's default is right (RFC 9112 §9.3).
fn connection(framing: Framing, keep_alive: bool) -> Option<&'static str> {
    match (keep_alive, framing.is_http_1_1) {
        (true, true) => None,
        (true, false) => Some("Connection: keep-alive\r\n"),
        (false, _) => Some("Connection: close\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: Reply, framing: Framing, keep_alive: bool) -> String {
        String::from_utf8(print(reply, framing, keep_alive).unwrap()).unwrap()
    }

    const HTTP_1_1: Framing = Framing {
        is_http_1_1: true,
        ..Framing::CLOSE
    };

    #[test]
    fn answers_have_content_length_and_connection() {
        let kept = text(Reply::plain_error(404, "not_found"), HTTP_1_1, true);
        assert!(kept.starts_with("HTTP/1.1 404 Not Found\r\n"), "{kept}");
        assert!(kept.contains("\r\nContent-Length: 21\r\n") && !kept.contains("Connection:"));
        assert!(kept.ends_with("\r\n\r\n{\"error\":\"not_found\"}"));
        let closed = text(Reply::plain_error(404, "x"), HTTP_1_1, false);
        assert!(closed.starts_with("HTTP/1.1 404 Not Found\r\nConnection: close\r\n"));
        let old = text(Reply::plain_error(404, "x"), Framing::CLOSE, true);
        assert!(old.contains("\r\nConnection: keep-alive\r\n"));
    }

    #[test]
    fn long_answers_are_not_chunked_and_head_has_no_body() {
        let long = || Reply::page(200, "x".repeat(100_000));
        let whole = text(long(), HTTP_1_1, true);
        assert!(whole.contains("\r\nContent-Length: 100000\r\n") && !whole.contains("chunked"));
        let head = Framing {
            is_head: true,
            ..HTTP_1_1
        };
        let head = text(long(), head, true);
        assert!(head.contains("\r\nContent-Length: 100000\r\n") && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn no_content_has_no_length() {
        let empty = text(Reply::no_content(), HTTP_1_1, true);
        assert!(empty.starts_with("HTTP/1.1 204 No Content\r\n"));
        assert!(
            !empty.to_ascii_lowercase().contains("content-length"),
            "{empty}"
        );
    }
}
