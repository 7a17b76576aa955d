//! LIMIT_LIVE_LOGINS: limits the logins in the store, so that a flood does not fill the disk.

use parking_lot::Mutex;

use crate::server::log::Log;
use crate::server::store::{Store, StoreError};

/// The limit and the estimated count. Instances that share a store may together exceed the limit by what they add between two
/// counts.
pub(crate) struct LiveLogins {
    /// 0: unlimited.
    max: u64,
    estimate: Mutex<u64>,
}

impl LiveLogins {
    pub(super) fn new(max: u32) -> LiveLogins {
        LiveLogins {
            max: max.into(),
            estimate: Mutex::new(0),
        }
    }

    /// Reserves room for up to `wanted` logins, and returns for how many. The next count corrects unused reservations. At the
    /// limit, the store deletes logins that are over, then those of the network with the most logins: 1 % of the limit at
    /// once, so that not every new login causes a deletion.
    pub(super) fn reserve(
        &self,
        wanted: usize,
        store: &dyn Store,
        log: &Log,
    ) -> Result<usize, StoreError> {
        if self.max == 0 {
            return Ok(wanted);
        }
        let wanted = wanted as u64;
        if self.left() < wanted {
            self.count(store)?;
        }
        while self.left() < wanted {
            let least = wanted - self.left();
            let limit = (self.max / 100).clamp(least, least.max(1_000));
            let deleted = store.make_room(u32::try_from(limit).unwrap_or(u32::MAX))?;
            log.warn(
                "too_many_live_logins",
                &[
                    ("deleted", &deleted.to_string()),
                    ("hint", "LIMIT_LIVE_LOGINS"),
                ],
            );
            self.count(store)?;
            if deleted == 0 {
                break;
            }
        }
        let mut estimate = self.estimate.lock();
        let room = self.max.saturating_sub(*estimate).min(wanted);
        *estimate += room;
        Ok(room as usize)
    }

    fn left(&self) -> u64 {
        self.max.saturating_sub(self.estimate())
    }

    /// An estimate of how many logins the store holds.
    pub(crate) fn estimate(&self) -> u64 {
        *self.estimate.lock()
    }

    /// Replaces the estimate by the store's count.
    pub(super) fn count(&self, store: &dyn Store) -> Result<(), StoreError> {
        let count = store.count()?;
        *self.estimate.lock() = count;
        Ok(())
    }
}
