//! The state machine of a login: its record, and pure transitions over it, with the time as an argument.
//!
//! A login is pending until its user confirms it and returns from Postiz with a code; exchanging the code, under a lease;
//! completed; delivering its token to one poll, under another lease; redeemed. Or it is denied, or expires. Both stores
//! apply these transitions, and have no rules of their own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::server::codes::{BrowserKeyHash, DeviceCodeHash, StateHash, UserCode};
use crate::server::seal::SealedToken;
use crate::shared::hash::{hex, sha256_hex};
use crate::shared::random;

/// How long a login can be confirmed and completed (RFC 8628 §3.2, `expires_in`).
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long an expired login is kept, so that polls get `expired_token`, before it is purged.
pub const EXPIRED_FOR: Duration = Duration::from_secs(15 * 60);

/// The lease of an exchange. After it another callback may exchange, since the instance may have crashed.
pub const EXCHANGE_LEASE: Duration = Duration::from_secs(30);

/// The lease of a delivery: longer than writing the answer and watching the connection afterwards.
pub const DELIVERY_LEASE: Duration = Duration::from_secs(20);

/// How long a token can be redeemed at least, even if the login expires meanwhile.
pub const REDEEMABLE_FOR: Duration = Duration::from_secs(60);

/// A login is denied when Postiz has refused this many of its authorization codes. A completed one exchanges no more than this many.
pub const REFUSED_CODES_MAX: usize = 5;

/// Milliseconds since 1970, by the store's clock.
pub type UnixMs = u64;

/// The stored status of a login. [`Login::status_at`] takes ended leases into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The user has not decided, or has not returned from Postiz.
    Pending,
    /// A callback is exchanging an authorization code.
    Exchanging,
    /// The token is stored.
    Completed,
    /// The token is being delivered to a poll.
    Delivering,
    /// The client has the token.
    Redeemed,
    /// The user refused, or Postiz refused too many codes.
    Denied,
}

impl Status {
    /// All statuses with their names in the store.
    const NAMES: [(Status, &str); 6] = [
        (Status::Pending, "pending"),
        (Status::Exchanging, "exchanging"),
        (Status::Completed, "completed"),
        (Status::Delivering, "delivering"),
        (Status::Redeemed, "redeemed"),
        (Status::Denied, "denied"),
    ];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(status, _)| *status == self);
        found.map_or("", |(_, name)| name)
    }

    /// The status of this name.
    pub fn from_name(name: &str) -> Option<Status> {
        let found = Self::NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(status, _)| *status)
    }

    /// The status after an exchange or a delivery whose lease has ended is undone.
    pub fn settled(self, lease_ended: bool) -> Status {
        match self {
            Status::Exchanging if lease_ended => Status::Pending,
            Status::Delivering if lease_ended => Status::Completed,
            other => other,
        }
    }
}

/// The holder of a lease. Only the holder may end the lease, and a holder that retries keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseId(String);

impl LeaseId {
    /// 128 random bits.
    pub fn generate() -> LeaseId {
        LeaseId(hex(&random::bytes::<16>()))
    }

    /// From the store.
    pub fn from_store(text: String) -> LeaseId {
        LeaseId(text)
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The lease of an exchange or a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The holder.
    pub holder: LeaseId,
    /// When the lease ends.
    pub until: UnixMs,
}

/// A token with what the client gets besides, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedGrant {
    /// The encrypted token.
    pub token: SealedToken,
    /// The URL of the Postiz API.
    pub api_url: String,
    /// The organisation, if Postiz named one.
    pub organization_id: Option<String>,
    /// The token's scope, if Postiz named one.
    pub scope: Option<String>,
}

/// A digest of an authorization code: long enough to tell codes apart, too short to find the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeDigest(String);

impl CodeDigest {
    /// The digest of an authorization code.
    pub fn of(code: &str) -> CodeDigest {
        CodeDigest(sha256_hex(code.as_bytes())[..16].to_owned())
    }
}

/// The client that was registered at Postiz for one login, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedClient {
    /// The client ID.
    pub id: String,
    /// The encrypted PKCE verifier.
    pub verifier: SealedToken,
    /// The registered callback.
    pub redirect_uri: String,
}

