//! Routes about the server itself: health, readiness, metadata.

use serde_json::json;

use crate::server::http::app::{App, Handled};
use crate::server::http::reply::Reply;
use crate::server::http::request::Request;
use crate::server::http::token::DEVICE_CODE_GRANT;

/// `{"status":"…"}`.
pub(super) fn status(code: u16, status: &'static str) -> Reply {
    Reply::json(code, &json!({ "status": status }))
}

/// The process answers requests. Says nothing of the store.
pub(super) fn health(_: &App, _: &Request) -> Handled {
    Ok(status(200, "ok"))
}

/// The store responds, and the server is not stopping.
pub(super) fn ready(app: &App, _: &Request) -> Handled {
    if app.is_stopping() {
        return Ok(status(503, "stopping"));
    }
    app.flow.ping()?;
    Ok(status(200, "ready"))
}

/// Redirects SERVER_URL itself to the form.
pub(super) fn home(app: &App, _: &Request) -> Handled {
    Ok(Reply::redirect(302, &app.site.verify_path))
}

/// Where standard clients find the endpoints (RFC 8414 §2, RFC 8628 §4). Members without a value are left out, since RFC 8414
/// §3.2 forbids empty arrays.
pub(super) fn metadata(app: &App, _: &Request) -> Handled {
    let issuer = app.server_url.as_str();
    let metadata = json!({
        "issuer": issuer,
        "device_authorization_endpoint": format!("{issuer}/device/code"),
        "token_endpoint": format!("{issuer}/device/token"),
        "grant_types_supported": [DEVICE_CODE_GRANT],
        "token_endpoint_auth_methods_supported": ["none"],
    });
    Ok(Reply::json(200, &metadata))
}
