//! Sends one request and reads its whole answer. What is asked, and what an answer means, is elsewhere.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use ureq::http::{HeaderMap, Method, Request, Uri};
use ureq::{Agent, Proxy, ProxyProtocol, SendBody};

use crate::cli::context::{Context, Vars};
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client::{ClientSettings, agent, distrust, tls_error};

/// A client for one service.
pub(crate) struct Http {
    agent: Agent,
}

/// A request, complete.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) body: Sent<'a>,
}

/// What a request carries.
pub(crate) enum Sent<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// A stream: no time limit on the whole, 60 s without progress. Its length is announced where it is known.
    Stream {
        reader: &'a mut dyn Read,
        length: Option<u64>,
    },
}

/// An answer, of any status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// Lower case, to be put after "cannot reach …: ".
    pub(crate) why: String,
    pub(crate) hint: Option<&'static str>,
    /// The connection failed, so that the same request may be sent again if it may be sent twice at all.
    pub(crate) connection: bool,
}

impl Http {
    /// A client for the service at `base`.
    pub(crate) fn connect(base: &BaseUrl, context: &mut Context) -> Http {
        let vars = &context.vars;
        if let Some(name) = unusable_proxy(vars) {
            let warning = format!("{name} is not the URL of an HTTP proxy, so no proxy is used");
            context.output.warn(&warning);
        }
        let extra_roots = vars.path(EXTRA_ROOTS_VARIABLE).filter(|_| base.is_https());
        if let Some(path) = &extra_roots
            && let Err(error) = File::open(path)
        {
            let warning = format!("{EXTRA_ROOTS_VARIABLE} {}: {error}", path.display());
            context.output.warn(&warning);
        }
        let user_agent = format!(
            "postiz-rust/{} ({} {})",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        );
        let settings = ClientSettings {
            user_agent: &user_agent,
            connect_timeout: CONNECT_TIMEOUT,
            total_timeout: Some(ANSWER_TIMEOUT),
            extra_roots: extra_roots.as_deref(),
            uses_tls: base.is_https() || has_https_proxy(vars),
        };
        Http {
            agent: agent(&settings),
        }
    }

    /// Sends `outgoing`; follows no redirect.
    pub(crate) fn send(&self, outgoing: Outgoing) -> Result<Answer, NoAnswer> {
        self.try_send(outgoing).map_err(|error| {
            let mut no_answer = explain(error);
            if no_answer.connection && self.agent.config().proxy().is_some() {
                no_answer.hint = no_answer.hint.or(Some(PROXY_HINT));
            }
            no_answer
        })
    }

    fn try_send(&self, outgoing: Outgoing) -> Result<Answer, ureq::Error> {
        let carries_body = matches!(outgoing.method, Method::POST | Method::PUT | Method::PATCH);
        let mut request = Request::builder().method(outgoing.method).uri(outgoing.uri);
        if let Some(authorization) = outgoing.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(content_type) = outgoing.content_type {
            request = request.header("content-type", content_type);
        }
        let response = match outgoing.body {
            // Methods that usually carry a body say that there is none (`content-length: 0`); the others say nothing.
            Sent::Nothing if carries_body => self.agent.run(request.body(&[][..])?)?,
            Sent::Nothing => self.agent.run(request.body(())?)?,
            Sent::Bytes(bytes) => self.agent.run(request.body(bytes)?)?,
            Sent::Stream { reader, length } => {
                if let Some(length) = length {
                    request = request.header("content-length", length);
                }
                let request = request.body(SendBody::from_reader(reader))?;
                let patient = self.agent.configure_request(request);
                let patient = patient
                    .timeout_global(None)
                    .timeout_per_read(Some(ANSWER_TIMEOUT))
                    .timeout_per_write(Some(ANSWER_TIMEOUT));
                self.agent.run(patient.build())?
            }
        };
        let (parts, mut body) = response.into_parts();
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?,
        })
    }
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Does the body call itself HTML, or look like it?
    pub(crate) fn is_html(&self) -> bool {
        let says_so = self
            .header("content-type")
            .is_some_and(|value| value.contains("text/html"));
        says_so || self.body.trim_ascii_start().starts_with(b"<")
    }

    /// How long the server asks to wait, in either form of `Retry-After` (RFC 9110 §10.2.3).
    pub(crate) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    }
}

