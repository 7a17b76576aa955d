//! The progress of an upload: one line that changes in place on a terminal, and nothing elsewhere.

use std::time::Duration;

use crate::cli::context::Clock;
use crate::cli::output::Output;

/// The progress of one upload, shown about five times a second.
pub(crate) struct Progress<'a> {
    output: &'a mut Output,
    clock: &'a dyn Clock,
    shown: &'a str,
    length: Option<u64>,
    sent: u64,
    started: Duration,
    shown_last: Duration,
}

impl<'a> Progress<'a> {
    /// Begins the upload of the file `shown`, of `length` bytes where that is known.
    pub(crate) fn new(
        output: &'a mut Output,
        clock: &'a dyn Clock,
        shown: &'a str,
        length: Option<u64>,
    ) -> Progress<'a> {
        let now = clock.now();
        output.line_in_place(&format!("Connecting …  {shown}"));
        Progress {
            output,
            clock,
            shown,
            length,
            sent: 0,
            started: now,
            shown_last: now,
        }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn add(&mut self, count: u64) {
        self.sent += count;
        if self.length == Some(self.sent) {
            return self.all_sent();
        }
        let now = self.clock.now();
        if self.output.can_change_lines() && now >= self.shown_last + PROGRESS_EVERY {
            self.shown_last = now;
            let line = progress_line(self.sent, self.length, now - self.started);
            self.output
                .line_in_place(&format!("{line}  {}", self.shown));
        }
    }

    /// All bytes have been sent. The answer may take long, since Postiz stores the file first.
    pub(crate) fn all_sent(&mut self) {
        let line = format!("All sent; waiting for the answer …  {}", self.shown);
        self.output.waiting(&line);
    }
}

/// `[█████     ]  50 %  1.0 GB of 2.0 GB  85.2 MB/s  0:12 left`
fn progress_line(sent: u64, length: Option<u64>, elapsed: Duration) -> String {
    let rate = sent as f64 / elapsed.as_secs_f64().max(0.001);
    let speed = format!("{}/s", bytes(rate as u64));
    let Some(length) = length else {
        return format!("{} sent  {speed}", bytes(sent));
    };
    let part = sent as f64 / length as f64;
    let bar = "█".repeat((part * 10.0) as usize);
    let left = ((length - sent) as f64 / rate.max(1.0)) as u64;
    let (percent, sent, length) = (part * 100.0, bytes(sent), bytes(length));
    let (minutes, seconds) = (left / 60, left % 60);
    format!("[{bar:10}] {percent:3.0} %  {sent} of {length}  {speed}  {minutes}:{seconds:02} left")
}

/// `1.5 MB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if value < 999.95 {
            let digits = usize::from(unit != "bytes");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

const PROGRESS_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_short_line() {
        let line = progress_line(1_000_000_000, Some(2_000_000_000), Duration::from_secs(10));
        assert_eq!(
            line,
            "[█████     ]  50 %  1.0 GB of 2.0 GB  100.0 MB/s  0:10 left"
        );
        assert_eq!(
            progress_line(999, None, Duration::from_secs(1)),
            "999 bytes sent  999 bytes/s"
        );
        assert_eq!(bytes(999_999), "1.0 MB");
    }
}
