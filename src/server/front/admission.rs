//! Limits the open connections, in all and from one address. At a limit, a connection without a whole request is closed to
//! make room (eviction): in the network with the most connections, the one that has waited longest.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::server::client_address::{network, wide_network};

/// The open connections.
pub(crate) struct Admission {
    max: u32,
    /// 0 is no limit.
    max_per_address: u32,
    connections: Mutex<Connections>,
    /// A connection has ended.
    ended: Condvar,
    start: Instant,
}

/// Counts of connections, for the metrics.
pub(crate) struct ConnectionCounts {
    pub(crate) open: u64,
    pub(crate) max: u64,
    /// Closed at once, since no other could be evicted.
    pub(crate) refused: u64,
    /// Closed to make room for others.
    pub(crate) evicted: u64,
}

#[derive(Default)]
struct Connections {
    next_id: u64,
    refused: u64,
    evicted: u64,
    by_id: HashMap<u64, Connection>,
}

struct Connection {
    socket: Arc<TcpStream>,
    peer: IpAddr,
    is_proxy: bool,
    phase: Arc<Phase>,
}

/// What a connection does. [`ANSWERING`], [`EVICTED`], or else waiting: for a whole request, a TLS handshake or the client to
/// read its answer. The number is the microseconds from the start to the beginning of the wait.
struct Phase(AtomicU64);

/// How long a new connection waits for the evicted one to end, whose descriptor and thread it needs.
const EVICTED_END_TIMEOUT: Duration = Duration::from_millis(100);
/// [`Admission::evict_any`] spares connections that have waited for less.
const EVICTION_GRACE_US: u64 = 200_000;
/// A request is being answered.
const ANSWERING: u64 = u64::MAX;
/// The connection was closed to make room.
const EVICTED: u64 = u64::MAX - 1;

/// An admitted connection. It counts until this is dropped.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    id: u64,
    phase: Arc<Phase>,
}

impl Admission {
    pub(crate) fn new(max: u32, max_per_address: u32) -> Arc<Admission> {
        Arc::new(Admission {
            max,
            max_per_address,
            connections: Mutex::default(),
            ended: Condvar::new(),
            start: Instant::now(),
        })
    }

    /// Admits a connection from `peer`, after an eviction if need be. The limit for one address does not hold for a trusted
    /// proxy, since its connections are of many clients.
    pub(crate) fn admit(
        self: &Arc<Admission>,
        socket: &Arc<TcpStream>,
        peer: IpAddr,
        is_proxy: bool,
    ) -> Option<Admitted> {
        let same_address = |other: &Connection| network(other.peer) == network(peer);
        let mut connections = self.connections.lock();
        if self.max_per_address != 0 && !is_proxy {
            let here = connections
                .not_evicted()
                .filter(|other| same_address(other));
            if here.count() >= self.max_per_address as usize {
                connections.evict(same_address)?;
            }
        }
        let is_full = |connections: &mut Connections| connections.by_id.len() >= self.max as usize;
        if connections.not_evicted().count() >= self.max as usize {
            connections.evict(|_| true)?;
        }
        self.ended
            .wait_while_for(&mut connections, is_full, EVICTED_END_TIMEOUT);
        let phase = Arc::new(Phase(AtomicU64::new(self.now_us())));
        connections.next_id += 1;
        let id = connections.next_id;
        let connection = Connection {
            socket: Arc::clone(socket),
            peer,
            is_proxy,
            phase: Arc::clone(&phase),
        };
        connections.by_id.insert(id, connection);
        Some(Admitted {
            admission: Arc::clone(self),
            id,
            phase,
        })
    }

    /// Closes one waiting connection, if there is one. The newest are spared, since their requests may be on the way.
    pub(super) fn evict_any(&self) {
        let before = self.now_us().saturating_sub(EVICTION_GRACE_US);
        let waits = |connection: &Connection| connection.phase.0.load(Ordering::Acquire) < before;
        let _ = self.connections.lock().evict(waits);
    }

    /// Closes all waiting connections.
    pub(super) fn evict_all(&self) {
        let mut connections = self.connections.lock();
        while connections.evict(|_| true).is_some() {}
    }

    pub(super) fn count_refused(&self) {
        self.connections.lock().refused += 1;
    }

