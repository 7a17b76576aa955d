//! Rate limits for one address, its network and all addresses together. They are in memory, for each instance.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::server::client_address::{network, wide_network};
use crate::server::codes::DeviceCodeHash;
use crate::shared::wire::{DEFAULT_INTERVAL_S, SLOW_DOWN_S};

/// A rate limit: so many a minute for each address (IPv6: /64), and eight times as many for each network (IPv4 /24, IPv6 /48).
/// Refilled evenly, with bursts of up to a minute's worth.
pub(crate) struct Budget {
    address: Buckets,
    network: Buckets,
}

/// The limit for a network as a multiple of the limit for an address.
const ADDRESSES_PER_NETWORK: u32 = 8;

impl Budget {
    /// A limit of `per_minute` for an address; 0 disables it.
    pub(crate) fn per_minute(per_minute: u32) -> Budget {
        Budget {
            address: Buckets::new(per_minute, BUCKETS),
            network: Buckets::new(per_minute.saturating_mul(ADDRESSES_PER_NETWORK), BUCKETS),
        }
    }

    /// Charges `address` if it is within the limit. The error is how long to wait.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.check(address, now)?;
        self.charge(address, now);
        Ok(())
    }

    /// Whether `address` is within the limit. The error is how long to wait.
    pub(crate) fn check(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.address.check(network(address), now)?;
        self.network.check(wide_network(address), now)
    }

    /// Charges `address` even beyond the limit, which prolongs the wait.
    pub(crate) fn charge(&self, address: IpAddr, now: Instant) {
        self.address.charge(network(address), now);
        self.network.charge(wide_network(address), now);
    }
}

/// Leaky buckets, one for each key.
///
/// Keys are hashed to a fixed number of buckets, so memory is bounded and no bucket is evicted. Two keys may share a bucket,
/// which is likely only in a flood of addresses. The hash is keyed at random, so an attacker cannot choose whose bucket to
/// share.
struct Buckets {
    per_minute: u32,
    /// [`Bucket`]s as plain numbers, whose zeros the allocator provides without touching the memory.
    buckets: Mutex<Vec<[u32; 2]>>,
    hasher: RandomState,
    start: Instant,
}

struct Bucket {
    /// The level; drains by `per_minute` a minute.
    used: f32,
    /// The time of that level, in milliseconds since the start.
    at_ms: u32,
}

/// How far a bucket may exceed its limit: by as many requests as may have been checked before any of them is charged. The cap
/// bounds the wait after a flood to a few minutes.
const EXCESS_MAX: f32 = 1_024.0;

/// 65,536 buckets of 8 bytes are half a megabyte.
const BUCKETS: usize = 65_536;

