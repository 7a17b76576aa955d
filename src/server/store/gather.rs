//! Gathers callers: those that arrive while a statement runs are answered by the next one together (group commit for logins
//! that start, one look-up for polls). Leader and followers, no thread of its own: the first caller leads and runs the
//! statement for all that wait; then the first of those who came meanwhile leads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::server::store::StoreError;
use crate::server::times::Times;

/// Most callers that one statement answers.
const BATCH_MAX: usize = 64;

/// Gathers callers of one operation.
pub(crate) struct Gather<In, Out> {
    state: Mutex<State<In, Out>>,
    leader_timeout: Duration,
    follower_timeout: Duration,
}

struct State<In, Out> {
    /// Callers whose statement has not begun, in order.
    queue: Vec<(In, Arc<Ticket<Out>>)>,
    leader: Option<Leader>,
    /// How many leaders there have been.
    leaders: u64,
}

struct Leader {
    number: u64,
    since: Instant,
}

/// One caller's place, where its result is put.
struct Ticket<Out> {
    turn: Mutex<Turn<Out>>,
    changed: Condvar,
}

enum Turn<Out> {
    Waiting,
    /// The caller is to lead, under this number.
    Lead(u64),
    Done(Result<Out, StoreError>),
}

impl<In, Out> Gather<In, Out> {
    pub(crate) fn new(times: &Times) -> Gather<In, Out> {
        Gather {
            state: Mutex::new(State {
                queue: Vec::new(),
                leader: None,
                leaders: 0,
            }),
            leader_timeout: times.leader,
            follower_timeout: times.follower,
        }
    }

    /// The result of `run` for `input`, perhaps by another caller's run. `run` gives a result for each input, in order.
    pub(crate) fn ask(
        &self,
        input: In,
        run: impl Fn(Vec<In>) -> Result<Vec<Out>, StoreError>,
    ) -> Result<Out, StoreError> {
        let give_up = Instant::now() + self.follower_timeout;
        let ticket = Arc::new(Ticket::new());
        let mut lead = self.enqueue(input, &ticket);
        loop {
            if let Some(number) = lead {
                self.lead(number, &run);
            }
            lead = match ticket.wait(self.leader_timeout) {
                Turn::Done(result) => return result,
                Turn::Lead(number) => Some(number),
                Turn::Waiting if Instant::now() < give_up => self.replace_hung_leader(&ticket),
                Turn::Waiting => return self.withdraw(&ticket),
            }
        }
    }

    /// Puts a caller in the queue. `Some`: it is to lead, since nobody does, or the leader hangs.
    fn enqueue(&self, input: In, ticket: &Arc<Ticket<Out>>) -> Option<u64> {
        let mut state = self.state();
        state.queue.push((input, Arc::clone(ticket)));
        state.leads_anew(self.leader_timeout)
    }

    /// A follower has waited for long: it is to lead if its statement has not begun and the leader hangs.
    fn replace_hung_leader(&self, ticket: &Arc<Ticket<Out>>) -> Option<u64> {
        let mut state = self.state();
        match state.position(ticket) {
            Some(_) => state.leads_anew(self.leader_timeout),
            None => None,
        }
    }

    /// A follower gives up.
    fn withdraw(&self, ticket: &Arc<Ticket<Out>>) -> Result<Out, StoreError> {
        let mut state = self.state();
        if let Some(at) = state.position(ticket) {
            state.queue.remove(at);
        }
        // Its turn may have come just now.
        match ticket.take() {
            Turn::Done(result) => return result,
            Turn::Lead(number) => state.pass_on(number),
            Turn::Waiting => {}
        }
        Err(silent())
    }

    /// Runs one statement for the callers at the head of the queue, and passes the lead on. Whatever ends it, a panic
    /// included, each of them has a result afterwards, and somebody leads.
    fn lead(&self, number: u64, run: &impl Fn(Vec<In>) -> Result<Vec<Out>, StoreError>) {
        let mut state = self.state();
        let count = state.queue.len().min(BATCH_MAX);
        let (inputs, tickets) = state.queue.drain(..count).unzip();
        drop(state);
        let mut batch = Batch {
            gather: self,
            number,
            tickets,
        };
        let results = run(inputs);
        batch.answer(results);
    }

    fn state(&self) -> MutexGuard<'_, State<In, Out>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<In, Out> State<In, Out> {
    /// The number of a new leader, if one is needed.
    fn leads_anew(&mut self, leader_timeout: Duration) -> Option<u64> {
        let leader = self.leader.as_ref();
        leader
            .is_none_or(|leader| leader.since.elapsed() >= leader_timeout)
            .then(|| self.new_leader())
    }

    fn new_leader(&mut self) -> u64 {
        self.leaders += 1;
        self.leader = Some(Leader {
            number: self.leaders,
            since: Instant::now(),
        });
        self.leaders
    }

    /// The leader of this number is done: the first in the queue leads, if there is one. A leader that was replaced passes
    /// nothing on.
    fn pass_on(&mut self, number: u64) {
        if self.leader.as_ref().map(|leader| leader.number) != Some(number) {
            return;
        }
        self.leader = None;
        if let Some((_, ticket)) = self.queue.first() {
            let ticket = Arc::clone(ticket);
            let number = self.new_leader();
            ticket.give(Turn::Lead(number));
        }
    }

    fn position(&self, ticket: &Arc<Ticket<Out>>) -> Option<usize> {
        let mut queue = self.queue.iter();
        queue.position(|(_, queued)| Arc::ptr_eq(queued, ticket))
    }
}

/// The callers that one statement answers.
struct Batch<'a, In, Out> {
    gather: &'a Gather<In, Out>,
    number: u64,
    tickets: Vec<Arc<Ticket<Out>>>,
}

