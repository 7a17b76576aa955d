//! Opens connections: to the server or through a proxy, trying each address, with TLS where the URL wants it.
//!
//! ureq's own connectors choose one proxy for all schemes, tunnel plain http, give up on addresses that a firewall rejects,
//! and accept no certificate verifier. So this file implements ureq's transport traits, which may change between minor
//! versions.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::Error;
use ureq::config::Config;
use ureq::http::{StatusCode, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::early_answer::{Sending, Watched};
use super::proxy::{Proxies, ProxyServer};
use super::tcp::TcpTransport;
use super::trust::distrust;
use super::{io_error_in_words, tls_error};
use crate::shared::secret::Secret;

/// Looks names up, except those that a proxy looks up.
#[derive(Debug)]
pub(super) struct TargetResolver(pub(super) Arc<Proxies>);

impl Resolver for TargetResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        if self.0.applies_to(uri) {
            return Ok(self.empty());
        }
        DefaultResolver::default().resolve(uri, config, timeout)
    }
}

#[derive(Debug)]
pub(super) struct OutboundConnector {
    pub(super) proxies: Arc<Proxies>,
    pub(super) tls: Arc<ClientConfig>,
    /// Sent to proxies too: some let only known clients through.
    pub(super) user_agent: String,
    pub(super) sending: Arc<Sending>,
}

impl Connector<()> for OutboundConnector {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let (transport, socket) = self.open(details)?;
        let sending = Arc::clone(&self.sending);
        Ok(Some(Box::new(Watched::new(transport, socket, sending))))
    }
}

/// A connection, and the socket that it goes over.
type Opened = (Box<dyn Transport>, Arc<TcpStream>);

impl OutboundConnector {
    fn open(&self, details: &ConnectionDetails) -> Result<Opened, Error> {
        let deadline = Deadline::new(details.timeout);
        let Some(proxy) = self.proxies.server_for(details.uri) else {
            let (tcp, socket) = connect_tcp(details.config, &details.addrs, &deadline)?;
            if !details.needs_tls() {
                return Ok((tcp, socket));
            }
            let tls = self.start_tls(tcp, details.uri, details, &deadline)?;
            return Ok((tls, socket));
        };
        let (to_proxy, socket) = self
            .connect_to_proxy(proxy, details, &deadline)
            .map_err(|error| proxy_failed(proxy, error))?;
        if !details.needs_tls() {
            let forwarded = Forwarded::new(to_proxy, proxy, details.uri);
            return Ok((Box::new(forwarded), socket));
        }
        let tunnel = self.open_tunnel(to_proxy, proxy, details, &deadline)?;
        let tls = self.start_tls(tunnel, details.uri, details, &deadline)?;
        Ok((tls, socket))
    }

    fn connect_to_proxy(
        &self,
        proxy: &ProxyServer,
        details: &ConnectionDetails,
        deadline: &Deadline,
    ) -> Result<Opened, Error> {
        let uri: Uri = proxy
            .url
            .as_str()
            .parse()
            .map_err(|_| Error::InvalidProxyUrl)?;
        let resolver = DefaultResolver::default();
        let addresses = resolver.resolve(&uri, details.config, deadline.left())?;
        let (tcp, socket) = connect_tcp(details.config, &addresses, deadline)?;
        if !proxy.url.is_https() {
            return Ok((tcp, socket));
        }
        let tls = self.start_tls(tcp, &uri, details, deadline)?;
        Ok((tls, socket))
    }

