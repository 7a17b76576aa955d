//! Answers in the place of a handler that hangs. PostgreSQL can fall silent in the middle of a statement (a frozen machine),
//! and its client library then waits for ever: what waits must be the worker, never the client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the watch looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Most workers, when all of them are held up or hang.
const WORKERS_MAX: usize = 256;

/// Knows what every worker is at.
#[derive(Default)]
pub(super) struct Watch {
    places: Mutex<Vec<Arc<Place>>>,
    /// Held by every place: counts the workers, those that hang and are not waited for any more included.
    counted: Arc<()>,
}

/// One worker's place: it holds the request that the worker is at, so that whoever is first can answer it.
pub(super) struct Place {
    at_work: Mutex<Option<AtWork>>,
    _counted: Arc<()>,
}

struct AtWork {
    inner: tiny_http::Request,
    since: Instant,
    patience: Duration,
}

impl Watch {
    /// A place for one more worker.
    pub(super) fn place(&self) -> Arc<Place> {
        let (at_work, _counted) = (Mutex::default(), Arc::clone(&self.counted));
        let place = Arc::new(Place { at_work, _counted });
        self.places().push(Arc::clone(&place));
        place
    }

    /// Looks, for as long as the process runs. `instead` answers the request of a worker that hangs; the worker is not
    /// waited for any more, and leaves when it can. `hire` is asked for one in its place, and for as many again as there
    /// are when all are held up: a request that needs no store must not wait for those that do.
    pub(super) fn look(&self, instead: impl Fn(tiny_http::Request), hire: impl Fn()) {
        loop {
            thread::sleep(LOOK_EVERY);
            let mut overdue = Vec::new();
            let mut places = self.places();
            places.retain(|place| match place.take_overdue() {
                Some(inner) => {
                    overdue.push(inner);
                    false
                }
                None => true,
            });
            let held_up = places.iter().all(|place| place.is_held_up());
            let more = if held_up { places.len() } else { 0 };
            let hired = (overdue.len() + more).min(WORKERS_MAX.saturating_sub(self.count()));
            drop(places);
            overdue.into_iter().for_each(&instead);
            (0..hired).for_each(|_| hire());
        }
    }

    /// A worker has had nothing to do: true when it may leave, since there are more than `enough` without it.
    pub(super) fn may_leave(&self, place: &Arc<Place>, enough: usize) -> bool {
        let mut places = self.places();
        let spare = places.len() > enough;
        if spare {
            places.retain(|other| !Arc::ptr_eq(other, place));
        }
        spare
    }

    fn places(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        Arc::strong_count(&self.counted) - 1
    }
}

impl Place {
    /// The worker begins with a request, which is answered in its place when that takes longer than `patience`.
    pub(super) fn begin(&self, inner: tiny_http::Request, patience: Duration) {
        *self.at_work() = Some(AtWork {
            inner,
            since: Instant::now(),
            patience,
        });
    }

    /// It is done, and may answer; or `None`: that was done in its place, and the place is no more.
    pub(super) fn end(&self) -> Option<tiny_http::Request> {
        self.at_work().take().map(|at_work| at_work.inner)
    }

    /// Has its worker been at one request for longer than most take?
    fn is_held_up(&self) -> bool {
        self.at_work()
            .as_ref()
            .is_some_and(|at_work| at_work.since.elapsed() > LOOK_EVERY)
    }

    fn take_overdue(&self) -> Option<tiny_http::Request> {
        let overdue = |at_work: &mut AtWork| at_work.since.elapsed() > at_work.patience;
        self.at_work().take_if(overdue).map(|at_work| at_work.inner)
    }

    fn at_work(&self) -> MutexGuard<'_, Option<AtWork>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