/// What ureq reports, in words for the user.
fn explain(error: ureq::Error) -> NoAnswer {
    if let Some(error) = tls_error(&error) {
        return explain_tls(error);
    }
    let connection = matches!(
        error,
        ureq::Error::Io(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
    );
    let mut hint = None;
    let why = match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            "no connection within 10 s".to_owned()
        }
        ureq::Error::Timeout(_) => "no answer within 60 s".to_owned(),
        ureq::Error::HostNotFound => NO_HOST.to_owned(),
        ureq::Error::Io(error) => return explain_io(error),
        ureq::Error::ConnectProxyFailed(why) => {
            hint = Some(PROXY_HINT);
            format!("the proxy refused: {why}")
        }
        ureq::Error::InvalidProxyUrl => {
            hint = Some(PROXY_HINT);
            "the proxy's URL is not one".to_owned()
        }
        ureq::Error::Protocol(error) => format!("the answer is not HTTP: {error}"),
        ureq::Error::BodyExceedsLimit(_) => "the answer is larger than 64 MiB".to_owned(),
        ureq::Error::Http(error) => format!("the request cannot be sent: {error}"),
        other => other.to_string(),
    };
    NoAnswer {
        why,
        hint,
        connection,
    }
}

fn explain_io(error: io::Error) -> NoAnswer {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "the connection was lost".to_owned(),
        // The system's own words for it name neither the host nor the network.
        _ if error.to_string().starts_with("failed to lookup address") => NO_HOST.to_owned(),
        _ => error.to_string(),
    };
    NoAnswer {
        why,
        hint: None,
        connection: true,
    }
}

fn explain_tls(error: &rustls::Error) -> NoAnswer {
    let (why, hint) = match error {
        rustls::Error::InvalidCertificate(reason) => {
            let by_unknown = *reason == CertificateError::UnknownIssuer;
            (
                format!("its certificate is not trusted: {}", distrust(reason)),
                by_unknown.then_some(PRIVATE_CA_HINT),
            )
        }
        other => (format!("TLS failed: {other}"), None),
    };
    NoAnswer {
        why,
        hint,
        connection: false,
    }
}

fn has_https_proxy(vars: &Vars) -> bool {
    let mut proxies = PROXY_VARIABLES.iter().filter_map(|name| vars.text(name));
    proxies.any(|proxy| proxy.starts_with("https:"))
}

/// The variable that names a proxy of which no use can be made: requests then go without one, and the user should know.
/// Its value is not shown, since it may hold a password.
fn unusable_proxy(vars: &Vars) -> Option<&'static str> {
    let protocol = |value: String| Proxy::new(&value).ok().map(|proxy| proxy.protocol());
    let named = PROXY_VARIABLES.into_iter();
    let all: Vec<_> = named
        .filter_map(|name| Some((name, protocol(vars.text(name)?))))
        .collect();
    // ureq takes the first that it can read, and then uses it only if it speaks HTTP.
    let taken = all
        .iter()
        .find(|(_, protocol)| protocol.is_some())
        .or(all.first());
    match taken {
        Some((_, Some(ProxyProtocol::Http | ProxyProtocol::Https))) | None => None,
        Some((name, _)) => Some(name),
    }
}

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a whole answer; in a stream, for any progress.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer that is read: a list of posts is text, and 64 MiB of it is no list any more.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// In the order in which ureq asks them.
const PROXY_VARIABLES: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

const EXTRA_ROOTS_VARIABLE: &str = "NODE_EXTRA_CA_CERTS";

const NO_HOST: &str = "no host of that name is known (or there is no network)";

const PROXY_HINT: &str = "requests go through a proxy: check ALL_PROXY, HTTPS_PROXY and HTTP_PROXY, or except this host with NO_PROXY";

const PRIVATE_CA_HINT: &str = "if its authority is your organisation's own, name the file of that root certificate (PEM) \
                               in SSL_CERT_FILE or NODE_EXTRA_CA_CERTS";