    fn start_tls(
        &self,
        transport: Box<dyn Transport>,
        uri: &Uri,
        details: &ConnectionDetails,
        deadline: &Deadline,
    ) -> Result<Box<dyn Transport>, Error> {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host).map_err(|_| Error::Tls("not a host name"))?;
        let mut session = ClientConnection::new(Arc::clone(&self.tls), name.to_owned())?;
        let mut socket = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        socket.set_timeout(deadline.left());
        session.complete_io(&mut socket)?;
        Ok(Box::new(TlsTransport {
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
            stream: StreamOwned::new(session, socket),
        }))
    }

    /// Asks the proxy for a tunnel to the host of `details.uri` (RFC 9110 §9.3.6).
    fn open_tunnel(
        &self,
        transport: Box<dyn Transport>,
        proxy: &ProxyServer,
        details: &ConnectionDetails,
        deadline: &Deadline,
    ) -> Result<Box<dyn Transport>, Error> {
        let host = details.uri.host().unwrap_or_default();
        let target = format!("{host}:{}", details.uri.port_u16().unwrap_or(443));
        let mut head = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {}\r\n",
            self.user_agent
        );
        if let Some(authorization) = &proxy.authorization {
            head += &proxy_authorization(authorization);
        }
        head += "\r\n";
        let mut adapter = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        adapter.set_timeout(deadline.left());
        let sent = adapter.write_all(head.as_bytes());
        sent.map_err(|error| proxy_failed(proxy, error.into()))?;
        let mut transport = adapter.into_inner();
        let answer = read_status(&mut transport, deadline);
        match answer.map_err(|error| proxy_failed(proxy, error))? {
            200..300 => Ok(transport),
            status => Err(Error::Other(Box::new(ProxyError::answered(
                proxy,
                status,
                Some(&target),
            )))),
        }
    }
}

/// The deadline of one connection, with all its steps: addresses, proxies, TLS.
struct Deadline {
    start: Instant,
    timeout: NextTimeout,
}

impl Deadline {
    fn new(timeout: NextTimeout) -> Deadline {
        Deadline {
            start: Instant::now(),
            timeout,
        }
    }

    fn left(&self) -> NextTimeout {
        let after = match self.timeout.after {
            Duration::Exact(all) => Duration::Exact(all.saturating_sub(self.start.elapsed())),
            Duration::NotHappening => Duration::NotHappening,
        };
        NextTimeout {
            after,
            ..self.timeout
        }
    }

    fn has_passed(&self) -> bool {
        self.left().after.is_zero()
    }
}

fn connect_tcp(
    config: &Config,
    addresses: &ResolvedSocketAddrs,
    deadline: &Deadline,
) -> Result<Opened, Error> {
    let tcp = try_each(&alternating(addresses), deadline, |address, timeout| {
        TcpTransport::connect(address, timeout, config)
    })?;
    let socket = tcp.socket();
    Ok((Box::new(tcp), socket))
}

/// The addresses in order, except that IPv6 and IPv4 alternate: where one family does not work, the second try succeeds.
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first_family = |address: &SocketAddr| address.is_ipv6() == addresses[0].is_ipv6();
    let (first, second): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().copied().partition(is_first_family);
    let mut second = second.into_iter();
    let mut order = Vec::with_capacity(addresses.len());
    for address in first {
        order.push(address);
        order.extend(second.next());
    }
    order.extend(second);
    order
}

/// Tries each address in turn, whatever the error of the ones before: no route, refused, rejected by a firewall (EACCES). Each
/// gets an equal part of the time that is left, so that one that does not answer leaves time for the others.
fn try_each<T>(
    addresses: &[SocketAddr],
    deadline: &Deadline,
    mut connect: impl FnMut(SocketAddr, NextTimeout) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut failure = None;
    for (at, address) in addresses.iter().enumerate() {
        if deadline.has_passed() {
            break;
        }
        let mut timeout = deadline.left();
        let remaining = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        timeout.after = timeout.after / remaining;
        match connect(*address, timeout) {
            Ok(connection) => return Ok(connection),
            // A missing route (no IPv6 on this machine) hides no other error.
            Err(error) if failure.is_some() && has_no_route(&error) => {}
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(Error::Timeout(_)) => Err(Error::Timeout(deadline.timeout.reason)),
        Some(error) => Err(error),
        None if deadline.has_passed() => Err(Error::Timeout(deadline.timeout.reason)),
        None => Err(Error::HostNotFound),
    }
}

fn has_no_route(error: &Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    matches!(error, Error::Io(error)
        if matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable))
}

fn proxy_authorization(value: &Secret<String>) -> String {
    format!("Proxy-Authorization: {}\r\n", value.expose())
}

