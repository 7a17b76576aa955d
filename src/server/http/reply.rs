//! An answer as the handlers make it: status, headers and body, with the headers that every answer of its kind has.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server::codes::DeviceCodeHash;
use crate::server::flow::Delivery;
use crate::server::pages;

/// One answer. The front adds `Content-Length`, `Date` and `Connection`.
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The delivery of the token in the body, to be ended when the client has received it or not.
    pub delivery: Option<Box<Delivery>>,
    /// Why the client did not get what it requested (`unknown_state`), for the log and the metrics. `None`: it did.
    pub reason: Option<&'static str>,
    /// The log's id of the request's login.
    pub login: Option<String>,
}

impl Reply {
    /// A JSON object; never cached (RFC 6749 §5.1).
    pub(crate) fn json(status: u16, body: &Value) -> Reply {
        let body = body.to_string().into_bytes();
        let mut reply = Reply::new(status, "application/json", body);
        reply.headers.push(("Pragma", "no-cache".to_owned()));
        reply
    }

    /// 400 with an OAuth error (RFC 6749 §5.2).
    pub(crate) fn error(error: &'static str, description: &str) -> Reply {
        Reply::oauth_error(400, error, Some(description))
    }

    /// `{"error":…}` for errors that OAuth does not define.
    pub(crate) fn plain_error(status: u16, error: &'static str) -> Reply {
        Reply::oauth_error(status, error, None)
    }

    fn oauth_error(status: u16, reason: &'static str, description: Option<&str>) -> Reply {
        let mut error = json!({ "error": reason });
        if let Some(description) = description {
            error["error_description"] = description.into();
        }
        Reply::json(status, &error).because(reason)
    }

    /// 503 for programs, in plain text: the npm CLI ends a login at any JSON error, and polls on after any other answer.
    pub(crate) fn unavailable(retry_after_s: u64) -> Reply {
        Reply::new(
            503,
            "text/plain; charset=utf-8",
            b"Temporarily unavailable. Try again.\n".to_vec(),
        )
        .with("Retry-After", retry_after_s)
    }

    /// 200 with text of this type, for programs.
    pub(crate) fn text(content_type: &str, body: String) -> Reply {
        Reply::new(200, content_type, body.into_bytes())
    }

    pub(crate) fn page(status: u16, html: String) -> Reply {
        Reply::new(status, "text/html; charset=utf-8", html.into_bytes())
            .with("Content-Security-Policy", pages::POLICY.as_str())
            .with("X-Frame-Options", "DENY")
            .with("Cross-Origin-Opener-Policy", "same-origin")
    }

    /// The same page, with a form in it: under `no-referrer` browsers would send `Origin: null` with the form.
    pub(crate) fn with_form(mut self) -> Reply {
        self.headers.retain(|(name, _)| *name != "Referrer-Policy");
        self.with("Referrer-Policy", "same-origin")
    }

    /// 302 or 308 to `location`.
    pub(crate) fn redirect(status: u16, location: &str) -> Reply {
        Reply::new(status, "text/plain; charset=utf-8", Vec::new()).with("Location", location)
    }

    /// 204, an answer of headers only.
    pub(crate) fn no_content() -> Reply {
        let mut reply = Reply::new(204, "", Vec::new());
        reply.headers.remove(0);
        reply
    }

    /// The same reply, with the reason why the client did not get what it requested.
    pub(crate) fn because(mut self, reason: &'static str) -> Reply {
        self.reason = Some(reason);
        self
    }

    pub(crate) fn about<'a>(mut self, login: impl Into<Option<&'a DeviceCodeHash>>) -> Reply {
        self.login = login.into().map(|login| login.login_id().to_owned());
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }

    fn new(status: u16, content_type: &str, body: Vec<u8>) -> Reply {
        let headers = vec![
            ("Content-Type", content_type.to_owned()),
            ("Cache-Control", "no-store".to_owned()),
            ("X-Content-Type-Options", "nosniff".to_owned()),
            ("Referrer-Policy", "no-referrer".to_owned()),
        ];
        Reply {
            status,
            headers,
            body,
            delivery: None,
            reason: None,
            login: None,
        }
    }
}

/// `Retry-After` when the store is unavailable: one poll interval.
pub(super) const RETRY_AFTER_S: u64 = 5;

/// Whole seconds to wait, at least one (RFC 9110 §10.2.3).
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis()
        .div_ceil(1_000)
        .max(1)
        .try_into()
        .unwrap_or(u64::MAX)
}
