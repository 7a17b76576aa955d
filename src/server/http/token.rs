//! `POST /device/token`: a client polls for its token (RFC 8628 §3.4, §3.5), in one of two dialects.

use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use crate::server::codes::{DeviceCode, DeviceCodeHash};
use crate::server::flow::Redeemed;
use crate::server::http::app::{App, Handled};
use crate::server::http::browser::is_cross_site;
use crate::server::http::reply::Reply;
use crate::server::http::request::{Malformed, Params, Request};
use crate::server::login::Polled;
use crate::server::store::StoreError;
use crate::shared::wire::error;

/// The grant type of RFC 8628 §3.4.
pub(super) const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The dialect of the request, which decides the errors of the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// The npm CLI's JSON. It ends the login at any error other than `authorization_pending`.
    Json,
    /// The form of RFC 8628.
    Form,
}

/// An OAuth error and its description.
type PollError = (&'static str, &'static str);

struct PollRequest {
    login: DeviceCodeHash,
    dialect: Dialect,
}

pub(super) fn poll(app: &App, request: &Request) -> Handled {
    if is_cross_site(&app.server_url, request) {
        return Ok(Reply::plain_error(403, "cross_site_request"));
    }
    let poll = match read(request) {
        Ok(poll) => poll,
        Err(reply) => return Ok(reply),
    };
    let reply = match app.flow.poll(&poll.login)? {
        Polled::Completed => deliver(app, &poll)?,
        polled => reply_to(app, &poll, polled),
    };
    Ok(reply.about(&poll.login))
}

fn reply_to(app: &App, poll: &PollRequest, polled: Polled) -> Reply {
    match (polled, poll.dialect) {
        // Completed: the token is being delivered to another poll.
        (Polled::Pending | Polled::Completed, _) => pending(app, poll),
        (Polled::Denied, _) => Reply::error(error::ACCESS_DENIED, "The user refused."),
        (Polled::Expired, _) => expired(),
        (Polled::Unknown, Dialect::Json) => Reply::error(error::INVALID_DEVICE_CODE, UNKNOWN),
        (Polled::Unknown, Dialect::Form) => Reply::error(error::INVALID_GRANT, UNKNOWN),
    }
}

const UNKNOWN: &str = "The device code is unknown, or its token was already handed over.";

fn expired() -> Reply {
    Reply::error(
        error::EXPIRED_TOKEN,
        "The codes have expired. Start a new login.",
    )
}

fn pending(app: &App, poll: &PollRequest) -> Reply {
    // `slow_down` would end the npm CLI's login, so the JSON dialect leaves it out.
    if poll.dialect == Dialect::Form && app.polls.is_too_soon(&poll.login, Instant::now()) {
        return Reply::error(
            error::SLOW_DOWN,
            "Polled too often: wait 5 seconds longer from now on.",
        );
    }
    Reply::error(
        error::AUTHORIZATION_PENDING,
        "The user is not done yet. Poll again.",
    )
}

/// Answers with the token, under a lease that the front ends.
fn deliver(app: &App, poll: &PollRequest) -> Result<Reply, StoreError> {
    let delivery = match app.flow.redeem(&poll.login)? {
        Redeemed::Granted(delivery) => delivery,
        Redeemed::Busy => return Ok(pending(app, poll)),
        Redeemed::Unreadable => return Ok(expired().because("token_unreadable")),
    };
    app.polls.forget(&poll.login);
    // RFC 6749 §5.1, and what the Postiz CLI needs besides.
    let mut grant = json!({
        "access_token": delivery.access_token.expose(),
        "token_type": "bearer",
        "api_url": delivery.api_url,
        "organization_id": delivery.organization_id,
    });
    if let Some(scope) = &delivery.scope {
        grant["scope"] = scope.as_str().into();
    }
    let mut reply = Reply::json(200, &grant);
    reply.delivery = Some(delivery);
    Ok(reply)
}

