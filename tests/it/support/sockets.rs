//! Socket functions that the standard library lacks: connecting from a chosen address, and resetting a connection.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// Timeout of reads and writes.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to `target` from this address of the loopback network (127.0.0.0/8).
pub fn connect_from(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    connect_with(source, target, |_| Ok(()))
}

/// The same with the smallest possible receive buffer.
pub fn connect_without_buffer(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    connect_with(source, target, |socket| {
        Ok(sockopt::set_socket_recv_buffer_size(socket, 4_096)?)
    })
}

fn connect_with(
    source: IpAddr,
    target: SocketAddr,
    prepare: impl Fn(&OwnedFd) -> io::Result<()>,
) -> io::Result<TcpStream> {
    // Close on exec: a child process that is started meanwhile would keep the socket open.
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    prepare(&socket)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    connect(&socket, &target)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(READ_TIMEOUT))?;
    Ok(stream)
}

/// Closes a connection with a reset, as the system does after a crash of the program.
pub fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("it is a socket");
}
