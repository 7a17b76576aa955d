//! What the handlers work with, and the one way from a request to its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use crate::server::codes::DeviceCodeHash;
use crate::server::config::Config;
use crate::server::flow::Flow;
use crate::server::http::reply::{Reply, Token};
use crate::server::http::request::{Request, RequestId};
use crate::server::http::routes::{Audience, Routed};
use crate::server::http::{RETRY_AFTER_S, service, verify};
use crate::server::keys::Keys;
use crate::server::limits::{Budget, Guesses, PollIntervals};
use crate::server::log::{Level, Log};
use crate::server::pages::{Page, Site};
use crate::server::store::StoreError;
use crate::server::times::Times;
use crate::shared::base_url::BaseUrl;
use crate::shared::wire::error;

/// What the handlers work with.
pub struct App {
    /// The device flow.
    pub flow: Flow,
    /// Where this server is, to the world.
    pub server_url: BaseUrl,
    /// What the pages name.
    pub site: Site,
    /// The log.
    pub log: Arc<Log>,
    pub(super) keys: Arc<Keys>,
    pub(super) logins: Budget,
    pub(super) guesses: Guesses,
    pub(super) callbacks: Budget,
    /// Clients that are registered at Postiz; as many as logins may be started.
    pub(super) registrations: Budget,
    /// How many requests wait for Postiz at this moment.
    pub(super) waiting: AtomicU32,
    pub(super) polls: PollIntervals,
    pub(super) cookies: verify::CookieNames,
    pub(super) times: Times,
    stopping: AtomicBool,
}

impl App {
    /// The handlers' common ground.
    pub fn new(
        flow: Flow,
        keys: Arc<Keys>,
        server_url: BaseUrl,
        config: &Config,
        log: Arc<Log>,
    ) -> App {
        let limits = &config.limits;
        let site = Site {
            verify_path: format!("{}/device/verify", server_url.path()),
            verify_url: format!("{server_url}/device/verify"),
            server_host: server_url.authority().to_owned(),
            postiz_host: config.frontend_url.authority().to_owned(),
            has_app: flow.has_app(),
        };
        App {
            flow,
            site,
            log,
            keys,
            logins: Budget::per_network(limits.logins_per_minute),
            guesses: Guesses::new(
                limits.wrong_codes_per_minute,
                limits.wrong_codes_per_minute_total,
            ),
            callbacks: Budget::per_network(limits.callbacks_per_minute),
            registrations: Budget::per_network(limits.logins_per_minute),
            waiting: AtomicU32::new(0),
            polls: PollIntervals::default(),
            cookies: verify::CookieNames::of(&server_url),
            server_url,
            times: config.times,
            stopping: AtomicBool::new(false),
        }
    }

    /// Which route a request takes.
    pub(crate) fn route(&self, request: &Request) -> Routed {
        Routed::of(self, request)
    }

    /// Answers one request, whatever it is, and logs it.
    pub fn answer(&self, request: &Request) -> Reply {
        let (routed, started) = (self.route(request), Instant::now());
        let reply = self.answer_routed(&routed, request);
        self.log_answer(request, &routed, &reply, started);
        reply
    }

    /// Answers a request whose route is known. A panic in a handler costs nothing else.
    pub(crate) fn answer_routed(&self, routed: &Routed, request: &Request) -> Reply {
        // Nothing that a handler shares is left half-changed by a panic: locks are held for single steps alone.
        let handled = catch_unwind(AssertUnwindSafe(|| routed.handle(self, request)));
        let reply = handled.unwrap_or_else(|_| {
            let fields = [
                ("method", request.method.as_str()),
                ("request_id", &request.id.to_string()),
                ("client", &request.client.to_string()),
            ];
            self.log.error("panic", &fields);
            self.unanswered(request.id, routed, &Page::InternalError, "panic")
        });
        self.with_hsts(reply)
    }

    /// The answer to a request whose handler does not answer in time.
    pub(crate) fn timed_out(&self, id: RequestId, routed: &Routed) -> Reply {
        let fields = [
            ("request_id", &*id.to_string()),
            ("route", routed.name()),
            ("timeout_s", &routed.timeout(self).as_secs().to_string()),
        ];
        self.log.error("request_timed_out", &fields);
        self.with_hsts(self.unanswered(id, routed, &Page::Unavailable, "timeout"))
    }