/// Parses the poll, or answers why it cannot be parsed.
fn read(request: &Request) -> Result<PollRequest, Reply> {
    let (dialect, device_code) = if request.is_json() {
        (Dialect::Json, from_json(&request.body))
    } else {
        (Dialect::Form, from_form(&request.body))
    };
    match device_code {
        Ok(device_code) => Ok(PollRequest {
            login: device_code.hash(),
            dialect,
        }),
        Err((word, description)) => Err(Reply::error(word, description)),
    }
}

/// The JSON dialect's body. Serde rejects a repeated `device_code`, and ignores other members.
#[derive(Deserialize)]
struct JsonPoll {
    device_code: Option<String>,
}

fn from_json(body: &[u8]) -> Result<DeviceCode, PollError> {
    // Serde would read an array as the struct's members in order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err((error::INVALID_REQUEST, "The body is not a JSON object."));
    }
    let poll: JsonPoll = serde_json::from_slice(body).map_err(|_| {
        (
            error::INVALID_REQUEST,
            "The body is not a JSON object with one device_code that is a string.",
        )
    })?;
    device_code(poll.device_code.as_deref())
}

fn from_form(body: &[u8]) -> Result<DeviceCode, PollError> {
    let invalid = |Malformed(description)| (error::INVALID_REQUEST, description);
    let params = Params::parse(body).map_err(invalid)?;
    if params.has_repeated() {
        return Err((error::INVALID_REQUEST, "A parameter is repeated."));
    }
    match params.single("grant_type").map_err(invalid)? {
        Some(DEVICE_CODE_GRANT) => device_code(params.single("device_code").map_err(invalid)?),
        Some(_) => Err((
            error::UNSUPPORTED_GRANT_TYPE,
            "Only the device code grant of RFC 8628 is known here.",
        )),
        None => Err((error::INVALID_REQUEST, "The grant_type is missing.")),
    }
}

fn device_code(text: Option<&str>) -> Result<DeviceCode, PollError> {
    match text {
        None | Some("") => Err((error::INVALID_REQUEST, "The device_code is missing.")),
        Some(text) if text.contains('\0') => {
            Err((error::INVALID_REQUEST, "The device_code holds a NUL byte."))
        }
        Some(text) => Ok(DeviceCode::from_client(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_body_needs_one_device_code() {
        let ok = |body: &str| from_json(body.as_bytes()).map(|code| code.expose().to_owned());
        assert_eq!(
            ok(r#" {"device_code":"abc","client_id":1}"#),
            Ok("abc".to_owned())
        );
        for bad in [
            "",
            "{",
            "null",
            "[]",
            r#"["abc"]"#,
            "1",
            "{}",
            r#"{"device_code":null}"#,
            r#"{"device_code":""}"#,
            r#"{"device_code":1}"#,
            r#"{"device_code":["a"]}"#,
            r#"{"device_code":"a\u0000"}"#,
            r#"{"device_code":"a","device_code":"b"}"#,
            "\u{feff}{\"device_code\":\"a\"}",
        ] {
            assert_eq!(
                ok(bad).map_err(|(word, _)| word),
                Err("invalid_request"),
                "{bad}"
            );
        }
        assert!(from_json(b"{\"device_code\":\"\xff\"}").is_err());
    }

    #[test]
    fn form_body_needs_grant_type_and_one_device_code() {
        let read = |body: &str| {
            from_form(body.as_bytes())
                .map(|code| code.expose().to_owned())
                .map_err(|(word, _)| word)
        };
        let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        assert_eq!(
            read(&format!("{grant}&device_code=abc&client_id=x&foo=bar")),
            Ok("abc".to_owned())
        );
        assert_eq!(
            read("grant_type=password&device_code=abc"),
            Err("unsupported_grant_type")
        );
        for bad in [
            String::new(),
            grant.to_owned(),
            "device_code=abc".to_owned(),
            format!("{grant}&device_code="),
            format!("{grant}&device_code=a&device_code=a"),
            format!("{grant}&{grant}&device_code=a"),
            format!("{grant}&device_code=%00"),
            format!("{grant}&device_code=%FF"),
        ] {
            assert_eq!(read(&bad), Err("invalid_request"), "{bad}");
        }
    }
}
