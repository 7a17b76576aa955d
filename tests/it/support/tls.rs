//! TLS of a company's network: a private certificate authority, relays that add or remove TLS, and a CONNECT proxy.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig,
    ServerConnection, StreamOwned,
};

/// Read timeout.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long a relay in both directions reads from one end before it reads from the other.
const RELAY_TURN: Duration = Duration::from_millis(2);

/// A private authority, and one certificate that it has signed, for `localhost` and `postiz.test`.
pub struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    /// Makes the authority and the certificate.
    pub fn new() -> Authority {
        Authority::made_by(
            "self_signed ca 'A Private Authority' $key
            signed server localhost ca DNS:localhost,DNS:postiz.test $key
            mkdir store
            cp ca.crt store/$(openssl x509 -hash -noout -in ca.crt).0",
        )
    }

    /// Makes a self-signed certificate for `localhost`, as `openssl req -x509` does; it is its own `ca.crt`.
    pub fn self_signed() -> Authority {
        Authority::made_by(
            "self_signed server localhost $key -addext subjectAltName=DNS:localhost
            cp server.crt ca.crt",
        )
    }

    fn made_by(script: &str) -> Authority {
        let folder = tempfile::tempdir().expect("a temporary folder");
        make_certificates(folder.path(), script);
        Authority { folder }
    }

    /// The path of a file: `ca.crt` is the root certificate, `store` a folder with it by its hash as in `/etc/ssl/certs`,
    /// `server.crt` and `server.key` the certificate and its key.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let chain = vec![certificate(&self.file("server.crt"))];
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).expect("a key");
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring supports these versions")
            .with_no_client_auth();
        Arc::new(builder.with_single_cert(chain, key).expect("they fit"))
    }
}

/// Runs a shell script in this folder. It may call the functions of `certificates.sh`.
#[track_caller]
pub fn make_certificates(folder: &Path, script: &str) {
    const FUNCTIONS: &str = include_str!("certificates.sh");
    let mut sh = Command::new("sh");
    let made = sh.args(["-euc", &format!("{FUNCTIONS}\n{script}")]);
    let made = made.current_dir(folder).output().expect("sh starts");
    assert!(
        made.status.success(),
        "is openssl installed? {script}: {made:?}"
    );
}

fn client_config(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca)).expect("a root");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports these versions")
        .with_root_certificates(roots);
    Arc::new(builder.with_no_client_auth())
}