    pub(super) fn counts(&self) -> ConnectionCounts {
        let connections = self.connections.lock();
        ConnectionCounts {
            open: connections.by_id.len() as u64,
            max: self.max.into(),
            refused: connections.refused,
            evicted: connections.evicted,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.lock().by_id.is_empty()
    }

    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

impl Connections {
    /// The connections that were not evicted.
    fn not_evicted(&self) -> impl Iterator<Item = &Connection> {
        let is_kept = |connection: &&Connection| !connection.phase.is(EVICTED);
        self.by_id.values().filter(is_kept)
    }

    /// Closes one waiting connection that `may_go`, as the first lines of this file say. Each connection of a trusted proxy
    /// counts as a network of its own, since they are of many clients. `None`: there is none to close.
    fn evict(&mut self, may_go: impl Fn(&Connection) -> bool) -> Option<()> {
        let mut held: HashMap<IpAddr, u32> = HashMap::new();
        for connection in self.not_evicted().filter(|connection| !connection.is_proxy) {
            *held.entry(wide_network(connection.peer)).or_default() += 1;
        }
        loop {
            let waiting = self.by_id.iter().filter_map(|(id, connection)| {
                let since = connection.phase.0.load(Ordering::Acquire);
                let network = wide_network(connection.peer);
                let held = held.get(&network).filter(|_| !connection.is_proxy);
                let waits = since < EVICTED && may_go(connection);
                waits.then_some((held.copied().unwrap_or(1), Reverse(since), *id))
            });
            let (_, Reverse(since), id) = waiting.max()?;
            let connection = self.by_id.get(&id)?;
            // Fails if its request has just arrived.
            if connection.phase.try_change(since, EVICTED) {
                self.evicted += 1;
                // Its thread reads the end of the connection, and ends.
                let _ = connection.socket.shutdown(Shutdown::Both);
                return Some(());
            }
        }
    }
}

impl Phase {
    fn is(&self, phase: u64) -> bool {
        self.0.load(Ordering::Acquire) == phase
    }

    fn try_change(&self, from: u64, to: u64) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Admitted {
    /// A whole request has arrived. False: the connection was evicted before.
    pub(crate) fn begin_request(&self) -> bool {
        let since = self.phase.0.load(Ordering::Acquire);
        since != EVICTED && self.phase.try_change(since, ANSWERING)
    }

    /// The answer is ready: the connection waits for the client to read it, and then for the next request.
    pub(super) fn wait_again(&self) {
        self.phase
            .0
            .store(self.admission.now_us(), Ordering::Release);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.connections.lock().by_id.remove(&self.id);
        self.admission.ended.notify_one();
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
    fn address_at_its_limit_evicts_its_own_connections() {
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
    fn eviction_takes_from_the_largest_network() {
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
        assert_eq!(admission.connections.lock().by_id.len(), 1);
        admission.evict_all();
        assert!(is_closed(&sockets[5].1));
    }

    /// Threads that end late would otherwise hold more descriptors than there are.
    #[test]
    fn admission_waits_until_the_evicted_connection_has_ended() {
        let admission = Admission::new(1, 0);
        let sockets = [socket(), socket()];
        let admit = |n: usize| admission.admit(&sockets[n].0, ip("192.0.2.1"), false);
        let first = admit(0).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_closed(&sockets[0].1) {
                    std::thread::yield_now();
                }
                drop(first);
            });
            let _second = admit(1).unwrap();
            assert_eq!(admission.connections.lock().by_id.len(), 1);
        });
    }

    /// Clients that connect from many networks must not evict the proxy's connections.
    #[test]
    fn proxy_connections_do_not_count_as_one_network() {
        let admission = Admission::new(4, 0);
        let sockets: Vec<_> = (0..6).map(|_| socket()).collect();
        let proxy: Vec<_> = (0..2)
            .map(|n| {
                admission
                    .admit(&sockets[n].0, ip("127.0.0.1"), true)
                    .unwrap()
            })
            .collect();
        let direct = |n: usize| {
            let address = format!("192.0.2.{n}");
            admission.admit(&sockets[n].0, ip(&address), false).unwrap()
        };
        let _direct = [direct(2), direct(3), direct(4), direct(5)];
        assert!(proxy.iter().all(Admitted::begin_request));
        assert!(is_closed(&sockets[2].1) && is_closed(&sockets[3].1));
    }

    #[test]
    fn proxy_exceeds_the_limit_for_one_address() {
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
