//! The socket that the server listens on.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};

use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketType, bind, listen as start_listening, socket};

/// Most connections that wait to be accepted: the standard library's value.
const BACKLOG: i32 = 128;

/// Listens on `host` and `port`. If `host` is `::` and the machine has no IPv6, listens on 0.0.0.0. The error is for the
/// operator.
pub(crate) fn listen(host: IpAddr, port: u16) -> Result<TcpListener, String> {
    let everywhere = host.is_unspecified() && host.is_ipv6();
    let listener = match everywhere {
        false => TcpListener::bind((host, port)),
        true => listen_everywhere(port).or_else(|error| match error.kind() {
            ErrorKind::AddrInUse | ErrorKind::PermissionDenied => Err(error),
            _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
        }),
    };
    listener.map_err(|error| cannot_listen(host, port, &error))
}

/// The addresses at which a server that listens on `host` is reached from its own machine.
pub(crate) fn local_addresses(host: IpAddr) -> Vec<IpAddr> {
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    match host {
        // On a machine without IPv6 the server listens on IPv4.
        IpAddr::V6(all) if all.is_unspecified() => vec![v6, v4],
        IpAddr::V4(all) if all.is_unspecified() => vec![v4],
        one => vec![one],
    }
}

/// Why [`listen`] would fail, other than that the port is taken.
pub(crate) fn problem(host: IpAddr, port: u16) -> Option<String> {
    let error = try_bind(SocketAddr::new(host, port)).err()?;
    let everywhere = host.is_unspecified() && host.is_ipv6();
    // As in `listen`, for a machine without IPv6.
    if everywhere && error.kind() != ErrorKind::PermissionDenied {
        return problem(Ipv4Addr::UNSPECIFIED.into(), port);
    }
    Some(cannot_listen(host, port, &error))
}

/// Binds a socket to `address` and closes it again. A port that is taken is no error. Disturbs no server on that port, since the
/// socket does not listen.
pub(crate) fn try_bind(address: SocketAddr) -> io::Result<()> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket(family, SocketType::STREAM, None)?;
    set_socket_reuseaddr(&socket, true)?;
    match bind(&socket, &address).map_err(io::Error::from) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => Err(error),
        _ => Ok(()),
    }
}

fn cannot_listen(host: IpAddr, port: u16, error: &io::Error) -> String {
    let address = SocketAddr::new(host, port);
    let hint = match error.kind() {
        ErrorKind::PermissionDenied if port < 1024 => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE \
             (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE); or set PORT to a higher one"
        }
        _ => "HOST and PORT say where to listen",
    };
    format!("cannot listen on {address}: {error}; {hint}")
}

/// Listens on all IPv6 and IPv4 addresses, whatever the system's default is (`net.ipv6.bindv6only`).
fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    let socket = socket(AddressFamily::INET6, SocketType::STREAM, None)?;
    set_socket_reuseaddr(&socket, true)?;
    set_ipv6_v6only(&socket, false)?;
    bind(
        &socket,
        &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0),
    )?;
    start_listening(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
