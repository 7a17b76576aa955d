//! The JSON answers of the device flow, with the names of RFC 8628.

use serde::Serialize;

/// The grant type of RFC 8628 §3.4.
pub(super) const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The answer to `POST /device/code` (RFC 8628 §3.2).
#[derive(Clone, Debug, Serialize)]
pub(super) struct DeviceAuthorization {
    /// 64 hex digits: the client's secret.
    pub(super) device_code: String,
    /// `WDJB-MJHT`: what the user compares or types.
    pub(super) user_code: String,
    /// Where the user types it.
    pub(super) verification_uri: String,
    /// The same with the code filled in.
    pub(super) verification_uri_complete: String,
    /// Seconds until both codes expire.
    pub(super) expires_in: u64,
    /// Seconds between polls.
    pub(super) interval: u64,
}

/// The answer to a successful `POST /device/token` (RFC 6749 §5.1), with what the Postiz CLI needs besides.
#[derive(Clone, Serialize)]
pub(super) struct TokenGrant<'a> {
    /// The Postiz token, `pos_…`.
    pub(super) access_token: &'a str,
    /// Always `bearer`.
    pub(super) token_type: &'static str,
    /// The URL of the Postiz API.
    pub(super) api_url: &'a str,
    /// The organisation that the token belongs to; null when Postiz named none.
    pub(super) organization_id: Option<&'a str>,
    /// The token's scope, if Postiz named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<&'a str>,
}

/// An error answer (RFC 6749 §5.2).
#[derive(Clone, Debug, Serialize)]
pub(super) struct OAuthError {
    /// One of `shared::wire::error`.
    pub(super) error: String,
    /// A sentence for people, of the characters that RFC 6749 §5.2 allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error_description: Option<String>,
}
