//! The device flow (RFC 8628): what programs and browsers ask of a login. It knows the store and Postiz, no HTTP, no SQL. What a
//! login may become is `login.rs`.

use std::sync::Arc;
use std::time::Instant;

use crate::server::codes::{BrowserKey, DeviceCode, DeviceCodeHash, State, UserCode};
use crate::server::config::Config;
use crate::server::keys::Keys;
use crate::server::live_logins::LiveLogins;
use crate::server::log::{Level, Log};
use crate::server::login::{
    Claim, CodeDigest, Failure, LeaseId, Login, Polled, SealedClient, SealedGrant, Starter, UnixMs,
};
use crate::server::postiz::{Client, Grant, Postiz, PostizError};
use crate::server::seal::Seal;
use crate::server::store::batcher::Batcher;
use crate::server::store::{Inserted, Key, NewLogin, PoolCounts, Store, StoreError, apply};
use crate::server::times::Times;
use crate::shared::secret::Secret;

/// User codes drawn before giving up: one collision is rare, five in a row mean that something is broken.
const DRAWS_MAX: usize = 5;

/// So often does a person's decision wait for another one of the same login.
const DECISION_TRIES_MAX: usize = 5;

/// Why a callback is rejected whose `state` no login has.
const UNKNOWN_STATE: &str = "unknown_state";

/// The device flow over one store and one Postiz.
pub struct Flow {
    store: Arc<dyn Store>,
    postiz: Postiz,
    keys: Arc<Keys>,
    seal: Seal,
    /// What clients are told as `api_url`.
    public_api_url: String,
    starts: Batcher<NewLogin, Result<Inserted, StartError>>,
    polls: Batcher<DeviceCodeHash, Polled>,
    live_logins: LiveLogins,
    times: Times,
    log: Arc<Log>,
}

/// A login that has begun.
pub struct Started {
    /// For the client alone.
    pub device_code: DeviceCode,
    /// For the user.
    pub user_code: UserCode,
    /// Goes into the link, beside the user code: a client that sends it does not guess.
    pub link_mac: String,
}

/// Why a login could not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// There are as many logins as may live at once, and none of them can make room.
    Full,
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> StartError {
        StartError::Store(error)
    }
}

/// What became of [`Flow::confirm`].
pub enum Confirmed {
    /// Where the browser goes now.
    GoOn(String),
    /// The login does not wait for its user any more.
    Gone,
    /// Postiz registered no client for it; the login stays open.
    RegistrationFailed(PostizError),
}

/// A callback's login, where its `state` names one, and what became of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Returned {
    /// The login.
    pub login: Option<DeviceCodeHash>,
    /// What became of the callback.
    pub callback: Callback,
}

impl Returned {
    /// A callback that was not looked up, or names no login.
    pub fn nowhere(callback: Callback) -> Returned {
        Returned {
            login: None,
            callback,
        }
    }

    fn of(login: DeviceCodeHash, callback: Callback) -> Returned {
        Returned {
            login: Some(login),
            callback,
        }
    }
}