/// Who started a login: shown on the confirm page, and used by limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starter {
    /// The client's address.
    pub address: String,
    /// The network of that address (IPv4 /24, IPv6 /48).
    pub network: String,
    /// The client's user agent.
    pub agent: String,
    /// The machine's name, as the client gave it.
    pub machine: String,
}

/// One login, as the stores keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The key in the store.
    pub key: DeviceCodeHash,
    /// The code that the user types.
    pub user_code: UserCode,
    /// The status, without regard to ended leases.
    pub status: Status,
    /// The lease of the exchange or delivery in progress.
    pub lease: Option<Lease>,
    /// The `state` of the OAuth redirect.
    pub state: Option<StateHash>,
    /// The browser that confirmed it.
    pub browser: Option<BrowserKeyHash>,
    /// The OAuth client registered for it; none if there is an OAuth app.
    pub client: Option<SealedClient>,
    /// The token.
    pub grant: Option<SealedGrant>,
    /// Digests of the codes that Postiz refused, without repeats, separated by spaces.
    pub refused_codes: String,
    /// Digests of the codes that were exchanged, in the same form.
    pub exchanged_codes: String,
    /// Who started it.
    pub starter: Starter,
    /// When it was started.
    pub created_at: UnixMs,
    /// When it expires.
    pub expires_at: UnixMs,
}

/// The result of [`Login::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This caller exchanges the code, and no other.
    Granted,
    /// Another callback is exchanging a code.
    Busy,
    /// The login has a token, but the user has authorised again (in a second tab). That may have revoked the token, so this
    /// caller exchanges the new code.
    Newer,
    /// The login has a token, which may have been delivered.
    Done,
    /// Postiz refused this code before.
    RefusedBefore,
    /// Postiz refused too many codes of this login.
    Over,
    /// The login is not this browser's, was denied, or has expired.
    Unknown,
}

/// The status of a login for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// The user is not done, or an exchange or a delivery is in progress.
    Pending,
    /// The token can be delivered.
    Completed,
    /// The user refused, or Postiz refused too many codes.
    Denied,
    /// The login has expired.
    Expired,
    /// The code was never issued, is redeemed, or was purged.
    Unknown,
}

/// The answer to a poll for a login with this [settled](Status::settled) status (RFC 8628 §3.5).
pub fn polled(settled: Status, expired: bool) -> Polled {
    match settled {
        Status::Redeemed => Polled::Unknown,
        Status::Denied => Polled::Denied,
        // An exchange or a delivery that began in time may end after the login expires.
        Status::Exchanging | Status::Delivering => Polled::Pending,
        Status::Pending | Status::Completed if expired => Polled::Expired,
        Status::Pending => Polled::Pending,
        Status::Completed => Polled::Completed,
    }
}

impl Login {
    /// A login that is started at `now`.
    pub fn new(key: DeviceCodeHash, user_code: UserCode, starter: Starter, now: UnixMs) -> Login {
        Login {
            key,
            user_code,
            status: Status::Pending,
            lease: None,
            state: None,
            browser: None,
            client: None,
            grant: None,
            refused_codes: String::new(),
            exchanged_codes: String::new(),
            starter,
            created_at: now,
            expires_at: now + as_ms(LIFETIME),
        }
    }

    /// The id in the log.
    pub fn id(&self) -> &str {
        self.key.login_id()
    }

    /// The status at `now`, with ended leases taken into account.
    pub fn status_at(&self, now: UnixMs) -> Status {
        self.status.settled(self.has_lease_ended(now))
    }

    /// Whether the login waits for its user's decision.
    pub fn is_open(&self, now: UnixMs) -> bool {
        self.status_at(now) == Status::Pending && now < self.expires_at
    }

    /// The status for its client.
    pub fn polled(&self, now: UnixMs) -> Polled {
        polled(self.status_at(now), now >= self.expires_at)
    }

