//! Answers a request: calls the route's handler, turns a failure, a panic or a timeout into a 503, counts the answer for the
//! metrics, and logs it.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::server::counts::Outcome;
use crate::server::http::app::{App, Cause};
use crate::server::http::reply::{RETRY_AFTER_S, Reply};
use crate::server::http::request::{Request, RequestId};
use crate::server::http::routes::{Audience, Routed};
use crate::server::http::service;
use crate::server::log::Level;
use crate::server::pages::Page;
use crate::server::pages::texts::{self, Notice};
use crate::server::store::StoreError;
use crate::shared::wire::error;

impl App {
    /// Answers a request, and logs it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        let (routed, started) = (Routed::of(self, request), Instant::now());
        let reply = self.answer_routed(&routed, request);
        self.log_answer(request, &routed, &reply, started);
        reply
    }

    /// Answers a request whose route is known. A panic ends this request only.
    pub(crate) fn answer_routed(&self, routed: &Routed, request: &Request) -> Reply {
        // Unwind safe: no lock is held while shared state is half-changed.
        let handle = || match routed.handle(self, request) {
            Ok(reply) => reply,
            Err(error) => self.store_failed(request, routed, &error),
        };
        let reply = catch_unwind(AssertUnwindSafe(handle)).unwrap_or_else(|_| {
            let fields = [
                ("method", request.method.as_str()),
                ("request_id", &request.id.to_string()),
                ("client", &request.client.to_string()),
            ];
            self.log.error("panic", &fields);
            self.unavailable(request.id, routed, texts::INTERNAL_ERROR, "panic")
        });
        self.with_common_headers(request.id, reply)
    }

    /// The answer to a request whose handler exceeded its timeout.
    pub(crate) fn timed_out(&self, id: RequestId, client: IpAddr, routed: &Routed) -> Reply {
        let fields = [
            ("request_id", &*id.to_string()),
            ("route", routed.name()),
            ("timeout_s", &routed.timeout(self).as_secs().to_string()),
            ("client", &client.to_string()),
            ("reason", "timeout"),
        ];
        self.log.error("request_timed_out", &fields);
        let reply = self.unavailable(id, routed, texts::UNAVAILABLE, "timeout");
        self.count(routed, &reply, routed.timeout(self));
        self.with_common_headers(id, reply)
    }

    /// 503 in the form that suits the route's audience.
    fn unavailable(
        &self,
        id: RequestId,
        routed: &Routed,
        notice: Notice,
        reason: &'static str,
    ) -> Reply {
        match routed.audience() {
            Audience::Program => Reply::unavailable(RETRY_AFTER_S).because(reason),
            Audience::Monitor => service::status(503, "unavailable").because(reason),
            Audience::Person => self
                .error_page(id, 503, &Page::Notice(notice), Cause::of_request(reason))
                .with("Retry-After", RETRY_AFTER_S),
        }
    }

    /// Counts and logs a request and its answer.
    pub(crate) fn log_answer(
        &self,
        request: &Request,
        routed: &Routed,
        reply: &Reply,
        started: Instant,
    ) {
        let duration = started.elapsed();
        self.count(routed, reply, duration);
        let level = level_of(routed, reply);
        if !self.log.is_written(level) {
            return;
        }
        // In whole numbers: formatting floating-point numbers adds more code than this file has.
        let tenths = duration.as_micros() / 100;
        let fields = [
            ("method", request.method.as_str()),
            ("request_id", &request.id.to_string()),
            ("route", routed.name()),
            ("status", &reply.status.to_string()),
            ("ms", &format!("{}.{}", tenths / 10, tenths % 10)),
            ("client", &request.client.to_string()),
        ];
        let optional = [("id", reply.login.as_deref()), ("reason", reply.reason)];
        let optional = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let fields: Vec<_> = fields.into_iter().chain(optional).collect();
        self.log.event(level, "request", &fields);
    }

    fn count(&self, routed: &Routed, reply: &Reply, duration: Duration) {
        let outcome = Outcome {
            status: reply.status,
            result: reply.reason.unwrap_or_default(),
        };
        self.requests.add(routed.name(), outcome, duration);
    }

    fn with_common_headers(&self, id: RequestId, mut reply: Reply) -> Reply {
        if self.server_url.is_https() {
            // For a year, and for this host alone, browsers use https (RFC 6797).
            reply = reply.with("Strict-Transport-Security", "max-age=31536000");
        }
        let is_refusal = reply.status >= 400 && reply.reason != Some(error::AUTHORIZATION_PENDING);
        if is_refusal {
            // The reference that our CLI shows where no login was started.
            reply = reply.with("X-Request-Id", id);
        }
        reply
    }

    /// Logs that the store failed, and answers 503.
    fn store_failed(&self, request: &Request, routed: &Routed, error: &StoreError) -> Reply {
        let fields = [
            ("request_id", &*request.id.to_string()),
            ("route", routed.name()),
            ("error", &error.to_string()),
        ];
        self.log.error("store_failed", &fields);
        self.unavailable(request.id, routed, texts::UNAVAILABLE, "store_failed")
    }
}

