//! `POST /device/code`: a client starts a login (RFC 8628 §3.1, §3.2).

use std::time::Instant;

use serde_json::{Map, Value};

use crate::server::flow::{LIFETIME, StartError, Started, Starter};
use crate::server::http::reply::Reply;
use crate::server::http::request::{Malformed, Params, Request};
use crate::server::http::{App, RETRY_AFTER_S, whole_seconds};
use crate::shared::text::printable;
use crate::shared::wire::{DEFAULT_INTERVAL_S, DeviceAuthorization, error};

/// What is kept of a client's user agent, in characters.
const AGENT_CHARACTERS_MAX: usize = 120;

/// Starts logins, all of them in one commit. An answer to each request, in order.
pub(super) fn start(app: &App, requests: &[Request]) -> Vec<Reply> {
    let mut starters = Vec::new();
    let mut admit = |request| {
        admit(app, request)?;
        starters.push(starter(request));
        Ok(())
    };
    let admitted: Vec<Result<(), Reply>> = requests.iter().map(&mut admit).collect();
    let mut started = app.flow.start(&starters).into_iter();
    let reply = |admitted| match admitted {
        Err(refusal) => refusal,
        // One of whom nothing is said hears nobody else's codes.
        Ok(()) => started.next().map_or_else(
            || Reply::unavailable(RETRY_AFTER_S),
            |started| answer(app, started),
        ),
    };
    admitted.into_iter().map(reply).collect()
}

/// Starts one login.
pub(super) fn start_one(app: &App, request: &Request) -> Reply {
    let reply = start(app, std::slice::from_ref(request)).pop();
    reply.unwrap_or_else(|| Reply::unavailable(RETRY_AFTER_S))
}

/// May this client start a login? Otherwise, what it hears.
fn admit(app: &App, request: &Request) -> Result<(), Reply> {
    check_body(request)
        .map_err(|Malformed(description)| Reply::error(400, error::INVALID_REQUEST, description))?;
    app.logins
        .take(request.client, Instant::now())
        .map_err(|wait| {
            Reply::error(
                429,
                "too_many_requests",
                "Too many logins were started from this address.",
            )
            .with("Retry-After", whole_seconds(wait))
        })
}

fn starter(request: &Request) -> Starter {
    let agent = request.header("user-agent").unwrap_or_default();
    Starter {
        address: request.client.to_string(),
        // Cut without a mark, which a database of another encoding than UTF-8 might refuse, for all that start at this moment.
        agent: printable(agent)
            .chars()
            .take(AGENT_CHARACTERS_MAX)
            .collect(),
    }
}

fn answer(app: &App, started: Result<Started, StartError>) -> Reply {
    match started {
        Ok(started) => {
            let verification_uri = format!("{}/device/verify", app.server_url);
            let body = DeviceAuthorization {
                device_code: started.device_code.expose().to_owned(),
                verification_uri_complete: format!(
                    "{verification_uri}?user_code={}",
                    started.user_code
                ),
                user_code: started.user_code.as_str().to_owned(),
                verification_uri,
                expires_in: LIFETIME.as_secs(),
                interval: DEFAULT_INTERVAL_S,
            };
            Reply::json(200, &body)
        }
        Err(StartError::Full) => {
            app.log
                .error("too_many_live_logins", &[("hint", "LIMIT_LIVE_LOGINS")]);
            Reply::unavailable(RETRY_AFTER_S)
        }
        Err(StartError::Store(error)) => app.store_failed(&error),
    }
}

/// Nothing in the body matters here, but a client that sends a broken one should hear it now.
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
