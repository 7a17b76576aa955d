//! What operators and programs ask about the server itself: health, readiness, metadata.

use serde::Serialize;

use crate::server::http::App;
use crate::server::http::reply::Reply;
use crate::shared::wire::DEVICE_CODE_GRANT;

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

/// The process serves, whatever the store does.
pub(super) fn health() -> Reply {
    Reply::json(200, &Status { status: "ok" })
}

/// The store answers. (No wait for it is longer than 2 s: the pool's and the statement's limits see to that.)
pub(super) fn ready(app: &App) -> Reply {
    match app.flow.ping() {
        Ok(()) => Reply::json(200, &Status { status: "ready" }),
        Err(error) => {
            app.log.warn("not_ready", &[("error", &error.to_string())]);
            unavailable()
        }
    }
}

/// The store does not answer.
pub(super) fn unavailable() -> Reply {
    Reply::json(
        503,
        &Status {
            status: "unavailable",
        },
    )
}

/// RFC 8414 §2. Only what is there is listed: empty arrays are not allowed (§3.2).
#[derive(Serialize)]
struct Metadata {
    issuer: String,
    device_authorization_endpoint: String,
    token_endpoint: String,
    grant_types_supported: [&'static str; 1],
    token_endpoint_auth_methods_supported: [&'static str; 1],
}

/// Where standard clients find the endpoints (RFC 8414, RFC 8628 §4).
pub(super) fn metadata(app: &App) -> Reply {
    let issuer = app.server_url.as_str().to_owned();
    let metadata = Metadata {
        device_authorization_endpoint: format!("{issuer}/device/code"),
        token_endpoint: format!("{issuer}/device/token"),
        grant_types_supported: [DEVICE_CODE_GRANT],
        token_endpoint_auth_methods_supported: ["none"],
        issuer,
    };
    Reply::json(200, &metadata)
}
