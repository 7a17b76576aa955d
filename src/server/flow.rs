//! The device flow as decisions (RFC 8628): what a login may become next. It knows the store and Postiz, no HTTP, no SQL.
//!
//! A login is pending until its user confirms it and comes back from Postiz with a code; then exchanging; then completed,
//! and redeemed by one poll. Or it is denied, or expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::server::codes::{BrowserKey, DeviceCode, DeviceCodeHash, State, UserCode};
use crate::server::log::Log;
use crate::server::postiz::{EXCHANGE_TIMEOUT, ExchangeError, Grant, Postiz};
use crate::server::seal::Seal;
use crate::server::store::{
    CLAIM_LASTS, Claim, Denier, Inserted, NewRequest, PendingRequest, Polled, Redemption,
    SealedGrant, Store, StoreError,
};
use crate::shared::secret::Secret;

/// How long a login lives (RFC 8628 §3.2, `expires_in`).
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long a callback waits for the exchange that another one runs.
const WAIT_FOR_EXCHANGE: Duration = EXCHANGE_TIMEOUT.saturating_add(Duration::from_secs(2));

/// How often it looks.
const WAIT_STEP: Duration = Duration::from_millis(50);

/// User codes drawn before giving up: one collision is rare, five in a row mean that something is broken.
const DRAWS_MAX: usize = 5;

/// The device flow over one store and one Postiz.
pub struct Flow {
    store: Arc<dyn Store>,
    postiz: Postiz,
    seal: Arc<Seal>,
    /// What clients are told as `api_url`.
    public_api_url: String,
    live: LiveLogins,
    log: Arc<Log>,
}

/// A login that has begun.
pub struct Started {
    /// For the client alone.
    pub device_code: DeviceCode,
    /// For the user.
    pub user_code: UserCode,
}

/// Who begins a login, for the page that asks its user.
pub struct Starter {
    /// Where the client is.
    pub address: String,
    /// What it calls itself.
    pub agent: String,
}

/// Why a login could not begin.
#[derive(Debug)]
pub enum StartError {
    /// There are as many logins as may live at once.
    Full,
    /// The store failed.
    Store(StoreError),
}

/// A login that its user has confirmed.
pub struct Confirmed {
    /// Where the browser goes now.
    pub authorize_url: String,
    /// What its cookie must hold when it comes back.
    pub browser_key: BrowserKey,
}

/// What became of a callback.
#[derive(Debug, PartialEq, Eq)]
pub enum Callback {
    /// The login is complete (by this callback or an earlier one).
    SignedIn,
    /// The user refused at Postiz.
    Refused,
    /// Postiz reported an error other than a refusal; the login stays open.
    AuthorizationFailed,
    /// No login of this browser.
    Unknown,
    /// The exchange failed; the login stays open.
    ExchangeFailed(ExchangeError),
}

/// What became of [`Flow::redeem`].
pub enum Redeemed {
    /// The token, for this poll alone.
    Granted(Box<Handover>),
    /// Another poll is being handed the token at this moment; if it hangs up, the next one gets it.
    Elsewhere,
    /// The token cannot be read any more: the login has to be begun again.
    Lost,
}

/// A token on its way to the one client that gets it. Dropped, it stays in the store for the next poll.
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
    redemption: Redemption,
    log: Arc<Log>,
}

impl Handover {
    /// The client has it: forget it here.
    pub fn delivered(self) {
        let id = self.login.login_id();
        match self.redemption.confirm() {
            Ok(()) => self.log.info("login_redeemed", &[("id", id)]),
            // The client has its token and will not poll again; what is left in the store expires.
            Err(error) => self.log.warn(
                "login_redeemed_but_kept",
                &[("id", id), ("error", &error.to_string())],
            ),
        }
    }
}

impl Flow {
    /// The flow. At most `live_max` logins are kept at once; 0 is no limit.
    pub fn new(
        store: Arc<dyn Store>,
        postiz: Postiz,
        seal: Arc<Seal>,
        public_api_url: String,
        live_max: u32,
        log: Arc<Log>,
    ) -> Flow {
        Flow {
            store,
            postiz,
            seal,
            public_api_url,
            live: LiveLogins::new(live_max),
            log,
        }
    }

