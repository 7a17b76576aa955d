//! Sends one request and reads its whole answer. What is asked, and what an answer means, is elsewhere.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use ureq::http::{HeaderMap, Method, Request, Uri};
use ureq::{Agent, SendBody};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client::{
    self, ClientSettings, NO_HOST, Outbound, Proxies, ProxyError, distrust, tls_error,
};

/// A client for one service.
pub(crate) struct Http {
    agent: Agent,
    proxies: Arc<Proxies>,
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
    /// A client for the service at `base`; an error where the environment names a proxy or certificates that cannot be used.
    pub(crate) fn connect(base: &BaseUrl, context: &mut Context) -> Result<Http, CliError> {
        let outbound = Outbound::new(&|name| context.vars.raw(name).cloned(), base.is_https());
        if let Some(problem) = outbound.problems.first() {
            let hint = format!("set {} to what can be used, or unset it", problem.name);
            return Err(CliError::failed(problem.to_string()).hint(hint));
        }
        let proxies = Arc::clone(&outbound.proxies);
        if let Some(notice) = proxies.notice(base.is_https()) {
            context.output.warn_once(&notice);
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
        };
        let agent = http_client::agent(&settings, outbound);
        Ok(Http { agent, proxies })
    }

    /// Sends `outgoing`; follows no redirect.
    pub(crate) fn send(&self, outgoing: Outgoing) -> Result<Answer, NoAnswer> {
        let uri = outgoing.uri.clone();
        let answer = self.try_send(outgoing).map_err(|error| {
            let mut no_answer = explain(error);
            if no_answer.connection && self.proxies.applies_to(&uri) {
                no_answer.hint = no_answer.hint.or(Some(PROXY_HINT));
            }
            no_answer
        })?;
        let is_json = answer
            .header("content-type")
            .is_some_and(|value| value.contains("json"));
        match http_client::refused_by_proxy(&self.proxies, &uri, answer.status, is_json) {
            Some(refusal) => Err(explain_proxy(&refusal)),
            None => Ok(answer),
        }
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
    if let Some(error) = http_client::proxy_error(&error) {
        return explain_proxy(error);
    }
    let connection = matches!(
        error,
        ureq::Error::Io(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound
            | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
    );
    let why = match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            "no connection within 10 s".to_owned()
        }
        ureq::Error::Timeout(_) => "no answer within 60 s".to_owned(),
        ureq::Error::HostNotFound => NO_HOST.to_owned(),
        ureq::Error::Io(error) => http_client::io_error_in_words(&error),
        ureq::Error::Protocol(error) => format!("the answer is not HTTP: {error}"),
        ureq::Error::BodyExceedsLimit(_) => "the answer is larger than 64 MiB".to_owned(),
        ureq::Error::Http(error) => format!("the request cannot be sent: {error}"),
        other => other.to_string(),
    };
    NoAnswer {
        why,
        hint: None,
        connection,
    }
}

/// A refusal is said once: it would be the same the next time.
fn explain_proxy(error: &ProxyError) -> NoAnswer {
    NoAnswer {
        why: error.to_string(),
        hint: Some(PROXY_HINT),
        connection: error.may_pass,
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

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a whole answer; in a stream, for any progress.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer that is read: a list of posts is text, and 64 MiB of it is no list any more.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

const PROXY_HINT: &str = "requests go through a proxy: check https_proxy, http_proxy and all_proxy (or in capitals), or except this host with NO_PROXY";

const PRIVATE_CA_HINT: &str = "if its authority is your organisation's own, name the file of that root certificate (PEM) \
                               in SSL_CERT_FILE or NODE_EXTRA_CA_CERTS";
