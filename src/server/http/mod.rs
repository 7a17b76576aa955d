//! HTTP by tiny_http: takes the requests that the front hands over, routes them, writes the answers.
//!
//! A handler is a function from a [`Request`] to a [`Reply`], and needs no socket.

mod routes;

mod callback;
mod device_code;
mod service;
mod token;
mod verify;

pub mod reply;
pub mod request;

mod overdue;
mod serve;

use std::sync::Arc;
use std::time::Instant;

use crate::server::config::Limits;
use crate::server::flow::Flow;
use crate::server::http::routes::Kind;
use crate::server::limits::{Budget, Guesses, PollIntervals};
use crate::server::log::Log;
use crate::server::pages::{Page, Site};
use crate::server::store::StoreError;
use crate::shared::base_url::BaseUrl;

pub(crate) use reply::OnDelivered;
pub use reply::Reply;
pub use request::Request;
pub(crate) use serve::{Deliveries, FRONT_HEADER, serve};

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
    logins: Budget,
    guesses: Guesses,
    polls: PollIntervals,
}

impl App {
    /// The handlers' common ground.
    pub fn new(
        flow: Flow,
        server_url: BaseUrl,
        postiz_host: &str,
        limits: &Limits,
        log: Arc<Log>,
    ) -> App {
        let site = Site {
            verify_path: format!("{}/device/verify", server_url.path()),
            server_host: server_url.authority().to_owned(),
            postiz_host: postiz_host.to_owned(),
        };
        App {
            flow,
            server_url,
            site,
            log,
            logins: Budget::per_address(limits.logins_per_minute),
            guesses: Guesses::new(
                limits.wrong_codes_per_minute,
                limits.wrong_codes_per_minute_total,
            ),
            polls: PollIntervals::default(),
        }
    }

    /// Answers one request, whatever it is, and logs it. A panic in a handler is answered 500 and costs nothing else.
    pub fn answer(&self, request: &Request) -> Reply {
        let started = Instant::now();
        let (route, reply) = self.guarded(request);
        self.finish(request, route, reply, started)
    }

    /// Answers requests of one kind together, in order, and logs them. `None` where one is to be answered by itself: what it
    /// asks takes longer, or there was a panic, which is to cost only the one that is to blame.
    fn answer_together(&self, kind: Kind, requests: &[Request]) -> Vec<Option<Reply>> {
        let started = Instant::now();
        let act = || routes::answer_together(self, kind, requests);
        let replies = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        let replies = replies.unwrap_or_else(|_| requests.iter().map(|_| None).collect());
        let finish = |(request, reply): (&Request, Option<Reply>)| {
            reply.map(|reply| self.finish(request, kind.route(), reply, started))
        };
        requests.iter().zip(replies).map(finish).collect()
    }

    /// What every answer gets: its last header, and its line in the log.
    fn finish(&self, request: &Request, route: &str, mut reply: Reply, started: Instant) -> Reply {
        if self.server_url.is_https() {
            // A year, for this host alone (RFC 6797): whoever was here once does not come back in clear.
            let header = ("Strict-Transport-Security", "max-age=31536000".to_owned());
            reply.headers.push(header);
        }
        // In whole numbers: the code that prints others is larger than this file.
        let tenths = started.elapsed().as_micros() / 100;
        let fields = [
            ("method", request.method.as_str()),
            ("request_id", &request.id.to_string()),
            ("route", route),
            ("status", &reply.status.to_string()),
            ("ms", &format!("{}.{}", tenths / 10, tenths % 10)),
            ("client", &request.client.to_string()),
        ];
        self.log.info("request", &fields);
        reply
    }

    fn guarded(&self, request: &Request) -> (&'static str, Reply) {
        let act = || routes::answer(self, request);
        // Nothing that a handler shares is left half-changed by a panic: locks are held for single steps alone.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).unwrap_or_else(|_| {
            self.log.error(
                "panic",
                &[
                    ("method", &request.method),
                    ("request_id", &request.id.to_string()),
                    ("client", &request.client.to_string()),
                ],
            );
            ("panic", Reply::plain_error(500, "internal_error"))
        })
    }

    /// `page`, with this status.
    fn page(&self, status: u16, page: &Page) -> Reply {
        let reply = Reply::page(status, page.render(&self.site));
        if page.has_form() {
            reply.with_form()
        } else {
            reply
        }
    }

    /// The store failed under a request of a program.
    fn store_failed(&self, error: &StoreError) -> Reply {
        self.log
            .error("store_failed", &[("error", &error.to_string())]);
        Reply::unavailable(RETRY_AFTER_S)
    }

    /// The store failed under a request of a person.
    fn store_failed_page(&self, error: &StoreError) -> Reply {
        self.log
            .error("store_failed", &[("error", &error.to_string())]);
        self.page(503, &Page::Unavailable)
            .with("Retry-After", RETRY_AFTER_S)
    }
}

/// Seconds after which a client may ask again when the store is away: one poll interval.
const RETRY_AFTER_S: u64 = 5;

/// Whole seconds to wait, at least one (RFC 9110 §10.2.3).
fn whole_seconds(wait: std::time::Duration) -> u64 {
    wait.as_millis()
        .div_ceil(1_000)
        .max(1)
        .try_into()
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::log::Format;
    use crate::server::postiz::Postiz;
    use crate::server::seal::Seal;
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
        let url = BaseUrl::parse("https://auth.example").unwrap();
        let secret = Secret::new("secret".to_owned());
        let log = Arc::new(Log::to(Format::Text, move |line| {
            log.0.lock().unwrap().extend_from_slice(line);
        }));
        let flow = Flow::new(
            Arc::new(Embedded::in_memory(Box::new(clock)).unwrap()),
            Postiz::new(url.clone(), &url, "client".to_owned(), secret.clone()),
            Arc::new(Seal::new(&secret)),
            url.as_str().to_owned(),
            0,
            Arc::clone(&log),
        );
        App::new(flow, url, "postiz.example", &Limits::default(), log)
    }

    #[test]
    fn a_panic_costs_one_request() {
        let (time, lines) = (Arc::new(Mutex::new(1)), Lines::default());
        let app = app_that_panics_at(2, Arc::clone(&time), lines.clone());
        let mut start = Request::new("POST", "/device/code");
        assert_eq!(app.answer(&start).status, 200);
        *time.lock().unwrap() = 2;
        start.id = 4711;
        let reply = app.answer(&start);
        assert_eq!(reply.status, 500);
        assert_eq!(reply.body, br#"{"error":"internal_error"}"#);
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(
            log.contains("error panic method=POST request_id=4711"),
            "{log}"
        );
        // Together with others, each is to be answered again by itself.
        let together = |kind| {
            let replies = app.answer_together(kind, &[start.clone(), start.clone()]);
            replies
                .into_iter()
                .map(|reply| reply.map(|r| r.status))
                .collect::<Vec<_>>()
        };
        assert_eq!(together(Kind::Start), [None, None]);
        *time.lock().unwrap() = 3;
        assert_eq!(app.answer(&start).status, 200);
        assert_eq!(together(Kind::Start), [Some(200), Some(200)]);
        assert_eq!(
            together(Kind::Poll),
            [Some(400), Some(400)],
            "no poll's bodies"
        );
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
