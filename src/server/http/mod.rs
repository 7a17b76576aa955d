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

mod serve;

use std::sync::Arc;
use std::time::Instant;

use crate::server::config::Limits;
use crate::server::flow::Flow;
use crate::server::limits::{Budget, Guesses, PollIntervals};
use crate::server::log::Log;
use crate::server::pages::{Page, Site};
use crate::server::store::StoreError;
use crate::shared::base_url::BaseUrl;

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
        let ms = started.elapsed().as_secs_f64() * 1_000.0;
        let fields = [
            ("method", request.method.as_str()),
            ("route", route),
            ("status", &reply.status.to_string()),
            ("ms", &format!("{ms:.1}")),
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
                    ("client", &request.client.to_string()),
                ],
            );
            ("panic", Reply::plain_error(500, "internal_error"))
        })
    }

    /// `page`, with this status.
    fn page(&self, status: u16, page: &Page) -> Reply {
        Reply::page(status, page.render(&self.site))
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
