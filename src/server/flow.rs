//! The device flow (RFC 8628): the operations of clients and browsers on a login, over the store and Postiz, without HTTP and
//! SQL. The states of a login are in `login.rs`.

use std::sync::Arc;
use std::time::Instant;

use crate::server::codes::{BrowserKey, DeviceCode, DeviceCodeHash, State, UserCode};
use crate::server::config::Config;
use crate::server::keys::Keys;
use crate::server::live_logins::LiveLogins;
use crate::server::log::{Level, Log};
use crate::server::login::{
    Claim, CodeDigest, LeaseId, Login, Polled, SealedClient, SealedGrant, Starter, UnixMs,
};
use crate::server::postiz::{Grant, OAuthClient, Postiz, PostizError};
use crate::server::retry;
use crate::server::store::batcher::Batcher;
use crate::server::store::{Inserted, Key, NewLogin, Store, StoreError, apply};
use crate::server::times::Times;
use crate::shared::secret::Secret;

/// User codes tried for one login: one collision is rare, five in a row mean that something is broken.
const USER_CODE_TRIES_MAX: usize = 5;

/// How often a decision on a login is tried while another one holds the login's lock.
const DECISION_TRIES_MAX: usize = 5;

/// The device flow over one store and one Postiz.
pub(crate) struct Flow {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) postiz: Postiz,
    keys: Arc<Keys>,
    /// `api_url` for clients.
    public_api_url: String,
    starts: Batcher<NewLogin, Option<Inserted>>,
    polls: Batcher<DeviceCodeHash, Polled>,
    pub(crate) live_logins: LiveLogins,
    times: Times,
    log: Arc<Log>,
}

pub(crate) struct Started {
    /// For the client alone.
    pub device_code: DeviceCode,
    pub user_code: UserCode,
    /// Goes into the link beside the user code, which then does not count as a guess.
    pub link_mac: String,
}

/// The result of [`Flow::confirm`].
pub(crate) enum Confirmed {
    /// Confirmed: the browser is sent to this URL.
    Redirect(String),
    /// The login is not open any more.
    NotOpen,
    /// Postiz registered no client for it; the login stays open.
    RegistrationFailed(PostizError),
}

/// The login that a callback's `state` names, if it does, and the result.
pub(crate) type CallbackResult = (Option<DeviceCodeHash>, Callback);

const UNKNOWN_STATE: CallbackResult = (None, Callback::Rejected("unknown_state"));

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    /// The login is complete (by this callback or an earlier one).
    SignedIn,
    /// Another callback of the login is exchanging a code.
    Busy,
    /// The user refused at Postiz.
    Refused,
    /// Postiz reported an error other than a refusal; the login stays open.
    AuthorizationFailed,
    /// No open login of this browser has this `state`. The reason is for the log.
    Rejected(&'static str),
    /// The exchange failed; the login stays open.
    ExchangeFailed(PostizError),
    /// Postiz has refused so many codes that the login is over.
    Over,
}

/// The result of [`Flow::redeem`].
pub(crate) enum Redeemed {
    /// The token, for this poll only.
    Granted(Box<Delivery>),
    /// The token is being delivered to another poll. If that fails, the next poll gets it.
    Busy,
    /// The token cannot be decrypted any more: the user has to start a new login.
    Unreadable,
}

/// A token that is being delivered to one client, under a lease.
pub(crate) struct Delivery {
    pub access_token: Secret<String>,
    pub api_url: String,
    pub organization_id: Option<String>,
    pub scope: Option<String>,
    login: DeviceCodeHash,
    lease: LeaseId,
}

/// What identifies the login of a browser that returns from Postiz.
pub(crate) struct ReturningBrowser {
    pub state: State,
    pub browser: BrowserKey,
    /// Whether the key is from the cookie of version 0.1, which had no `__Host-` cookies. Since a sibling domain could set it, it is
    /// accepted only for logins that an instance of that version confirmed.
    pub is_old_cookie: bool,
}

