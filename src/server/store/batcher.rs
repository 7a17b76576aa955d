//! Batches calls to the store: the calls that arrive while one statement runs share the next one (group commit for starting
//! logins, a single `SELECT` for polls).
//!
//! Leader and followers, without a thread of its own: the leader is a caller that runs the statement for all queued callers.
//! When it is done, the first caller in the queue becomes the leader. A leader that hangs is replaced after a timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::server::store::StoreError;
use crate::server::times::Times;

/// Maximum number of callers in a batch.
const BATCH_MAX: usize = 64;

/// Batches the callers of one operation.
pub(crate) struct Batcher<In, Out> {
    queue: Mutex<Queue<In, Out>>,
    leader_timeout: Duration,
    follower_timeout: Duration,
}

struct Queue<In, Out> {
    /// Callers that are not in a running batch yet, in order of arrival.
    waiting: Vec<(In, Arc<Ticket<Out>>)>,
    leader: Option<Leader>,
    /// The number of the newest leader; leaders are numbered from 1.
    last_leader: u64,
}

struct Leader {
    number: u64,
    since: Instant,
}

/// Where one caller waits for its result.
struct Ticket<Out> {
    progress: Mutex<Progress<Out>>,
    changed: Condvar,
}

enum Progress<Out> {
    Waiting,
    /// The caller has become the leader of this number.
    Lead(u64),
    Done(Result<Out, StoreError>),
}

impl<In, Out> Batcher<In, Out> {
    pub(crate) fn new(times: &Times) -> Batcher<In, Out> {
        Batcher {
            queue: Mutex::new(Queue {
                waiting: Vec::new(),
                leader: None,
                last_leader: 0,
            }),
            leader_timeout: times.leader,
            follower_timeout: times.follower,
        }
    }

    /// Returns the result of `run` for `input`. `run` takes the inputs of a batch and returns a result for each, in order; it
    /// may be called here, or by another caller whose batch includes `input`.
    pub(crate) fn submit(
        &self,
        input: In,
        run: impl Fn(Vec<In>) -> Result<Vec<Out>, StoreError>,
    ) -> Result<Out, StoreError> {
        let deadline = Instant::now() + self.follower_timeout;
        let ticket = Arc::new(Ticket::new());
        let mut lead = self.enqueue(input, &ticket);
        loop {
            if let Some(number) = lead {
                self.lead(number, &run);
            }
            lead = match ticket.wait(self.leader_timeout) {
                Progress::Done(result) => return result,
                Progress::Lead(number) => Some(number),
                Progress::Waiting if Instant::now() < deadline => self.replace_hung_leader(&ticket),
                Progress::Waiting => return self.withdraw(&ticket),
            }
        }
    }

    /// Puts a caller in the queue. `Some`: the caller becomes the leader, since there is none or the leader hangs.
    fn enqueue(&self, input: In, ticket: &Arc<Ticket<Out>>) -> Option<u64> {
        let mut queue = self.queue.lock();
        queue.waiting.push((input, Arc::clone(ticket)));
        queue.new_leader_if_needed(self.leader_timeout)
    }

    /// Makes a follower that has waited long the leader, if it is still in the queue and the leader hangs.
    fn replace_hung_leader(&self, ticket: &Arc<Ticket<Out>>) -> Option<u64> {
        let mut queue = self.queue.lock();
        queue.position(ticket)?;
        queue.new_leader_if_needed(self.leader_timeout)
    }

    /// Takes a follower that reached its deadline out of the queue.
    fn withdraw(&self, ticket: &Arc<Ticket<Out>>) -> Result<Out, StoreError> {
        let mut queue = self.queue.lock();
        if let Some(at) = queue.position(ticket) {
            queue.waiting.remove(at);
        }
        // It may have got its result, or become the leader, just now.
        match ticket.take() {
            Progress::Done(result) => return result,
            Progress::Lead(number) => queue.pass_lead_on(number),
            Progress::Waiting => {}
        }
        Err(timed_out())
    }

