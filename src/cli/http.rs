//! Sends one request and reads its whole answer, of whatever status. api.rs and login/ know what the answers mean.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use serde_json::Value;
use ureq::http::{HeaderMap, Method, Request, Uri};
use ureq::{Agent, AsSendBody, SendBody};

use crate::cli::context::{AnswerTimeout, Context};
use crate::cli::error::CliError;
use crate::shared::base_url::BaseUrl;
use crate::shared::http_client::{
    self, NO_HOST, Outbound, Proxies, ProxyError, Sending, distrust, tls_error,
};

/// A client for one service.
pub(crate) struct Http {
    agent: Agent,
    proxies: Arc<Proxies>,
    sending: Arc<Sending>,
    timeout: AnswerTimeout,
}

impl AnswerTimeout {
    /// The limit for a whole exchange.
    fn limit(self) -> Option<Duration> {
        match self {
            AnswerTimeout::Usual => Some(ANSWER_TIMEOUT),
            AnswerTimeout::After(limit) => Some(limit),
            AnswerTimeout::Never => None,
        }
    }

    /// The limit for the answer alone, where the server may need long for it.
    fn chosen(self) -> Option<Duration> {
        self.limit().filter(|_| self != AnswerTimeout::Usual)
    }
}

pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) body: RequestBody<'a>,
    pub(crate) pace: Pace,
}

/// How fast the server should answer. Unless the user set a time limit, a slow answer has none.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    Usual,
    Slow,
}

pub(crate) enum RequestBody<'a> {
    Bytes(&'a [u8]),
    /// A stream. Its length is announced where it is known.
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
    /// Lower case, goes after "cannot reach …: ".
    pub(crate) why: String,
    pub(crate) hint: Option<&'static str>,
    /// The connection failed, so that sending the request again may succeed.
    pub(crate) is_retryable: bool,
    /// The whole request may have reached the server, so that the outcome is not known; set by [`Http`].
    pub(crate) may_be_done: bool,
}

impl NoAnswer {
    pub(crate) fn not_sent(why: impl Into<String>) -> NoAnswer {
        NoAnswer {
            why: why.into(),
            hint: None,
            is_retryable: false,
            may_be_done: false,
        }
    }

    /// The error for the user. `hint` is given where the failure has none.
    pub(crate) fn error(self, what: impl fmt::Display, hint: &'static str) -> CliError {
        CliError::failed(format!("cannot reach {what}: {}", self.why))
            .word("unreachable")
            .hint(self.hint.unwrap_or(hint))
    }
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
        Ok(Http {
            proxies,
            sending: Arc::clone(&outbound.sending),
            agent: outbound.client(&user_agent, CONNECT_TIMEOUT, None),
            timeout: context.common.timeout,
        })
    }

    /// Posts JSON, or nothing, without a credential.
    pub(crate) fn post(&self, url: &str, json: &str) -> Result<Answer, NoAnswer> {
        let uri: Result<Uri, _> = url.parse();
        self.send(Outgoing {
            method: Method::POST,
            uri: uri.map_err(|_| NoAnswer::not_sent("its address is too long"))?,
            authorization: None,
            content_type: Some("application/json"),
            body: RequestBody::Bytes(json.as_bytes()),
            pace: Pace::Usual,
        })
    }

    /// Sends `outgoing`, and follows no redirect.
    pub(crate) fn send(&self, outgoing: Outgoing) -> Result<Answer, NoAnswer> {
        let uri = outgoing.uri.clone();
        self.sending.reset();
        let is_unread = Cell::new(false);
        let answer = self.try_send(outgoing, &is_unread);
        let answer = answer.map_err(|error| {
            let mut no_answer = explain(error, self.timeout);
            // A server cannot act on a part of a request.
            let is_part = self.sending.has_failed() || is_unread.get();
            no_answer.may_be_done = self.sending.has_begun() && !is_part;
            if no_answer.is_retryable && self.proxies.applies_to(&uri) {
                no_answer.hint = no_answer.hint.or(Some(PROXY_HINT));
            }
            no_answer
        })?;
        let is_json = answer.is_of_type("json");
        match http_client::refused_by_proxy(&self.proxies, &uri, answer.status, is_json) {
            Some(refusal) => Err(explain_proxy(&refusal)),
            None => Ok(answer),
        }
    }

    /// `is_unread` is set while the body has not been read to its end.
    fn try_send(&self, outgoing: Outgoing, is_unread: &Cell<bool>) -> Result<Answer, ureq::Error> {
        let carries_body = matches!(outgoing.method, Method::POST | Method::PUT | Method::PATCH);
        let pace = outgoing.pace;
        let mut request = Request::builder().method(outgoing.method).uri(outgoing.uri);
        if let Some(authorization) = outgoing.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(content_type) = outgoing.content_type {
            request = request.header("content-type", content_type);
        }
        let mut whole: &[u8];
        let (reader, length): (&mut dyn Read, _) = match outgoing.body {
            // Methods that usually have a body say that there is none (RFC 9110 §8.6: `content-length: 0`).
            RequestBody::Bytes(b"") if !carries_body => {
                return self.exchange(request.body(())?, pace);
            }
            RequestBody::Bytes(bytes) => {
                whole = bytes;
                (&mut whole, Some(bytes.len() as u64))
            }
            RequestBody::Stream { reader, length } => (reader, length),
        };
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        is_unread.set(length != Some(0));
        let mut body = UntilAnswered {
            reader,
            left: length,
            sending: &self.sending,
            is_unread,
        };
        let request = request.body(SendBody::from_reader(&mut body))?;
        self.exchange(request, pace)
    }

    fn exchange(
        &self,
        request: Request<impl AsSendBody>,
        pace: Pace,
    ) -> Result<Answer, ureq::Error> {
        let (whole, answer) = match pace {
            Pace::Usual => (self.timeout.limit(), None),
            Pace::Slow => (None, self.timeout.chosen()),
        };
        let is_idempotent = is_idempotent(request.method());
        let mut configured = self.agent.configure_request(request);
        configured = configured
            .timeout_global(whole)
            .timeout_per_write(self.timeout.limit())
            .timeout_recv_response(answer)
            .timeout_recv_body(answer);
        if !is_idempotent {
            // A new connection: a reused one that the server has closed looks like a request without an answer.
            configured = configured.max_idle_age(Duration::ZERO);
        }
        let response = self.agent.run(configured.build())?;
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut reader = body.into_with_config().limit(ANSWER_BYTES_MAX).reader();
        match reader.read_to_end(&mut bytes) {
            // Half of an error's body is better than none.
            Err(_) if !parts.status.is_success() => {}
            read => drop(read?),
        }
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: bytes,
        })
    }
}

