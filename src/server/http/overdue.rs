//! Answers in the place of a handler that hangs. PostgreSQL can fall silent in the middle of a statement (a frozen machine),
//! and its client library then waits for ever: what waits must be the worker, never the client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a handler may take before its client is answered in its place.
const HANDLER_TIME_MAX: Duration = Duration::from_secs(2);

/// How often the watch looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One place for each worker, which holds the request that it is at, so that whoever is first can answer it.
pub(super) struct Watch(Vec<Mutex<Option<AtWork>>>);

struct AtWork {
    inner: tiny_http::Request,
    since: Instant,
}

impl Watch {
    /// A watch over so many workers.
    pub(super) fn over(workers: usize) -> Arc<Watch> {
        Arc::new(Watch((0..workers).map(|_| Mutex::default()).collect()))
    }

    /// Starts looking; `answer` is for the requests whose handlers hang. It looks until the process ends.
    pub(super) fn start(
        self: &Arc<Watch>,
        answer: impl Fn(tiny_http::Request) + Send + 'static,
    ) -> std::io::Result<()> {
        let watch = Arc::clone(self);
        let look = move || loop {
            thread::sleep(LOOK_EVERY);
            for place in 0..watch.0.len() {
                if let Some(inner) = watch.take_overdue(place) {
                    answer(inner);
                }
            }
        };
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(look)
            .map(drop)
    }

    /// The worker of this place begins with a request.
    pub(super) fn begin(&self, place: usize, inner: tiny_http::Request) {
        *self.place(place) = Some(AtWork {
            inner,
            since: Instant::now(),
        });
    }

    /// It is done, and may answer; or `None`: that was done in its place.
    pub(super) fn end(&self, place: usize) -> Option<tiny_http::Request> {
        self.place(place).take().map(|at_work| at_work.inner)
    }

    fn take_overdue(&self, place: usize) -> Option<tiny_http::Request> {
        let overdue = |at_work: &mut AtWork| at_work.since.elapsed() > HANDLER_TIME_MAX;
        self.place(place)
            .take_if(overdue)
            .map(|at_work| at_work.inner)
    }

    fn place(&self, place: usize) -> MutexGuard<'_, Option<AtWork>> {
        self.0[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
