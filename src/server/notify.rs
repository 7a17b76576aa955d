//! Tells systemd where the server stands (`sd_notify(3)`): one datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::{OsStr, OsString};
use std::io;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::server::log::Log;

/// The service manager, if there is one that waits for messages.
pub struct Notify(Option<OsString>);

impl Notify {
    /// With the value of `NOTIFY_SOCKET`: a path, or `@name` for an abstract socket.
    pub fn new(notify_socket: Option<OsString>) -> Notify {
        Notify(notify_socket.filter(|name| !name.is_empty()))
    }

    /// The server listens: with `Type=notify` the unit is active from now on.
    pub fn ready(&self, local_url: &str, log: &Log) {
        self.send(&format!("READY=1\nSTATUS=listening on {local_url}"), log);
    }

    /// The server finishes its last requests.
    pub fn stopping(&self, log: &Log) {
        self.send("STOPPING=1\nSTATUS=finishing the requests in flight", log);
    }

    /// Serving goes on where systemd cannot be reached: it ends the server if it waits for the message.
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

/// The address of a path, or of `@name`, an abstract socket, which Linux alone has.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}
