//! Budgets: how often an address, and all addresses together, may do what costs or what guesses. In memory, per instance:
//! a client that behaves never meets them, however many instances there are.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::server::client_address::{network, wide_network};
use crate::server::codes::DeviceCodeHash;
use crate::shared::wire::{DEFAULT_INTERVAL_S, SLOW_DOWN_S};

/// So many of something a minute for each address (one IPv6 /64), and eight times as many for each wider network (IPv4 /24,
/// IPv6 /48), refilled evenly; all of a minute's worth may come at once.
pub struct Budget {
    address: Buckets,
    network: Buckets,
}

/// What a network may do, as a multiple of what an address may.
const ADDRESSES_PER_NETWORK: u32 = 8;

impl Budget {
    /// A budget of `per_minute` an address; 0 is no limit.
    pub fn per_network(per_minute: u32) -> Budget {
        Budget {
            address: Buckets::new(per_minute, BUCKETS),
            network: Buckets::new(per_minute.saturating_mul(ADDRESSES_PER_NETWORK), BUCKETS),
        }
    }

    /// Takes one out of the budget of `address`, or says how long to wait until there is one.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.check(address, now)?;
        self.charge(address, now);
        Ok(())
    }

    /// Is there one left to take?
    pub fn check(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.address.check(network(address), now)?;
        self.network.check(wide_network(address), now)
    }

    /// Takes one even if there is none left: what follows then waits for that one, too.
    pub fn charge(&self, address: IpAddr, now: Instant) {
        self.address.charge(network(address), now);
        self.network.charge(wide_network(address), now);
    }
}

/// Leaky buckets, one for each key.
///
/// A fixed number of them stands for all keys: memory does not grow with them, and nobody can push anybody else's bucket out.
/// Two keys in one bucket share it, which only a flood of addresses makes likely. The hash is keyed at random, so nobody can
/// choose whom to share with.
struct Buckets {
    per_minute: u32,
    /// Packed, since the allocator gives zeros of plain numbers without touching the memory.
    buckets: Mutex<Vec<[u32; 2]>>,
    hasher: RandomState,
    start: Instant,
}

struct Bucket {
    /// What is used up; drains by `per_minute` a minute.
    used: f32,
    /// When `used` was right, in milliseconds since the start.
    at_ms: u32,
}

/// As many tries as there may be at the same moment, each of which was allowed when it was looked at.
const OWED_MAX: f32 = 1_024.0;

