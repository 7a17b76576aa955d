//! TLS to PostgreSQL as libpq's `sslmode` means it, by rustls. Why our own connector: tokio-postgres-rustls 0.14 knows no
//! channel binding for RSA-PSS and ECDSA with SHA-512, and leaves the certificates' verification to us anyway.

mod certificate;

use std::fs::Metadata;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{Connect, TlsConnector};

use crate::server::store::tls::certificate::{Certificate, Proof};
use crate::shared::http_client;
use crate::shared::pem;

/// libpq's `sslmode`, as far as it concerns the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// `disable`, `prefer` and `require` without `sslrootcert`: encrypted, if at all, to any server that answers.
    Nothing,
    /// `verify-ca`, and `require` with `sslrootcert`: its authority is trusted, its name does not matter.
    Authority(Roots),
    /// `verify-full`: its authority is trusted, and it is the host's own.
    AuthorityAndName(Roots),
}

/// Whom to trust: `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Not given, or `system`: the system's store, else the built-in roots.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// `sslcert` and `sslkey`: PEM files, by which the client authenticates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a URL says about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) verify: Verify,
    pub(crate) client: Option<ClientCertificate>,
    /// `sslnegotiation=direct`: TLS from the first byte on, which wants ALPN.
    pub(crate) is_direct: bool,
}

/// Puts TLS on connections. Files are read again for each, since certificates are renewed.
#[derive(Clone)]
pub(crate) struct Tls {
    settings: Arc<Settings>,
    provider: Arc<CryptoProvider>,
    /// The system's store, which is large and read once, if it is what counts.
    system: Option<Arc<Trust>>,
}

/// From when until when a certificate is valid, in seconds since 1970.
pub(crate) fn validity(der: &[u8]) -> Option<(u64, u64)> {
    Certificate::parse(der).map(|certificate| certificate.validity())
}

impl Tls {
    /// The error says which file is wrong and why.
    pub(crate) fn new(settings: &Settings) -> Result<Tls, String> {
        let provider = Arc::new(ring::default_provider());
        let system = match &settings.verify {
            Verify::Authority(Roots::System) | Verify::AuthorityAndName(Roots::System) => Some(
                Arc::new(Trust::new(http_client::system_roots(), &provider)?),
            ),
            _ => None,
        };
        let settings = Arc::new(settings.clone());
        let tls = Tls {
            settings,
            provider,
            system,
        };
        tls.client_config()?;
        Ok(tls)
    }

