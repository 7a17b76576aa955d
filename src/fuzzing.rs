//! The fuzz targets of `tests/fuzz`: each takes bytes that an attacker could send, and asserts what must hold for any bytes.
//! Only built for them and for the test below, which runs the seeds, former findings among them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::cli::credentials::Stored;
use crate::cli::json_file::object_in;
use crate::server;
use crate::server::client_address::TrustedProxies;
use crate::server::codes::UserCode;
use crate::server::config::Config;
use crate::server::front::request_reader::{DeadlineStream, ReadError, RequestReader};
use crate::server::http::request::{HEADERS, Params};
use crate::server::http::{App, Reply, Request};
use crate::server::keys::Keys;
use crate::server::log::{Format, Level, Log};
use crate::server::store::embedded::Embedded;
use crate::shared::base_url::BaseUrl;
use crate::shared::secret::Secret;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets and their names.
pub const TARGETS: [(&str, Target); 6] = [
    ("request_reader", request_reader),
    ("bodies", bodies),
    ("query", query),
    ("user_code", user_code),
    ("forwarded_for", forwarded_for),
    ("credentials", credentials),
];

/// The bytes of a connection: they parse as the same requests, whole or byte by byte, each within the limits and of printable
/// text.
pub fn request_reader(bytes: &[u8]) {
    let whole = read_all(bytes, bytes.len().max(1));
    assert_eq!(whole, read_all(bytes, 1), "byte by byte");
    for request in &whole.0 {
        assert!(!request.method.is_empty() && request.path.starts_with('/'));
        assert!(request.path.is_ascii() && request.query.is_ascii());
        assert!(request.body.len() <= 8 * 1024);
        for (name, value) in &request.headers {
            assert!(HEADERS.contains(name));
            assert!(
                value
                    .bytes()
                    .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
            );
        }
    }
}

/// All requests of a connection whose bytes arrive in pieces of this size, and how it ended.
fn read_all(bytes: &[u8], piece: usize) -> (Vec<Request>, ReadError) {
    let mut client = Pieces { bytes, piece };
    let mut reader = RequestReader::new(
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        Duration::from_secs(1),
        Duration::from_secs(1),
    );
    let mut requests = Vec::new();
    loop {
        match reader.next(&mut client) {
            Ok((request, _)) => requests.push(request),
            Err(end) => return (requests, end),
        }
    }
}

/// A stream that yields these bytes in pieces of this size, and then ends.
pub(crate) struct Pieces<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) piece: usize,
}

impl DeadlineStream for Pieces<'_> {
    fn set_deadline(&mut self, _deadline: Instant) {}
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.piece.min(self.bytes.len());
        let read = (&self.bytes[..piece]).read(buffer)?;
        self.bytes = &self.bytes[read..];
        Ok(read)
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of a POST, whose path and content type the first byte selects.
pub fn bodies(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let path = ["/device/code", "/device/token", "/device/verify"][usize::from(choice % 3)];
    let content_type = [
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    ][usize::from(choice / 3 % 3)];
    let mut request = Request::new("POST", path);
    request
        .headers
        .push(("content-type", content_type.to_owned()));
    request.body = body.to_vec();
    assert_is_sound(&answer(&request));
}

/// The query of each page that has one, with a cookie of the same bytes.
pub fn query(bytes: &[u8]) {
    let text: String = bytes.iter().map(|byte| char::from(byte & 0x7f)).collect();
    for path in ["/device/verify", "/device/callback"] {
        let mut request = Request::new("GET", path);
        request.query.clone_from(&text);
        request
            .headers
            .push(("cookie", format!("__Host-postiz_login_e3b0c442={text}")));
        request.headers.push(("accept", "text/html".to_owned()));
        assert_is_sound(&answer(&request));
    }
    if let Ok(params) = Params::parse(bytes)
        && let Ok(Some(value)) = params.single("user_code")
    {
        assert!(!value.is_empty() && !value.contains('\0'));
    }
}