    /// Runs one batch of the callers at the head of the queue, and passes the lead on. However the run ends, even by a panic,
    /// each of these callers gets a result, and the queue gets its next leader.
    fn lead(&self, number: u64, run: &impl Fn(Vec<In>) -> Result<Vec<Out>, StoreError>) {
        let mut queue = self.queue.lock();
        let count = queue.waiting.len().min(BATCH_MAX);
        let (inputs, tickets) = queue.waiting.drain(..count).unzip();
        drop(queue);
        let mut batch = Batch {
            batcher: self,
            leader: number,
            tickets,
        };
        let results = run(inputs);
        batch.answer(results);
    }
}

impl<In, Out> Queue<In, Out> {
    /// The number of a new leader; `None` while the present one is within its timeout.
    fn new_leader_if_needed(&mut self, leader_timeout: Duration) -> Option<u64> {
        let leader = self.leader.as_ref();
        leader
            .is_none_or(|leader| leader.since.elapsed() >= leader_timeout)
            .then(|| self.new_leader())
    }

    fn new_leader(&mut self) -> u64 {
        self.last_leader += 1;
        self.leader = Some(Leader {
            number: self.last_leader,
            since: Instant::now(),
        });
        self.last_leader
    }

    /// Called when the leader of this number is done: makes the first caller in the queue the leader. Does nothing if the
    /// leader was replaced.
    fn pass_lead_on(&mut self, number: u64) {
        if self.leader.as_ref().map(|leader| leader.number) != Some(number) {
            return;
        }
        self.leader = None;
        if let Some((_, ticket)) = self.waiting.first() {
            let ticket = Arc::clone(ticket);
            let number = self.new_leader();
            ticket.set(Progress::Lead(number));
        }
    }

    fn position(&self, ticket: &Arc<Ticket<Out>>) -> Option<usize> {
        let mut waiting = self.waiting.iter();
        waiting.position(|(_, queued)| Arc::ptr_eq(queued, ticket))
    }
}

/// The callers whose statement runs. When it is dropped, callers without a result get an error.
struct Batch<'a, In, Out> {
    batcher: &'a Batcher<In, Out>,
    /// The number of the leader that runs it.
    leader: u64,
    tickets: Vec<Arc<Ticket<Out>>>,
}

impl<In, Out> Batch<'_, In, Out> {
    fn answer(&mut self, results: Result<Vec<Out>, StoreError>) {
        let mut results = results.map(Vec::into_iter);
        for ticket in self.tickets.drain(..) {
            ticket.set(Progress::Done(match &mut results {
                // Fewer results than callers: an error rather than another caller's result.
                Ok(results) => results.next().ok_or_else(timed_out),
                Err(error) => Err(error.clone()),
            }));
        }
    }
}

impl<In, Out> Drop for Batch<'_, In, Out> {
    fn drop(&mut self) {
        self.batcher.queue.lock().pass_lead_on(self.leader);
        for ticket in self.tickets.drain(..) {
            ticket.set(Progress::Done(Err(timed_out())));
        }
    }
}

impl<Out> Ticket<Out> {
    fn new() -> Ticket<Out> {
        Ticket {
            progress: Mutex::new(Progress::Waiting),
            changed: Condvar::new(),
        }
    }

    fn set(&self, progress: Progress<Out>) {
        *self.progress.lock() = progress;
        self.changed.notify_one();
    }

    /// Waits up to `timeout` for a change, and takes it.
    fn wait(&self, timeout: Duration) -> Progress<Out> {
        let is_waiting = |progress: &mut Progress<Out>| matches!(progress, Progress::Waiting);
        let mut progress = self.progress.lock();
        self.changed
            .wait_while_for(&mut progress, is_waiting, timeout);
        std::mem::replace(&mut *progress, Progress::Waiting)
    }

    fn take(&self) -> Progress<Out> {
        std::mem::replace(&mut *self.progress.lock(), Progress::Waiting)
    }
}