    /// Begins logins (RFC 8628 §3.1), all of them in one commit. Says what became of each, in order.
    pub fn start(&self, starters: &[Starter]) -> Vec<Result<Started, StartError>> {
        let room = self.live.take(&*self.store, starters.len());
        let begun = room.and_then(|room| {
            let (begin, full) = starters.split_at(room);
            // A store that fails must not come to look full.
            let drawn = self
                .draw(begin)
                .inspect_err(|_| self.live.give_back(room))?;
            let begun = begin.iter().zip(drawn);
            let begun =
                begun.map(|(starter, drawn)| drawn.map_or_else(|| self.draw_again(starter), Ok));
            Ok(begun
                .chain(full.iter().map(|_| Err(StartError::Full)))
                .collect())
        });
        let failed = |error: StoreError| {
            let each = |_| Err(StartError::Store(error.clone()));
            starters.iter().map(each).collect()
        };
        begun.unwrap_or_else(failed)
    }

    /// Draws codes for each, and keeps those that nobody has. `None`: its user code is taken.
    fn draw(&self, starters: &[Starter]) -> Result<Vec<Option<Started>>, StoreError> {
        let mut drawn: Vec<Option<Started>> = Vec::new();
        let mut new = Vec::new();
        for starter in starters {
            let (device_code, user_code) = (DeviceCode::generate(), UserCode::generate());
            new.push(NewRequest {
                login: device_code.hash(),
                user_code: user_code.clone(),
                client_address: starter.address.clone(),
                client_agent: starter.agent.clone(),
                lifetime: LIFETIME,
            });
            drawn.push(Some(Started {
                device_code,
                user_code,
            }));
        }
        if new.is_empty() {
            return Ok(drawn);
        }
        let mut inserted = self.store.insert(&new)?.into_iter();
        for (drawn, new) in drawn.iter_mut().zip(&new) {
            if inserted.next() == Some(Inserted::Yes) {
                let (id, client) = (new.login.login_id(), &*new.client_address);
                self.log
                    .info("login_started", &[("id", id), ("client", client)]);
            } else {
                *drawn = None;
            }
        }
        Ok(drawn)
    }

    /// Draws once more for one whose user code was taken.
    fn draw_again(&self, starter: &Starter) -> Result<Started, StartError> {
        for _ in 1..DRAWS_MAX {
            let drawn = self.draw(std::slice::from_ref(starter));
            let drawn = drawn.map_err(StartError::Store)?.pop();
            if let Some(started) = drawn.flatten() {
                return Ok(started);
            }
        }
        Err(StartError::Store(StoreError::Unavailable(format!(
            "{DRAWS_MAX} user codes in a row were taken"
        ))))
    }

    /// The live login that a user code names, for the page that shows who asked.
    pub fn find(&self, user_code: &UserCode) -> Result<Option<PendingRequest>, StoreError> {
        self.store.find(user_code)
    }

    /// The user confirms (RFC 8628 §3.3). A browser that has a key keeps it, so that two logins in two tabs both work.
    pub fn confirm(
        &self,
        user_code: &UserCode,
        browser: Option<BrowserKey>,
    ) -> Result<Option<Confirmed>, StoreError> {
        let (state, browser_key) = (
            State::generate(),
            browser.unwrap_or_else(BrowserKey::generate),
        );
        let Some(login) = self
            .store
            .bind(user_code, &state.hash(), &browser_key.hash())?
        else {
            return Ok(None);
        };
        self.log
            .info("login_confirmed", &[("id", login.login_id())]);
        Ok(Some(Confirmed {
            authorize_url: self.postiz.authorize_url(&state),
            browser_key,
        }))
    }

    /// The user refuses on our own page. False: no such login.
    pub fn refuse(&self, user_code: &UserCode) -> Result<bool, StoreError> {
        self.deny(Denier::User(user_code))
    }