    /// For one connection; and whether its server has proved that it has its certificate's key.
    fn client_config(&self) -> Result<(ClientConfig, Arc<AtomicBool>), String> {
        let is_proved = Arc::new(AtomicBool::new(false));
        let trust = match &self.settings.verify {
            Verify::Nothing => None,
            Verify::Authority(roots) | Verify::AuthorityAndName(roots) => Some(self.trust(roots)?),
        };
        let verifier = Verifier {
            trust,
            checks_name: matches!(self.settings.verify, Verify::AuthorityAndName(_)),
            algorithms: self.provider.signature_verification_algorithms,
            is_proved: Arc::clone(&is_proved),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.settings.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let key = certified_key(client, &self.provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        // Each connection proves its own key.
        config.resumption = Resumption::disabled();
        if self.settings.is_direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok((config, is_proved))
    }

    fn trust(&self, roots: &Roots) -> Result<Arc<Trust>, String> {
        let Roots::File(path) = roots else {
            return self.system.clone().ok_or_else(|| "no roots".to_owned());
        };
        let problem = |reason: String| format!("sslrootcert {}: {reason}", path.display());
        let certificates = certificates(path).map_err(problem)?;
        Trust::new(certificates, &self.provider)
            .map(Arc::new)
            .map_err(problem)
    }

    /// What went wrong with TLS, in words, to be put after the host's name.
    pub(crate) fn words(&self, error: &Error) -> String {
        let roots = match &self.settings.verify {
            Verify::Authority(Roots::File(path)) | Verify::AuthorityAndName(Roots::File(path)) => {
                format!("sslrootcert {}", path.display())
            }
            _ => "the system's roots".to_owned(),
        };
        let distrusted = |why: &str| format!("its certificate is not trusted: {why}");
        match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                distrusted(&format!("no authority of {roots} has signed it"))
            }
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
                let expected = expected.to_str();
                distrusted(&match &presented[..] {
                    [] => format!(
                        "it is not for {expected}: it names no host in subjectAltName (a common name, CN, does not \
                         count; sslmode=verify-ca does without)"
                    ),
                    names => format!("it is not for {expected}, but for {}", names.join(", ")),
                })
            }
            Error::InvalidCertificate(CertificateError::Other(other)) => match format!("{other:?}") {
                text if text.contains("UnsupportedCertVersion") => distrusted(
                    "it is of X.509 version 1, which sslmode=verify-ca and verify-full cannot use: make one of version 3, \
                     or name this one itself as sslrootcert with verify-ca",
                ),
                text if text.contains("CaUsedAsEndEntity") => distrusted(&format!(
                    "it is an authority's own (CA:TRUE), and not itself one of {roots}"
                )),
                text => distrusted(&text),
            },
            Error::InvalidCertificate(
                CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
            ) => distrusted("it is signed by an algorithm that cannot be verified here (P-521, or an uncommon one)"),
            Error::InvalidCertificate(reason) => distrusted(&http_client::distrust(reason)),
            Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion) => {
                "it and this server have no TLS version (1.2 or 1.3), cipher or kind of key in common".to_owned()
            }
            Error::AlertReceived(alert) => match self.settings.client {
                Some(_) => format!("it refuses TLS or the client certificate (sslcert): {alert:?}"),
                None => format!("it refuses TLS: {alert:?}"),
            },
            Error::PeerMisbehaved(PeerMisbehaved::SignedKxWithWrongAlgorithm) => {
                "its certificate's key is for PSS alone, which takes TLS 1.3 here, and it has TLS 1.2"
                    .to_owned()
            }
            // Our own words.
            Error::General(text) => text.clone(),
            other => format!("TLS failed: {other}"),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = pem::read(path)
        .and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>());
    match read {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(pem_problem(&error)),
    }
}

fn pem_problem(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn certified_key(
    client: &ClientCertificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let problem = |reason: String| format!("sslcert {}: {reason}", client.certificate.display());
    let chain = certificates(&client.certificate).map_err(problem)?;
    let problem = |reason: &str| format!("sslkey {}: {reason}", client.key.display());
    let metadata = client
        .key
        .metadata()
        .map_err(|error| problem(&error.to_string()))?;
    if is_open_to_others(&metadata) {
        return Err(problem(
            "others may read it: chmod 600 (or 640 if root owns it), as libpq wants",
        ));
    }
    let key = pem::read(&client.key).and_then(|text| PrivateKeyDer::from_pem_slice(&text));
    let key = match key {
        Ok(key) => key,
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            return Err(problem(
                "holds no private key, or one that is encrypted, which is not supported",
            ));
        }
        Err(error) => return Err(problem(&pem_problem(&error))),
    };
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        problem(
            "is of a kind that cannot be used here: right are RSA of 2048, 3072 or 4096 bits, P-256, P-384 and Ed25519",
        )
    })?;
    let certificate = Certificate::parse(&chain[0]);
    if let (Some(certificate), Some(public)) = (certificate, key.public_key())
        && certificate.key_info != public.as_ref()
    {
        return Err(problem("is not the key of sslcert"));
    }
    Ok(CertifiedKey::new(chain, key))
}

/// libpq's rule for key files: for their owner alone, and readable for the group if root owns them.
fn is_open_to_others(file: &Metadata) -> bool {
    let forbidden = if file.uid() == 0 { 0o037 } else { 0o077 };
    file.mode() & forbidden != 0
}

