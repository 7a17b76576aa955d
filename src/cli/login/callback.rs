//! Waits on 127.0.0.1 for the callback: the request with which Postiz sends the browser back with an authorization code
//! (RFC 8252 §7.3). Answers it with a page once the end of the login is known.
//!
//! Every program of this machine, and every web page in its browser, may connect. So connections are limited in number and
//! size, none waits for another, and a request that is not the callback with the right `state` gets a 404 and changes
//! nothing. tiny_http's server has no such limits; this file parses requests by httparse.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::cli::context::{Clock, sleep};
use crate::cli::error::CliError;
use crate::shared::secret::Secret;

/// A port of 127.0.0.1 that waits for the callback.
pub(super) struct CallbackListener {
    listener: TcpListener,
    pub(super) port: u16,
}

/// A callback that came: the browser waits for its page.
pub(super) struct Callback {
    pub(super) outcome: Outcome,
    browser: TcpStream,
}

/// The authorization response (RFC 6749 §4.1.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Code(Secret<String>),
    Error(String),
}

/// How the login ended, for the page.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    SignedIn,
    Refused,
    Failed,
}

impl CallbackListener {
    /// Binds `port`, or with 0 a free one.
    pub(super) fn bind(port: u16) -> io::Result<CallbackListener> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(CallbackListener { listener, port })
    }

    /// Where Postiz sends the browser. Postiz compares it as a string, port included.
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits up to `time` for the callback with `state`; `None` when it does not come. Calls `tick` about once a second with
    /// the time left.
    pub(super) fn wait(
        self,
        state: &str,
        time: Duration,
        clock: &dyn Clock,
        mut tick: impl FnMut(Duration),
    ) -> Result<Option<Callback>, CliError> {
        let end = clock.now() + time;
        let mut next_tick = clock.now();
        let mut connections = Vec::new();
        while clock.now() < end {
            if clock.now() >= next_tick {
                tick(end - clock.now());
                next_tick += TICK;
            }
            if let Some(callback) = self.serve_once(&mut connections, state) {
                return Ok(Some(callback));
            }
            sleep(clock, PAUSE)?;
        }
        Ok(None)
    }

    /// Accepts and reads what has arrived, without waiting.
    fn serve_once(&self, connections: &mut Vec<Connection>, state: &str) -> Option<Callback> {
        for _ in 0..CONNECTIONS_MAX {
            let Ok((stream, _)) = self.listener.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if connections.len() == CONNECTIONS_MAX {
                // The oldest has had the most time to send its request.
                connections.remove(0);
            }
            connections.push(Connection {
                stream,
                head: Vec::new(),
            });
        }
        let mut at = 0;
        while at < connections.len() {
            match connections[at].read(state) {
                ReadState::Waiting => at += 1,
                ReadState::Gone => drop(connections.remove(at)),
                ReadState::Other(status) => connections.remove(at).refuse(status),
                ReadState::Callback(outcome) => {
                    return Some(Callback {
                        outcome,
                        browser: connections.remove(at).stream,
                    });
                }
            }
        }
        None
    }
}

/// A connection whose request is not complete yet.
struct Connection {
    stream: TcpStream,
    head: Vec<u8>,
}

/// How far a connection's request has come.
enum ReadState {
    Waiting,
    Gone,
    /// It is not the callback, and gets this status.
    Other(&'static str),
    Callback(Outcome),
}

impl Connection {
    /// Reads what has arrived, and parses the request once it is complete.
    fn read(&mut self, state: &str) -> ReadState {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return ReadState::Gone,
                Ok(count) => self.head.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return ReadState::Waiting;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return ReadState::Gone,
            }
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(&self.head) {
                Ok(httparse::Status::Complete(_)) => {
                    let method = request.method.unwrap_or_default();
                    let target = request.path.unwrap_or_default();
                    return match outcome(method, target, state) {
                        Some(outcome) => ReadState::Callback(outcome),
                        None => ReadState::Other("404 Not Found"),
                    };
                }
                Ok(httparse::Status::Partial) if self.head.len() > HEAD_BYTES_MAX => {
                    return ReadState::Other("431 Request Header Fields Too Large");
                }
                Ok(httparse::Status::Partial) => {}
                Err(_) => return ReadState::Other("400 Bad Request"),
            }
        }
    }

    fn refuse(self, status: &str) {
        let text = "This address only ends a login of the Postiz command line.\n";
        respond(&self.stream, status, "text/plain; charset=utf-8", text);
    }
}

impl Callback {
    /// Shows the browser how the login ended.
    pub(super) fn answer(self, ending: Ending) {
        // A browser that does not read must not keep the program running.
        let can_wait = self.browser.set_nonblocking(false).is_ok()
            && self.browser.set_write_timeout(Some(ANSWER_TIMEOUT)).is_ok();
        if can_wait {
            let page = page(ending);
            respond(&self.browser, "200 OK", "text/html; charset=utf-8", &page);
        }
    }
}

/// Writes an answer. A failure is ignored, since nothing depends on its arrival.
fn respond(mut stream: &TcpStream, status: &str, content_type: &str, body: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes());
}

