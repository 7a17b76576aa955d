//! What the user sees in the browser: every page and every text of it. When a page is shown is http's business.

use std::time::Duration;

/// Where the pages are served, which each of them names or links to.
#[derive(Clone, Debug)]
pub struct Site {
    /// Path of the form that takes the code, with SERVER_URL's own path: `/cli-auth/device/verify`.
    pub verify_path: String,
    /// This server's host, as the user knows it from the terminal.
    pub server_host: String,
    /// The host of the Postiz that the user is sent to.
    pub postiz_host: String,
}

/// One page, with all that varies in it. Texts from outside (`typed`, `client_agent`) are escaped when rendered.
#[derive(Clone, Debug)]
pub enum Page<'a> {
    /// The form, empty or with what was typed, perhaps with what is wrong with it.
    EnterCode {
        /// What the field holds: nothing, or the code as it was typed.
        typed: &'a str,
        /// Why the last try failed.
        problem: Option<CodeProblem>,
    },
    /// The code names a live request: who asked, and whether to go on or refuse.
    Confirm {
        /// The code, `WDJB-MJHT`.
        user_code: &'a str,
        /// Address of the client that started the login, where known.
        client_address: &'a str,
        /// That client's user agent, where it sent one.
        client_agent: &'a str,
        /// How long ago it started.
        age: Duration,
    },
    /// The login is done.
    SignedIn,
    /// The user refused, here or at Postiz.
    Refused,
    /// The callback names no login of this browser: its state is missing, unknown or expired, or its cookie is not here.
    SessionLost,
    /// The form was sent from another site.
    CrossSite,
    /// Postiz refused the authorization code; trying again may help.
    ExchangeRefused,
    /// Postiz ended the authorization with an error other than a refusal.
    AuthorizationFailed,
    /// Postiz does not know this server's client ID or secret: a case for its administrator.
    ServerMisconfigured,
    /// Postiz did not answer, or not sensibly.
    PostizUnreachable,
    /// Too many wrong codes.
    TooManyTries {
        /// Seconds until the next try is allowed.
        retry_after_s: u64,
    },
    /// The store cannot be reached for the moment.
    Unavailable,
    /// No such page.
    NotFound,
    /// Something went wrong in this server.
    InternalError,
}

/// What is wrong with a code that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeProblem {
    /// Nothing was entered.
    Missing,
    /// No live request has this code: mistyped, expired, or already used.
    Unknown,
}

impl Page<'_> {
    /// The page as HTML.
    pub fn render(&self, site: &Site) -> String {
        format!(
            "<!doctype html><title>{}</title><pre>{self:?}",
            site.server_host
        )
    }
}

/// The `Content-Security-Policy` that all pages are served with.
pub fn content_security_policy() -> &'static str {
    "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
}