/// 65,536 keys at 8 bytes: half a megabyte at most, touched only as it is needed.
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
        // A cap on what is owed, so that no flood counts for longer than a few minutes.
        let most = self.per_minute as f32 + OWED_MAX;
        self.with_bucket(key, now, |bucket, _| {
            bucket.used = (bucket.used + 1.0).min(most)
        });
    }

    /// Gives `act` the bucket of `key` as it is now, and how much drains in a millisecond. `None`: there is no limit.
    fn with_bucket<T>(
        &self,
        key: impl Hash,
        now: Instant,
        act: impl FnOnce(&mut Bucket, f32) -> T,
    ) -> Option<T> {
        if self.per_minute == 0 {
            return None;
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
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
    /// Drains what has drained until now.
    fn drain(&mut self, now_ms: u32, per_ms: f32) {
        // Wrapping: after 49 days the milliseconds begin again, and a bucket untouched for so long is empty either way.
        let elapsed_ms = now_ms.wrapping_sub(self.at_ms);
        // Of two requests at once, the later one may come first. That is no time at all, and not 49 days, which would
        // empty the bucket.
        if elapsed_ms > u32::MAX - Self::DISORDER_MAX_MS {
            return;
        }
        self.used = (self.used - elapsed_ms as f32 * per_ms).max(0.0);
        self.at_ms = now_ms;
    }

    /// How long a request may have been held up between looking at the clock and coming here.
    const DISORDER_MAX_MS: u32 = 60_000;
}

/// Guards the user codes against guessing (RFC 8628 §5.1).
///
/// A code is one of 25^8 = 1.5 × 10^11 (37 bits). At the ceiling for all addresses, 300 wrong codes a minute, a login that
/// lives 15 minutes faces 4,500 guesses: one in 34 million (2^-25) that one of them hits it. A hit gains nothing but the
/// sight of the confirm page: the attacker would have to approve a stranger's login with his own account. At 1,000 live
/// logins at any time the whole world, guessing without a pause, finds one in about a year.
pub struct Guesses {
    per_address: Budget,
    in_all: Buckets,
}

impl Guesses {
    /// So many wrong codes a minute, for each address and in all; 0 is no limit.
    pub fn new(per_address: u32, in_all: u32) -> Guesses {
        Guesses {
            per_address: Budget::per_network(per_address),
            in_all: Buckets::new(in_all, 1),
        }
    }

    /// May `address` try a code? An error says how long it should wait. `Some` means that it may, but that all addresses
    /// together have reached the ceiling, and for how long: the caller decides.
    pub fn check(&self, address: IpAddr, now: Instant) -> Result<Option<Duration>, Duration> {
        self.per_address.check(address, now)?;
        Ok(self.in_all.check((), now).err())
    }

    /// `address` tried a wrong one.
    pub fn wrong(&self, address: IpAddr, now: Instant) {
        // Both were checked before the try, perhaps by several tries at once. All of them count: what they take beyond
        // the budget is paid back by time, or guessing would be the faster the more guesses are made at once.
        self.per_address.charge(address, now);
        self.in_all.charge((), now);
    }

    /// `address` tried one at the ceiling. Only its own budget is charged, or refused tries would prolong the ceiling.
    pub fn wrong_at_ceiling(&self, address: IpAddr, now: Instant) {
        self.per_address.charge(address, now);
    }
}

/// Who polls too often (RFC 8628 §3.5): each code's interval, which grows by 5 s with every poll that comes too soon.
#[derive(Default)]
pub struct PollIntervals {
    codes: Mutex<HashMap<DeviceCodeHash, LastPoll>>,
}

struct LastPoll {
    /// The last poll that was not too soon: an early one does not move it.
    at: Instant,
    interval: Duration,
}

impl PollIntervals {
    /// Codes remembered at once; with more of them polled within the last minutes, some early polls go unnoticed.
    const CODES_MAX: usize = 50_000;
    /// The interval stops growing here.
    const INTERVAL_MAX: Duration = Duration::from_secs(60);
    /// Clocks of virtual machines run up to 30 % fast, and their honest owners look early.
    const TOLERANCE: f32 = 0.7;

    /// Notes a poll for a login that is still pending; true when it came too soon. Never for a first poll.
    pub fn is_too_soon(&self, login: &DeviceCodeHash, now: Instant) -> bool {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Forgets a login that is not pending any more.
    pub fn forget(&self, login: &DeviceCodeHash) {
        self.codes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(login);
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
    fn a_budget_is_spent_and_refills() {
        let (budget, now) = (Budget::per_network(30), Instant::now());
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
    fn one_ipv6_network_is_one_client() {
        let (budget, now) = (Budget::per_network(1), Instant::now());
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
            let (budget, now) = (Budget::per_network(3), Instant::now());
            let taken = (0..=255)
                .flat_map(|n| [addresses(n); 2])
                .filter(|address| budget.take(*address, now).is_ok())
                .count();
            assert_eq!(taken, 24);
            assert_eq!(budget.take(ip("198.51.100.1"), now), Ok(()));
        }
    }

    #[test]
    fn guessing_from_everywhere_meets_the_ceiling() {
        let (guesses, now) = (Guesses::new(10, 300), Instant::now());
        let mut tries = 0;
        for address in 0..10_000_u32 {
            let address = IpAddr::from((0x0a00_0000 + address).to_be_bytes());
            if guesses.check(address, now) == Ok(None) {
                guesses.wrong(address, now);
                tries += 1;
            }
        }
        assert_eq!(tries, 300);
    }

    /// Requests are answered by several threads, each with its own look at the clock.
    #[test]
    fn time_that_seems_to_run_backwards_refills_nothing() {
        let (budget, now) = (Budget::per_network(2), Instant::now() + SECOND);
        let earlier = now - Duration::from_millis(3);
        assert_eq!(budget.take(ip("192.0.2.1"), now), Ok(()));
        assert_eq!(budget.take(ip("192.0.2.1"), earlier), Ok(()));
        assert!(budget.take(ip("192.0.2.1"), earlier).is_err());
        assert!(budget.take(ip("192.0.2.1"), now).is_err());
    }

    #[test]
    fn guesses_at_the_same_moment_all_count() {
        let (guesses, now) = (Guesses::new(10, 0), Instant::now());
        let minute = 60 * SECOND;
        let mut tries = 0;
        // Fifty at once, whenever there is room for one, for ten minutes.
        for second in 0..600 {
            let now = now + second * SECOND;
            let let_in = (0..50).filter(|_| guesses.check(ip("192.0.2.1"), now).is_ok());
            let let_in = let_in.count();
            (0..let_in).for_each(|_| guesses.wrong(ip("192.0.2.1"), now));
            tries += let_in;
        }
        assert!(
            (100..=160).contains(&tries),
            "10 a minute, and one burst: {tries}"
        );
        assert!(guesses.check(ip("192.0.2.1"), now + 16 * minute).is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        let (budget, now) = (Budget::per_network(0), Instant::now());
        assert!((0..10_000).all(|_| budget.take(ip("192.0.2.1"), now).is_ok()));
    }

    #[test]
    fn early_polls_slow_down_for_good() {
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
    fn the_interval_stops_growing() {
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
