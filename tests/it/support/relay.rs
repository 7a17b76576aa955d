//! Something in between that passes bytes on, until it forgets its connections: it still takes what is sent, and nothing more
//! comes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A relay; its threads end with their connections.
pub struct Relay {
    port: u16,
    /// Connections of an earlier era are forgotten.
    era: Arc<AtomicUsize>,
}

impl Relay {
    /// One to this address, on a free port of 127.0.0.1.
    pub fn to(address: SocketAddr) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let era = Arc::<AtomicUsize>::default();
        let current = Arc::clone(&era);
        // Waits for the next one for as long as the tests run.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(address) else {
                    continue;
                };
                let began = current.load(Ordering::SeqCst);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let (from, to) = (from.expect("descriptors"), to.expect("descriptors"));
                    let current = Arc::clone(&current);
                    thread::spawn(move || {
                        pass_on(from, to, || current.load(Ordering::SeqCst) == began);
                    });
                }
            }
        });
        Relay { port, era }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Passes nothing on any more of what the connections that are open send.
    pub fn forget_connections(&self) {
        self.era.fetch_add(1, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, is_remembered: impl Fn() -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(count) = from.read(&mut bytes) {
        let Some(read) = bytes.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        if is_remembered() && to.write_all(read).is_err() {
            break;
        }
    }
    if is_remembered() {
        to.shutdown(std::net::Shutdown::Write).ok();
    }
}
