//! LIMIT_LIVE_LOGINS: a ceiling on the logins that are kept, so that a flood fills neither disk nor table.

use std::sync::{Mutex, PoisonError};

use crate::server::log::Log;
use crate::server::store::{Store, StoreError};

/// The ceiling and the estimated count. Instances that share a store may together exceed the ceiling by what they add between
/// two counts.
pub(super) struct LiveLogins {
    /// 0 is no limit.
    max: u64,
    estimate: Mutex<u64>,
}

impl LiveLogins {
    /// At most `max` logins; 0 is no limit.
    pub(super) fn new(max: u32) -> LiveLogins {
        LiveLogins {
            max: max.into(),
            estimate: Mutex::new(0),
        }
    }

    /// Reserves room for up to `wanted` more logins, and says for how many; the next count corrects unused reservations. A
    /// full store deletes logins that are over, then those of the network that holds most: 1 % of the ceiling at once, so
    /// that a flood does not cost a deletion for each login.
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
        let mut estimate = self.estimate.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.max.saturating_sub(*estimate).min(wanted);
        *estimate += room;
        Ok(room as usize)
    }

    fn left(&self) -> u64 {
        self.max.saturating_sub(self.estimate())
    }

    /// About how many logins the store keeps.
    pub(super) fn estimate(&self) -> u64 {
        *self.estimate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the count from the store.
    pub(super) fn count(&self, store: &dyn Store) -> Result<(), StoreError> {
        let count = store.count()?;
        *self.estimate.lock().unwrap_or_else(PoisonError::into_inner) = count;
        Ok(())
    }
}
