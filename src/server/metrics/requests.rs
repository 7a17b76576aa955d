//! Prints counts of requests: a counter by outcome, and a histogram of durations by route.

use crate::server::counts::{BUCKETS, Counts, Histogram, Outcome};
use crate::server::metrics::text::Text;

/// Names and help of the counter and the histogram, and the names of the labels.
pub(super) struct Names {
    pub(super) counter: (&'static str, &'static str),
    pub(super) histogram: (&'static str, &'static str),
    pub(super) labels: [&'static str; 3],
}

pub(super) fn print(text: &mut Text, counts: &Counts, names: &Names) {
    let (name, help) = names.counter;
    let [route_label, status_label, result_label] = names.labels;
    text.metric("counter", name, help);
    for ((route, Outcome { status, result }), count) in &counts.by_outcome {
        let status = match status {
            0 => String::new(),
            status => status.to_string(),
        };
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
        print_histogram(text, histogram, name, (route_label, route));
    }
}

/// Buckets are cumulative in the text.
fn print_histogram(text: &mut Text, histogram: &Histogram, name: &str, label: (&str, &str)) {
    let (bucket, mut total) = (format!("{name}_bucket"), 0);
    let bounds = BUCKETS.iter().map(|(_, seconds)| *seconds);
    for (bound, count) in bounds.chain(["+Inf"]).zip(histogram.counts) {
        total += count;
        text.sample(&bucket, &[label, ("le", bound)], &total);
    }
    // In whole numbers: formatting floating-point numbers adds much code.
    let us = histogram.sum_us;
    let sum = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.sample(&format!("{name}_sum"), &[label], &sum);
    text.sample(&format!("{name}_count"), &[label], &total);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::counts::RequestCounts;
    use std::time::Duration;

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
        print(&mut text, &counts.read(), &NAMES);
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
}