fn timed_out() -> StoreError {
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
    fn caller_gets_its_own_result() {
        let (batcher, runs) = (Batcher::new(&Times::DEFAULT), AtomicUsize::new(0));
        let run = |inputs: Vec<u32>| {
            runs.fetch_add(1, Ordering::SeqCst);
            assert!(inputs.len() <= BATCH_MAX);
            thread::sleep(Duration::from_millis(1));
            doubled(inputs)
        };
        thread::scope(|scope| {
            for input in 0..200 {
                let (batcher, run) = (&batcher, &run);
                scope.spawn(move || assert_eq!(batcher.submit(input, run), Ok(2 * input)));
            }
        });
        assert!(runs.load(Ordering::SeqCst) <= 200);
        assert!(batcher.queue.lock().leader.is_none() && batcher.queue.lock().waiting.is_empty());
    }

    #[test]
    fn callers_that_arrive_during_a_run_share_the_next_one() {
        let (batcher, (go, wait)) = (Batcher::new(&Times::DEFAULT), mpsc::channel::<()>());
        let (wait, sizes) = (Mutex::new(wait), Mutex::new(Vec::new()));
        let run = |inputs: Vec<u32>| {
            sizes.lock().push(inputs.len());
            if inputs.contains(&1_000) {
                wait.lock().recv().unwrap();
            }
            doubled(inputs)
        };
        thread::scope(|scope| {
            scope.spawn(|| batcher.submit(1_000, run));
            while sizes.lock().is_empty() {
                thread::yield_now();
            }
            for input in 0..10 {
                let (batcher, run) = (&batcher, &run);
                scope.spawn(move || assert_eq!(batcher.submit(input, run), Ok(2 * input)));
            }
            while batcher.queue.lock().waiting.len() < 10 {
                thread::yield_now();
            }
            go.send(()).unwrap();
        });
        assert_eq!(*sizes.lock(), [1, 10]);
    }

    #[test]
    fn errors_and_missing_results_reach_the_callers_of_the_batch() {
        let batcher = Batcher::<u32, u32>::new(&Times::DEFAULT);
        let failed = StoreError::Unavailable("gone".to_owned());
        assert_eq!(
            batcher.submit(1, |_| Err(failed.clone())),
            Err(failed.clone())
        );
        let started = Instant::now();
        assert_eq!(batcher.submit(1, |_| Ok(Vec::new())), Err(timed_out()));
        assert!(
            started.elapsed() < Times::DEFAULT.follower,
            "the error comes at once"
        );
        assert_eq!(batcher.submit(1, doubled), Ok(2));
    }

    #[test]
    fn leader_that_panics_is_replaced() {
        let batcher = Batcher::<u32, u32>::new(&Times::DEFAULT);
        thread::scope(|scope| {
            let panicking = scope.spawn(|| batcher.submit(1, |_| panic!("a bug")));
            assert!(panicking.join().is_err());
        });
        assert_eq!(batcher.submit(2, doubled), Ok(4));
    }

    #[test]
    fn leader_that_hangs_is_replaced_and_its_followers_time_out() {
        let (batcher, (go, wait)) = (Batcher::new(&Times::DEFAULT), mpsc::channel::<()>());
        let wait = Mutex::new(wait);
        let hang = |inputs: Vec<u32>| {
            wait.lock().recv().unwrap();
            doubled(inputs)
        };
        thread::scope(|scope| {
            let hanging = scope.spawn(|| batcher.submit(1, hang));
            while batcher.queue.lock().leader.is_none() {
                thread::yield_now();
            }
            let started = Instant::now();
            assert_eq!(batcher.submit(2, doubled), Ok(4), "after a wait");
            assert!(started.elapsed() >= Times::DEFAULT.leader - Duration::from_millis(50));
            assert_eq!(batcher.submit(3, doubled), Ok(6), "at once");
            go.send(()).unwrap();
            assert_eq!(
                hanging.join().unwrap(),
                Ok(2),
                "it still gets its own result"
            );
        });
        assert!(batcher.queue.lock().leader.is_none());
    }
}
