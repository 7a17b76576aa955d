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
    listener.map_err(|error| {
        let address = SocketAddr::new(host, port);
        let hint = match error.kind() {
            ErrorKind::PermissionDenied if port < 1024 => {
                "ports below 1024 need root or CAP_NET_BIND_SERVICE \
                 (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE); or set PORT to a higher one"
            }
            _ => "HOST and PORT say where to listen",
        };
        format!("cannot listen on {address}: {error}; {hint}")
    })
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
