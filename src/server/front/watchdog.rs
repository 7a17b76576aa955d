//! Answers for handlers that take too long. PostgreSQL can fall silent in the middle of a statement (a frozen machine), and its
//! client library then waits for ever. The thread may wait; the client must not.
//!
//! While a request is open, its connection is kept here. The handler's thread or the watchdog takes it out, and then answers.
//! The watchdog sleeps until the next open request is late, and while none is open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::server::front::request_reader::Framing;
use crate::server::front::stream::Stream;
use crate::server::front::writer;
use crate::server::http::{App, RequestId, Routed};

/// The open requests.
#[derive(Default)]
pub(super) struct Watchdog {
    open: Mutex<Open>,
    sooner: Condvar,
}

#[derive(Default)]
struct Open {
    requests: HashMap<RequestId, OpenRequest>,
    /// When the watchdog looks again; `None`: not before it is woken.
    wakes_at: Option<Instant>,
}

/// A request whose handler runs.
pub(super) struct OpenRequest {
    /// The client.
    pub(super) stream: Stream,
    /// When the client is answered at the latest.
    pub(super) deadline: Instant,
    /// The route, which says how.
    pub(super) routed: Routed,
    pub(super) framing: Framing,
}

/// The handler's way to take its client back.
pub(super) struct OpenHandle<'a> {
    watchdog: &'a Watchdog,
    id: RequestId,
}

impl Watchdog {
    /// Starts the watchdog's thread. It runs until the process ends.
    pub(super) fn start(self: &Arc<Watchdog>, app: Arc<App>) -> std::io::Result<()> {
        let watchdog = Arc::clone(self);
        let watch = move || {
            loop {
                for (id, late) in watchdog.wait_for_late() {
                    // No client's fault may end the watchdog.
                    let _ = catch_unwind(AssertUnwindSafe(|| answer(&app, id, late)));
                }
            }
        };
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(watch)
            .map(drop)
    }

    /// Takes a request into its care.
    pub(super) fn open(&self, id: RequestId, request: OpenRequest) -> OpenHandle<'_> {
        let mut open = self.lock();
        let deadline = request.deadline;
        open.requests.insert(id, request);
        // A wake-up is a system call, and only a watchdog that would sleep too long needs one.
        if open.wakes_at.is_none_or(|wakes_at| deadline < wakes_at) {
            open.wakes_at = Some(deadline);
            self.sooner.notify_one();
        }
        OpenHandle { watchdog: self, id }
    }

    /// Sleeps until requests are late, and takes them out.
    fn wait_for_late(&self) -> Vec<(RequestId, OpenRequest)> {
        let mut open = self.lock();
        loop {
            let now = Instant::now();
            let is_late = |_: &RequestId, request: &mut OpenRequest| request.deadline <= now;
            let late: Vec<_> = open.requests.extract_if(is_late).collect();
            if !late.is_empty() {
                return late;
            }
            open.wakes_at = open.requests.values().map(|request| request.deadline).min();
            open = match open.wakes_at {
                None => self
                    .sooner
                    .wait(open)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(wakes_at) => {
                    let left = wakes_at.saturating_duration_since(now);
                    let waited = self.sooner.wait_timeout(open, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenHandle<'_> {
    /// The client, to be answered by the handler; `None`: the watchdog has answered, or is about to. (After the deadline
    /// nothing of the handler's may be sent: a token's lease may have ended.)
    pub(super) fn close(self) -> Option<Stream> {
        match self.watchdog.lock().requests.entry(self.id) {
            Entry::Occupied(open) if Instant::now() < open.get().deadline => {
                Some(open.remove().stream)
            }
            _ => None,
        }
    }
}

/// Answers a client without waiting for it, and closes.
fn answer(app: &App, id: RequestId, late: OpenRequest) {
    let OpenRequest {
        stream,
        routed,
        framing,
        ..
    } = late;
    if let Ok(bytes) = writer::print(app.timed_out(id, &routed), framing, false) {
        stream.send_without_waiting(&bytes);
    }
}
