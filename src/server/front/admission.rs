//! Who gets in: so many connections in all, so many from one address. In memory, as large as what is let in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::client_address::network;

/// Counts connections.
pub(super) struct Admission {
    max: u32,
    /// 0 is no limit.
    max_per_address: u32,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// A connection that was let in, until it is dropped.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    pub(super) fn new(max: u32, max_per_address: u32) -> Arc<Admission> {
        Arc::new(Admission {
            max,
            max_per_address,
            counts: Mutex::default(),
        })
    }

    /// Lets a connection from `address` in, if there is room. A proxy counts as the one address it is unless `is_proxy`:
    /// all its clients come from there.
    pub(super) fn admit(
        self: &Arc<Admission>,
        address: IpAddr,
        is_proxy: bool,
    ) -> Option<Admitted> {
        let address = network(address);
        let mut counts = self.counts();
        let here = counts.by_address.get(&address).copied().unwrap_or(0);
        let crowded = self.max_per_address != 0 && !is_proxy && here >= self.max_per_address;
        if counts.all >= self.max || crowded {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, here + 1);
        Some(Admitted {
            admission: Arc::clone(self),
            address,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.all -= 1;
        if let Some(here) = counts.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_limited_and_given_back() {
        let admission = Admission::new(3, 2);
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = admission.admit(a, false).unwrap();
        let _second = admission.admit(a, false).unwrap();
        assert!(admission.admit(a, false).is_none(), "two from one address");
        let _third = admission.admit(b, false).unwrap();
        assert!(admission.admit(b, false).is_none(), "three in all");
        drop(first);
        assert!(admission.admit(a, false).is_some());
    }

    #[test]
    fn a_proxy_brings_many() {
        let admission = Admission::new(10, 1);
        let proxy = IpAddr::from([127, 0, 0, 1]);
        let admitted: Vec<_> = (0..20)
            .filter_map(|_| admission.admit(proxy, true))
            .collect();
        assert_eq!(admitted.len(), 10);
        drop(admitted);
        assert!(admission.counts().by_address.is_empty());
    }
}