/// May a request be sent again when it got no answer (RFC 9110 §9.2.2)?
pub(crate) fn is_idempotent(method: &Method) -> bool {
    is_read(method) || matches!(*method, Method::PUT | Method::DELETE)
}

/// Does a request only read (RFC 9110 §9.2.1)?
pub(crate) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A request's body. Once the answer has come, the rest of it is neither read nor sent.
struct UntilAnswered<'a> {
    reader: &'a mut dyn Read,
    left: Option<u64>,
    sending: &'a Sending,
    is_unread: &'a Cell<bool>,
}

impl Read for UntilAnswered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if self.sending.is_answered() {
            // ureq wants the announced length; the connection drops these bytes.
            let left = self.left.unwrap_or(0).min(buffer.len() as u64);
            usize::try_from(left).unwrap_or(buffer.len())
        } else {
            self.reader.read(buffer)?
        };
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        if count == 0 || self.left == Some(0) {
            self.is_unread.set(false);
        }
        Ok(count)
    }
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Is the server failing or too busy, so that the answer says nothing about the request?
    pub(crate) fn is_unavailable(&self) -> bool {
        self.status == 429 || self.status >= 500
    }

    /// The error for an answer that [says nothing about the request](Answer::is_unavailable).
    pub(crate) fn unavailable(&self, what: impl fmt::Display) -> CliError {
        CliError::failed(format!("{what} is in trouble (HTTP {})", self.status))
            .word("unavailable")
            .hint("try again in a minute")
    }

    /// The body as a JSON object; null for any other body.
    pub(crate) fn json_object(&self) -> Value {
        let value: Option<Value> = serde_json::from_slice(&self.body).ok();
        value.filter(Value::is_object).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn says(&self, words: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(words)
    }

    fn is_of_type(&self, part: &str) -> bool {
        let content_type = self.header("content-type");
        content_type.is_some_and(|value| value.contains(part))
    }

    /// Is the body HTML, by its content type or its first character?
    pub(crate) fn is_html(&self) -> bool {
        self.is_of_type("text/html") || self.body.trim_ascii_start().starts_with(b"<")
    }

    /// The time that the server asks to wait, from either form of `Retry-After` (RFC 9110 §10.2.3).
    pub(crate) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    }
}

fn explain(error: ureq::Error, timeout: AnswerTimeout) -> NoAnswer {
    if let Some(error) = tls_error(&error) {
        return explain_tls(error);
    }
    if let Some(error) = http_client::proxy_error(&error) {
        return explain_proxy(error);
    }
    let is_retryable = matches!(
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
        ureq::Error::Timeout(kind) => {
            let limit = timeout.limit().unwrap_or_default().as_secs_f64();
            match kind {
                ureq::Timeout::PerWrite => format!("the server takes nothing more for {limit} s"),
                _ => format!("no answer within {limit} s (--timeout changes this)"),
            }
        }
        ureq::Error::HostNotFound => NO_HOST.to_owned(),
        ureq::Error::Io(error) => http_client::io_error_in_words(&error),
        ureq::Error::Protocol(error) => format!("the answer is not HTTP: {error}"),
        ureq::Error::BodyExceedsLimit(_) => "the answer is larger than 64 MiB".to_owned(),
        ureq::Error::Http(error) => format!("the request cannot be sent: {error}"),
        other => other.to_string(),
    };
    NoAnswer {
        is_retryable,
        ..NoAnswer::not_sent(why)
    }
}

fn explain_proxy(error: &ProxyError) -> NoAnswer {
    NoAnswer {
        hint: Some(PROXY_HINT),
        is_retryable: error.is_retryable,
        ..NoAnswer::not_sent(error.to_string())
    }
}

fn explain_tls(error: &rustls::Error) -> NoAnswer {
    let rustls::Error::InvalidCertificate(reason) = error else {
        return NoAnswer::not_sent(format!("TLS failed: {error}"));
    };
    let why = format!("its certificate is not trusted: {}", distrust(reason));
    let by_unknown = *reason == CertificateError::UnknownIssuer;
    NoAnswer {
        hint: by_unknown.then_some(PRIVATE_CA_HINT),
        ..NoAnswer::not_sent(why)
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a whole answer, and for progress while a body is sent, unless the user sets another.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer that is read: far more than any list of posts.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

const PROXY_HINT: &str = "requests go through a proxy: check https_proxy, http_proxy and all_proxy (or in capitals), or except this host with NO_PROXY";

const PRIVATE_CA_HINT: &str = "if its authority is your organisation's own, name the file of that root certificate (PEM) \
                               in SSL_CERT_FILE or NODE_EXTRA_CA_CERTS";
