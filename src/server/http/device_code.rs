//! `POST /device/code`: a client starts a login (RFC 8628 §3.1, §3.2).

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::server::client_address::wide_network;
use crate::server::flow::Started;
use crate::server::http::app::{App, Handled, LINK_MAC};
use crate::server::http::browser::is_cross_site;
use crate::server::http::reply::{RETRY_AFTER_S, Reply, whole_seconds};
use crate::server::http::request::{Malformed, Params, Request};
use crate::server::login::{LIFETIME, Starter};
use crate::shared::text::printable;
use crate::shared::wire::{DEFAULT_INTERVAL_S, error};

/// Most characters of a user agent that are stored.
const AGENT_CHARACTERS_MAX: usize = 120;

pub(super) fn start(app: &App, request: &Request) -> Handled {
    if is_cross_site(&app.server_url, request) {
        return Ok(Reply::plain_error(403, "cross_site_request"));
    }
    let machine = match machine_in_body(request) {
        Ok(machine) => machine,
        Err(Malformed(description)) => {
            return Ok(Reply::error(error::INVALID_REQUEST, description));
        }
    };
    if let Err(wait) = app.logins.take(request.client, Instant::now()) {
        let description = "Too many logins were started from this address.";
        let mut reply = Reply::error("too_many_requests", description);
        reply.status = 429;
        let reply = reply.because("too_many_logins");
        return Ok(reply.with("Retry-After", whole_seconds(wait)));
    }
    Ok(match app.flow.start(starter(request, machine))? {
        Some(started) => Reply::json(200, &codes(app, &started)).about(&started.device_code.hash()),
        None => Reply::unavailable(RETRY_AFTER_S).because("too_many_live_logins"),
    })
}

fn starter(request: &Request, machine: String) -> Starter {
    let agent = request.header("user-agent").unwrap_or_default();
    Starter {
        address: request.client.to_string(),
        network: wide_network(request.client).to_string(),
        // Cut without "…": a database whose encoding lacks it would refuse the whole batch of logins.
        agent: printable(agent)
            .chars()
            .take(AGENT_CHARACTERS_MAX)
            .collect(),
        machine,
    }
}

/// The answer of RFC 8628 §3.2.
fn codes(app: &App, started: &Started) -> Value {
    let verification_uri = &app.site.verify_url;
    let (user_code, mac) = (&started.user_code, &started.link_mac);
    let complete = format!("{verification_uri}?user_code={user_code}&{LINK_MAC}={mac}");
    json!({
        "device_code": started.device_code.expose(),
        "user_code": user_code.as_str(),
        "verification_uri": verification_uri,
        "verification_uri_complete": complete,
        "expires_in": LIFETIME.as_secs(),
        "interval": DEFAULT_INTERVAL_S,
    })
}

/// The machine's name in the body, or else an empty string. The rest of the body is ignored, but a malformed body is an error.
fn machine_in_body(request: &Request) -> Result<String, Malformed> {
    if request.body.trim_ascii().is_empty() {
        return Ok(String::new());
    }
    let machine = if request.is_json() {
        let object = serde_json::from_slice::<Map<String, Value>>(&request.body);
        let object = object.map_err(|_| Malformed("The body is not a JSON object."))?;
        object
            .get(MACHINE)
            .and_then(Value::as_str)
            .map(machine_name)
    } else {
        let params = Params::parse(&request.body)?;
        if params.has_repeated() {
            return Err(Malformed("A parameter is repeated."));
        }
        params.get(MACHINE).map(machine_name)
    };
    Ok(machine.unwrap_or_default())
}

/// The body's member with the machine's name.
const MACHINE: &str = "machine";

/// `text` without its domain, if it looks like a machine's name: up to three words of ASCII letters and digits. Else an empty
/// string, since an attacker could put a message to the user into it.
fn machine_name(text: &str) -> String {
    let name = text.split('.').next().unwrap_or_default().trim();
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let is_name = name.len() <= MACHINE_CHARACTERS_MAX
        && name.chars().all(is_part)
        && name.split(' ').count() <= 3;
    if is_name { name } else { "" }.to_owned()
}

/// Longest label of a host name (RFC 1035 §2.3.4).
const MACHINE_CHARACTERS_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_name_keeps_only_what_looks_like_one() {
        let long = "a".repeat(63);
        for (text, kept) in [
            ("ada-laptop", "ada-laptop"),
            ("Ada_s MacBook Pro", "Ada_s MacBook Pro"),
            ("ada-laptop.fritz.box", "ada-laptop"),
            (" web1 ", "web1"),
            (&*long, &*long),
            ("", ""),
            (".", ""),
            (&format!("{long}a"), ""),
            (&"x ".repeat(2_500), ""),
            ("<script>alert(1)</script>", ""),
            ("a\"b'c&d", ""),
            ("https://evil", ""),
            ("Your account is locked", ""),
            ("a\u{1b}[31mb", ""),
            ("a\r\nb", ""),
            ("a\tb", ""),
            ("a\u{0}b", ""),
            ("laptop\u{202e}gnp", ""),
            ("büro", ""),
            ("\u{1f4bb}", ""),
        ] {
            assert_eq!(machine_name(text), kept, "{text:?}");
        }
    }
}
