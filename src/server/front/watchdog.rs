//! Answers 503 for handlers that exceed their timeout. PostgreSQL can stop responding in the middle of a statement (a frozen
//! machine), and its client library then blocks for ever. The handler's thread stays blocked, but the client gets an answer.
//!
//! While a handler runs, the watchdog keeps the client's stream. Whichever of the two takes it out writes the answer. The
//! watchdog's thread sleeps until the earliest deadline.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::server::front::head::Framing;
use crate::server::front::stream::Stream;
use crate::server::front::writer;
use crate::server::http::{App, RequestId, Routed};
use crate::server::spawn;

/// The requests whose handlers run.
#[derive(Default)]
pub(super) struct Watchdog {
    open: Mutex<Open>,
    /// A request came whose deadline is earlier than `wakes_at`.
    earlier_deadline: Condvar,
}

#[derive(Default)]
struct Open {
    requests: HashMap<RequestId, OpenRequest>,
    /// Until when the watchdog's thread sleeps; `None`: until it is woken.
    wakes_at: Option<Instant>,
}

/// A request whose handler runs.
pub(super) struct OpenRequest {
    pub(super) stream: Stream,
    /// The client's address, for the log.
    pub(super) client: IpAddr,
    pub(super) deadline: Instant,
    pub(super) routed: Routed,
    pub(super) framing: Framing,
}

/// By which the handler's thread gets the stream back.
pub(super) struct WatchedRequest<'a> {
    watchdog: &'a Watchdog,
    id: RequestId,
}

impl Watchdog {
    /// Starts the watchdog's thread. It runs until the process ends.
    pub(super) fn start(self: &Arc<Watchdog>, app: Arc<App>) -> std::io::Result<()> {
        let watchdog = Arc::clone(self);
        let watch = move || {
            loop {
                for (id, request) in watchdog.take_timed_out() {
                    // A panic must not end the watchdog.
                    let _ = catch_unwind(AssertUnwindSafe(|| answer(&app, id, request)));
                }
            }
        };
        spawn("watchdog", watch)
    }

    /// Keeps the stream of a request whose handler is about to run.
    pub(super) fn watch(&self, id: RequestId, request: OpenRequest) -> WatchedRequest<'_> {
        let mut open = self.open.lock();
        let deadline = request.deadline;
        open.requests.insert(id, request);
        // A wake-up is a system call, so it is left out when the thread wakes early enough anyway.
        if open.wakes_at.is_none_or(|wakes_at| deadline < wakes_at) {
            open.wakes_at = Some(deadline);
            self.earlier_deadline.notify_one();
        }
        WatchedRequest { watchdog: self, id }
    }

    /// Sleeps until at least one request is past its deadline, and takes such requests out.
    fn take_timed_out(&self) -> Vec<(RequestId, OpenRequest)> {
        let mut open = self.open.lock();
        loop {
            let now = Instant::now();
            let is_past_deadline =
                |_: &RequestId, request: &mut OpenRequest| request.deadline <= now;
            let timed_out: Vec<_> = open.requests.extract_if(is_past_deadline).collect();
            if !timed_out.is_empty() {
                return timed_out;
            }
            open.wakes_at = open.requests.values().map(|request| request.deadline).min();
            match open.wakes_at {
                None => self.earlier_deadline.wait(&mut open),
                Some(wakes_at) => {
                    self.earlier_deadline.wait_until(&mut open, wakes_at);
                }
            }
        }
    }
}

impl WatchedRequest<'_> {
    /// The stream, for the handler's answer; `None`: the watchdog has answered, or is about to. After the deadline the handler's
    /// answer must not be sent, since the lease of its token may have ended.
    pub(super) fn take_stream(self) -> Option<Stream> {
        match self.watchdog.open.lock().requests.entry(self.id) {
            Entry::Occupied(open) if Instant::now() < open.get().deadline => {
                Some(open.remove().stream)
            }
            _ => None,
        }
    }
}

/// Answers a client without blocking, and closes.
fn answer(app: &App, id: RequestId, request: OpenRequest) {
    let reply = app.timed_out(id, request.client, &request.routed);
    if let Ok(bytes) = writer::print(reply, request.framing, false) {
        request.stream.send_without_blocking(&bytes);
    }
}
