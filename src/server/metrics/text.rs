//! Prometheus' text format, version 0.0.4: for each metric its HELP and TYPE, then its samples.

use std::fmt::Display;

/// The `Content-Type` of [`Text`].
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names and values of a sample's labels.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Metrics as text.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// Begins a metric; its samples follow. `kind` is `counter`, `gauge` or `histogram`.
    pub(super) fn metric(&mut self, kind: &str, name: &str, help: &str) {
        let help = escaped(help);
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a sample to the last metric. Labels without a value are left out, which means the same to Prometheus.
    pub(super) fn sample(&mut self, name: &str, labels: Labels, value: &dyn Display) {
        self.0 += name;
        let mut before = "{";
        for (label, text) in labels.iter().filter(|(_, text)| !text.is_empty()) {
            let text = escaped(text).replace('"', "\\\"");
            self.0 += &format!("{before}{label}=\"{text}\"");
            before = ",";
        }
        let end = if before == "," { "}" } else { "" };
        self.0 += &format!("{end} {value}\n");
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric("counter", name, help);
        self.sample(name, &[], &value);
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.metric("gauge", name, help);
        self.sample(name, &[], &value);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_their_help_and_type() {
        let mut text = Text::default();
        text.gauge("open", "Open things.", 3);
        text.metric("counter", "done_total", "Done, by \\ and\nway.");
        text.sample("done_total", &[("way", "a"), ("no", ""), ("by", "b")], &7);
        text.sample("done_total", &[("way", "\"\\\n")], &0);
        let lines = [
            "# HELP open Open things.",
            "# TYPE open gauge",
            "open 3",
            "# HELP done_total Done, by \\\\ and\\nway.",
            "# TYPE done_total counter",
            "done_total{way=\"a\",by=\"b\"} 7",
            "done_total{way=\"\\\"\\\\\\n\"} 0",
            "",
        ];
        assert_eq!(text.finish(), lines.join("\n"));
    }
}
