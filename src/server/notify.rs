//! Reports readiness and stopping to systemd (`sd_notify(3)`): a datagram to the socket in `NOTIFY_SOCKET`.

use std::ffi::{OsStr, OsString};
use std::io;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::server::log::Log;

/// The service manager's socket, if there is one.
pub struct Notify(Option<OsString>);

impl Notify {
    /// From the value of `NOTIFY_SOCKET`: a path, or `@name` for an abstract socket.
    pub fn new(notify_socket: Option<OsString>) -> Notify {
        Notify(notify_socket.filter(|name| !name.is_empty()))
    }

    /// Reports that the server listens. With `Type=notify` the unit is active from then on.
    pub fn ready(&self, local_url: &str, log: &Log) {
        self.send(&format!("READY=1\nSTATUS=listening on {local_url}"), log);
    }

    /// Reports that the server is stopping.
    pub fn stopping(&self, log: &Log) {
        self.send("STOPPING=1\nSTATUS=finishing the requests in flight", log);
    }

    /// A failure is only logged: systemd stops the server itself if it waits for the message.
    fn send(&self, message: &str, log: &Log) {
        let Some(name) = &self.0 else { return };
        let sent = address(name).and_then(|address| {
            UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)
        });
        if let Err(error) = sent {
            log.warn("notify_failed", &[("error", &error.to_string())]);
        }
    }
}

/// The address of a path or, on Linux, of the abstract socket `@name`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}
