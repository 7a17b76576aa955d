//! Which connections are open: so many in all, so many from one address. When there is no room, one that waits for a request
//! is closed (eviction): the one that has waited longest, first of the network that holds most.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::server::client_address::{network, wide_network};

/// The open connections.
pub(super) struct Admission {
    max: u32,
    /// 0 is no limit.
    max_per_address: u32,
    connections: Mutex<Connections>,
    start: Instant,
}

#[derive(Default)]
struct Connections {
    next_id: u64,
    by_id: HashMap<u64, Connection>,
    by_address: HashMap<IpAddr, u32>,
    by_network: HashMap<IpAddr, u32>,
}

struct Connection {
    socket: Arc<TcpStream>,
    address: IpAddr,
    network: IpAddr,
    phase: Arc<Phase>,
}

/// What a connection does: the microseconds since the start at which it began to wait for a whole request (idle, in a TLS
/// handshake, sending bit by bit, or not taking its answer), or one of the two below.
struct Phase(AtomicU64);

/// See [`Admission::evict_any`].
const EVICTION_GRACE_US: u64 = 200_000;
/// A request is being answered.
const ANSWERING: u64 = u64::MAX;
/// The connection was closed to make room.
const EVICTED: u64 = u64::MAX - 1;

/// A connection that was admitted, until it is dropped.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    id: u64,
    phase: Arc<Phase>,
}

impl Admission {
    pub(super) fn new(max: u32, max_per_address: u32) -> Arc<Admission> {
        Arc::new(Admission {
            max,
            max_per_address,
            connections: Mutex::default(),
            start: Instant::now(),
        })
    }

    /// Admits a connection from `peer`, if there is room or another one makes room. A trusted proxy has no limit of its own:
    /// all its clients come from there.
    pub(super) fn admit(
        self: &Arc<Admission>,
        socket: &Arc<TcpStream>,
        peer: IpAddr,
        is_proxy: bool,
    ) -> Option<Admitted> {
        let (address, network) = (network(peer), wide_network(peer));
        let mut connections = self.connections();
        let here = connections.by_address.get(&address).copied();
        let limited = self.max_per_address != 0 && !is_proxy;
        if limited && here.unwrap_or(0) >= self.max_per_address {
            connections.evict(|connection| connection.address == address)?;
        }
        if connections.by_id.len() >= self.max as usize {
            connections.evict(|_| true)?;
        }
        let phase = Arc::new(Phase(AtomicU64::new(self.now_us())));
        let id = connections.add(Connection {
            socket: Arc::clone(socket),
            address,
            network,
            phase: Arc::clone(&phase),
        });
        Some(Admitted {
            admission: Arc::clone(self),
            id,
            phase,
        })
    }

    /// Closes one connection that waits, where there is one: the system has no descriptor or thread for another. One that has
    /// just come may have its request on the way.
    pub(super) fn evict_any(&self) {
        let before = self.now_us().saturating_sub(EVICTION_GRACE_US);
        let waits = |connection: &Connection| connection.phase.0.load(Ordering::Acquire) < before;
        let _ = self.connections().evict(waits);
    }

    /// Closes all connections that wait.
    pub(super) fn evict_all(&self) {
        let mut connections = self.connections();
        while connections.evict(|_| true).is_some() {}
    }

    /// Is no connection open?
    pub(super) fn is_empty(&self) -> bool {
        self.connections().by_id.is_empty()
    }

    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn add(&mut self, connection: Connection) -> u64 {
        *self.by_address.entry(connection.address).or_default() += 1;
        *self.by_network.entry(connection.network).or_default() += 1;
        self.next_id += 1;
        self.by_id.insert(self.next_id, connection);
        self.next_id
    }

    fn remove(&mut self, id: u64) {
        if let Some(connection) = self.by_id.remove(&id) {
            count_down(&mut self.by_address, connection.address);
            count_down(&mut self.by_network, connection.network);
        }
    }

