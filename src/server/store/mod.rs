//! The one place that keeps state. Two backends stand behind [`Store`]: [`postgres`] and [`embedded`].
//!
//! Every operation is atomic, over all instances that share the store. Time is the store's own, never the caller's.
//! "Not found", "too late" and "already used" are answers; a [`StoreError`] means that the store itself failed.

mod connect;
pub mod database_url;
pub mod embedded;
mod passfile;
mod pool;
pub mod postgres;
mod tls;

use std::fmt;
use std::time::Duration;

use crate::server::codes::{BrowserKeyHash, DeviceCodeHash, StateHash, UserCode};
use crate::server::seal::SealedToken;

/// How long an expired login still answers "expired" before it is purged.
pub const EXPIRED_FOR: Duration = Duration::from_secs(15 * 60);

/// How long a claimed exchange may take before another callback may claim it: the claim of an instance that died.
pub const CLAIM_LASTS: Duration = Duration::from_secs(30);

/// How long a token stays redeemable at least once it is there, even if the login expires meanwhile.
pub const REDEEMABLE_FOR: Duration = Duration::from_secs(60);

/// What keeps the logins.
pub trait Store: Send + Sync {
    /// Adds logins, each of them unless its user code is taken by another pending one, in one commit. Says what became of
    /// each, in order.
    fn insert(&self, new: &[NewRequest]) -> Result<Vec<Inserted>, StoreError>;

    /// The live login that `user_code` names and that still waits for its user.
    fn find(&self, user_code: &UserCode) -> Result<Option<PendingRequest>, StoreError>;

    /// Ties a live, pending login to a browser and a trip to Postiz. An earlier tie is replaced. `None`: no such login.
    fn bind(
        &self,
        user_code: &UserCode,
        state: &StateHash,
        browser: &BrowserKeyHash,
    ) -> Result<Option<DeviceCodeHash>, StoreError>;

    /// Claims the exchange of the login that this state and this browser are tied to: of any number of callbacks, one
    /// gets [`Claim::Mine`], until it completes, is released, or [`CLAIM_LASTS`] is over.
    fn claim(&self, state: &StateHash, browser: &BrowserKeyHash) -> Result<Claim, StoreError>;

    /// Gives a claim back: the login waits for its user again.
    fn release(&self, login: &DeviceCodeHash) -> Result<(), StoreError>;

    /// Stores the token of a claimed login, which can then be redeemed for at least [`REDEEMABLE_FOR`].
    /// False: the claim is no longer there.
    fn complete(&self, login: &DeviceCodeHash, grant: &SealedGrant) -> Result<bool, StoreError>;

    /// Denies a live, pending login. `None`: no such login.
    fn deny(&self, who: Denier) -> Result<Option<DeviceCodeHash>, StoreError>;

    /// How logins stand, in order. One look-up for all of them, no write.
    fn poll(&self, logins: &[DeviceCodeHash]) -> Result<Vec<Polled>, StoreError>;

    /// Takes a completed login's token out, for one receiver: while the [`Redemption`] lives, others get `None`. It takes
    /// effect when confirmed; dropped (or its process killed), the token is back for the next poll.
    fn redeem(&self, login: &DeviceCodeHash) -> Result<Option<Redemption>, StoreError>;

    /// Deletes up to `limit` logins that have been expired for [`EXPIRED_FOR`]. Says how many it deleted.
    fn purge(&self, limit: u32) -> Result<u64, StoreError>;

    /// How many logins it keeps, those that are over but not purged included.
    fn count(&self) -> Result<u64, StoreError>;

    /// Does the store answer?
    fn ping(&self) -> Result<(), StoreError>;
}

/// A login to be added.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// Its key.
    pub login: DeviceCodeHash,
    /// What the user will type.
    pub user_code: UserCode,
    /// Where the client that started it is.
    pub client_address: String,
    /// What that client calls itself.
    pub client_agent: String,
    /// How long it lives.
    pub lifetime: Duration,
}

/// What became of one login of [`Store::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    Yes,
    /// Another pending login has this user code: draw another.
    UserCodeTaken,
}

/// A login that waits for its user: what the page shows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRequest {
    /// Its key.
    pub login: DeviceCodeHash,
    /// Where the client that started it is.
    pub client_address: String,
    /// What that client calls itself.
    pub client_agent: String,
    /// How long ago it was started.
    pub age: Duration,
}

/// What became of [`Store::claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This caller exchanges, and nobody else.
    Mine(DeviceCodeHash),
    /// Another callback is at it.
    Taken(DeviceCodeHash),
    /// The login has its token already (and perhaps handed it over).
    Done,
    /// No live login is tied to this state and this browser.
    Unknown,
}

/// Who denies, by what they know.
#[derive(Clone, Copy, Debug)]
pub enum Denier<'a> {
    /// Someone who entered the user code here and refused.
    User(&'a UserCode),
    /// The bound browser, coming back from Postiz with a refusal.
    Browser(&'a StateHash, &'a BrowserKeyHash),
}

/// How a login stands, to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// The user is not done (or the exchange is running).
    Pending,
    /// The token is there: redeem it.
    Completed,
    /// The user refused.
    Denied,
    /// Its time is over.
    Expired,
    /// Never given out, redeemed, or purged.
    Unknown,
}

/// A token with what the client is told besides, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedGrant {
    /// The encrypted token.
    pub token: SealedToken,
    /// Where the client finds the Postiz API.
    pub api_url: String,
    /// The organisation, where Postiz named one.
    pub organization_id: Option<String>,
    /// What the token may do, where Postiz said so.
    pub scope: Option<String>,
}

/// A token on its way to its one receiver. Drop it, and the token is back in the store.
pub struct Redemption {
    /// What is being handed over.
    pub grant: SealedGrant,
    confirm: Box<dyn FnOnce() -> Result<(), StoreError> + Send>,
}

impl Redemption {
    /// `confirm` makes the hand-over final; dropping it unused must undo it.
    pub(crate) fn new(
        grant: SealedGrant,
        confirm: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) -> Self {
        Redemption {
            grant,
            confirm: Box::new(confirm),
        }
    }

    /// Makes the hand-over final: the token is gone from the store.
    pub fn confirm(self) -> Result<(), StoreError> {
        (self.confirm)()
    }
}

impl fmt::Debug for Redemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redemption")
    }
}

/// The store failed. The text is for the log; no client ever sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time: waiting may mend it.
    Unavailable(String),
    /// It answers, but will not work like this: only a person can mend it.
    Unusable(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Unavailable(cause) => write!(f, "the store is unavailable: {cause}"),
            StoreError::Unusable(cause) => write!(f, "the store cannot be used: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {}
