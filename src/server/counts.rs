//! Counts of requests and their durations, for the metrics. All routes and outcomes are known at compile time: a client cannot
//! add one.

use std::time::Duration;

use parking_lot::Mutex;

/// Counts of requests by route and outcome.
#[derive(Default)]
pub(crate) struct RequestCounts(Mutex<Counts>);

/// As lists, which for so few entries need less code than maps, and are as fast.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) by_outcome: Vec<((&'static str, Outcome), u64)>,
    pub(crate) durations: Vec<(&'static str, Histogram)>,
}

/// How a request ended: its status (0: none) and its result or reason (empty: none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) result: &'static str,
}

impl RequestCounts {
    pub(crate) fn add(&self, route: &'static str, outcome: Outcome, duration: Duration) {
        let mut counts = self.0.lock();
        *entry(&mut counts.by_outcome, (route, outcome)) += 1;
        entry(&mut counts.durations, route).add(duration);
    }

    pub(crate) fn read(&self) -> Counts {
        let counts = self.0.lock();
        counts.clone()
    }
}

/// The value of `key`, which is added if it is missing.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let found = list.iter().position(|(known, _)| *known == key);
    let at = found.unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[at].1
}

/// Upper bounds of the buckets, in microseconds and in seconds; the last bucket has no bound. A poll takes less than 1 ms, a
/// commit to a disk 5 to 50 ms, and a request to Postiz up to 10 s.
pub(crate) const BUCKETS: [(u64, &str); 11] = [
    (1_000, "0.001"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
];

/// Durations of requests, in buckets.
#[derive(Clone, Default)]
pub(crate) struct Histogram {
    /// Each request counts in one bucket.
    pub(crate) counts: [u64; BUCKETS.len() + 1],
    pub(crate) sum_us: u64,
}

impl Histogram {
    fn add(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(most, _)| us <= *most);
        self.counts[bucket.unwrap_or(BUCKETS.len())] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_bounds_are_the_same_in_both_units() {
        for (us, seconds) in BUCKETS {
            assert_eq!(seconds.parse::<f64>().unwrap() * 1e6, us as f64);
        }
    }
}
