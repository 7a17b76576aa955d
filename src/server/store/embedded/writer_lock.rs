//! The lock under which the embedded store writes.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::server::store::StoreError;

/// Admits one writer at a time, as redb's own lock does. But a writer does not wait for ever if another one hangs because the
/// disk does not answer.
pub(super) struct WriterLock {
    state: Mutex<LockState>,
    freed: Condvar,
    timeout: Duration,
}

struct LockState {
    is_held: bool,
    /// When the lock was last acquired or released. While that goes on, the disk answers, however many writers wait.
    last_activity: Instant,
}

/// Holds the lock until it is dropped.
pub(super) struct WriterGuard<'a>(&'a WriterLock);

impl WriterLock {
    pub(super) fn new(timeout: Duration) -> WriterLock {
        WriterLock {
            state: Mutex::new(LockState {
                is_held: false,
                last_activity: Instant::now(),
            }),
            freed: Condvar::new(),
            timeout,
        }
    }

    /// Waits for the lock. Fails if it is neither acquired nor released by any writer within the timeout.
    pub(super) fn acquire(&self) -> Result<WriterGuard<'_>, StoreError> {
        let mut state = self.state.lock();
        while state.is_held {
            let left = self.timeout.saturating_sub(state.last_activity.elapsed());
            if left.is_zero() {
                let silent = "the disk does not answer".to_owned();
                return Err(StoreError::Unavailable(silent));
            }
            self.freed.wait_for(&mut state, left);
        }
        state.is_held = true;
        state.last_activity = Instant::now();
        Ok(WriterGuard(self))
    }
}

impl Drop for WriterGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_held = false;
        state.last_activity = Instant::now();
        self.0.freed.notify_one();
    }
}