/// What became of a callback.
#[derive(Debug, PartialEq, Eq)]
pub enum Callback {
    /// The login is complete (by this callback or an earlier one).
    SignedIn,
    /// Another callback exchanges the code; it will not take long.
    Busy,
    /// The user refused at Postiz.
    Refused,
    /// Postiz reported an error other than a refusal; the login stays open.
    AuthorizationFailed,
    /// No login of this browser waits for it. Why, in a word for the log.
    Rejected(&'static str),
    /// The exchange failed; the login stays open.
    ExchangeFailed(PostizError),
    /// Postiz has refused so many codes that the login is over.
    Over,
}

/// What became of [`Flow::redeem`].
pub enum Redeemed {
    /// The token, for this poll alone.
    Granted(Box<Handover>),
    /// Another poll is being handed the token at this moment; if it hangs up, the next one gets it.
    Elsewhere,
    /// The token cannot be decrypted any more: the login has to be started again.
    Unreadable,
}

/// A token on its way to the one client that gets it, under a lease that ends by itself.
pub struct Handover {
    /// The token.
    pub access_token: Secret<String>,
    /// Where the client finds the Postiz API.
    pub api_url: String,
    /// The organisation.
    pub organization_id: Option<String>,
    /// What the token may do.
    pub scope: Option<String>,
    login: DeviceCodeHash,
    lease: LeaseId,
}

/// How a login is named by the browser that comes back from Postiz.
pub struct Returning {
    /// The `state` of the query.
    pub state: State,
    /// The key in its cookie.
    pub browser: BrowserKey,
    /// Does the key come from the cookie of the version before `__Host-` cookies? That one counts only for logins which an
    /// instance of that version confirmed, since a sibling domain could set it.
    pub is_old_cookie: bool,
}

impl Flow {
    /// The flow, with the limit on live logins and the times of `config`.
    pub fn new(
        store: Arc<dyn Store>,
        postiz: Postiz,
        keys: Arc<Keys>,
        config: &Config,
        log: Arc<Log>,
    ) -> Flow {
        Flow {
            store,
            postiz,
            seal: Seal::new(Arc::clone(&keys)),
            keys,
            public_api_url: config.public_api_url.as_str().to_owned(),
            starts: Batcher::new(&config.times),
            polls: Batcher::new(&config.times),
            live_logins: LiveLogins::new(config.limits.live_logins),
            times: config.times,
            log,
        }
    }

    /// Begins a login (RFC 8628 §3.1), in one commit with all others that begin at this moment.
    pub fn start(&self, starter: Starter) -> Result<Started, StartError> {
        for _ in 0..DRAWS_MAX {
            let (device_code, user_code) = (DeviceCode::generate(), UserCode::generate());
            let new = NewLogin {
                key: device_code.hash(),
                user_code: user_code.clone(),
                starter: starter.clone(),
            };
            let key = new.key.clone();
            if self.starts.submit(new, |batch| self.insert(&batch))?? == Inserted::UserCodeTaken {
                continue;
            }
            let fields = [("id", key.login_id()), ("client", &starter.address)];
            self.log.info("login_started", &fields);
            return Ok(Started {
                link_mac: self.keys.link_mac(&user_code),
                device_code,
                user_code,
            });
        }
        Err(StartError::Store(StoreError::Unavailable(format!(
            "{DRAWS_MAX} user codes in a row were taken"
        ))))
    }

    /// Adds those logins for which there is room.
    fn insert(&self, new: &[NewLogin]) -> Result<Vec<Result<Inserted, StartError>>, StoreError> {
        let room = self
            .live_logins
            .reserve(new.len(), &*self.store, &self.log)?;
        let (fits, full) = new.split_at(room);
        let inserted = match fits {
            [] => Vec::new(),
            fits => self.store.insert(fits)?,
        };
        let full = full.iter().map(|_| Err(StartError::Full));
        Ok(inserted.into_iter().map(Ok).chain(full).collect())
    }

    /// The undecided login that a user code names, with the store's time. It may have expired.
    pub fn find(&self, user_code: &UserCode) -> Result<Option<(Login, UnixMs)>, StoreError> {
        self.store.read(Key::User(user_code))
    }

    /// Is there an OAuth app? Then Postiz keeps one token for each account.
    pub fn has_app(&self) -> bool {
        self.postiz.has_app()
    }

    /// Will [`Flow::confirm`] register a client for this login?
    pub fn must_register(&self, login: &Login) -> bool {
        !self.has_app() && self.client(&login.key, login.client.as_ref()).is_none()
    }