    /// Postiz sent the browser back with an error (RFC 6749 §4.1.2.1); only `access_denied` is the user's own word.
    pub fn callback_error(
        &self,
        state: &State,
        browser: &BrowserKey,
        error: &str,
    ) -> Result<Callback, StoreError> {
        if error == "access_denied" {
            let denied = self.deny(Denier::Browser(&state.hash(), &browser.hash()))?;
            return Ok(if denied {
                Callback::Refused
            } else {
                Callback::Unknown
            });
        }
        Ok(match self.store.claim(&state.hash(), &browser.hash())? {
            Claim::Mine(login) => {
                self.store.release(&login)?;
                self.log.warn(
                    "authorization_failed",
                    &[("id", login.login_id()), ("error", error)],
                );
                Callback::AuthorizationFailed
            }
            Claim::Taken(_) => Callback::AuthorizationFailed,
            Claim::Done => Callback::SignedIn,
            Claim::Unknown => Callback::Unknown,
        })
    }

    /// Postiz sent the browser back with a code: one callback exchanges it, the others wait for what becomes of it.
    pub fn callback_code(
        &self,
        state: &State,
        browser: &BrowserKey,
        code: &str,
    ) -> Result<Callback, StoreError> {
        let (state, browser) = (state.hash(), browser.hash());
        let give_up = Instant::now() + WAIT_FOR_EXCHANGE;
        loop {
            match self.store.claim(&state, &browser)? {
                Claim::Mine(login) => return self.exchange(&login, code),
                Claim::Done => return Ok(Callback::SignedIn),
                Claim::Unknown => return Ok(Callback::Unknown),
                Claim::Taken(_) if Instant::now() > give_up => {
                    return Ok(Callback::ExchangeFailed(ExchangeError::TimedOut));
                }
                Claim::Taken(_) => std::thread::sleep(WAIT_STEP),
            }
        }
    }

    /// How logins stand, to their clients (RFC 8628 §3.4), by one look at the store. Says it of each, in order.
    pub fn poll(&self, logins: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError> {
        if logins.is_empty() {
            return Ok(Vec::new());
        }
        let polled = self.store.poll(logins)?;
        for (login, polled) in logins.iter().zip(&polled) {
            if *polled == Polled::Expired {
                self.log.info("login_expired", &[("id", login.login_id())]);
            }
        }
        Ok(polled)
    }

    /// Takes the token of a completed login, for one poll.
    pub fn redeem(&self, login: &DeviceCodeHash) -> Result<Redeemed, StoreError> {
        let Some(redemption) = self.store.redeem(login)? else {
            return Ok(Redeemed::Elsewhere);
        };
        let Some(access_token) = self.seal.open(login, &redemption.grant.token) else {
            self.log.error(
                "token_unreadable",
                &[
                    ("id", login.login_id()),
                    ("hint", "was the client secret changed?"),
                ],
            );
            return Ok(Redeemed::Lost);
        };
        let SealedGrant {
            api_url,
            organization_id,
            scope,
            ..
        } = redemption.grant.clone();
        let log = Arc::clone(&self.log);
        let handover = Handover {
            access_token,
            api_url,
            organization_id,
            scope,
            login: login.clone(),
            redemption,
            log,
        };
        Ok(Redeemed::Granted(Box::new(handover)))
    }

    /// Clears away what is long over, and counts what is left.
    pub fn clean_up(&self) -> Result<u64, StoreError> {
        const BATCH: u32 = 1_000;
        let mut purged = 0;
        loop {
            let batch = self.store.purge(BATCH)?;
            purged += batch;
            if batch < u64::from(BATCH) {
                self.live.count(&*self.store)?;
                return Ok(purged);
            }
        }
    }

    /// Does the store answer?
    pub fn ping(&self) -> Result<(), StoreError> {
        self.store.ping()
    }

    fn deny(&self, who: Denier) -> Result<bool, StoreError> {
        let denied = self.store.deny(who)?;
        if let Some(login) = &denied {
            self.log.info("login_denied", &[("id", login.login_id())]);
        }
        Ok(denied.is_some())
    }

    /// The claim is ours: exchange, and store what comes of it.
    fn exchange(&self, login: &DeviceCodeHash, code: &str) -> Result<Callback, StoreError> {
        let claimed_at = Instant::now();
        match self.postiz.exchange(code) {
            Ok(grant) => self.complete(login, grant, claimed_at + CLAIM_LASTS),
            Err(error) => {
                let fields = [("id", login.login_id()), ("error", &error.to_string())];
                match error {
                    ExchangeError::InvalidClient => self.log.error("exchange_failed", &fields),
                    _ => self.log.warn("exchange_failed", &fields),
                }
                // If the store is gone by now, the claim frees itself.
                let released = self.store.release(login);
                released.map(|()| Callback::ExchangeFailed(error))
            }
        }
    }

    /// Postiz spends a code only once, so a store that is away for a moment must not cost the token: try until the
    /// claim is over.
    fn complete(
        &self,
        login: &DeviceCodeHash,
        grant: Grant,
        give_up: Instant,
    ) -> Result<Callback, StoreError> {
        let sealed = SealedGrant {
            token: self.seal.seal(login, &grant.access_token),
            api_url: self.public_api_url.clone(),
            organization_id: grant.organization_id,
            scope: grant.scope,
        };
        loop {
            match self.store.complete(login, &sealed) {
                Ok(true) => {
                    self.log
                        .info("login_completed", &[("id", login.login_id())]);
                    return Ok(Callback::SignedIn);
                }
                Ok(false) => return Ok(Callback::Unknown),
                Err(error) if Instant::now() > give_up => {
                    self.log.error(
                        "token_lost",
                        &[("id", login.login_id()), ("error", &error.to_string())],
                    );
                    return Err(error);
                }
                Err(_) => std::thread::sleep(5 * WAIT_STEP),
            }
        }
    }
}

/// A ceiling on the logins that are kept, so that a flood fills neither disk nor table. The count is an estimate between
/// two looks at the store; instances that share one may together exceed the ceiling by what they add in between.
struct LiveLogins {
    max: u64,
    estimate: AtomicU64,
    /// Milliseconds since `start` of the last look.
    counted_at_ms: AtomicU64,
    start: Instant,
}

impl LiveLogins {
    /// A full store is looked at again no sooner.
    const LOOK_AGAIN: Duration = Duration::from_secs(1);