    /// Confirms the login in this browser (RFC 8628 §3.3). May be repeated; another browser replaces the former. False: the
    /// login is not open any more.
    pub fn confirm(&mut self, state: &StateHash, browser: &BrowserKeyHash, now: UnixMs) -> bool {
        // A second click, after the first one has led to Postiz and back already.
        let again = self.status_at(now) == Status::Exchanging
            && self.is_bound_to(browser)
            && self.state.as_ref() == Some(state);
        if again {
            return true;
        }
        if !self.is_open(now) {
            return false;
        }
        self.become_pending();
        self.state = Some(state.clone());
        self.browser = Some(browser.clone());
        true
    }

    /// Compare-and-set: stores `client` if the stored one is still `before`. Of instances that register at the same time one
    /// wins, and all use its client.
    pub fn set_client(&mut self, client: &SealedClient, before: Option<&SealedClient>) {
        if self.client.as_ref() == before {
            self.client = Some(client.clone());
        }
    }

    /// Denies the login on the confirm page. False: it is not open any more.
    pub fn deny(&mut self, now: UnixMs) -> bool {
        if !self.is_open(now) {
            return false;
        }
        self.status = Status::Denied;
        self.lease = None;
        true
    }

    /// Denies the login by a callback of `browser`. May be repeated. False: the login is not this browser's, or was decided
    /// otherwise.
    pub fn deny_from(&mut self, browser: &BrowserKeyHash, now: UnixMs) -> bool {
        self.is_bound_to(browser) && (self.deny(now) || self.status == Status::Denied)
    }

