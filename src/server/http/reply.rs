//! An answer as the handlers make it: status, headers and body, with the headers that every answer of its kind carries.

use serde::Serialize;

use crate::server::pages;
use crate::shared::wire::OAuthError;

/// One answer. What else goes on the wire (`Content-Length`, `Date`, `Connection`) is the layers' below.
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers, in order.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Called once the client was still there to take the answer; dropped otherwise.
    pub on_delivered: Option<OnDelivered>,
}

/// What makes a hand-over final.
pub type OnDelivered = Box<dyn FnOnce() + Send>;

impl Reply {
    /// A JSON object; never cached (RFC 6749 §5.1).
    pub fn json(status: u16, body: &impl Serialize) -> Reply {
        let body = serde_json::to_vec(body).expect("our own types serialize");
        let mut reply = Reply::new(status, "application/json", body);
        reply.headers.push(("Pragma", "no-cache".to_owned()));
        reply
    }

    /// An OAuth error (RFC 6749 §5.2).
    pub fn error(status: u16, error: &str, description: &str) -> Reply {
        let error_description = Some(description.to_owned());
        Reply::json(
            status,
            &OAuthError {
                error: error.to_owned(),
                error_description,
            },
        )
    }

    /// A bare `{"error":…}`, for what is not of OAuth.
    pub fn plain_error(status: u16, error: &str) -> Reply {
        Reply::json(
            status,
            &OAuthError {
                error: error.to_owned(),
                error_description: None,
            },
        )
    }

    /// 503 for programs, in plain text: the npm CLI takes any JSON error for final, and what is not JSON for a hiccup.
    pub fn unavailable(retry_after_s: u64) -> Reply {
        Reply::new(
            503,
            "text/plain; charset=utf-8",
            b"Temporarily unavailable. Try again.\n".to_vec(),
        )
        .with("Retry-After", retry_after_s)
    }

    /// A page. One with a form must let browsers name their origin to it: with `no-referrer` they send `Origin: null`.
    pub fn page(status: u16, html: String) -> Reply {
        let mut reply = Reply::new(status, "text/html; charset=utf-8", html.into_bytes());
        reply.set("Referrer-Policy", "same-origin");
        reply
            .with("Content-Security-Policy", pages::content_security_policy())
            .with("X-Frame-Options", "DENY")
            .with("Cross-Origin-Opener-Policy", "same-origin")
    }

    /// 302 to `location`.
    pub fn redirect(location: &str) -> Reply {
        let mut reply = Reply::new(302, "text/plain; charset=utf-8", Vec::new());
        reply.headers.push(("Location", location.to_owned()));
        reply
    }

    /// The same reply with one more header.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
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
            on_delivered: None,
        }
    }

    fn set(&mut self, name: &'static str, value: &str) {
        for header in self
            .headers
            .iter_mut()
            .filter(|(header, _)| *header == name)
        {
            header.1 = value.to_owned();
        }
    }
}