    fn new(max: u32) -> LiveLogins {
        let (estimate, counted_at_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        LiveLogins {
            max: max.into(),
            estimate,
            counted_at_ms,
            start: Instant::now(),
        }
    }

    /// Takes room for `wanted` more, or for as many as there is. Says for how many.
    fn take(&self, store: &dyn Store, wanted: usize) -> Result<usize, StoreError> {
        let taken = self.take_now(wanted);
        let looked = Duration::from_millis(self.counted_at_ms.load(Ordering::Relaxed));
        if taken == wanted || self.start.elapsed() < looked + Self::LOOK_AGAIN {
            return Ok(taken);
        }
        self.count(store)?;
        Ok(self.take_now(wanted))
    }

    /// Takes it at once, so that nobody else does. What few do not use after all, the next look finds.
    fn take_now(&self, wanted: usize) -> usize {
        let room = |estimate| match self.max {
            0 => wanted as u64,
            max => max.saturating_sub(estimate).min(wanted as u64),
        };
        let (order, more) = (Ordering::Relaxed, |estimate| {
            Some(estimate + room(estimate))
        });
        let (Ok(before) | Err(before)) = self.estimate.fetch_update(order, order, more);
        room(before) as usize
    }

    /// Nobody came to use room that was taken.
    fn give_back(&self, count: usize) {
        let (order, less) = (Ordering::Relaxed, |estimate: u64| {
            Some(estimate.saturating_sub(count as u64))
        });
        // A look in between may have counted without them, so this is no plain subtraction. It always succeeds.
        let _ = self.estimate.fetch_update(order, order, less);
    }

    fn count(&self, store: &dyn Store) -> Result<(), StoreError> {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.counted_at_ms.store(now_ms, Ordering::Relaxed);
        self.estimate.store(store.count()?, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_was_not_used_is_there_again() {
        let live = LiveLogins::new(3);
        assert_eq!((live.take_now(2), live.take_now(2)), (2, 1), "all there is");
        live.give_back(2);
        assert_eq!((live.take_now(1), live.take_now(5)), (1, 1));
        assert_eq!(live.take_now(1), 0);
    }
}