    /// Why a callback from `browser` is rejected, for the log.
    pub fn rejection(&self, browser: &BrowserKeyHash, now: UnixMs) -> &'static str {
        match self.status_at(now) {
            _ if !self.is_bound_to(browser) => "other_browser",
            Status::Denied => "login_denied",
            Status::Pending if now >= self.expires_at => "login_expired",
            _ => "login_completed",
        }
    }

    /// Claims the exchange of `code` for `id`, so that only one of several callbacks exchanges.
    pub fn claim(
        &mut self,
        browser: &BrowserKeyHash,
        code: &CodeDigest,
        id: &LeaseId,
        now: UnixMs,
    ) -> Claim {
        if !self.is_bound_to(browser) {
            return Claim::Unknown;
        }
        match self.status_at(now) {
            Status::Completed if self.is_new_code(code) => {
                push_code(&mut self.exchanged_codes, code);
                Claim::Newer
            }
            Status::Completed | Status::Delivering | Status::Redeemed => Claim::Done,
            Status::Exchanging if self.holder() == Some(id) => Claim::Granted,
            Status::Exchanging => Claim::Busy,
            Status::Denied if self.refused_codes().count() >= REFUSED_CODES_MAX => Claim::Over,
            Status::Denied => Claim::Unknown,
            Status::Pending if now >= self.expires_at => Claim::Unknown,
            Status::Pending if self.refused_codes().any(|refused| refused == code.0) => {
                Claim::RefusedBefore
            }
            Status::Pending => {
                self.start_lease(Status::Exchanging, id, now + as_ms(EXCHANGE_LEASE));
                Claim::Granted
            }
        }
    }

    /// Ends the exchange of `id` without a token, because Postiz refused a code or (`None`) gave no answer about it. The login is
    /// pending again, or denied after [`REFUSED_CODES_MAX`] refused codes. False: `id` does not hold the exchange.
    pub fn release(&mut self, id: &LeaseId, refused: Option<&CodeDigest>) -> bool {
        if self.status != Status::Exchanging || self.holder() != Some(id) {
            return false;
        }
        self.become_pending();
        if let Some(code) = refused {
            push_code(&mut self.refused_codes, code);
        }
        if self.refused_codes().count() >= REFUSED_CODES_MAX {
            self.status = Status::Denied;
        }
        true
    }

    /// Ends the exchange of `id` with a token, which can be redeemed for at least [`REDEEMABLE_FOR`]. False: `id` does not
    /// hold the exchange.
    pub fn complete(
        &mut self,
        id: &LeaseId,
        code: &CodeDigest,
        grant: &SealedGrant,
        now: UnixMs,
    ) -> bool {
        // A retry after a broken connection: the first try was committed.
        if self.grant.as_ref() == Some(grant) {
            return true;
        }
        if self.status != Status::Exchanging || self.holder() != Some(id) {
            return false;
        }
        self.status = Status::Completed;
        self.lease = None;
        push_code(&mut self.exchanged_codes, code);
        self.grant = Some(grant.clone());
        self.expires_at = self.expires_at.max(now + as_ms(REDEEMABLE_FOR));
        true
    }

    /// Replaces a token that was not delivered by one for a newer code. False: it is being delivered, or was.
    pub fn replace_grant(&mut self, grant: &SealedGrant, now: UnixMs) -> bool {
        let replaced = self.status_at(now) == Status::Completed;
        if replaced {
            self.grant = Some(grant.clone());
        }
        replaced
    }

    /// Begins to deliver the token to one poll, under a lease for `id` that ends after `lease`. `None`: there is no token, or it
    /// is being delivered to another poll.
    pub fn begin_delivery(
        &mut self,
        id: &LeaseId,
        now: UnixMs,
        lease: Duration,
    ) -> Option<SealedGrant> {
        let is_holder = self.status_at(now) == Status::Delivering && self.holder() == Some(id);
        if !is_holder && self.polled(now) != Polled::Completed {
            return None;
        }
        self.start_lease(Status::Delivering, id, now + as_ms(lease));
        self.grant.clone()
    }

    /// The client has the token, which is deleted here. False: `id` does not hold the delivery any more.
    pub fn delivered(&mut self, id: &LeaseId) -> bool {
        self.end_delivery(id, Status::Redeemed)
    }

    /// The client has not received the token, so the next poll gets it. False: `id` does not hold the delivery any more.
    pub fn not_delivered(&mut self, id: &LeaseId) -> bool {
        self.end_delivery(id, Status::Completed)
    }

    fn end_delivery(&mut self, id: &LeaseId, status: Status) -> bool {
        if self.status != Status::Delivering || self.holder() != Some(id) {
            return false;
        }
        self.status = status;
        self.lease = None;
        if status == Status::Redeemed {
            // The record is kept until it expires, so that the browser can reload its page.
            self.grant = None;
        }
        true
    }

    fn start_lease(&mut self, status: Status, id: &LeaseId, until: UnixMs) {
        self.status = status;
        self.lease = Some(Lease {
            holder: id.clone(),
            until,
        });
    }

    fn become_pending(&mut self) {
        self.status = Status::Pending;
        self.lease = None;
    }

    fn has_lease_ended(&self, now: UnixMs) -> bool {
        self.lease.as_ref().is_none_or(|lease| now >= lease.until)
    }

    fn holder(&self) -> Option<&LeaseId> {
        self.lease.as_ref().map(|lease| &lease.holder)
    }

    fn is_bound_to(&self, browser: &BrowserKeyHash) -> bool {
        self.browser.as_ref() == Some(browser)
    }

    /// Whether `code` was not exchanged before, and the limit on exchanges is not reached.
    fn is_new_code(&self, code: &CodeDigest) -> bool {
        let exchanged = || self.exchanged_codes.split_ascii_whitespace();
        exchanged().count() < REFUSED_CODES_MAX && !exchanged().any(|seen| seen == code.0)
    }

    fn refused_codes(&self) -> impl Iterator<Item = &str> {
        self.refused_codes.split_ascii_whitespace()
    }
}

fn push_code(codes: &mut String, CodeDigest(code): &CodeDigest) {
    if !codes.is_empty() {
        codes.push(' ');
    }
    codes.push_str(code);
}