    /// 503 in the form that this route's clients understand.
    fn unanswered(
        &self,
        id: RequestId,
        routed: &Routed,
        page: &Page,
        reason: &'static str,
    ) -> Reply {
        match routed.audience() {
            // In plain text: the npm CLI ends a login at any JSON error, and polls on after any other answer.
            Audience::Program => Reply::unavailable(RETRY_AFTER_S).because(reason),
            Audience::Monitor => service::status(503, "unavailable").because(reason),
            Audience::Person => self
                .refuse(id, 503, page, Why::of_request(reason))
                .with("Retry-After", RETRY_AFTER_S),
        }
    }

    /// Logs a request and its answer.
    pub(crate) fn log_answer(
        &self,
        request: &Request,
        routed: &Routed,
        reply: &Reply,
        started: Instant,
    ) {
        let level = level_of(routed, reply);
        if !self.log.writes(level) {
            return;
        }
        // In whole numbers: the code that prints others is larger than this file.
        let tenths = started.elapsed().as_micros() / 100;
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

    fn with_hsts(&self, reply: Reply) -> Reply {
        if self.server_url.is_https() {
            // A year, for this host alone (RFC 6797): a browser that was here once does not come back in clear.
            reply.with("Strict-Transport-Security", "max-age=31536000")
        } else {
            reply
        }
    }

    /// `/ready` says from now on that the server stops.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Does the server stop?
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The client has the token of its answer, or has not.
    pub(crate) fn end_delivery(&self, token: Token, delivered: bool) {
        // Only the store's client could panic here, and the lease ends by itself.
        let end = || match delivered {
            true => self.flow.delivered(&token),
            false => self.flow.not_delivered(&token),
        };
        let _ = catch_unwind(AssertUnwindSafe(end));
    }

    /// `page`, with this status.
    pub(super) fn page(&self, status: u16, page: &Page) -> Reply {
        Reply::page(status, page.render(&self.site, None))
    }

    /// `page`, which refuses what the request asked for. It shows the reference that finds the reason in the log: the
    /// login's id, or else the request's.
    pub(super) fn refuse(&self, id: RequestId, status: u16, page: &Page, why: Why) -> Reply {
        let reference = match why.login {
            Some(login) => login.login_id().to_owned(),
            None => id.to_string(),
        };
        let reply = Reply::page(status, page.render(&self.site, Some(&reference)));
        let reply = reply.because(why.reason);
        match why.login {
            Some(login) => reply.about(login),
            None => reply,
        }
    }

    /// The store failed under a request.
    pub(super) fn store_failed(
        &self,
        request: &Request,
        routed: &Routed,
        error: &StoreError,
    ) -> Reply {
        let fields = [
            ("request_id", &*request.id.to_string()),
            ("route", routed.name()),
            ("error", &error.to_string()),
        ];
        self.log.error("store_failed", &fields);
        self.unanswered(request.id, routed, &Page::Unavailable, "store_failed")
    }
}

/// Why a page refuses.
#[derive(Clone, Copy)]
pub(super) struct Why<'a> {
    /// In a word for the log.
    pub(super) reason: &'static str,
    /// The login that the request was about, where one was found.
    pub(super) login: Option<&'a DeviceCodeHash>,
}

impl<'a> Why<'a> {
    /// A reason where no login was found.
    pub(super) fn of_request(reason: &'static str) -> Why<'a> {
        Why {
            reason,
            login: None,
        }
    }

    /// A reason about this login.
    pub(super) fn of_login(reason: &'static str, login: &'a DeviceCodeHash) -> Why<'a> {
        Why {
            reason,
            login: Some(login),
        }
    }
}

/// How much the line of an answer matters. Pending polls and health checks are most of a quiet server's requests.
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
    use crate::server::log::Format;
    use crate::server::store::embedded::Embedded;
    use crate::shared::secret::Secret;
    use std::sync::Mutex;

    /// What was logged, for the test to read.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    /// A server whose store's clock has a bug at one time of the day.
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
    fn panic_costs_one_request() {
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
    fn https_stays_https() {
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
