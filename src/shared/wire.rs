//! The constants of the device flow (RFC 8628) that the server writes and the CLI reads.

/// Seconds between polls when a server names none (RFC 8628 §3.2).
pub const DEFAULT_INTERVAL_S: u64 = 5;

/// Seconds that one `slow_down` adds to the interval, for this and all later polls (RFC 8628 §3.5).
pub const SLOW_DOWN_S: u64 = 5;

/// The `error` codes of the token endpoint (RFC 8628 §3.5, RFC 6749 §5.2).
pub mod error {
    /// The user has not confirmed yet: poll again.
    pub const AUTHORIZATION_PENDING: &str = "authorization_pending";
    /// The same, and the client polls too often: poll again, 5 s slower from now on.
    pub const SLOW_DOWN: &str = "slow_down";
    /// The user refused.
    pub const ACCESS_DENIED: &str = "access_denied";
    /// The codes have expired.
    pub const EXPIRED_TOKEN: &str = "expired_token";
    /// The request is malformed.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// The device code is unknown or spent, for standard clients.
    pub const INVALID_GRANT: &str = "invalid_grant";
    /// The device code is unknown or spent, in the words of the original Node.js auth server that the npm CLI knows.
    pub const INVALID_DEVICE_CODE: &str = "invalid_device_code";
    /// Another grant type than that of RFC 8628 §3.4.
    pub const UNSUPPORTED_GRANT_TYPE: &str = "unsupported_grant_type";
}
