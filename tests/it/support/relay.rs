//! A TCP relay in front of a server. It can close its port and all connections, and it can forget its connections: then they
//! stay open but it forwards nothing on them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::eventually;

/// The relay. Its port is closed when it is dropped.
pub struct Relay {
    address: SocketAddr,
    server: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// How often connections were forgotten. Connections of an earlier era are forgotten ones.
    era: u64,
    streams: Vec<TcpStream>,
}

impl Relay {
    /// A relay to the server at this address, on a free port.
    pub fn to(server: SocketAddr) -> Relay {
        let mut relay = Relay {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            server,
            state: Arc::default(),
        };
        relay.open();
        relay
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Forwards nothing more on the connections that are open now.
    pub fn forget_connections(&self) {
        lock(&self.state).era += 1;
    }

    /// Listens, on the same port as before.
    pub fn open(&mut self) {
        let listener = TcpListener::bind(self.address).expect("the port is free");
        self.address = listener.local_addr().expect("it is bound");
        self.state = Arc::default();
        let (server, state) = (self.server, Arc::clone(&self.state));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if lock(&state).closed {
                    return;
                }
                if let Ok(onward) = TcpStream::connect(server) {
                    relay(&client, &onward, &state).expect("there are descriptors");
                }
            }
        });
    }

    /// Closes the port and all connections.
    pub fn close(&self) {
        {
            let mut state = lock(&self.state);
            state.closed = true;
            for stream in state.streams.drain(..) {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
        // Wakes the accepting thread, which then closes the port.
        TcpStream::connect(self.address).ok();
        eventually("the port is closed", || {
            TcpStream::connect(self.address).is_err()
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no other thread panics")
}

/// Forwards in both directions, in threads that end with the connections.
fn relay(client: &TcpStream, server: &TcpStream, state: &Arc<Mutex<State>>) -> io::Result<()> {
    let mut now = lock(state);
    now.streams
        .extend([client.try_clone()?, server.try_clone()?]);
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        let (began, state) = (now.era, Arc::clone(state));
        thread::spawn(move || {
            let is_remembered = || lock(&state).era == began;
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if is_remembered() && to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            if is_remembered() {
                to.shutdown(Shutdown::Write).ok();
            }
        });
    }
    Ok(())
}
