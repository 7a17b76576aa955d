//! Counts of requests, and how long they took. All labels are known when the program is compiled: what a client sends never
//! becomes one, so there are no more series than routes and outcomes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::server::metrics::text::Text;

/// Counts of requests by route and outcome.
#[derive(Default)]
pub(crate) struct RequestCounts(Mutex<Counts>);

/// Few enough for lists: shorter code than maps, and as quick.
#[derive(Default)]
struct Counts {
    by_outcome: Vec<((&'static str, Outcome), u64)>,
    durations: Vec<(&'static str, Histogram)>,
}

/// How a request ended. Empty words and 0 are no label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) result: &'static str,
}

/// What [`RequestCounts`] are called: names and help of counter and histogram, and names of the labels.
pub(super) struct Names {
    pub(super) counter: (&'static str, &'static str),
    pub(super) histogram: (&'static str, &'static str),
    pub(super) labels: [&'static str; 3],
}

impl RequestCounts {
    /// Counts a request.
    pub(crate) fn add(&self, route: &'static str, outcome: Outcome, duration: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *entry(&mut counts.by_outcome, (route, outcome)) += 1;
        entry(&mut counts.durations, route).add(duration);
    }

    pub(super) fn print(&self, text: &mut Text, names: &Names) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, help) = names.counter;
        text.metric("counter", name, help);
        for ((route, Outcome { status, result }), count) in &counts.by_outcome {
            let status = match status {
                0 => String::new(),
                status => status.to_string(),
            };
            let [route_label, status_label, result_label] = names.labels;
            let labels = [
                (route_label, *route),
                (status_label, &status),
                (result_label, result),
            ];
            text.sample(name, &labels, count);
        }
        let (name, help) = names.histogram;
        text.metric("histogram", name, help);
        for (route, histogram) in &counts.durations {
            histogram.print(text, name, (names.labels[0], route));
        }
    }
}

/// The value of `key`, which is added where it is missing.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let found = list.iter().position(|(known, _)| *known == key);
    let at = found.unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[at].1
}

/// Upper bounds of the buckets, in microseconds and in seconds; one more bucket has none. A poll takes less than 1 ms, a commit
/// to a disk 5 to 50 ms, and a request to Postiz 10 s at most.
const BUCKETS: [(u64, &str); 11] = [
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

/// How many requests took how long.
#[derive(Default)]
struct Histogram {
    /// Each request counts in one bucket.
    counts: [u64; BUCKETS.len() + 1],
    sum_us: u64,
}

impl Histogram {
    fn add(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(most, _)| us <= *most);
        self.counts[bucket.unwrap_or(BUCKETS.len())] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// In the text, each bucket includes those below it.
    fn print(&self, text: &mut Text, name: &str, label: (&str, &str)) {
        let (bucket, mut total) = (format!("{name}_bucket"), 0);
        let bounds = BUCKETS.iter().map(|(_, seconds)| *seconds);
        for (bound, count) in bounds.chain(["+Inf"]).zip(self.counts) {
            total += count;
            text.sample(&bucket, &[label, ("le", bound)], &total);
        }
        // In whole numbers: the code that prints others is large.
        let sum = format!("{}.{:06}", self.sum_us / 1_000_000, self.sum_us % 1_000_000);
        text.sample(&format!("{name}_sum"), &[label], &sum);
        text.sample(&format!("{name}_count"), &[label], &total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        counter: ("answers_total", "Answers."),
        histogram: ("seconds", "Durations."),
        labels: ["route", "status", "reason"],
    };

    fn outcome(status: u16, result: &'static str) -> Outcome {
        Outcome { status, result }
    }

    #[test]
    fn requests_are_counted_by_outcome_and_duration() {
        let counts = RequestCounts::default();
        let ms = Duration::from_millis;
        for (status, result, duration) in [
            (200, "", ms(1)),
            (200, "", ms(1_500)),
            (503, "stopping", ms(60_000)),
        ] {
            counts.add("/ready", outcome(status, result), duration);
        }
        counts.add("exchange", outcome(0, "ok"), Duration::from_micros(1_001));
        let mut text = Text::default();
        counts.print(&mut text, &NAMES);
        let text = text.finish();
        for line in [
            "answers_total{route=\"/ready\",status=\"200\"} 2",
            "answers_total{route=\"/ready\",status=\"503\",reason=\"stopping\"} 1",
            "answers_total{route=\"exchange\",reason=\"ok\"} 1",
            "# TYPE seconds histogram",
            "seconds_bucket{route=\"/ready\",le=\"0.001\"} 1",
            "seconds_bucket{route=\"/ready\",le=\"1\"} 1",
            "seconds_bucket{route=\"/ready\",le=\"2.5\"} 2",
            "seconds_bucket{route=\"/ready\",le=\"10\"} 2",
            "seconds_bucket{route=\"/ready\",le=\"+Inf\"} 3",
            "seconds_sum{route=\"/ready\"} 61.501000",
            "seconds_count{route=\"/ready\"} 3",
            "seconds_bucket{route=\"exchange\",le=\"0.001\"} 0",
            "seconds_bucket{route=\"exchange\",le=\"0.005\"} 1",
            "seconds_sum{route=\"exchange\"} 0.001001",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn bounds_are_the_same_in_both_units() {
        for (us, seconds) in BUCKETS {
            assert_eq!(seconds.parse::<f64>().unwrap() * 1e6, us as f64);
        }
    }
}