/// Starts an https server that presents the certificate of `shown` but signs with the key of `held`. Returns its address.
pub fn impostor(shown: &Authority, held: &Authority) -> SocketAddr {
    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);
    impl ResolvesServerCert for Always {
        fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let key = PrivateKeyDer::from_pem_file(held.file("server.key")).expect("a key");
    let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("ring supports this key");
    let chain = vec![certificate(&shown.file("server.crt"))];
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports these versions")
        .with_no_client_auth();
    let resolver = Always(Arc::new(CertifiedKey::new(chain, key)));
    let config = Arc::new(builder.with_cert_resolver(Arc::new(resolver)));
    serve(move |client| {
        let session = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, client);
        read_request(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    })
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

/// Starts a proxy that speaks https and forwards to the plain HTTP server at `server`. Returns its address. It takes one
/// request a connection.
pub fn put_tls_before(server: SocketAddr, authority: &Authority) -> SocketAddr {
    let config = authority.server_config();
    serve(move |client| {
        let session = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        relay(StreamOwned::new(session, client), connect(server)?)
    })
}

/// Starts a relay that speaks TLS and forwards both directions to the server at `proxy`. Returns its address.
pub fn put_tls_before_proxy(proxy: SocketAddr, authority: &Authority) -> SocketAddr {
    let config = authority.server_config();
    serve(move |client| {
        let session = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let (mut client, mut server) = (StreamOwned::new(session, client), connect(proxy)?);
        complete_handshake(&mut client.conn, &mut client.sock)?;
        for socket in [&client.sock, &server] {
            socket.set_read_timeout(Some(RELAY_TURN))?;
        }
        loop {
            pass_on(&mut client, &mut server)?;
            pass_on(&mut server, &mut client)?;
        }
    })
}

/// Forwards the bytes that have arrived. The end of the stream is an error.
fn pass_on(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    match from.read(&mut chunk) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => to.write_all(&chunk[..count]).and_then(|()| to.flush()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Starts a proxy that speaks plain HTTP and forwards to the https server at `server`. Returns its address. It takes one
/// request a connection.
pub fn take_tls_off(server: SocketAddr, authority: &Authority) -> SocketAddr {
    let config = client_config(&authority.file("ca.crt"));
    serve(move |client| {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::clone(&config), name).map_err(io::Error::other)?;
        relay(client, StreamOwned::new(session, connect(server)?))
    })
}

/// Starts a man in the middle between a client and the PostgreSQL at `server`, whose certificate `ca` has signed. It speaks
/// TLS with both, and presents the client a certificate signed by `authority`. Returns its address.
pub fn intercept_tls(server: SocketAddr, ca: &Path, authority: &Authority) -> SocketAddr {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let (to_client, to_server) = (authority.server_config(), client_config(ca));
    serve(move |mut client| {
        let (mut request, mut answer) = ([0; 8], [0]);
        client.read_exact(&mut request)?;
        let mut server = connect(server)?;
        server.write_all(&SSL_REQUEST)?;
        server.read_exact(&mut answer)?;
        client.write_all(&answer)?;
        let session = ServerConnection::new(Arc::clone(&to_client)).map_err(io::Error::other)?;
        let mut client = StreamOwned::new(session, client);
        let name = ServerName::try_from("localhost").expect("a name");
        let session =
            ClientConnection::new(Arc::clone(&to_server), name).map_err(io::Error::other)?;
        let mut server = StreamOwned::new(session, server);
        complete_handshake(&mut client.conn, &mut client.sock)?;
        complete_handshake(&mut server.conn, &mut server.sock)?;
        for socket in [&client.sock, &server.sock] {
            socket.set_read_timeout(Some(RELAY_TURN))?;
        }
        loop {
            pass_on(&mut client, &mut server)?;
            pass_on(&mut server, &mut client)?;
        }
    })
}

/// A read timeout in the middle of a handshake would end it, so that a relay shortens its timeout only afterwards.
fn complete_handshake<Data>(
    session: &mut ConnectionCommon<Data>,
    socket: &mut TcpStream,
) -> io::Result<()> {
    while session.is_handshaking() {
        session.complete_io(socket)?;
    }
    Ok(())
}

/// A CONNECT proxy as in company networks: only it can resolve the names. It records the targets of requests.
pub struct ConnectProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Starts one that connects each `host:port` of `routes` to the address there.
    pub fn start(routes: &[(&str, SocketAddr)]) -> ConnectProxy {
        let routes: HashMap<String, SocketAddr> = routes
            .iter()
            .map(|(to, at)| ((*to).to_owned(), *at))
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let address = serve(move |mut client| {
            let head = String::from_utf8_lossy(&read_request(&mut client)?).into_owned();
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let route = routes.get(&target).filter(|_| head.starts_with("CONNECT "));
            log.lock().expect("no thread panics").push(target);
            let Some(route) = route else {
                return client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n");
            };
            let mut server = connect(*route)?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
            thread::spawn(move || io::copy(&mut from_client, &mut to_server));
            io::copy(&mut server, &mut client).map(drop)
        });
        ConnectProxy { address, asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL for `HTTPS_PROXY`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The `host:port` of each request so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no thread panics").clone()
    }
}

/// Listens on a free port until the tests end, with a thread for each connection. Errors of a connection are ignored.
fn serve(handle: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    let address = listener.local_addr().expect("it is bound");
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            thread::spawn(move || {
                client
                    .set_read_timeout(Some(SILENCE_MAX))
                    .and_then(|()| handle(client))
                    .ok()
            });
        }
    });
    address
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

/// Forwards one request to `server`, and its answer until it closes the connection.
fn relay(mut client: impl Read + Write, mut server: impl Read + Write) -> io::Result<()> {
    server.write_all(&read_request(&mut client)?)?;
    server.flush()?;
    let mut answer = Vec::new();
    match server.read_to_end(&mut answer) {
        // Some servers close without a TLS close_notify.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => client.write_all(&answer)?,
    }
    client.flush()
}

fn read_request(client: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    while !is_whole(&bytes)? {
        match client.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(bytes)
}

fn is_whole(bytes: &[u8]) -> io::Result<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = request.parse(bytes).map_err(io::Error::other)?
    else {
        return Ok(false);
    };
    let length = request
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(Ok(0), |h| String::from_utf8_lossy(h.value).parse::<usize>());
    Ok(bytes.len() >= head_bytes + length.map_err(io::Error::other)?)
}
