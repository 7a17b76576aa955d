//! Servers that answer before they have read the whole request: their answer is shown.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::tls;

use super::harness::{Cli, each, postiz};

/// Longest run of a command whose answer is there. It must be below the 60 s after which the CLI itself stops sending, and it
/// leaves a busy machine all the rest.
const ENDS_WITHIN: Duration = Duration::from_secs(50);

/// What a server does after its early answer.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Closes at once. The system resets the connection, since unread bytes are left.
    Closes,
    /// Reads the rest and drops it.
    ReadsOn,
    /// Neither reads nor closes.
    Stalls,
}

fn server(answer: &'static str, then: Then) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = vec![0; 100_000];
                stream.read_exact(&mut buffer).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                match then {
                    Then::Closes => {}
                    Then::ReadsOn => while stream.read(&mut buffer).is_ok_and(|count| count > 0) {},
                    Then::Stalls => thread::sleep(2 * ENDS_WITHIN),
                }
            });
        }
    });
    url
}

/// Bytes of a large body: more than the buffers of both ends of a connection hold.
const LARGE: usize = 12_000_000;

/// A command that sends [`LARGE`] bytes.
fn sends_much(command: &str, url: &str) -> Cli {
    let cli = postiz(command)
        .var("POSTIZ_API_KEY", "k")
        .var("POSTIZ_API_URL", url);
    let text = format!("\"{}\"", "x".repeat(LARGE));
    cli.home.write("big.mp4", &text).write("big.json", &text);
    if command.contains(" - ") {
        cli.stdin(text)
    } else {
        cli
    }
}

const TOO_LARGE: &str = "HTTP/1.1 413 Too Large\r\nContent-Length: 26\r\nConnection: close\r\n\r\n<html>413 too big</html>\r\n";
const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n19\r\n{\"msg\":\"Invalid API key\"}\r\n0\r\n\r\n";
const UNSUPPORTED: &str =
    "HTTP/1.1 400 Bad Request\r\n\r\n{\"message\":\"Unsupported file type.\"}";

#[test]
fn early_answer_is_read_and_shown() {
    let commands = [
        "upload big.mp4",
        "upload - --name big.mp4",
        "posts:create --json big.json",
        "api POST /public/v1/posts -d @big.json",
    ];
    for then in [Then::Closes, Then::ReadsOn, Then::Stalls] {
        let rows = [
            (TOO_LARGE, 1, "HTTP 413"),
            (
                REFUSED,
                4,
                "Postiz refused the credentials: Invalid API key (HTTP 401)",
            ),
            (UNSUPPORTED, 1, "Unsupported file type. (HTTP 400)"),
        ];
        each(rows, |(answer, code, words)| {
            // An answer without a length ends when the connection closes.
            if answer == UNSUPPORTED && !matches!(then, Then::Closes) {
                return;
            }
            for command in commands {
                let url = server(answer, then);
                let start = Instant::now();
                let done = sends_much(command, &url).run().code(code).stdout("");
                done.stderr_has(words);
                assert!(start.elapsed() < ENDS_WITHIN, "{command} {then:?}");
            }
        });
    }
}

/// RFC 9110 §15.2.
#[test]
fn interim_answer_does_not_end_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = 0;
        let mut buffer = vec![0; 1_000_000];
        for interim in ["100 Continue", "102 Processing", "103 Early Hints"] {
            received += stream.read(&mut buffer).unwrap();
            write!(stream, "HTTP/1.1 {interim}\r\n\r\n").unwrap();
        }
        while received < LARGE {
            received += read(&mut stream, &mut buffer);
        }
        stream
            .write_all(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
            )
            .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    sends_much("upload big.mp4", &url)
        .run()
        .code(0)
        .stdout("{}\n")
        .stderr("");
    server.join().unwrap();
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> usize {
    match stream.read(buffer).unwrap() {
        0 => panic!("the body ends too soon"),
        count => count,
    }
}

/// The server neither reads nor answers. Nothing was done then.
#[test]
fn server_that_stops_reading_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for command in [
        "upload big.mp4 --timeout 1",
        "api POST /x -d @big.json --timeout 1",
    ] {
        let done = sends_much(command, &url).run().code(1).stdout("");
        done.stderr_has("the server takes nothing more for 1 s");
    }
}

/// TLS' own messages (session tickets) are not answers.
#[test]
fn early_answer_is_read_through_tls() {
    let authority = tls::Authority::new();
    let plain = server(TOO_LARGE, Then::ReadsOn);
    let address = plain.trim_start_matches("http://").parse().unwrap();
    let port = tls::put_tls_before_proxy(address, &authority).port();
    for command in ["upload big.mp4", "api POST /x -d @big.json"] {
        let cli = sends_much(command, &format!("https://localhost:{port}"));
        let cli = cli.var("SSL_CERT_FILE", authority.file("ca.crt"));
        cli.run().code(1).stdout("").stderr_has("HTTP 413");
    }
}