/// Certificates that are trusted, and those that they have signed.
#[derive(Debug)]
struct Trust {
    authority: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Trust {
    fn new(
        certificates: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
        if roots.is_empty() {
            return Err(format!("none of its {ignored} certificates can be read"));
        }
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let authority = builder.build().map_err(|error| error.to_string())?;
        Ok(Trust {
            authority,
            certificates,
        })
    }
}

/// Verifies a server's certificate and key, as far as `sslmode` wants it.
#[derive(Debug)]
struct Verifier {
    /// Without, any certificate will do.
    trust: Option<Arc<Trust>>,
    checks_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
    is_proved: Arc<AtomicBool>,
}

impl Verifier {
    /// Where no certificate is verified, an unverified key changes nothing: anybody in between may show another. But
    /// such a connection has no channel binding, since he could show the server's certificate as well.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
        match certificate.verify(&self.algorithms, message, signed) {
            Proof::Good => self.is_proved.store(true, Ordering::Release),
            Proof::Bad => return Err(CertificateError::BadSignature.into()),
            Proof::Unknown(why) if self.trust.is_some() => {
                return Err(Error::General(format!("its certificate has {why}")));
            }
            Proof::Unknown(_) => {}
        }
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer,
        intermediates: &[CertificateDer],
        name: &ServerName,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        // One that is itself trusted needs no authority, and may be of any version or an authority's own.
        if trust.certificates.contains(certificate) {
            let parsed = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
            if parsed.is_too_old(now) {
                return Err(CertificateError::Expired.into());
            }
            if parsed.is_too_new(now) {
                return Err(CertificateError::NotValidYet.into());
            }
            if self.checks_name {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified = trust.authority.verify_server_cert(
            certificate,
            intermediates,
            name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is checked last, so all else was found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // They are offered for TLS 1.2 alone (RFC 8446 §4.2.3).
        if let SignatureScheme::RSA_PKCS1_SHA256
        | SignatureScheme::RSA_PKCS1_SHA384
        | SignatureScheme::RSA_PKCS1_SHA512 = signed.scheme
        {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        self.verify_signature(message, certificate, signed)
    }

    /// Those that cannot be verified are offered all the same: where it matters, the error can then say so.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.algorithms.supported_schemes();
        schemes.extend([
            certificate::RSA_PSS_PSS_SHA256,
            certificate::RSA_PSS_PSS_SHA384,
            certificate::RSA_PSS_PSS_SHA512,
            SignatureScheme::ECDSA_NISTP521_SHA512,
        ]);
        schemes
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = TlsTo;
    type Error = io::Error;

    /// Called for every connection, also for those that will have no TLS and whose host has no name.
    fn make_tls_connect(&mut self, host: &str) -> Result<TlsTo, io::Error> {
        Ok(TlsTo {
            tls: self.clone(),
            host: host.to_owned(),
        })
    }
}

/// Puts TLS on a connection to one host.
pub(crate) struct TlsTo {
    tls: Tls,
    host: String,
}

impl TlsConnect<Socket> for TlsTo {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Handshake;

    fn connect(self, socket: Socket) -> Handshake {
        let is_named = ServerName::try_from(self.host.clone());
        let name = match is_named {
            Ok(name) => name,
            // Nobody looks at it: a name that no certificate can have is as good as none.
            Err(_) if !matches!(self.tls.settings.verify, Verify::AuthorityAndName(_)) => {
                ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]))
            }
            Err(_) => {
                let text = format!("{:?} is no name that a certificate can have", self.host);
                return Handshake::Failed(Some(Error::General(text)));
            }
        };
        match self.tls.client_config() {
            Ok((config, is_proved)) => Handshake::Going(
                Box::new(TlsConnector::from(Arc::new(config)).connect(name, socket)),
                is_proved,
            ),
            Err(problem) => Handshake::Failed(Some(Error::General(problem))),
        }
    }
}

/// A handshake in progress.
pub(crate) enum Handshake {
    Going(Box<Connect<Socket>>, Arc<AtomicBool>),
    /// Failed before it began.
    Failed(Option<Error>),
}

impl Future for Handshake {
    type Output = io::Result<Encrypted>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Handshake::Going(handshake, is_proved) => Pin::new(&mut **handshake)
                .poll(context)
                .map_ok(|stream| Encrypted {
                    stream: Box::new(stream),
                    is_proved: is_proved.load(Ordering::Acquire),
                }),
            Handshake::Failed(error) => {
                let error = error.take().unwrap_or(Error::HandshakeNotComplete);
                Poll::Ready(Err(io::Error::other(error)))
            }
        }
    }
}

/// An encrypted connection.
pub(crate) struct Encrypted {
    stream: Box<tokio_rustls::client::TlsStream<Socket>>,
    is_proved: bool,
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.stream.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        certificate
            .filter(|_| self.is_proved)
            .and_then(|der| Certificate::parse(der)?.end_point())
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