impl Buckets {
    fn new(per_minute: u32, buckets: usize) -> Buckets {
        let buckets = if per_minute == 0 { 0 } else { buckets };
        Buckets {
            per_minute,
            buckets: Mutex::new(vec![[0; 2]; buckets]),
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }

    fn check(&self, key: impl Hash, now: Instant) -> Result<(), Duration> {
        self.with_bucket(key, now, |bucket, per_ms| {
            let too_many = bucket.used + 1.0 - self.per_minute as f32;
            if too_many > 0.0 {
                return Err(Duration::from_millis((too_many / per_ms).ceil() as u64));
            }
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    fn charge(&self, key: impl Hash, now: Instant) {
        let most = self.per_minute as f32 + EXCESS_MAX;
        self.with_bucket(key, now, |bucket, _| {
            bucket.used = (bucket.used + 1.0).min(most)
        });
    }

    /// Runs `act` on the bucket of `key`, drained until now, and the rate per millisecond. `None`: there is no limit.
    fn with_bucket<T>(
        &self,
        key: impl Hash,
        now: Instant,
        act: impl FnOnce(&mut Bucket, f32) -> T,
    ) -> Option<T> {
        if self.per_minute == 0 {
            return None;
        }
        let mut buckets = self.buckets.lock();
        let index = self.hasher.hash_one(key) as usize % buckets.len();
        let [used, at_ms] = buckets[index];
        let mut bucket = Bucket {
            used: f32::from_bits(used),
            at_ms,
        };
        let per_ms = self.per_minute as f32 / 60_000.0;
        bucket.drain(now.duration_since(self.start).as_millis() as u32, per_ms);
        let outcome = act(&mut bucket, per_ms);
        buckets[index] = [bucket.used.to_bits(), bucket.at_ms];
        Some(outcome)
    }
}

impl Bucket {
    /// Lowers the level by what has drained until now.
    fn drain(&mut self, now_ms: u32, per_ms: f32) {
        // The milliseconds wrap after 49 days. A bucket that was not used for so long is empty either way.
        let elapsed_ms = now_ms.wrapping_sub(self.at_ms);
        // Threads may come here in another order than they read the clock. Slightly negative means no time, not 49 days.
        if elapsed_ms > u32::MAX - Self::DISORDER_MAX_MS {
            return;
        }
        self.used = (self.used - elapsed_ms as f32 * per_ms).max(0.0);
        self.at_ms = now_ms;
    }

    /// How much later a thread may come here than it read the clock.
    const DISORDER_MAX_MS: u32 = 60_000;
}

/// Guards the user codes against guessing (RFC 8628 §5.1).
///
/// There are 25^8 = 1.5 × 10^11 codes (37 bits). At the ceiling for all addresses, 300 wrong codes a minute, a login that
/// lives for 15 minutes faces 4,500 guesses, and a chance of one in 34 million (2^-25) that one of them is right. A right guess
/// only opens the confirm page, where the attacker would have to approve another user's login with their own account. With
/// 1,000 live logins at any time, guessing without a pause finds one code in about a year.
pub(crate) struct Guesses {
    per_address: Budget,
    in_all: Buckets,
}

impl Guesses {
    /// Limits on wrong codes a minute, for each address and in all; 0 disables a limit.
    pub(crate) fn new(per_address: u32, in_all: u32) -> Guesses {
        Guesses {
            per_address: Budget::per_minute(per_address),
            in_all: Buckets::new(in_all, 1),
        }
    }

    /// Whether `address` may try a code. The error is how long to wait. `Some`: its own budget suffices, but all addresses
    /// together are at the ceiling for that long, and the caller decides.
    pub(crate) fn check(
        &self,
        address: IpAddr,
        now: Instant,
    ) -> Result<Option<Duration>, Duration> {
        self.per_address.check(address, now)?;
        Ok(self.in_all.check((), now).err())
    }

    /// Charges a wrong code.
    pub(crate) fn charge(&self, address: IpAddr, now: Instant) {
        // Several requests may have passed the check at once. Each is charged, even beyond the limit: else guessing in
        // parallel would be faster.
        self.per_address.charge(address, now);
        self.in_all.charge((), now);
    }

    /// Charges a try at the ceiling to `address` only: else refused tries would prolong the ceiling.
    pub(crate) fn charge_at_ceiling(&self, address: IpAddr, now: Instant) {
        self.per_address.charge(address, now);
    }
}

/// The poll interval of each device code (RFC 8628 §3.5), which grows by 5 s with every early poll.
#[derive(Default)]
pub(crate) struct PollIntervals {
    codes: Mutex<HashMap<DeviceCodeHash, LastPoll>>,
}

struct LastPoll {
    /// The time of the last poll that was not early.
    at: Instant,
    interval: Duration,
}

impl PollIntervals {
    /// Most codes in the map. Beyond that, early polls of other codes are not noticed.
    const CODES_MAX: usize = 50_000;
    /// Longest interval.
    const INTERVAL_MAX: Duration = Duration::from_secs(60);
    /// A poll is early before this part of the interval: clocks of virtual machines run up to 30 % fast.
    const TOLERANCE: f32 = 0.7;

    /// Records a poll of a pending login. Returns whether it is early; a first poll never is.
    pub(crate) fn is_too_soon(&self, login: &DeviceCodeHash, now: Instant) -> bool {
        let mut codes = self.codes.lock();
        if let Some(polled) = codes.get_mut(login) {
            if now.duration_since(polled.at) < polled.interval.mul_f32(Self::TOLERANCE) {
                polled.interval =
                    (polled.interval + Duration::from_secs(SLOW_DOWN_S)).min(Self::INTERVAL_MAX);
                return true;
            }
            polled.at = now;
            return false;
        }
        if codes.len() >= Self::CODES_MAX {
            codes.retain(|_, polled| now.duration_since(polled.at) < 2 * polled.interval);
        }
        if codes.len() < Self::CODES_MAX {
            codes.insert(
                login.clone(),
                LastPoll {
                    at: now,
                    interval: Duration::from_secs(DEFAULT_INTERVAL_S),
                },
            );
        }
        false
    }

    /// Removes a login that is not pending any more.
    pub(crate) fn forget(&self, login: &DeviceCodeHash) {
        self.codes.lock().remove(login);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::codes::DeviceCode;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn budget_is_spent_and_refills() {
        let (budget, now) = (Budget::per_minute(30), Instant::now());
        for _ in 0..30 {
            assert_eq!(budget.take(ip("192.0.2.1"), now), Ok(()));
        }
        let wait = budget.take(ip("192.0.2.1"), now).unwrap_err();
        assert!(wait > SECOND && wait < 3 * SECOND, "{wait:?}");
        assert_eq!(
            budget.take(ip("192.0.2.2"), now),
            Ok(()),
            "another address has its own"
        );
        assert_eq!(budget.take(ip("192.0.2.1"), now + wait), Ok(()));
        assert!(budget.take(ip("192.0.2.1"), now + wait).is_err());
    }

    #[test]
    fn ipv6_network_shares_one_budget() {
        let (budget, now) = (Budget::per_minute(1), Instant::now());
        assert!(budget.take(ip("2001:db8::1"), now).is_ok());
        assert!(budget.take(ip("2001:db8::2"), now).is_err());
        assert!(budget.take(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn network_has_eight_times_the_budget_of_an_address() {
        for addresses in [
            |n| IpAddr::from([192, 0, 2, n]),
            |n| IpAddr::from([0x2001, 0xdb8, 1, u16::from(n), 0, 0, 0, 1]),
        ] {
            let (budget, now) = (Budget::per_minute(3), Instant::now());
            let taken = (0..=255)
                .flat_map(|n| [addresses(n); 2])
                .filter(|address| budget.take(*address, now).is_ok())
                .count();
            assert_eq!(taken, 24);
            assert_eq!(budget.take(ip("198.51.100.1"), now), Ok(()));
        }
    }

    #[test]
    fn guesses_from_many_addresses_meet_the_ceiling() {
        let (guesses, now) = (Guesses::new(10, 300), Instant::now());
        let mut tries = 0;
        for address in 0..10_000_u32 {
            let address = IpAddr::from((0x0a00_0000 + address).to_be_bytes());
            if guesses.check(address, now) == Ok(None) {
                guesses.charge(address, now);
                tries += 1;
            }
        }
        assert_eq!(tries, 300);
    }

    /// Threads may charge in another order than they read the clock.
    #[test]
    fn budget_is_not_refilled_by_earlier_times() {
        let (budget, now) = (Budget::per_minute(2), Instant::now() + SECOND);
        let earlier = now - Duration::from_millis(3);
        assert_eq!(budget.take(ip("192.0.2.1"), now), Ok(()));
        assert_eq!(budget.take(ip("192.0.2.1"), earlier), Ok(()));
        assert!(budget.take(ip("192.0.2.1"), earlier).is_err());
        assert!(budget.take(ip("192.0.2.1"), now).is_err());
    }

    #[test]
    fn simultaneous_guesses_are_all_charged() {
        let (guesses, now) = (Guesses::new(10, 0), Instant::now());
        let minute = 60 * SECOND;
        let mut tries = 0;
        // Fifty at once, whenever there is room for one, for ten minutes.
        for second in 0..600 {
            let now = now + second * SECOND;
            let let_in = (0..50).filter(|_| guesses.check(ip("192.0.2.1"), now).is_ok());
            let let_in = let_in.count();
            (0..let_in).for_each(|_| guesses.charge(ip("192.0.2.1"), now));
            tries += let_in;
        }
        assert!(
            (100..=160).contains(&tries),
            "10 a minute, and one burst: {tries}"
        );
        assert!(guesses.check(ip("192.0.2.1"), now + 16 * minute).is_ok());
    }

    #[test]
    fn zero_disables_a_limit() {
        let (budget, now) = (Budget::per_minute(0), Instant::now());
        assert!((0..10_000).all(|_| budget.take(ip("192.0.2.1"), now).is_ok()));
    }

    #[test]
    fn early_polls_prolong_the_interval() {
        let (polls, login, start) = (
            PollIntervals::default(),
            DeviceCode::generate().hash(),
            Instant::now(),
        );
        let poll_at = |seconds: f32| polls.is_too_soon(&login, start + SECOND.mul_f32(seconds));
        assert!(!poll_at(0.0), "never the first");
        assert!(!poll_at(3.6), "30 % fast is honest");
        assert!(poll_at(5.0), "1.4 s later is not; now 10 s");
        assert!(!poll_at(10.7), "7.1 s after the last good one");
        assert!(poll_at(16.0), "the interval stays at 10 s; now 15 s");
        assert!(poll_at(20.0), "20 s");
        assert!(!poll_at(24.8));
    }

    #[test]
    fn poll_interval_has_a_maximum() {
        let (polls, login, start) = (
            PollIntervals::default(),
            DeviceCode::generate().hash(),
            Instant::now(),
        );
        for _ in 0..1_000 {
            polls.is_too_soon(&login, start);
        }
        assert!(!polls.is_too_soon(&login, start + 43 * SECOND));
    }
}