    /// Closes, of those that wait and `may_go`, the one of the largest network that has waited longest.
    fn evict(&mut self, may_go: impl Fn(&Connection) -> bool) -> Option<()> {
        loop {
            let waiting = self.by_id.iter().filter_map(|(id, connection)| {
                let since = connection.phase.0.load(Ordering::Acquire);
                let waits = since < EVICTED && may_go(connection);
                let held = self.by_network.get(&connection.network);
                waits.then_some((held, std::cmp::Reverse(since), *id))
            });
            let (_, std::cmp::Reverse(since), id) = waiting.max()?;
            let connection = self.by_id.get(&id)?;
            // Unless its request has come just now.
            if connection.phase.change(since, EVICTED) {
                // Its thread reads the end of the connection, and ends.
                let _ = connection.socket.shutdown(Shutdown::Both);
                self.remove(id);
                return Some(());
            }
        }
    }
}

impl Phase {
    fn change(&self, from: u64, to: u64) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Admitted {
    /// A whole request has come. False: the connection was closed before, to make room.
    pub(super) fn begin_request(&self) -> bool {
        let since = self.phase.0.load(Ordering::Acquire);
        since != EVICTED && self.phase.change(since, ANSWERING)
    }

    /// The request is answered: the connection waits until its answer is taken, and then for the next request.
    pub(super) fn wait_again(&self) {
        self.phase
            .0
            .store(self.admission.now_us(), Ordering::Release);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.connections().remove(self.id);
    }
}

fn count_down(counts: &mut HashMap<IpAddr, u32>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A socket to be admitted, and its other end.
    fn socket() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Arc::new(listener.accept().unwrap().0), client)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_closed(socket: &TcpStream) -> bool {
        socket.set_nonblocking(true).unwrap();
        matches!(socket.peek(&mut [0]), Ok(0))
    }

    #[test]
    fn address_makes_room_for_itself() {
        let admission = Admission::new(10, 2);
        let sockets: Vec<_> = (0..4).map(|_| socket()).collect();
        let admit = |n: usize, address: &str| admission.admit(&sockets[n].0, ip(address), false);
        let first = admit(0, "192.0.2.1").unwrap();
        let second = admit(1, "192.0.2.1").unwrap();
        assert!(first.begin_request() && second.begin_request());
        assert!(admit(2, "192.0.2.1").is_none(), "both are being answered");
        let _other = admit(2, "192.0.2.2").unwrap();
        second.wait_again();
        let _third = admit(3, "192.0.2.1").unwrap();
        assert!(is_closed(&sockets[1].1) && !is_closed(&sockets[0].1));
        assert!(!second.begin_request(), "it was closed");
    }

    #[test]
    fn largest_network_makes_room_for_others() {
        let admission = Admission::new(5, 0);
        let sockets: Vec<_> = (0..6).map(|_| socket()).collect();
        let admit = |n: usize, address: &str| admission.admit(&sockets[n].0, ip(address), false);
        let lonely = admit(0, "198.51.100.1").unwrap();
        let crowd: Vec<_> = (1..5)
            .map(|n| admit(n, &format!("192.0.2.{n}")).unwrap())
            .collect();
        assert!(crowd[0].begin_request(), "the oldest one is busy");
        let _newcomer = admit(5, "203.0.113.1").unwrap();
        let closed: Vec<_> = (0..6).filter(|n| is_closed(&sockets[*n].1)).collect();
        assert_eq!(closed.len(), 1);
        assert!((2..5).contains(&closed[0]), "{closed:?}");
        drop((lonely, crowd));
        assert_eq!(admission.connections().by_id.len(), 1);
        assert_eq!(admission.connections().by_address.len(), 1);
        admission.evict_all();
        assert!(admission.is_empty() && admission.connections().by_network.is_empty());
    }

    #[test]
    fn proxy_brings_many() {
        let admission = Admission::new(10, 1);
        let admitted: Vec<_> = (0..10)
            .map(|_| admission.admit(&socket().0, ip("127.0.0.1"), true).unwrap())
            .collect();
        assert!(admitted.iter().all(Admitted::begin_request));
        assert!(
            admission
                .admit(&socket().0, ip("127.0.0.1"), true)
                .is_none()
        );
        drop(admitted);
        assert!(admission.is_empty());
    }
}