/// The outcome in a callback; `None` for any other request. A callback is a GET of the one path with the right `state` and
/// each field once.
fn outcome(method: &str, target: &str, state: &str) -> Option<Outcome> {
    let (path, query) = target.split_once('?')?;
    if method != "GET" || path != PATH {
        return None;
    }
    let field = |name: &str| {
        let mut values = query.split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        });
        let value = values.next()?.replace('+', " ");
        let value = percent_decode_str(&value).decode_utf8().ok()?.into_owned();
        (values.next().is_none() && !value.is_empty()).then_some(value)
    };
    if field("state")? != state {
        return None;
    }
    match (field("error"), field("code")) {
        (Some(error), _) => Some(Outcome::Error(error)),
        (None, code) => code.map(|code| Outcome::Code(Secret::new(code))),
    }
}

fn page(ending: Ending) -> String {
    let (title, text) = match ending {
        Ending::SignedIn => (
            "You are signed in",
            "You can close this page and go back to your terminal.",
        ),
        Ending::Refused => (
            "You refused this login",
            "Nobody was signed in. You can close this page and go back to your terminal.",
        ),
        Ending::Failed => (
            "That did not work",
            "Nobody was signed in. Your terminal says why, and what to do now.",
        ),
    };
    include_str!("callback.html")
        .replace("{style}", include_str!("../../shared/style.css"))
        .replace("{title}", title)
        .replace("{text}", text)
}

const PATH: &str = "/callback";

/// The pause between two looks at the port: short to a person, and hardly any CPU.
const PAUSE: Duration = Duration::from_millis(20);

const TICK: Duration = Duration::from_secs(1);

/// Most connections at once; then the oldest is closed. A browser opens a few.
const CONNECTIONS_MAX: usize = 64;

/// Longest request head. A callback has about 1 KiB, and the browser's cookies for 127.0.0.1 may add some.
const HEAD_BYTES_MAX: usize = 64 * 1024;

const HEADERS_MAX: usize = 100;

/// How long the browser may take to read its page.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<Outcome> {
        Some(Outcome::Code(Secret::new(text.to_owned())))
    }

    #[test]
    fn callback_is_a_get_of_one_path_with_the_right_state() {
        for (method, target, expected) in [
            ("GET", "/callback?code=c1&state=s1", code("c1")),
            ("GET", "/callback?state=s1&x&code=c%2B1+2", code("c+1 2")),
            (
                "GET",
                "/callback?error=access_denied&state=s1",
                Some(Outcome::Error("access_denied".to_owned())),
            ),
            ("HEAD", "/callback?code=c1&state=s1", None),
            ("POST", "/callback?code=c1&state=s1", None),
            ("GET", "/callback/?code=c1&state=s1", None),
            ("GET", "/Callback?code=c1&state=s1", None),
            ("GET", "//callback?code=c1&state=s1", None),
            ("GET", "/?code=c1&state=s1", None),
            ("GET", "http://127.0.0.1/callback?code=c1&state=s1", None),
            ("GET", "/callback", None),
            ("GET", "/callback?", None),
            ("GET", "/callback?code=c1", None),
            ("GET", "/callback?code=c1&state=", None),
            ("GET", "/callback?code=c1&state=s2", None),
            ("GET", "/callback?code=c1&state=S1", None),
            ("GET", "/callback?code=c1&state=s1&state=s1", None),
            ("GET", "/callback?code=c1&code=c2&state=s1", None),
            ("GET", "/callback?code=&state=s1", None),
            ("GET", "/callback?code=%ff&state=s1", None),
            ("GET", "/callback?state=s1", None),
        ] {
            assert_eq!(outcome(method, target, "s1"), expected, "{method} {target}");
        }
    }

    #[test]
    fn pages_have_no_placeholder_left() {
        for ending in [Ending::SignedIn, Ending::Refused, Ending::Failed] {
            let page = page(ending);
            for placeholder in ["{style}", "{title}", "{text}"] {
                assert!(!page.contains(placeholder), "{placeholder}");
            }
        }
    }

    /// A clock that passes only while it is slept on.
    struct SimulatedClock(std::cell::Cell<Duration>);

    impl Clock for SimulatedClock {
        fn now(&self) -> Duration {
            self.0.get()
        }
        fn date(&self) -> std::time::SystemTime {
            std::time::SystemTime::UNIX_EPOCH + self.now()
        }
        fn sleep(&self, time: Duration) -> bool {
            self.0.set(self.now() + time);
            true
        }
        fn defer_interrupt(&self, work: &mut dyn FnMut()) {
            work();
        }
    }

    #[test]
    fn wait_ends_after_its_time_and_ticks_each_second() {
        let listener = CallbackListener::bind(0).unwrap();
        let clock = SimulatedClock(Duration::ZERO.into());
        let mut ticks = Vec::new();
        let waited = listener.wait("s1", Duration::from_secs(5), &clock, |left| {
            ticks.push(left)
        });
        assert!(waited.unwrap().is_none());
        assert_eq!(ticks, [5, 4, 3, 2, 1].map(Duration::from_secs));
    }
}