/// The log level of an answer. Pending polls and health checks are frequent and normal.
fn level_of(routed: &Routed, reply: &Reply) -> Level {
    let is_routine = reply.reason == Some(error::AUTHORIZATION_PENDING)
        || routed.audience() == Audience::Monitor && reply.status == 200;
    match reply.status {
        _ if is_routine => Level::Debug,
        429 | 500.. => Level::Warn,
        _ => Level::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server;
    use crate::server::config::Config;
    use crate::server::keys::Keys;
    use crate::server::log::{Format, Log};
    use crate::server::store::embedded::Embedded;
    use crate::shared::base_url::BaseUrl;
    use crate::shared::secret::Secret;
    use std::sync::{Arc, Mutex};

    /// The lines of the log.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    /// A server whose store panics at one time.
    fn app_that_panics_at(bad_time: u64, time: Arc<Mutex<u64>>, log: Lines) -> App {
        let clock = move || {
            let now = *time.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            assert_ne!(now, bad_time, "a bug in the clock");
            now
        };
        let keys = Arc::new(Keys::new(&Secret::new("secret".to_owned())));
        let log = Arc::new(Log::to(Format::Text, Level::Debug, move |line| {
            log.0.lock().unwrap().extend_from_slice(line);
        }));
        let config = Config::from_vars([("LIMIT_LIVE_LOGINS", "0")]).unwrap();
        let store = Arc::new(Embedded::in_memory(Box::new(clock)).unwrap());
        let url = BaseUrl::parse("https://auth.example").unwrap();
        server::app(&config, store, keys, url, &log)
    }

    #[test]
    fn panic_ends_one_request() {
        let (time, lines) = (Arc::new(Mutex::new(1)), Lines::default());
        let app = app_that_panics_at(2, Arc::clone(&time), lines.clone());
        let mut start = Request::new("POST", "/device/code");
        assert_eq!(app.answer(&start).status, 200);
        *time.lock().unwrap() = 2;
        start.id = RequestId(0x4711);
        let reply = app.answer(&start);
        let is_plain = ("Content-Type", "text/plain; charset=utf-8".to_owned());
        assert!(reply.status == 503 && reply.headers.contains(&is_plain));
        assert!(reply.headers.iter().any(|(name, _)| *name == "Retry-After"));
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(
            log.contains("error panic method=POST request_id=00004711"),
            "{log}"
        );
        let mut page = Request::new("GET", "/device/verify?user_code=WDJB-MJHT");
        page.headers.push(("accept", "text/html".to_owned()));
        let reply = app.answer(&page);
        let is_html = ("Content-Type", "text/html; charset=utf-8".to_owned());
        assert!(reply.status == 503 && reply.headers.contains(&is_html));
        *time.lock().unwrap() = 3;
        assert_eq!(app.answer(&start).status, 200);
    }

    #[test]
    fn answers_over_https_have_hsts() {
        let time = Arc::new(Mutex::new(1));
        let app = app_that_panics_at(0, time, Lines::default());
        for target in ["/health", "/device/verify", "/nothing"] {
            let reply = app.answer(&Request::new("GET", target));
            let hsts = reply.headers.iter();
            let hsts = hsts.filter(|(name, _)| *name == "Strict-Transport-Security");
            assert_eq!(hsts.count(), 1, "{target}");
        }
    }
}