impl Flow {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        postiz: Postiz,
        keys: Arc<Keys>,
        config: &Config,
        log: Arc<Log>,
    ) -> Flow {
        Flow {
            store,
            postiz,
            keys,
            public_api_url: config.public_api_url.as_str().to_owned(),
            starts: Batcher::new(&config.times),
            polls: Batcher::new(&config.times),
            live_logins: LiveLogins::new(config.limits.live_logins),
            times: config.times,
            log,
        }
    }

    /// Starts a login (RFC 8628 §3.1). Concurrent starts share one commit. `None`: the limit on live logins is reached, and none
    /// could be deleted to make room.
    pub(crate) fn start(&self, starter: Starter) -> Result<Option<Started>, StoreError> {
        for _ in 0..USER_CODE_TRIES_MAX {
            let (device_code, user_code) = (DeviceCode::generate(), UserCode::generate());
            let new = NewLogin {
                key: device_code.hash(),
                user_code: user_code.clone(),
                starter: starter.clone(),
            };
            let key = new.key.clone();
            match self.starts.submit(new, |batch| self.insert(&batch))? {
                Some(Inserted::Yes) => {}
                Some(Inserted::UserCodeTaken) => continue,
                None => return Ok(None),
            }
            let fields = [("id", key.login_id()), ("client", &starter.address)];
            self.log.info("login_started", &fields);
            return Ok(Some(Started {
                link_mac: self.keys.link_mac(&user_code),
                device_code,
                user_code,
            }));
        }
        let taken = format!("{USER_CODE_TRIES_MAX} user codes in a row were taken");
        Err(StoreError::Unavailable(taken))
    }

    /// Inserts as many of the logins as there is room for; `None` for the others.
    fn insert(&self, new: &[NewLogin]) -> Result<Vec<Option<Inserted>>, StoreError> {
        let room = self
            .live_logins
            .reserve(new.len(), &*self.store, &self.log)?;
        let (fits, full) = new.split_at(room);
        let inserted = match fits {
            [] => Vec::new(),
            fits => self.store.insert(fits)?,
        };
        let full = full.iter().map(|_| None);
        Ok(inserted.into_iter().map(Some).chain(full).collect())
    }

    /// The undecided login with this user code, and the store's time. It may have expired.
    pub(crate) fn find(&self, user_code: &UserCode) -> Result<Option<(Login, UnixMs)>, StoreError> {
        self.store.read(Key::User(user_code))
    }

    pub(crate) fn has_app(&self) -> bool {
        self.postiz.has_app()
    }

    /// Whether [`Flow::confirm`] will register a client for this login.
    pub(crate) fn needs_registration(&self, login: &Login) -> bool {
        !self.has_app() && self.client(&login.key, login.client.as_ref()).is_none()
    }

    /// Confirms a login in this browser (RFC 8628 §3.3). Its client is registered only now, so that started logins alone do not
    /// make Postiz register clients.
    pub(crate) fn confirm(
        &self,
        found: &Login,
        browser: &BrowserKey,
    ) -> Result<Confirmed, StoreError> {
        let mut registered = None;
        if self.needs_registration(found) {
            match self.postiz.register(&found.starter.machine) {
                Ok(client) => registered = Some(self.sealed_client(found, client)),
                Err(error) => return Ok(self.registration_failed(found, error)),
            }
        }
        let state = self.keys.state(&found.key, browser);
        let confirmed = self.decide(&found.user_code, |login, now| {
            let confirmed =
                login.key == found.key && login.confirm(&state.hash(), &browser.hash(), now);
            if let Some(client) = registered.as_ref().filter(|_| confirmed) {
                login.set_client(client, found.client.as_ref());
            }
            confirmed.then(|| login.client.clone())
        })?;
        let Some(client) = confirmed.flatten() else {
            return Ok(Confirmed::NotOpen);
        };
        let client = self.client(&found.key, client.as_ref());
        if client.is_none() && !self.has_app() {
            let cause = "its client was sealed under another SERVER_SECRET".to_owned();
            return Ok(self.registration_failed(found, PostizError::Failed(cause)));
        }
        self.log.info("login_confirmed", &[("id", found.id())]);
        let url = self.postiz.authorize_url(&state, client.as_ref());
        Ok(Confirmed::Redirect(url))
    }

    fn registration_failed(&self, login: &Login, error: PostizError) -> Confirmed {
        self.postiz_failed("registration_failed", &login.key, &error);
        Confirmed::RegistrationFailed(error)
    }

    /// Logs that a request to Postiz failed: as an error if only the operator can fix the cause.
    fn postiz_failed(&self, event: &'static str, login: &DeviceCodeHash, error: &PostizError) {
        let level = match error.is_misconfiguration() {
            true => Level::Error,
            false => Level::Warn,
        };
        let fields = [
            ("id", login.login_id()),
            ("reason", error.reason()),
            ("error", &error.to_string()),
        ];
        self.log.event(level, event, &fields);
    }

    fn sealed_client(&self, login: &Login, client: OAuthClient) -> SealedClient {
        let fields = [("id", login.id()), ("oauth_client", &client.id)];
        self.log.info("client_registered", &fields);
        SealedClient {
            verifier: self.keys.seal(&login.key, &client.verifier),
            id: client.id,
            redirect_uri: client.redirect_uri,
        }
    }

    /// A login's client, if it has one that can be decrypted.
    fn client(&self, login: &DeviceCodeHash, sealed: Option<&SealedClient>) -> Option<OAuthClient> {
        let sealed = sealed?;
        Some(OAuthClient {
            id: sealed.id.clone(),
            verifier: self.keys.open(login, &sealed.verifier)?,
            redirect_uri: sealed.redirect_uri.clone(),
        })
    }

    /// Denies a login on this server's page. False: it is not open any more.
    pub(crate) fn deny(&self, user_code: &UserCode) -> Result<bool, StoreError> {
        let denied = self.decide(user_code, |login, now| {
            login.deny(now).then(|| login.key.clone())
        })?;
        let denied = denied.flatten();
        if let Some(login) = &denied {
            self.log_denied(login, "this server");
        }
        Ok(denied.is_some())
    }

    /// Applies a person's decision. It waits while another one is being committed to a slow disk.
    fn decide<T>(
        &self,
        user_code: &UserCode,
        mut transition: impl FnMut(&mut Login, UnixMs) -> T,
    ) -> Result<Option<T>, StoreError> {
        for _ in 1..DECISION_TRIES_MAX {
            match apply(&*self.store, Key::User(user_code), &mut transition) {
                Err(StoreError::Locked) => {}
                decided => return decided,
            }
        }
        apply(&*self.store, Key::User(user_code), transition)
    }

    /// Handles a callback with an error (RFC 6749 §4.1.2.1). Only `access_denied` denies the login.
    pub(crate) fn callback_error(
        &self,
        returning: &ReturningBrowser,
        error: &str,
    ) -> Result<CallbackResult, StoreError> {
        let (state, browser) = (returning.state.hash(), returning.browser.hash());
        if error == "access_denied" {
            let denied = apply(&*self.store, Key::State(&state), |login, now| {
                let denied =
                    self.is_cookie_accepted(returning, login) && login.deny_from(&browser, now);
                (denied, login.key.clone(), login.rejection(&browser, now))
            })?;
            return Ok(match denied {
                None => UNKNOWN_STATE,
                Some((false, login, why)) => (Some(login), Callback::Rejected(why)),
                Some((true, login, _)) => {
                    self.log_denied(&login, "Postiz");
                    (Some(login), Callback::Refused)
                }
            });
        }
        let Some((login, now)) = self.store.read(Key::State(&state))? else {
            return Ok(UNKNOWN_STATE);
        };
        let is_own =
            self.is_cookie_accepted(returning, &login) && login.browser.as_ref() == Some(&browser);
        let callback = match login.polled(now) {
            Polled::Pending if is_own => {
                let fields = [("id", login.id()), ("error", error)];
                self.log.warn("authorization_failed", &fields);
                Callback::AuthorizationFailed
            }
            Polled::Completed | Polled::Unknown if is_own => Callback::SignedIn,
            _ => Callback::Rejected(login.rejection(&browser, now)),
        };
        Ok((Some(login.key), callback))
    }

    /// Handles a callback with a code. One callback exchanges it, and others meanwhile get [`Callback::Busy`].
    pub(crate) fn callback_code(
        &self,
        returning: &ReturningBrowser,
        code: &str,
    ) -> Result<CallbackResult, StoreError> {
        let (state, browser) = (returning.state.hash(), returning.browser.hash());
        let (digest, lease) = (CodeDigest::of(code), LeaseId::generate());
        let deadline = Instant::now() + self.times.store_token;
        let claimed = apply(&*self.store, Key::State(&state), |login, now| {
            let claim = match self.is_cookie_accepted(returning, login) {
                true => login.claim(&browser, &digest, &lease, now),
                false => Claim::Unknown,
            };
            let (key, client) = (login.key.clone(), login.client.clone());
            (claim, key, client, login.rejection(&browser, now))
        });
        let claimed = match claimed {
            // Another callback is writing this login.
            Err(StoreError::Locked) => {
                return Ok((None, Callback::Busy));
            }
            claimed => claimed?,
        };
        let Some((claim, login, client, rejection)) = claimed else {
            return Ok(UNKNOWN_STATE);
        };
        let exchange = || {
            let client = self.client(&login, client.as_ref());
            self.postiz.exchange(code, client.as_ref())
        };
        let callback = match claim {
            Claim::Busy => Callback::Busy,
            Claim::Done => Callback::SignedIn,
            Claim::Unknown => Callback::Rejected(rejection),
            Claim::Over => Callback::Over,
            Claim::RefusedBefore => Callback::ExchangeFailed(PostizError::InvalidGrant),
            Claim::Newer => self.exchanged_again(&login, exchange(), deadline)?,
            Claim::Granted => match exchange() {
                Ok(grant) => self.complete(&login, &lease, &digest, grant, deadline)?,
                Err(error) => self.exchange_failed(&login, &lease, digest, error)?,
            },
        };
        Ok((Some(login), callback))
    }

    /// Whether the cookie is accepted for this login. See [`ReturningBrowser::is_old_cookie`].
    fn is_cookie_accepted(&self, returning: &ReturningBrowser, login: &Login) -> bool {
        !returning.is_old_cookie
            || self.keys.state(&login.key, &returning.browser).expose() != returning.state.expose()
    }

    /// Handles a further authorization of a completed login. The login stays complete even if the exchange failed.
    fn exchanged_again(
        &self,
        login: &DeviceCodeHash,
        exchanged: Result<Grant, PostizError>,
        deadline: Instant,
    ) -> Result<Callback, StoreError> {
        let id = ("id", login.login_id());
        match exchanged {
            Ok(grant) => {
                let sealed = self.sealed(login, grant);
                let replace = |login: &mut Login, now| login.replace_grant(&sealed, now);
                if self.store_token(login, deadline, replace)? {
                    self.log.info("login_completed_again", &[id]);
                }
            }
            Err(error) => self.postiz_failed("exchange_failed", login, &error),
        }
        Ok(Callback::SignedIn)
    }

    fn sealed(&self, login: &DeviceCodeHash, grant: Grant) -> SealedGrant {
        SealedGrant {
            token: self.keys.seal(login, &grant.access_token),
            api_url: self.public_api_url.clone(),
            organization_id: grant.organization_id,
            scope: grant.scope,
        }
    }

    fn exchange_failed(
        &self,
        login: &DeviceCodeHash,
        lease: &LeaseId,
        code: CodeDigest,
        error: PostizError,
    ) -> Result<Callback, StoreError> {
        let refused = Some(&code).filter(|_| error == PostizError::InvalidGrant);
        self.postiz_failed("exchange_failed", login, &error);
        // If the store fails, the lease ends by itself.
        let status = apply(&*self.store, Key::Device(login), |login, now| {
            login.release(lease, refused);
            login.polled(now)
        })?;
        Ok(match status {
            Some(Polled::Denied) if refused.is_some() => {
                self.log
                    .warn("login_denied_by_postiz", &[("id", login.login_id())]);
                Callback::Over
            }
            _ => Callback::ExchangeFailed(error),
        })
    }

    fn complete(
        &self,
        login: &DeviceCodeHash,
        lease: &LeaseId,
        code: &CodeDigest,
        grant: Grant,
        deadline: Instant,
    ) -> Result<Callback, StoreError> {
        let organization = grant.organization_id.clone().unwrap_or_default();
        let sealed = self.sealed(login, grant);
        let complete = |login: &mut Login, now| login.complete(lease, code, &sealed, now);
        if !self.store_token(login, deadline, complete)? {
            return Ok(Callback::Rejected("lease_lost"));
        }
        let fields = [("id", login.login_id()), ("organization", &organization)];
        self.log.info("login_completed", &fields);
        Ok(Callback::SignedIn)
    }

    /// Stores a token by `transition`. Since a code can be exchanged only once, a failing store is tried again until `deadline`,
    /// when the lease ends. False: the login does not accept the token any more.
    fn store_token(
        &self,
        login: &DeviceCodeHash,
        deadline: Instant,
        mut transition: impl FnMut(&mut Login, UnixMs) -> bool,
    ) -> Result<bool, StoreError> {
        let stored = retry::until(deadline, self.times.store_retry_pause, || {
            apply(&*self.store, Key::Device(login), &mut transition)
        });
        if let Err(error) = &stored {
            let fields = [("id", login.login_id()), ("error", &error.to_string())];
            self.log.error("token_lost", &fields);
        }
        Ok(stored?.unwrap_or(false))
    }

    /// The status of a login for its client (RFC 8628 §3.4). Concurrent polls share one look-up.
    pub(crate) fn poll(&self, login: &DeviceCodeHash) -> Result<Polled, StoreError> {
        self.polls
            .submit(login.clone(), |batch| self.store.poll(&batch))
    }

    /// Takes the token of a completed login for one poll, under a lease, which [`Flow::delivered`] or [`Flow::not_delivered`]
    /// ends.
    pub(crate) fn redeem(&self, login: &DeviceCodeHash) -> Result<Redeemed, StoreError> {
        let lease = LeaseId::generate();
        let begun = apply(&*self.store, Key::Device(login), |login, now| {
            login.begin_delivery(&lease, now, self.times.delivery_lease)
        });
        let grant = match begun {
            Ok(begun) => begun.flatten(),
            Err(StoreError::Locked) => None,
            Err(error) => return Err(error),
        };
        let Some(grant) = grant else {
            return Ok(Redeemed::Busy);
        };
        let Some(access_token) = self.keys.open(login, &grant.token) else {
            let hint = ("hint", "was SERVER_SECRET or the client secret changed?");
            self.log
                .error("token_unreadable", &[("id", login.login_id()), hint]);
            return Ok(Redeemed::Unreadable);
        };
        Ok(Redeemed::Granted(Box::new(Delivery {
            access_token,
            api_url: grant.api_url,
            organization_id: grant.organization_id,
            scope: grant.scope,
            login: login.clone(),
            lease,
        })))
    }

    /// The client has the token, which is deleted from the store.
    pub(crate) fn delivered(&self, delivery: &Delivery) {
        let id = ("id", delivery.login.login_id());
        let ended = apply(&*self.store, Key::Device(&delivery.login), |login, _| {
            login.delivered(&delivery.lease)
        });
        match ended {
            Ok(Some(true)) => self.log.info("login_redeemed", &[id]),
            // The lease had ended, and another poll may have the token as well.
            Ok(_) => self.log.warn("login_redeemed_twice", &[id]),
            // The client has its token, and will not poll again. The one in the store expires.
            Err(error) => {
                let fields = [id, ("error", &error.to_string())];
                self.log.warn("login_redeemed_but_kept", &fields);
            }
        }
    }

    /// The client has not received the token, so the next poll gets it. If the store fails, the lease ends by itself.
    pub(crate) fn not_delivered(&self, delivery: &Delivery) {
        let id = ("id", delivery.login.login_id());
        let ended = apply(&*self.store, Key::Device(&delivery.login), |login, _| {
            login.not_delivered(&delivery.lease)
        });
        let why = ended.err().map(|error| error.to_string());
        let fields = [id, ("error", why.as_deref().unwrap_or("none"))];
        self.log.info("token_not_delivered", &fields);
    }

    /// Purges logins that are over, and counts the others. Returns how many were purged.
    pub(crate) fn clean_up(&self) -> Result<u64, StoreError> {
        const BATCH: u32 = 1_000;
        let mut count = 0;
        loop {
            let purged = self.store.purge(BATCH)?;
            for purged in purged.iter().filter(|purged| purged.expired) {
                self.log
                    .info("login_expired", &[("id", purged.key.login_id())]);
            }
            count += purged.len() as u64;
            if purged.len() < BATCH as usize {
                self.live_logins.count(&*self.store)?;
                return Ok(count);
            }
        }
    }

    pub(crate) fn ping(&self) -> Result<(), StoreError> {
        self.store.ping()
    }

    fn log_denied(&self, login: &DeviceCodeHash, at: &str) {
        let fields = [("id", login.login_id()), ("at", at)];
        self.log.info("login_denied", &fields);
    }
}