/// Reads the head of the proxy's answer from the transport: its status.
fn read_status(transport: &mut Box<dyn Transport>, deadline: &Deadline) -> Result<u16, Error> {
    loop {
        let has_more = transport.await_input(deadline.left())?;
        let input = transport.buffers().input();
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(input) {
            Ok(httparse::Status::Complete(bytes)) => {
                let status = answer.code.unwrap_or_default();
                transport.buffers().input_consume(bytes);
                return Ok(status);
            }
            Ok(httparse::Status::Partial) if has_more && input.len() < HEAD_BYTES_MAX => {}
            Ok(httparse::Status::Partial) => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Err(_) => return Err(io::Error::other("its answer is not HTTP").into()),
        }
    }
}

/// Most header lines, and bytes, of a proxy's answer.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A proxy is why there is no answer.
#[derive(Debug)]
pub struct ProxyError {
    /// A whole sentence in lower case. It names the proxy, without its credentials.
    text: String,
    /// Sending the request again may succeed.
    pub is_retryable: bool,
}

impl ProxyError {
    /// The proxy itself answered `status`. `target` is the host of the tunnel, if it was asked for one.
    pub(super) fn answered(proxy: &ProxyServer, status: u16, target: Option<&str>) -> ProxyError {
        let words = StatusCode::from_u16(status).map_or(status.to_string(), |s| s.to_string());
        let text = match (status, target) {
            (407, _) if proxy.authorization.is_none() => {
                format!("the proxy {proxy} wants a user name and password ({words})")
            }
            (407, _) => {
                format!("the proxy {proxy} does not take the user name and password ({words})")
            }
            (_, Some(target)) => {
                format!("the proxy {proxy} refused to connect to {target} ({words})")
            }
            (_, None) => format!("the proxy {proxy}, or a server behind it, refused ({words})"),
        };
        let is_retryable = matches!(status, 502..=504);
        ProxyError { text, is_retryable }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ProxyError {}

/// Turns `error` into one that names the proxy. A timeout stays a timeout.
fn proxy_failed(proxy: &ProxyServer, error: Error) -> Error {
    let text = match (tls_error(&error), &error) {
        (Some(rustls::Error::InvalidCertificate(reason)), _) => {
            let why = distrust(reason);
            format!("the certificate of the proxy {proxy} is not trusted: {why}")
        }
        (Some(other), _) => format!("TLS with the proxy {proxy} failed: {other}"),
        (None, Error::Timeout(_)) => return error,
        (None, Error::Io(cause)) => {
            format!("the proxy {proxy} failed: {}", io_error_in_words(cause))
        }
        (None, other) => format!("the proxy {proxy} failed: {other}"),
    };
    let is_retryable = tls_error(&error).is_none();
    Error::Other(Box::new(ProxyError { text, is_retryable }))
}

/// One request that a proxy forwards: its target is the whole URL (RFC 9112 §3.2.2).
#[derive(Debug)]
struct Forwarded {
    transport: Box<dyn Transport>,
    /// Scheme, host and port, which go before the path; empty once they are sent.
    origin: String,
    authorization: Option<Secret<String>>,
}

impl Forwarded {
    fn new(transport: Box<dyn Transport>, proxy: &ProxyServer, uri: &Uri) -> Forwarded {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Forwarded {
            transport,
            origin: format!("http://{authority}"),
            authorization: proxy.authorization.clone(),
        }
    }

    /// Puts the origin into the request line, which ureq writes with the path alone, and whole.
    fn rewritten(&mut self, output: &[u8]) -> Option<Vec<u8>> {
        let target_at = output.iter().position(|byte| *byte == b' ')? + 1;
        let line_end = output.windows(2).position(|two| two == b"\r\n")? + 2;
        let mut bytes = output[..target_at].to_vec();
        bytes.extend(std::mem::take(&mut self.origin).into_bytes());
        bytes.extend(&output[target_at..line_end]);
        if let Some(authorization) = &self.authorization {
            bytes.extend(proxy_authorization(authorization).into_bytes());
        }
        bytes.extend(&output[line_end..]);
        Some(bytes)
    }
}

impl Transport for Forwarded {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.origin.is_empty() {
            return self.transport.transmit_output(amount, timeout);
        }
        let output = self.transport.buffers().output()[..amount].to_vec();
        let rewritten = self
            .rewritten(&output)
            .ok_or_else(|| io::Error::other("the request line is too long"))?;
        let mut rest = &rewritten[..];
        while !rest.is_empty() {
            let buffer = self.transport.buffers().output();
            let (now, later) = rest.split_at(rest.len().min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            self.transport.transmit_output(now.len(), timeout)?;
            rest = later;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.transport.await_input(timeout)
    }

    /// Not reusable: the request line of a next request cannot be distinguished from a body.
    fn is_open(&mut self) -> bool {
        false
    }
}

struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        // `StreamOwned` would not read while it has something to write, and a server that answers early reads no more.
        let amount = loop {
            match self.stream.conn.reader().read(input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.conn.read_tls(&mut self.stream.sock)?;
                    self.stream.conn.process_new_packets()?;
                }
                read => break read?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use ureq::Timeout;

    use super::*;

    fn within(seconds: u64) -> Deadline {
        Deadline::new(NextTimeout {
            after: Duration::from_secs(seconds),
            reason: Timeout::Connect,
            ..NextTimeout::default()
        })
    }

    fn failing(kind: io::ErrorKind) -> Result<(), Error> {
        Err(io::Error::from(kind).into())
    }

    /// The result for addresses with these outcomes, and the seconds that each got.
    fn tried(outcomes: Vec<Result<(), Error>>) -> (Result<(), Error>, Vec<f64>) {
        let addresses: Vec<SocketAddr> = (0..outcomes.len())
            .map(|at| format!("127.0.0.{}:1", at + 1).parse().unwrap())
            .collect();
        let (mut outcomes, mut given) = (VecDeque::from(outcomes), Vec::new());
        let end = try_each(&addresses, &within(10), |_, timeout| {
            given.push(timeout.after.as_secs_f64());
            outcomes.pop_front().unwrap()
        });
        (end, given)
    }

    #[test]
    fn address_that_fails_leads_to_the_next() {
        use io::ErrorKind::*;
        for kind in [
            PermissionDenied,
            HostUnreachable,
            NetworkUnreachable,
            ConnectionRefused,
            AddrNotAvailable,
            Other,
        ] {
            let (end, given) = tried(vec![failing(kind), Ok(())]);
            assert!(end.is_ok() && given.len() == 2, "{kind:?}");
        }
        let (end, _) = tried(vec![Err(Error::Timeout(Timeout::Connect)), Ok(())]);
        assert!(end.is_ok());
    }

    #[test]
    fn addresses_share_the_time_that_is_left() {
        let silent = || Err(Error::Timeout(Timeout::Connect));
        let (end, given) = tried(vec![silent(), silent(), silent(), silent()]);
        assert!(matches!(end, Err(Error::Timeout(Timeout::Connect))));
        // These addresses fail at once, so that the later ones get more time than in reality.
        let parts = [2.5, 10.0 / 3.0, 5.0, 10.0];
        for (given, part) in given.iter().zip(parts) {
            assert!((given - part).abs() < 0.1, "{given} {part}");
        }
        let passed = within(0);
        let end = try_each(&["127.0.0.1:1".parse().unwrap()], &passed, |_, _| Ok(()));
        assert!(matches!(end, Err(Error::Timeout(Timeout::Connect))));
    }

    #[test]
    fn failure_without_a_route_hides_no_other() {
        use io::ErrorKind::*;
        for (first, second, told) in [
            (ConnectionRefused, NetworkUnreachable, ConnectionRefused),
            (NetworkUnreachable, ConnectionRefused, ConnectionRefused),
            (NetworkUnreachable, HostUnreachable, NetworkUnreachable),
        ] {
            let (end, _) = tried(vec![failing(first), failing(second)]);
            assert!(matches!(end, Err(Error::Io(error)) if error.kind() == told));
        }
    }

    #[test]
    fn address_families_take_turns() {
        let address = |text: &str| text.parse().unwrap();
        let all: Vec<SocketAddr> = ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]
            .map(address)
            .to_vec();
        let expected = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"].map(address);
        assert_eq!(alternating(&all), expected);
        assert!(alternating(&[]).is_empty());
    }
}