    /// The user confirms a login that was found, in this browser (RFC 8628 §3.3). Its client is registered now and no
    /// earlier, so that strangers who start logins do not make Postiz register clients.
    pub fn confirm(&self, found: &Login, browser: &BrowserKey) -> Result<Confirmed, StoreError> {
        let mut registered = None;
        if self.must_register(found) {
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
                login.adopt(client, found.client.as_ref());
            }
            confirmed.then(|| login.client.clone())
        })?;
        let Some(client) = confirmed.flatten() else {
            return Ok(Confirmed::Gone);
        };
        let client = self.client(&found.key, client.as_ref());
        if client.is_none() && !self.has_app() {
            let cause = "its client was sealed under another SERVER_SECRET".to_owned();
            return Ok(self.registration_failed(found, PostizError::Failed(cause)));
        }
        self.log.info("login_confirmed", &[("id", found.id())]);
        let url = self.postiz.authorize_url(&state, client.as_ref());
        Ok(Confirmed::GoOn(url))
    }

    fn registration_failed(&self, login: &Login, error: PostizError) -> Confirmed {
        self.postiz_failed("registration_failed", &login.key, &error);
        Confirmed::RegistrationFailed(error)
    }

    /// Logs that a request to Postiz failed: as an error where only the operator can mend the cause.
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

    fn sealed_client(&self, login: &Login, client: Client) -> SealedClient {
        let fields = [("id", login.id()), ("oauth_client", &client.id)];
        self.log.info("client_registered", &fields);
        SealedClient {
            verifier: self.seal.seal(&login.key, &client.verifier),
            id: client.id,
            redirect_uri: client.redirect_uri,
        }
    }

    /// The client of a login, where it has one that can be read.
    fn client(&self, login: &DeviceCodeHash, sealed: Option<&SealedClient>) -> Option<Client> {
        let sealed = sealed?;
        Some(Client {
            id: sealed.id.clone(),
            verifier: self.seal.open(login, &sealed.verifier)?,
            redirect_uri: sealed.redirect_uri.clone(),
        })
    }

    /// The user refuses on our own page. False: no such login.
    pub fn refuse(&self, user_code: &UserCode) -> Result<bool, StoreError> {
        let denied = self.decide(user_code, |login, now| {
            login.deny(now).then(|| login.key.clone())
        })?;
        let denied = denied.flatten();
        if let Some(login) = &denied {
            self.log_denied(login, "this server");
        }
        Ok(denied.is_some())
    }

    /// Applies what a person decides, who can wait a moment for another decision to be committed to a slow disk.
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

    /// Postiz sent the browser back with an error (RFC 6749 §4.1.2.1); only `access_denied` is the user's own word.
    pub fn callback_error(&self, from: &Returning, error: &str) -> Result<Returned, StoreError> {
        let (state, browser) = (from.state.hash(), from.browser.hash());
        if error == "access_denied" {
            let denied = apply(&*self.store, Key::State(&state), |login, now| {
                let denied = self.accepts(from, login) && login.deny_from(&browser, now);
                (denied, login.key.clone(), login.rejection(&browser, now))
            })?;
            return Ok(match denied {
                None => Returned::nowhere(Callback::Rejected(UNKNOWN_STATE)),
                Some((false, login, why)) => Returned::of(login, Callback::Rejected(why)),
                Some((true, login, _)) => {
                    self.log_denied(&login, "Postiz");
                    Returned::of(login, Callback::Refused)
                }
            });
        }
        let Some((login, now)) = self.store.read(Key::State(&state))? else {
            return Ok(Returned::nowhere(Callback::Rejected(UNKNOWN_STATE)));
        };
        let is_own = self.accepts(from, &login) && login.browser.as_ref() == Some(&browser);
        let callback = match login.polled(now) {
            Polled::Pending if is_own => {
                let fields = [("id", login.id()), ("error", error)];
                self.log.warn("authorization_failed", &fields);
                Callback::AuthorizationFailed
            }
            Polled::Completed | Polled::Unknown if is_own => Callback::SignedIn,
            _ => Callback::Rejected(login.rejection(&browser, now)),
        };
        Ok(Returned::of(login.key, callback))
    }

    /// Postiz sent the browser back with a code: one callback exchanges it, the others are told to wait.
    pub fn callback_code(&self, from: &Returning, code: &str) -> Result<Returned, StoreError> {
        let (state, browser) = (from.state.hash(), from.browser.hash());
        let (digest, lease) = (CodeDigest::of(code), LeaseId::generate());
        let give_up = Instant::now() + self.times.store_token;
        let claimed = apply(&*self.store, Key::State(&state), |login, now| {
            let claim = match self.accepts(from, login) {
                true => login.claim(&browser, &digest, &lease, now),
                false => Claim::Unknown,
            };
            let (key, client) = (login.key.clone(), login.client.clone());
            (claim, key, client, login.rejection(&browser, now))
        });
        let claimed = match claimed {
            // Another callback writes this login at this moment.
            Err(StoreError::Locked) => return Ok(Returned::nowhere(Callback::Busy)),
            claimed => claimed?,
        };
        let Some((claim, login, client, rejection)) = claimed else {
            return Ok(Returned::nowhere(Callback::Rejected(UNKNOWN_STATE)));
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
            Claim::Newer => self.exchanged_again(&login, exchange(), give_up)?,
            Claim::Granted => match exchange() {
                Ok(grant) => self.complete(&login, &lease, &digest, grant, give_up)?,
                Err(error) => self.exchange_failed(&login, &lease, digest, error)?,
            },
        };
        Ok(Returned::of(login, callback))
    }

    /// Does the cookie count for this login? See [`Returning::is_old_cookie`].
    fn accepts(&self, from: &Returning, login: &Login) -> bool {
        !from.is_old_cookie
            || self.keys.state(&login.key, &from.browser).expose() != from.state.expose()
    }

    /// The user has authorised once more. Whatever comes of it, the login is complete.
    fn exchanged_again(
        &self,
        login: &DeviceCodeHash,
        exchanged: Result<Grant, PostizError>,
        give_up: Instant,
    ) -> Result<Callback, StoreError> {
        let id = ("id", login.login_id());
        match exchanged {
            Ok(grant) => {
                let sealed = self.sealed(login, grant);
                let replace = |login: &mut Login, now| login.replace_grant(&sealed, now);
                if self.store_token(login, give_up, replace)? {
                    self.log.info("login_completed_again", &[id]);
                }
            }
            Err(error) => self.postiz_failed("exchange_failed", login, &error),
        }
        Ok(Callback::SignedIn)
    }

    fn sealed(&self, login: &DeviceCodeHash, grant: Grant) -> SealedGrant {
        SealedGrant {
            token: self.seal.seal(login, &grant.access_token),
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
        let failure = match error {
            PostizError::InvalidGrant => Failure::Refused(code),
            _ => Failure::Unanswered,
        };
        self.postiz_failed("exchange_failed", login, &error);
        // If the store is gone by now, the lease ends by itself.
        let status = apply(&*self.store, Key::Device(login), |login, now| {
            login.release(lease, &failure);
            login.polled(now)
        })?;
        Ok(match status {
            Some(Polled::Denied) if error == PostizError::InvalidGrant => {
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
        give_up: Instant,
    ) -> Result<Callback, StoreError> {
        let organization = grant.organization_id.clone().unwrap_or_default();
        let sealed = self.sealed(login, grant);
        let complete = |login: &mut Login, now| login.complete(lease, code, &sealed, now);
        if !self.store_token(login, give_up, complete)? {
            return Ok(Callback::Rejected("lease_lost"));
        }
        let fields = [("id", login.login_id()), ("organization", &organization)];
        self.log.info("login_completed", &fields);
        Ok(Callback::SignedIn)
    }

    /// Stores a token by `transition`. Postiz spends a code only once, so a store that is away for a moment must not cost the
    /// token: this tries until `give_up`, when the lease ends. False: the login takes it no more.
    fn store_token(
        &self,
        login: &DeviceCodeHash,
        give_up: Instant,
        mut transition: impl FnMut(&mut Login, UnixMs) -> bool,
    ) -> Result<bool, StoreError> {
        loop {
            match apply(&*self.store, Key::Device(login), &mut transition) {
                Ok(stored) => return Ok(stored.unwrap_or(false)),
                Err(error) if Instant::now() > give_up => {
                    let fields = [("id", login.login_id()), ("error", &error.to_string())];
                    self.log.error("token_lost", &fields);
                    return Err(error);
                }
                Err(_) => std::thread::sleep(self.times.store_retry_pause),
            }
        }
    }

    /// How a login stands, to its client (RFC 8628 §3.4), by one look-up for all polls of this moment.
    pub fn poll(&self, login: &DeviceCodeHash) -> Result<Polled, StoreError> {
        self.polls
            .submit(login.clone(), |batch| self.store.poll(&batch))
    }

    /// Takes the token of a completed login, for one poll, under a lease. [`Flow::delivered`] or [`Flow::not_delivered`] ends
    /// it.
    pub fn redeem(&self, login: &DeviceCodeHash) -> Result<Redeemed, StoreError> {
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
            return Ok(Redeemed::Elsewhere);
        };
        let Some(access_token) = self.seal.open(login, &grant.token) else {
            let hint = ("hint", "was SERVER_SECRET or the client secret changed?");
            self.log
                .error("token_unreadable", &[("id", login.login_id()), hint]);
            return Ok(Redeemed::Unreadable);
        };
        Ok(Redeemed::Granted(Box::new(Handover {
            access_token,
            api_url: grant.api_url,
            organization_id: grant.organization_id,
            scope: grant.scope,
            login: login.clone(),
            lease,
        })))
    }

    /// The client has the token: it is forgotten here.
    pub fn delivered(&self, handover: &Handover) {
        let id = ("id", handover.login.login_id());
        let ended = apply(&*self.store, Key::Device(&handover.login), |login, _| {
            login.delivered(&handover.lease)
        });
        match ended {
            Ok(Some(true)) => self.log.info("login_redeemed", &[id]),
            // The lease had ended, and another poll has the token as well.
            Ok(_) => self.log.warn("login_redeemed_twice", &[id]),
            // The client has its token and will not poll again; what is left in the store expires.
            Err(error) => {
                let fields = [id, ("error", &error.to_string())];
                self.log.warn("login_redeemed_but_kept", &fields);
            }
        }
    }

    /// The client has not got the token: the next poll will. If the store is away, the lease ends by itself.
    pub fn not_delivered(&self, handover: &Handover) {
        let id = ("id", handover.login.login_id());
        let ended = apply(&*self.store, Key::Device(&handover.login), |login, _| {
            login.not_delivered(&handover.lease)
        });
        let why = ended.err().map(|error| error.to_string());
        let fields = [id, ("error", why.as_deref().unwrap_or("none"))];
        self.log.info("token_not_delivered", &fields);
    }

    /// Purges what is long over, and counts what is left.
    pub fn clean_up(&self) -> Result<u64, StoreError> {
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

    /// Postiz, as this server meets it.
    pub(crate) fn postiz(&self) -> &Postiz {
        &self.postiz
    }

    /// About how many logins the store keeps.
    pub(crate) fn logins(&self) -> u64 {
        self.live_logins.estimate()
    }

    /// The store's connections to a database, if it has any.
    pub(crate) fn pool(&self) -> Option<PoolCounts> {
        self.store.pool()
    }

    /// Does the store answer?
    pub fn ping(&self) -> Result<(), StoreError> {
        self.store.ping()
    }

    fn log_denied(&self, login: &DeviceCodeHash, at: &str) {
        let fields = [("id", login.login_id()), ("at", at)];
        self.log.info("login_denied", &fields);
    }
}
