//! The words of the device flow (RFC 8628), spelled as the RFC spells them: what the server says and the CLI reads.

use serde::{Deserialize, Serialize};

/// The grant type of RFC 8628 §3.4.
pub const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Seconds between polls when a server names none (RFC 8628 §3.2).
pub const DEFAULT_INTERVAL_S: u64 = 5;

/// Seconds that one `slow_down` adds to the interval, for this and all later polls (RFC 8628 §3.5).
pub const SLOW_DOWN_S: u64 = 5;

/// The `error` words of the token endpoint (RFC 8628 §3.5, RFC 6749 §5.2) that both ends know.
pub mod error {
    /// The user is not done yet: poll again.
    pub const AUTHORIZATION_PENDING: &str = "authorization_pending";
    /// Not done yet, and polled too often: poll again, 5 s slower from now on.
    pub const SLOW_DOWN: &str = "slow_down";
    /// The user refused.
    pub const ACCESS_DENIED: &str = "access_denied";
    /// The codes' lifetime is over.
    pub const EXPIRED_TOKEN: &str = "expired_token";
    /// The request is malformed.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// The device code is unknown or spent, to standard clients.
    pub const INVALID_GRANT: &str = "invalid_grant";
    /// The device code is unknown or spent, in the words of the reference server that the npm CLI knows.
    pub const INVALID_DEVICE_CODE: &str = "invalid_device_code";
    /// Another grant type than [`super::DEVICE_CODE_GRANT`].
    pub const UNSUPPORTED_GRANT_TYPE: &str = "unsupported_grant_type";
}

/// The answer to `POST /device/code` (RFC 8628 §3.2), as the server writes it. The CLI reads the same names, but leniently.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceAuthorization {
    /// 64 hex digits; the CLI's secret, never shown to anyone.
    pub device_code: String,
    /// `WDJB-MJHT`: what the user compares or types.
    pub user_code: String,
    /// Where the user types it.
    pub verification_uri: String,
    /// The same with the code filled in.
    pub verification_uri_complete: String,
    /// Seconds until both codes expire.
    pub expires_in: u64,
    /// Seconds between polls.
    pub interval: u64,
}

/// The answer to a successful `POST /device/token` (RFC 6749 §5.1), with what the Postiz CLI needs to know besides.
#[derive(Clone, Serialize)]
pub struct TokenGrant<'a> {
    /// The Postiz token, `pos_…`.
    pub access_token: &'a str,
    /// Always `bearer`.
    pub token_type: &'static str,
    /// Where the CLI finds the Postiz API.
    pub api_url: &'a str,
    /// The organisation that the token belongs to; null when Postiz named none.
    pub organization_id: Option<&'a str>,
    /// What the token may do, where Postiz said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<&'a str>,
}

/// An error answer (RFC 6749 §5.2).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OAuthError {
    /// One of [`error`]'s words.
    pub error: String,
    /// A sentence for people, of the characters that RFC 6749 §5.2 allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}
