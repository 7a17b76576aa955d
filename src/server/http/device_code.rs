//! `POST /device/code`: a client starts a login (RFC 8628 §3.1, §3.2).

use std::time::Instant;

use serde_json::{Map, Value};

use crate::server::client_address::wide_network;
use crate::server::flow::{StartError, Started};
use crate::server::http::reply::Reply;
use crate::server::http::request::{Malformed, Params, Request};
use crate::server::http::verify::{LINK_MAC, is_cross_site};
use crate::server::http::{App, Handled, RETRY_AFTER_S, whole_seconds};
use crate::server::login::{LIFETIME, Starter};
use crate::shared::text::printable;
use crate::shared::wire::{DEFAULT_INTERVAL_S, DeviceAuthorization, error};

/// What is kept of a client's user agent, in characters.
const AGENT_CHARACTERS_MAX: usize = 120;

/// Starts a login.
pub(super) fn start(app: &App, request: &Request) -> Handled {
    if is_cross_site(app, request) {
        return Ok(Reply::plain_error(403, "cross_site_request"));
    }
    if let Err(Malformed(description)) = check_body(request) {
        return Ok(Reply::error(400, error::INVALID_REQUEST, description));
    }
    if let Err(wait) = app.logins.take(request.client, Instant::now()) {
        let description = "Too many logins were started from this address.";
        let reply = Reply::error(429, "too_many_requests", description);
        return Ok(reply.with("Retry-After", whole_seconds(wait)));
    }
    match app.flow.start(starter(request)) {
        Ok(started) => Ok(Reply::json(200, &codes(app, &started))),
        Err(StartError::Full) => Ok(Reply::unavailable(RETRY_AFTER_S)),
        Err(StartError::Store(error)) => Err(error),
    }
}

fn starter(request: &Request) -> Starter {
    let agent = request.header("user-agent").unwrap_or_default();
    Starter {
        address: request.client.to_string(),
        network: wide_network(request.client).to_string(),
        // Cut without a mark, which a database of another encoding than UTF-8 might refuse, for all that start at this moment.
        agent: printable(agent)
            .chars()
            .take(AGENT_CHARACTERS_MAX)
            .collect(),
    }
}

fn codes(app: &App, started: &Started) -> DeviceAuthorization {
    let verification_uri = app.site.verify_url.clone();
    let (user_code, mac) = (&started.user_code, &started.link_mac);
    DeviceAuthorization {
        device_code: started.device_code.expose().to_owned(),
        user_code: user_code.as_str().to_owned(),
        verification_uri_complete: format!(
            "{verification_uri}?user_code={user_code}&{LINK_MAC}={mac}"
        ),
        verification_uri,
        expires_in: LIFETIME.as_secs(),
        interval: DEFAULT_INTERVAL_S,
    }
}

/// Nothing in the body matters here, but a client that sends a broken one is told now.
fn check_body(request: &Request) -> Result<(), Malformed> {
    if request.body.trim_ascii().is_empty() {
        return Ok(());
    }
    if request.is_json() {
        let object = serde_json::from_slice::<Map<String, Value>>(&request.body);
        return object
            .map(drop)
            .map_err(|_| Malformed("The body is not a JSON object."));
    }
    match Params::parse(&request.body)?.has_repeated() {
        true => Err(Malformed("A parameter is repeated.")),
        false => Ok(()),
    }
}
