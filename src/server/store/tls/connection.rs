//! TLS connections behind the postgres crate's traits.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{Connect, TlsConnector};

use crate::server::store::tls::{Tls, Verify};
use crate::server::x509::X509Certificate;

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = HostTls;
    type Error = io::Error;

    /// Called for every connection, even if it will have no TLS and its host has no name.
    fn make_tls_connect(&mut self, host: &str) -> Result<HostTls, io::Error> {
        Ok(HostTls {
            tls: self.clone(),
            host: host.to_owned(),
        })
    }
}

/// Starts TLS on a connection to one host.
pub(crate) struct HostTls {
    tls: Tls,
    host: String,
}

impl TlsConnect<Socket> for HostTls {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Handshake;

    fn connect(self, socket: Socket) -> Handshake {
        let name = match ServerName::try_from(self.host.clone()) {
            Ok(name) => name,
            // The name is not checked, so any will do where the host has none that rustls accepts.
            Err(_) if !matches!(self.tls.settings.verify, Verify::AuthorityAndName(_)) => {
                ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]))
            }
            Err(_) => {
                let text = format!(
                    "{:?} is not a host name or address that a certificate can have",
                    self.host
                );
                return Handshake::Failed(Some(rustls::Error::General(text)));
            }
        };
        match self.tls.client_config() {
            Ok((config, is_key_proved)) => Handshake::Running(
                Box::new(TlsConnector::from(Arc::new(config)).connect(name, socket)),
                is_key_proved,
            ),
            Err(problem) => Handshake::Failed(Some(rustls::Error::General(problem))),
        }
    }
}

/// A handshake in progress.
pub(crate) enum Handshake {
    Running(Box<Connect<Socket>>, Arc<AtomicBool>),
    /// It failed before its first byte.
    Failed(Option<rustls::Error>),
}

impl Future for Handshake {
    type Output = io::Result<Encrypted>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Handshake::Running(handshake, is_key_proved) => Pin::new(&mut **handshake)
                .poll(context)
                .map_ok(|stream| Encrypted {
                    stream: Box::new(stream),
                    is_key_proved: is_key_proved.load(Ordering::Acquire),
                }),
            Handshake::Failed(error) => {
                let error = error.take().unwrap_or(rustls::Error::HandshakeNotComplete);
                Poll::Ready(Err(io::Error::other(error)))
            }
        }
    }
}

/// An encrypted connection.
pub(crate) struct Encrypted {
    stream: Box<tokio_rustls::client::TlsStream<Socket>>,
    is_key_proved: bool,
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.stream.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        certificate
            .filter(|_| self.is_key_proved)
            .and_then(|der| X509Certificate::parse(der)?.channel_binding())
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}
