//! The state that the handlers share, and the error answers that several of them give.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::server::codes::DeviceCodeHash;
use crate::server::config::Config;
use crate::server::counts::RequestCounts;
use crate::server::flow::{Delivery, Flow};
use crate::server::http::browser::CookieNames;
use crate::server::http::reply::{Reply, whole_seconds};
use crate::server::http::request::{Request, RequestId};
use crate::server::keys::Keys;
use crate::server::limits::{Budget, Guesses, PollIntervals};
use crate::server::log::Log;
use crate::server::pages::texts::{self, Notice};
use crate::server::pages::{Page, Site};
use crate::server::postiz::PostizError;
use crate::server::store::StoreError;
use crate::server::times::Times;
use crate::shared::base_url::BaseUrl;

/// Most requests at once that wait for Postiz, each in its connection's thread: others need threads too.
const POSTIZ_REQUESTS_MAX: u32 = 128;

/// The name of the link's parameter, and of the form's field, that holds the MAC of the user code.
pub(super) const LINK_MAC: &str = "mac";

/// A handler's answer. `answer.rs` turns an error of the store into one.
pub(super) type Handled = Result<Reply, StoreError>;

/// The state that the handlers share.
pub(crate) struct App {
    pub flow: Flow,
    pub server_url: BaseUrl,
    pub site: Site,
    pub log: Arc<Log>,
    pub(super) keys: Arc<Keys>,
    pub(super) logins: Budget,
    pub(super) guesses: Guesses,
    pub(super) callbacks: Budget,
    /// For registering clients at Postiz: as many as logins may be started.
    pub(super) registrations: Budget,
    postiz_requests: AtomicU32,
    pub(super) polls: PollIntervals,
    pub(crate) requests: RequestCounts,
    pub(super) cookies: CookieNames,
    pub(crate) times: Times,
    stopping: AtomicBool,
}

impl App {
    pub(crate) fn new(
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
            logins: Budget::per_minute(limits.logins_per_minute),
            guesses: Guesses::new(
                limits.wrong_codes_per_minute,
                limits.wrong_codes_per_minute_total,
            ),
            callbacks: Budget::per_minute(limits.callbacks_per_minute),
            registrations: Budget::per_minute(limits.logins_per_minute),
            postiz_requests: AtomicU32::new(0),
            polls: PollIntervals::default(),
            requests: RequestCounts::default(),
            cookies: CookieNames::of(&server_url),
            server_url,
            times: config.times,
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on `/ready` answers 503, and no connection is kept alive.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Records whether the client has received the token of its answer.
    pub(crate) fn end_delivery(&self, delivery: &Delivery, delivered: bool) {
        // After a panic of the database client, the lease ends by itself.
        let end = || match delivered {
            true => self.flow.delivered(delivery),
            false => self.flow.not_delivered(delivery),
        };
        let _ = catch_unwind(AssertUnwindSafe(end));
    }

    /// 429 for requests that were well-formed, but too many.
    pub(super) fn too_many(
        &self,
        request: &Request,
        notice: Notice,
        wait: Duration,
        cause: Cause,
    ) -> Reply {
        let retry_after_s = whole_seconds(wait);
        let page = Page::Pause(notice, retry_after_s);
        self.error_page(request.id, 429, &page, cause)
            .with("Retry-After", retry_after_s)
    }

    /// The answer to a person when a request to Postiz for this login failed.
    pub(super) fn postiz_failed(
        &self,
        request: &Request,
        error: &PostizError,
        login: &DeviceCodeHash,
    ) -> Reply {
        let (status, notice, reason) = postiz_failure(error);
        let page = Page::Notice(notice);
        self.error_page(request.id, status, &page, Cause::of_login(reason, login))
    }

    /// A slot for a request to Postiz; `None` if all [`POSTIZ_REQUESTS_MAX`] are taken.
    pub(super) fn take_postiz_slot(&self) -> Option<PostizSlot<'_>> {
        let before = self.postiz_requests.fetch_add(1, Ordering::AcqRel);
        let slot = PostizSlot(&self.postiz_requests);
        (before < POSTIZ_REQUESTS_MAX).then_some(slot)
    }

    pub(crate) fn postiz_requests(&self) -> u32 {
        self.postiz_requests.load(Ordering::Relaxed)
    }

    pub(super) fn page(&self, status: u16, page: &Page) -> Reply {
        Reply::page(status, page.render(&self.site, None))
    }

    /// An answer with an error page. The page shows a reference, by which the cause is found in the log: the login's id, or
    /// else the request's.
    pub(super) fn error_page(
        &self,
        id: RequestId,
        status: u16,
        page: &Page,
        cause: Cause,
    ) -> Reply {
        let login_id = cause.login.map(|login| login.login_id().to_owned());
        let reference = login_id.unwrap_or_else(|| id.to_string());
        let reply = Reply::page(status, page.render(&self.site, Some(&reference)));
        reply.because(cause.reason).about(cause.login)
    }
}

/// Why a request is answered with an error page.
#[derive(Clone, Copy)]
pub(super) struct Cause<'a> {
    /// The reason in the log and the metrics.
    pub(super) reason: &'static str,
    /// The request's login, if one was found.
    pub(super) login: Option<&'a DeviceCodeHash>,
}

impl<'a> Cause<'a> {
    pub(super) fn of_request(reason: &'static str) -> Cause<'a> {
        Cause {
            reason,
            login: None,
        }
    }

    pub(super) fn of_login(reason: &'static str, login: &'a DeviceCodeHash) -> Cause<'a> {
        Cause {
            reason,
            login: Some(login),
        }
    }
}

/// Status, page and reason for a failed request to Postiz.
pub(super) fn postiz_failure(error: &PostizError) -> (u16, Notice, &'static str) {
    let (status, notice) = match error {
        PostizError::InvalidGrant => (502, texts::EXCHANGE_REFUSED),
        PostizError::InvalidClient => (502, texts::SERVER_MISCONFIGURED),
        PostizError::Unregistered(_) => (502, texts::UNREGISTERED),
        PostizError::NotPostiz(_) | PostizError::Untrusted(_) => (502, texts::POSTIZ_MISCONFIGURED),
        PostizError::Relayed => (502, texts::RELAYED),
        PostizError::TimedOut(_) => (504, texts::POSTIZ_UNREACHABLE),
        PostizError::Failed(_) => (502, texts::POSTIZ_UNREACHABLE),
    };
    (status, notice, error.reason())
}

/// One of the [`POSTIZ_REQUESTS_MAX`] slots; free again when dropped.
pub(super) struct PostizSlot<'a>(&'a AtomicU32);

impl Drop for PostizSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
