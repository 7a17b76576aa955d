//! Retries a failing operation.

use std::thread;
use std::time::{Duration, Instant};

/// Runs `operation` until it succeeds, with a pause between two tries. Returns its error if it fails after `deadline`.
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