/// Whole milliseconds.
pub fn as_ms(duration: Duration) -> UnixMs {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::codes::{BrowserKey, DeviceCode};

    const START: UnixMs = 1_000_000;
    const EXPIRED: UnixMs = START + 15 * 60_000;

    struct Case {
        login: Login,
        browser: BrowserKeyHash,
        state: StateHash,
        holder: LeaseId,
    }

    /// A login in this status.
    fn case(status: Status) -> Case {
        let (key, user_code) = (DeviceCode::generate().hash(), UserCode::generate());
        let browser = BrowserKey::generate().hash();
        let state = StateHash::from_store("state".to_owned());
        let holder = LeaseId::generate();
        let mut login = Login::new(key, user_code, Starter::default(), START);
        assert!(login.confirm(&state, &browser, START));
        if status == Status::Denied {
            assert!(login.deny(START));
        } else if status != Status::Pending {
            let claim = login.claim(&browser, &code("c"), &holder, START);
            assert_eq!(claim, Claim::Granted);
        }
        if matches!(
            status,
            Status::Completed | Status::Delivering | Status::Redeemed
        ) {
            assert!(login.complete(&holder, &code("c"), &grant("t"), START));
        }
        if matches!(status, Status::Delivering | Status::Redeemed) {
            assert!(
                login
                    .begin_delivery(&holder, START, DELIVERY_LEASE)
                    .is_some()
            );
        }
        if status == Status::Redeemed {
            assert!(login.delivered(&holder));
        }
        assert_eq!(login.status, status);
        Case {
            login,
            browser,
            state,
            holder,
        }
    }

    fn code(text: &str) -> CodeDigest {
        CodeDigest::of(text)
    }

    fn grant(token: &str) -> SealedGrant {
        SealedGrant {
            token: SealedToken::from_store(token.to_owned()),
            api_url: "https://api.example".to_owned(),
            organization_id: None,
            scope: None,
        }
    }

    /// When the lease of this status ends, if it began at [`START`].
    fn lease_over(status: Status) -> UnixMs {
        START
            + as_ms(match status {
                Status::Exchanging => EXCHANGE_LEASE,
                _ => DELIVERY_LEASE,
            })
    }

    const ALL: [Status; 6] = [
        Status::Pending,
        Status::Exchanging,
        Status::Completed,
        Status::Delivering,
        Status::Redeemed,
        Status::Denied,
    ];

    /// Each transition from each status, during the lease and after it.
    #[test]
    fn transitions_are_as_the_table_says() {
        use Status::*;
        type Act = fn(&mut Case, UnixMs) -> bool;
        let confirm: Act = |c, now| c.login.confirm(&c.state, &c.browser, now);
        let deny: Act = |c, now| c.login.deny(now);
        let deny_from: Act = |c, now| c.login.deny_from(&c.browser, now);
        let claim: Act = |c, now| {
            let claim = c
                .login
                .claim(&c.browser, &code("c"), &LeaseId::generate(), now);
            claim == Claim::Granted
        };
        let deliver: Act = |c, now| {
            c.login
                .begin_delivery(&LeaseId::generate(), now, DELIVERY_LEASE)
                .is_some()
        };
        // The next status for each status in `ALL`; `None`: the transition fails, and changes nothing.
        let in_time: [(&str, Act, [Option<Status>; 6]); 5] = [
            (
                "confirm",
                confirm,
                [Some(Pending), Some(Exchanging), None, None, None, None],
            ),
            ("deny", deny, [Some(Denied), None, None, None, None, None]),
            (
                "deny_from",
                deny_from,
                [Some(Denied), None, None, None, None, Some(Denied)],
            ),
            (
                "claim",
                claim,
                [Some(Exchanging), None, None, None, None, None],
            ),
            (
                "deliver",
                deliver,
                [None, None, Some(Delivering), None, None, None],
            ),
        ];
        let after_lease: [(&str, Act, [Option<Status>; 6]); 5] = [
            (
                "confirm",
                confirm,
                [Some(Pending), Some(Pending), None, None, None, None],
            ),
            (
                "deny",
                deny,
                [Some(Denied), Some(Denied), None, None, None, None],
            ),
            (
                "deny_from",
                deny_from,
                [Some(Denied), Some(Denied), None, None, None, Some(Denied)],
            ),
            (
                "claim",
                claim,
                [Some(Exchanging), Some(Exchanging), None, None, None, None],
            ),
            (
                "deliver",
                deliver,
                [None, None, Some(Delivering), Some(Delivering), None, None],
            ),
        ];
        for (late, table) in [(false, in_time), (true, after_lease)] {
            for (name, act, expected) in table {
                for (from, to) in ALL.into_iter().zip(expected) {
                    let mut case = case(from);
                    let before = case.login.clone();
                    let now = if late { lease_over(from) } else { START };
                    assert_eq!(act(&mut case, now), to.is_some(), "{name} {from:?} {late}");
                    match to {
                        Some(to) => assert_eq!(case.login.status, to, "{name} {from:?} {late}"),
                        None => assert_eq!(case.login, before, "{name} {from:?} {late}"),
                    }
                }
            }
        }
    }

    #[test]
    fn poll_answers_are_as_the_table_says() {
        use Polled as P;
        let in_time = [
            P::Pending,
            P::Pending,
            P::Completed,
            P::Pending,
            P::Unknown,
            P::Denied,
        ];
        let after_lease = [
            P::Pending,
            P::Pending,
            P::Completed,
            P::Completed,
            P::Unknown,
            P::Denied,
        ];
        let expired = [
            P::Expired,
            P::Expired,
            P::Expired,
            P::Expired,
            P::Unknown,
            P::Denied,
        ];
        for (at, status) in ALL.into_iter().enumerate() {
            let login = case(status).login;
            assert_eq!(login.polled(START), in_time[at], "{status:?}");
            assert_eq!(
                login.polled(lease_over(status)),
                after_lease[at],
                "{status:?}"
            );
            assert_eq!(login.polled(EXPIRED), expired[at], "{status:?}");
            assert_eq!(Status::from_name(status.name()), Some(status));
        }
    }

    #[test]
    fn lease_taken_in_time_decides_after_expiry() {
        let mut case = case(Status::Pending);
        let late = EXPIRED - 1;
        let id = LeaseId::generate();
        assert_eq!(
            case.login.claim(&case.browser, &code("c"), &id, late),
            Claim::Granted
        );
        assert_eq!(case.login.polled(EXPIRED + 5_000), Polled::Pending);
        assert!(
            case.login
                .complete(&id, &code("c"), &grant("t"), EXPIRED + 6_000)
        );
        assert_eq!(case.login.polled(EXPIRED + 60_000), Polled::Completed);
        assert_eq!(case.login.polled(EXPIRED + 66_000), Polled::Expired);
    }

    #[test]
    fn expired_login_rejects_all_transitions() {
        let mut case = case(Status::Pending);
        let before = case.login.clone();
        assert!(!case.login.confirm(&case.state, &case.browser, EXPIRED));
        assert!(!case.login.deny(EXPIRED));
        let claim = case
            .login
            .claim(&case.browser, &code("c"), &case.holder, EXPIRED);
        assert_eq!((claim, &case.login), (Claim::Unknown, &before));
    }

    #[test]
    fn lease_is_ended_only_by_its_holder() {
        let (mut exchange, other) = (case(Status::Exchanging), LeaseId::generate());
        assert!(!exchange.login.release(&other, None));
        assert!(
            !exchange
                .login
                .complete(&other, &code("c"), &grant("t"), START)
        );
        let later = lease_over(Status::Exchanging);
        let claim = exchange
            .login
            .claim(&exchange.browser, &code("d"), &other, later);
        assert_eq!(claim, Claim::Granted, "the first holder is late");
        assert!(!exchange.login.release(&exchange.holder, None));
        assert!(
            !exchange
                .login
                .complete(&exchange.holder, &code("c"), &grant("t"), later)
        );
        assert!(
            exchange
                .login
                .complete(&other, &code("c"), &grant("u"), later)
        );

        let mut delivery = case(Status::Delivering);
        assert!(!delivery.login.delivered(&other) && !delivery.login.not_delivered(&other));
        assert!(delivery.login.not_delivered(&delivery.holder));
        assert!(
            delivery
                .login
                .begin_delivery(&other, START, DELIVERY_LEASE)
                .is_some()
        );
        assert!(!delivery.login.delivered(&delivery.holder));
        assert!(delivery.login.delivered(&other) && delivery.login.grant.is_none());
    }

    /// A caller retries when the connection broke before it learned of the commit.
    #[test]
    fn retried_transitions_of_one_holder_succeed() {
        let mut case = case(Status::Exchanging);
        let again = case
            .login
            .claim(&case.browser, &code("c"), &case.holder, START + 1);
        assert_eq!(again, Claim::Granted);
        assert!(
            case.login
                .complete(&case.holder, &code("c"), &grant("t"), START)
        );
        assert!(
            case.login
                .complete(&case.holder, &code("c"), &grant("t"), START)
        );
        assert!(
            !case
                .login
                .complete(&case.holder, &code("c"), &grant("u"), START)
        );
        assert_eq!(
            case.login
                .begin_delivery(&case.holder, START, DELIVERY_LEASE),
            Some(grant("t"))
        );
        assert_eq!(
            case.login
                .begin_delivery(&case.holder, START, DELIVERY_LEASE),
            Some(grant("t"))
        );
    }

    #[test]
    fn set_client_keeps_the_first_client() {
        let client = |id: &str| SealedClient {
            id: id.to_owned(),
            verifier: SealedToken::from_store("v".to_owned()),
            redirect_uri: "https://auth.example/device/callback".to_owned(),
        };
        let (first, late, unreadable) = (client("1"), client("2"), client("0"));
        let mut login = case(Status::Pending).login;
        login.set_client(&first, None);
        login.set_client(&late, None);
        assert_eq!(login.client.as_ref(), Some(&first));
        login.set_client(&first, None);
        login.set_client(&late, Some(&unreadable));
        assert_eq!(login.client.as_ref(), Some(&first));
        login.set_client(&late, Some(&first));
        assert_eq!(login.client, Some(late));
    }

    /// An authorization in a second tab may have revoked the first one's token.
    #[test]
    fn newer_code_replaces_an_undelivered_token() {
        let mut case = case(Status::Completed);
        let claim = |case: &mut Case, text: &str| {
            let id = LeaseId::generate();
            case.login.claim(&case.browser, &code(text), &id, START)
        };
        assert_eq!(claim(&mut case, "c"), Claim::Done, "a reload");
        assert_eq!(claim(&mut case, "d"), Claim::Newer);
        assert_eq!(claim(&mut case, "d"), Claim::Done, "a reload");
        assert!(case.login.replace_grant(&grant("u"), START));
        assert_eq!(
            case.login
                .begin_delivery(&case.holder, START, DELIVERY_LEASE),
            Some(grant("u"))
        );
        assert!(!case.login.replace_grant(&grant("v"), START));
        assert_eq!(claim(&mut case, "e"), Claim::Done, "it is being delivered");
        assert!(case.login.not_delivered(&case.holder));
        for text in ["f", "g", "h"] {
            assert_eq!(claim(&mut case, text), Claim::Newer);
        }
        assert_eq!(claim(&mut case, "i"), Claim::Done, "five are enough");
    }

    #[test]
    fn other_browser_is_rejected() {
        for status in ALL {
            let mut case = case(status);
            let other = BrowserKey::generate().hash();
            let before = case.login.clone();
            let claim = case.login.claim(&other, &code("c"), &case.holder, START);
            assert_eq!(
                (claim, case.login.deny_from(&other, START)),
                (Claim::Unknown, false)
            );
            assert_eq!(case.login, before);
        }
    }

    #[test]
    fn fifth_refused_code_denies_the_login() {
        let mut case = case(Status::Pending);
        for n in 0..REFUSED_CODES_MAX {
            assert_eq!(case.login.polled(START), Polled::Pending);
            let (id, code) = (LeaseId::generate(), code(&n.to_string()));
            assert_eq!(
                case.login.claim(&case.browser, &code, &id, START),
                Claim::Granted
            );
            assert!(case.login.release(&id, None), "counts nothing");
            assert_eq!(
                case.login.claim(&case.browser, &code, &id, START),
                Claim::Granted
            );
            assert!(case.login.release(&id, Some(&code)));
            let again = case.login.claim(&case.browser, &code, &id, START);
            assert!(
                matches!(again, Claim::RefusedBefore | Claim::Over),
                "{again:?}"
            );
        }
        assert_eq!(case.login.polled(START), Polled::Denied);
        let claim = case
            .login
            .claim(&case.browser, &code("new"), &case.holder, START);
        assert_eq!(claim, Claim::Over);
    }
}