impl<In, Out> Batch<'_, In, Out> {
    fn answer(&mut self, results: Result<Vec<Out>, StoreError>) {
        let mut results = results.map(Vec::into_iter);
        for ticket in self.tickets.drain(..) {
            ticket.give(Turn::Done(match &mut results {
                // Fewer results than callers: an error, rather than another caller's result.
                Ok(results) => results.next().ok_or_else(silent),
                Err(error) => Err(error.clone()),
            }));
        }
    }
}

impl<In, Out> Drop for Batch<'_, In, Out> {
    fn drop(&mut self) {
        self.gather.state().pass_on(self.number);
        for ticket in self.tickets.drain(..) {
            ticket.give(Turn::Done(Err(silent())));
        }
    }
}

impl<Out> Ticket<Out> {
    fn new() -> Ticket<Out> {
        Ticket {
            turn: Mutex::new(Turn::Waiting),
            changed: Condvar::new(),
        }
    }

    fn give(&self, turn: Turn<Out>) {
        *self.turn() = turn;
        self.changed.notify_one();
    }

    /// What became of it within `timeout`.
    fn wait(&self, timeout: Duration) -> Turn<Out> {
        let is_waiting = |turn: &mut Turn<Out>| matches!(turn, Turn::Waiting);
        let waited = self
            .changed
            .wait_timeout_while(self.turn(), timeout, is_waiting);
        let mut turn = waited.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::replace(&mut *turn, Turn::Waiting)
    }

    fn take(&self) -> Turn<Out> {
        std::mem::replace(&mut *self.turn(), Turn::Waiting)
    }

    fn turn(&self) -> MutexGuard<'_, Turn<Out>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn silent() -> StoreError {
    StoreError::Unavailable("no answer in time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    fn doubled(inputs: Vec<u32>) -> Result<Vec<u32>, StoreError> {
        Ok(inputs.into_iter().map(|input| 2 * input).collect())
    }

    #[test]
    fn each_caller_gets_its_own_result() {
        let (gather, runs) = (Gather::new(&Times::DEFAULT), AtomicUsize::new(0));
        let run = |inputs: Vec<u32>| {
            runs.fetch_add(1, Ordering::SeqCst);
            assert!(inputs.len() <= BATCH_MAX);
            thread::sleep(Duration::from_millis(1));
            doubled(inputs)
        };
        thread::scope(|scope| {
            for input in 0..200 {
                let (gather, run) = (&gather, &run);
                scope.spawn(move || assert_eq!(gather.ask(input, run), Ok(2 * input)));
            }
        });
        assert!(runs.load(Ordering::SeqCst) <= 200);
        assert!(gather.state().leader.is_none() && gather.state().queue.is_empty());
    }

    #[test]
    fn callers_that_come_meanwhile_share_the_next_run() {
        let (gather, (go, wait)) = (Gather::new(&Times::DEFAULT), mpsc::channel::<()>());
        let (wait, sizes) = (Mutex::new(wait), Mutex::new(Vec::new()));
        let run = |inputs: Vec<u32>| {
            sizes.lock().unwrap().push(inputs.len());
            if inputs.contains(&1_000) {
                wait.lock().unwrap().recv().unwrap();
            }
            doubled(inputs)
        };
        thread::scope(|scope| {
            scope.spawn(|| gather.ask(1_000, run));
            while sizes.lock().unwrap().is_empty() {
                thread::yield_now();
            }
            for input in 0..10 {
                let (gather, run) = (&gather, &run);
                scope.spawn(move || assert_eq!(gather.ask(input, run), Ok(2 * input)));
            }
            while gather.state().queue.len() < 10 {
                thread::yield_now();
            }
            go.send(()).unwrap();
        });
        assert_eq!(*sizes.lock().unwrap(), [1, 10]);
    }

    #[test]
    fn errors_and_missing_results_are_told_to_those_they_concern() {
        let gather = Gather::<u32, u32>::new(&Times::DEFAULT);
        let failed = StoreError::Unavailable("gone".to_owned());
        assert_eq!(gather.ask(1, |_| Err(failed.clone())), Err(failed.clone()));
        let started = Instant::now();
        assert_eq!(gather.ask(1, |_| Ok(Vec::new())), Err(silent()));
        assert!(
            started.elapsed() < Times::DEFAULT.follower,
            "it is told at once"
        );
        assert_eq!(gather.ask(1, doubled), Ok(2));
    }

    #[test]
    fn leader_that_panics_is_replaced() {
        let gather = Gather::<u32, u32>::new(&Times::DEFAULT);
        thread::scope(|scope| {
            let panicking = scope.spawn(|| gather.ask(1, |_| panic!("a bug")));
            assert!(panicking.join().is_err());
        });
        assert_eq!(gather.ask(2, doubled), Ok(4));
    }

    #[test]
    fn leader_that_hangs_is_replaced_and_its_followers_time_out() {
        let (gather, (go, wait)) = (Gather::new(&Times::DEFAULT), mpsc::channel::<()>());
        let wait = Mutex::new(wait);
        let hang = |inputs: Vec<u32>| {
            wait.lock().unwrap().recv().unwrap();
            doubled(inputs)
        };
        thread::scope(|scope| {
            let hanging = scope.spawn(|| gather.ask(1, hang));
            while gather.state().leader.is_none() {
                thread::yield_now();
            }
            let started = Instant::now();
            assert_eq!(gather.ask(2, doubled), Ok(4), "after a wait");
            assert!(started.elapsed() >= Times::DEFAULT.leader - Duration::from_millis(50));
            assert_eq!(gather.ask(3, doubled), Ok(6), "at once");
            go.send(()).unwrap();
            assert_eq!(hanging.join().unwrap(), Ok(2), "it was answered after all");
        });
        assert!(gather.state().leader.is_none());
    }
}