/// No 5xx, and no control character in a header.
fn assert_is_sound(reply: &Reply) {
    assert!(reply.status < 500, "{}", reply.status);
    for (name, value) in &reply.headers {
        let visible = |byte| matches!(byte, b' '..=b'~');
        assert!(value.bytes().all(visible), "{name}: {value:?}");
    }
}

fn answer(request: &Request) -> Reply {
    static APP: LazyLock<App> = LazyLock::new(new_app);
    APP.answer(request)
}

fn new_app() -> App {
    let variables = [
        ("POSTIZ_API_URL", "http://127.0.0.1:9"),
        ("LIMIT_LOGINS_PER_MINUTE", "0"),
        ("LIMIT_WRONG_CODES_PER_MINUTE", "0"),
        ("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL", "0"),
        ("LIMIT_CALLBACKS_PER_MINUTE", "0"),
        ("LIMIT_LIVE_LOGINS", "100"),
    ];
    let config = Config::from_vars(variables).expect("a good configuration");
    let keys = Arc::new(Keys::new(&Secret::new("secret".to_owned())));
    let url = BaseUrl::parse("https://auth.example").expect("a URL");
    let log = Arc::new(Log::to(Format::Json, Level::Debug, |_| ()));
    let store = Embedded::in_memory(Box::new(|| 0)).expect("a store in memory");
    server::app(&config, Arc::new(store), keys, url, &log)
}

/// A typed user code: its parsed form parses again, with and without dash and capitals, to itself.
pub fn user_code(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(code) = UserCode::parse(&text) else {
        return;
    };
    let spelt = code.as_str();
    assert_eq!((spelt.len(), spelt.find('-')), (9, Some(4)), "{spelt:?}");
    let again = |typed: &str| UserCode::parse(typed).map(|code| code.as_str().to_owned());
    assert_eq!(again(spelt).as_deref(), Some(spelt));
    let typed = spelt.to_ascii_lowercase().replace('-', "");
    assert_eq!(again(&typed).as_deref(), Some(spelt));
}

/// `X-Forwarded-For` headers, one a line: an untrusted peer's are ignored, and a proxy's appended address is the client's.
pub fn forwarded_for(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let proxies = TrustedProxies::default();
    let peer = IpAddr::from(Ipv4Addr::new(203, 0, 113, 7));
    let proxy = IpAddr::from(Ipv4Addr::LOCALHOST);
    assert_eq!(proxies.client(peer, text.lines()), peer);
    let appended = format!("{text}\n203.0.113.7");
    assert_eq!(proxies.client(proxy, appended.lines()), peer);
    let appended = format!("{text}, 203.0.113.7");
    assert_eq!(proxies.client(proxy, appended.lines()), peer);
    // The result is canonical, whatever the headers are.
    let client = proxies.client(proxy, text.lines());
    assert_eq!(client, client.to_canonical());
}

/// A credentials file: writing and reading it again changes nothing.
pub fn credentials(bytes: &[u8]) {
    let Ok(Some(fields)) = object_in(bytes) else {
        return;
    };
    let written = serde_json::to_vec_pretty(&fields).expect("it was JSON before");
    let again = object_in(&written).expect("it is JSON again");
    let again = again.expect("it is not empty");
    assert_eq!(fields, again);
    if let Ok(Some(stored)) = Stored::from_object(&fields) {
        let stored_again = Stored::from_object(&again).ok().flatten();
        let stored_again = stored_again.expect("a login again");
        assert!(!stored.access_token.expose().is_empty());
        assert_eq!(stored.access_token, stored_again.access_token);
        assert_eq!(stored.organization_id, stored_again.organization_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_targets_accept_all_seeds() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds");
        for (name, target) in TARGETS {
            let folder = std::fs::read_dir(format!("{seeds}/{name}")).unwrap();
            let files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
            assert!(!files.is_empty(), "{name}");
            for file in files {
                target(&std::fs::read(file).unwrap());
            }
        }
    }
}
