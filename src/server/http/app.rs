//! What the handlers work with, and the refusals that several of them share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::server::codes::DeviceCodeHash;
use crate::server::config::Config;
use crate::server::counts::RequestCounts;
use crate::server::flow::Flow;
use crate::server::http::browser::CookieNames;
use crate::server::http::reply::{Reply, Token, whole_seconds};
use crate::server::http::request::{Request, RequestId};
use crate::server::keys::Keys;
use crate::server::limits::{Budget, Guesses, PollIntervals};
use crate::server::log::Log;
use crate::server::pages::{Page, Site};
use crate::server::postiz::PostizError;
use crate::server::store::StoreError;
use crate::server::times::Times;
use crate::shared::base_url::BaseUrl;

/// Requests at once that wait for Postiz, each in its connection's thread: there must be room for others.
const WAITING_MAX: u32 = 128;

/// The parameter of the link, and the form's field, that carries the MAC of the code.
pub(super) const LINK_MAC: &str = "mac";

/// What a handler makes of a request. If the store failed, the route's audience decides what the answer looks like.
pub(super) type Handled = Result<Reply, StoreError>;

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
    /// How many requests were answered, and how.
    pub(crate) requests: RequestCounts,
    pub(super) cookies: CookieNames,
    pub(crate) times: Times,
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
            requests: RequestCounts::default(),
            cookies: CookieNames::of(&server_url),
            server_url,
            times: config.times,
            stopping: AtomicBool::new(false),
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

    /// 429 for requests that were right, but too many.
    pub(super) fn too_many_sign_ins(
        &self,
        request: &Request,
        wait: Duration,
        reason: &'static str,
    ) -> Reply {
        let retry_after_s = whole_seconds(wait);
        let page = Page::TooManyCallbacks { retry_after_s };
        self.refuse(request.id, 429, &page, Why::of_request(reason))
            .with("Retry-After", retry_after_s)
    }

    /// What a person is told when Postiz did not do its part for a login.
    pub(super) fn postiz_failed(
        &self,
        request: &Request,
        error: &PostizError,
        login: &DeviceCodeHash,
    ) -> Reply {
        let (status, page, reason) = postiz_failure(error);
        self.refuse(request.id, status, &page, Why::of_login(reason, login))
    }

    /// One of the [`WAITING_MAX`] requests that may wait for Postiz, until it is dropped; `None` when there are as many.
    pub(super) fn wait_for_postiz(&self) -> Option<WaitsForPostiz<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let waits = WaitsForPostiz(&self.waiting);
        (before < WAITING_MAX).then_some(waits)
    }

    /// How many requests wait for Postiz at this moment.
    pub(crate) fn waiting_for_postiz(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
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

/// What a person is told when Postiz did not do its part, and the log's word for it.
pub(super) fn postiz_failure(error: &PostizError) -> (u16, Page<'static>, &'static str) {
    let (status, page) = match error {
        PostizError::InvalidGrant => (502, Page::ExchangeRefused),
        PostizError::InvalidClient => (502, Page::ServerMisconfigured),
        PostizError::Unregistered(_) => (502, Page::Unregistered),
        PostizError::NotPostiz(_) | PostizError::Untrusted(_) => (502, Page::PostizMisconfigured),
        PostizError::Relayed => (502, Page::Relayed),
        PostizError::TimedOut(_) => (504, Page::PostizUnreachable),
        PostizError::Failed(_) => (502, Page::PostizUnreachable),
    };
    (status, page, error.reason())
}

/// A request that waits for Postiz.
pub(super) struct WaitsForPostiz<'a>(&'a AtomicU32);

impl Drop for WaitsForPostiz<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
