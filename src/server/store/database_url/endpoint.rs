//! Where a database may be: one host of a `DATABASE_URL` with its port.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// One of the hosts of a URL, with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A host, as libpq's `host` and `hostaddr` name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The folder of a Unix socket.
    SocketFolder(PathBuf),
    /// A host's name or address, and the address that `hostaddr` gives it.
    Name(String, Option<IpAddr>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::SocketFolder(folder) => write!(f, "socket {}/.s.PGSQL.{port}", folder.display()),
            Host::Name(name, address) => {
                match name.contains(':') {
                    true => write!(f, "[{name}]:{port}")?,
                    false => write!(f, "{name}:{port}")?,
                }
                match address {
                    Some(address) if address.to_string() != *name => write!(f, " ({address})"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Where sockets are looked for if no host is named: Debian's folder, and PostgreSQL's own.
pub(super) const DEFAULT_SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

pub(super) const DEFAULT_PORT: u16 = 5432;
