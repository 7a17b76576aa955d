//! Metrics for Prometheus, on their own listener (`METRICS_LISTEN`). The log counts events, `counts.rs` counts requests, and
//! gauges are read for each request. All labels are known at compile time, so no data of clients or users is in the text.

mod listener;
mod process;
mod requests;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::server::front::Front;
use crate::server::front::certificate::Certificate;
use crate::server::http::App;
use crate::server::metrics::requests::Names;
use crate::server::metrics::text::{Labels, Text};
use crate::shared::utc::unix_seconds;
use crate::shared::version::{COMMIT, VERSION};

pub(crate) use listener::{bind, problem, start};

/// The parts of a running server from which its metrics are read.
pub(crate) struct Sources {
    pub(crate) app: Arc<App>,
    pub(crate) front: Arc<Front>,
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) started: SystemTime,
}

/// A counter's name and help, and its series: labels, and the log events that are counted.
type EventCounter = (&'static str, &'static str, &'static [Series]);
type Series = (Labels<'static>, &'static [&'static str]);

/// Counters of log events. They start at 0, so that `increase()` includes the first event.
#[rustfmt::skip] // One row a line.
const EVENT_COUNTERS: [EventCounter; 13] = [
    ("postiz_auth_logins_started_total", "Logins started.", &[(&[], &["login_started"])]),
    ("postiz_auth_logins_confirmed_total", "Confirmations on the verify page; a login may be confirmed more than once.", &[(&[], &["login_confirmed"])]),
    ("postiz_auth_logins_completed_total", "Logins for which Postiz gave a token.", &[(&[], &["login_completed"])]),
    ("postiz_auth_logins_redeemed_total", "Logins whose client has its token.", &[(&[], &["login_redeemed", "login_redeemed_but_kept"])]),
    ("postiz_auth_logins_denied_total", "Logins denied, by the user or by Postiz (too many refused codes).", &[(&[("by", "user")], &["login_denied"]), (&[("by", "postiz")], &["login_denied_by_postiz"])]),
    ("postiz_auth_logins_expired_total", "Logins that expired before they were decided or redeemed, counted by the instance that purged them.", &[(&[], &["login_expired"])]),
    ("postiz_auth_tokens_lost_total", "Tokens that no client gets: the store failed for too long, or the key they are sealed with has changed.", &[(&[("cause", "store")], &["token_lost"]), (&[("cause", "key")], &["token_unreadable"])]),
    ("postiz_auth_store_failures_total", "Requests and purges that failed because the store did.", &[(&[("during", "request")], &["store_failed"]), (&[("during", "purge")], &["purge_failed"])]),
    ("postiz_auth_request_timeouts_total", "Requests that the watchdog answered because their handler took too long.", &[(&[], &["request_timed_out"])]),
    ("postiz_auth_bad_requests_total", "Requests that were malformed, too large or too slow to be read.", &[(&[], &["bad_request"])]),
    ("postiz_auth_logins_max_reached_total", "Times that LIMIT_LIVE_LOGINS was reached, so that logins were deleted to make room.", &[(&[], &["too_many_live_logins"])]),
    ("postiz_auth_log_lines_dropped_total", "Lines of the log that were dropped because nobody read stderr.", &[(&[], &["log_lines_dropped"])]),
    ("postiz_auth_panics_total", "Panics. Each is a bug, and cost one request or one round of a background task.", &[(&[], &["panicked"])]),
];

const HTTP: Names = Names {
    counter: (
        "postiz_auth_http_requests_total",
        "Requests answered, by route (none: unknown path), status, and reason where they were refused.",
    ),
    histogram: (
        "postiz_auth_http_request_duration_seconds",
        "Time from a whole request to its answer, by route.",
    ),
    labels: ["route", "status", "reason"],
};

const POSTIZ: Names = Names {
    counter: (
        "postiz_auth_postiz_requests_total",
        "Requests to Postiz, by kind (exchange of a code, registration of a client) and result.",
    ),
    histogram: (
        "postiz_auth_postiz_request_duration_seconds",
        "Time from a request to Postiz to its answer or failure.",
    ),
    labels: ["request", "", "result"],
};

impl Sources {
    /// All metrics as text.
    fn print(&self) -> String {
        let mut text = Text::default();
        print_build(&mut text);
        print_events(&mut text, &self.app.log.counts());
        requests::print(&mut text, &self.app.requests.read(), &HTTP);
        let to_postiz = self.app.flow.postiz.requests.read();
        requests::print(&mut text, &to_postiz, &POSTIZ);
        self.print_connections(&mut text);
        self.print_logins(&mut text);
        self.print_pool(&mut text);
        self.print_certificate(&mut text);
        let help = "Start time of the process since the Unix epoch in seconds.";
        text.gauge(
            "process_start_time_seconds",
            help,
            unix_seconds(self.started),
        );
        process::print(&mut text);
        text.finish()
    }

    fn print_connections(&self, text: &mut Text) {
        let connections = self.front.connections();
        text.gauge(
            "postiz_auth_connections",
            "Client connections open.",
            connections.open,
        );
        text.gauge(
            "postiz_auth_connections_max",
            "Client connections that may be open: LIMIT_CONNECTIONS, or what the system can afford.",
            connections.max,
        );
        text.counter(
            "postiz_auth_connections_refused_total",
            "Client connections closed at once because there was no room.",
            connections.refused,
        );
        text.counter(
            "postiz_auth_connections_evicted_total",
            "Client connections without a request closed to make room.",
            connections.evicted,
        );
    }

    fn print_logins(&self, text: &mut Text) {
        text.gauge(
            "postiz_auth_logins",
            "Logins in the store, expired ones included until they are purged; an estimate, corrected every 30 s.",
            self.app.flow.live_logins.estimate(),
        );
        text.gauge(
            "postiz_auth_postiz_requests_waiting",
            "Requests that wait for Postiz.",
            self.app.postiz_requests().into(),
        );
    }

    /// Only if the server serves https itself.
    fn print_certificate(&self, text: &mut Text) {
        let Some(certificate) = &self.certificate else {
            return;
        };
        let expires_at = certificate.expires_at();
        let left = expires_at.duration_since(SystemTime::now());
        text.gauge(
            "postiz_auth_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, since the Unix epoch.",
            unix_seconds(expires_at),
        );
        text.gauge(
            "postiz_auth_certificate_remaining_seconds",
            "How long the certificate in use is still valid; 0: it has expired. A day has 86400 seconds.",
            left.unwrap_or_default().as_secs(),
        );
    }

    /// Only with PostgreSQL.
    fn print_pool(&self, text: &mut Text) {
        let Some(pool) = self.app.flow.store.pool() else {
            return;
        };
        let name = "postiz_auth_database_connections";
        text.metric("gauge", name, "Connections to PostgreSQL, by state.");
        text.sample(name, &[("state", "in_use")], &pool.in_use);
        text.sample(name, &[("state", "idle")], &pool.idle);
        text.gauge(
            "postiz_auth_database_connections_max",
            "Connections to PostgreSQL that may be open.",
            pool.max as u64,
        );
        text.gauge(
            "postiz_auth_database_requests_waiting",
            "Requests that wait for a connection to PostgreSQL.",
            pool.waiting as u64,
        );
    }
}

fn print_build(text: &mut Text) {
    let name = "postiz_auth_build_info";
    let help = "Always 1; its labels say which build this is.";
    text.metric("gauge", name, help);
    let labels = [("version", VERSION), ("commit", COMMIT.unwrap_or_default())];
    text.sample(name, &labels, &1);
}

fn print_events(text: &mut Text, counts: &BTreeMap<&'static str, u64>) {
    for (name, help, series) in EVENT_COUNTERS {
        text.metric("counter", name, help);
        for (labels, events) in series {
            let counted = events.iter().filter_map(|event| counts.get(event));
            text.sample(name, labels, &counted.sum::<u64>());
        }
    }
}
