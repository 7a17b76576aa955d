//! Answers in the place of a handler that hangs. PostgreSQL can fall silent in the middle of a statement (a frozen machine),
//! and its client library then waits for ever: what waits must be the thread, never the client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often the watch looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Most receivers, when all of them are held up or hang.
const RECEIVERS_MAX: usize = 256;

/// Knows what every thread that answers is at.
#[derive(Default)]
pub(super) struct Watch(Mutex<Vec<Weak<Place>>>);

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes requests from tiny_http; without any, nobody is served.
    Receiver,
    /// It answers one request.
    Aside,
}

/// One thread's place: it holds the requests that the thread is at, so that whoever is first can answer them.
pub(super) struct Place {
    role: Role,
    state: Mutex<State>,
}

enum State {
    Idle,
    AtWork {
        inners: Vec<tiny_http::Request>,
        since: Instant,
        patience: Duration,
    },
    /// Its requests were answered in its place, or it has left: it is not waited for any more.
    Lost,
}

impl Watch {
    /// A place for one more thread, which gives it up by dropping it.
    pub(super) fn place(&self, role: Role) -> Arc<Place> {
        let state = Mutex::new(State::Idle);
        let place = Arc::new(Place { role, state });
        self.places().push(Arc::downgrade(&place));
        place
    }

    /// Looks, for as long as the process runs. `instead` answers a request of a thread that hangs; the thread is not
    /// waited for any more, and ends when it can. `hire` is asked for a receiver in its place, and for as many again as there
    /// are when all are held up: a request that needs no store must not wait for those that do.
    pub(super) fn look(&self, instead: impl Fn(tiny_http::Request), hire: impl Fn()) {
        loop {
            thread::sleep(LOOK_EVERY);
            let places = self.present();
            let mut overdue = Vec::new();
            let mut lost = 0;
            for place in &places {
                if let Some(inners) = place.take_overdue() {
                    overdue.extend(inners);
                    lost += usize::from(place.role == Role::Receiver);
                }
            }
            overdue.into_iter().for_each(&instead);
            let receivers = || places.iter().filter(|place| place.role == Role::Receiver);
            let working: Vec<_> = receivers().filter(|place| !place.is_lost()).collect();
            let held_up = working.iter().all(|place| place.is_held_up());
            // One at least: hiring the last one may have failed.
            let more = lost + if held_up { working.len().max(1) } else { 0 };
            let hired = more.min(RECEIVERS_MAX.saturating_sub(receivers().count()));
            drop(places);
            (0..hired).for_each(|_| hire());
        }
    }

    /// A receiver has had nothing to do: true when it is to leave, since another one stays.
    pub(super) fn may_leave(&self, place: &Arc<Place>) -> bool {
        let places = self.places();
        let stays = |other: Arc<Place>| {
            other.role == Role::Receiver && !Arc::ptr_eq(&other, place) && !other.is_lost()
        };
        let spare = places.iter().filter_map(Weak::upgrade).any(stays);
        if spare {
            *place.state() = State::Lost;
        }
        spare
    }

    /// The places of the threads that have not ended; forgets those that have.
    fn present(&self) -> Vec<Arc<Place>> {
        let mut present = Vec::new();
        self.places().retain(|place| {
            let place = place.upgrade();
            let is_present = place.is_some();
            present.extend(place);
            is_present
        });
        present
    }

    fn places(&self) -> MutexGuard<'_, Vec<Weak<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The thread begins with requests, which are answered in its place when that takes longer than `patience`.
    pub(super) fn begin(&self, inners: Vec<tiny_http::Request>, patience: Duration) {
        *self.state() = State::AtWork {
            inners,
            since: Instant::now(),
            patience,
        };
    }

    /// It is done, and may answer them; or `None`: that was done in its place, and it is to end.
    pub(super) fn end(&self) -> Option<Vec<tiny_http::Request>> {
        self.take_inners(State::Idle, |_, _| true)
    }

    /// The same of a thread that is at one request.
    pub(super) fn end_one(&self) -> Option<tiny_http::Request> {
        self.end()?.pop()
    }

    /// The requests of a thread that is overdue, and now lost.
    fn take_overdue(&self) -> Option<Vec<tiny_http::Request>> {
        self.take_inners(State::Lost, |since, patience| since.elapsed() > patience)
    }

    fn take_inners(
        &self,
        then: State,
        is_due: impl FnOnce(Instant, Duration) -> bool,
    ) -> Option<Vec<tiny_http::Request>> {
        let mut state = self.state();
        match &*state {
            State::AtWork {
                since, patience, ..
            } if is_due(*since, *patience) => {}
            _ => return None,
        }
        match std::mem::replace(&mut *state, then) {
            State::AtWork { inners, .. } => Some(inners),
            _ => None,
        }
    }

    /// Has its thread been at the same requests for longer than most take?
    fn is_held_up(&self) -> bool {
        matches!(&*self.state(), State::AtWork { since, .. } if since.elapsed() > LOOK_EVERY)
    }

    fn is_lost(&self) -> bool {
        matches!(&*self.state(), State::Lost)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
