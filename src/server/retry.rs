//! Retries a failing operation.

use std::thread;
use std::time::{Duration, Instant};

/// Runs `operation` until it succeeds, or fails after `deadline`, with a pause between two tries.
pub(super) fn until<T, E>(
    deadline: Instant,
    pause: Duration,
    mut operation: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        match operation() {
            Err(_) if Instant::now() <= deadline => thread::sleep(pause),
            result => return result,
        }
    }
}
