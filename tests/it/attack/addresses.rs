//! The client's address: forwarded addresses are used only from trusted proxies, on the confirm page, in the log and in rate
//! limits.

use serde_json::json;

use crate::attack::server_with;
use crate::fake_postiz::FakePostiz;
use crate::support::{TestServer, eventually_some, expect};

/// Starts a login with these headers. Returns the client's address in the log, which must be on the confirm page, too.
#[track_caller]
fn shown_address(server: &TestServer, headers: &[(&str, &str)]) -> String {
    let logged = || -> Vec<String> {
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("login started"));
        lines.map(str::to_owned).collect()
    };
    let before = logged().len();
    let answer = server.send("POST", "/device/code", headers, b"");
    expect::json(&answer, 200);
    let start = answer.json();
    let target = format!(
        "/device/verify?user_code={}",
        start["user_code"].as_str().expect("a code")
    );
    let page = server.page(&target);
    expect::page(&page, 200);
    let html = page.text();
    let line = eventually_some("it is logged", || logged().get(before).cloned());
    let (_, client) = line.split_once("client=").expect("the line names it");
    let client = client.split(' ').next().expect("one word");
    assert!(html.contains(client), "{client} is not on the page: {html}");
    client.to_owned()
}

#[test]
fn forwarded_addresses_from_untrusted_peers_are_ignored() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[("TRUSTED_PROXIES", "none")]);
    for spoofed in ["198.51.100.1", "127.0.0.1, 198.51.100.1", "::1", "garbage"] {
        assert_eq!(
            shown_address(&server, &[("X-Forwarded-For", spoofed)]),
            "127.0.0.1"
        );
    }
}

#[test]
fn client_is_the_last_address_that_is_no_trusted_proxy() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")]);
    for (forwarded_for, client) in [
        ("198.51.100.1", "198.51.100.1"),
        // The client's own entry stands to the left of the entry that the proxy appended.
        ("6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.9, 198.51.100.1", "198.51.100.1"),
        ("198.51.100.1, 10.0.0.9", "198.51.100.1"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("198.51.100.1, <script>", "127.0.0.1"),
        ("198.51.100.1, unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        let shown = shown_address(&server, &[("X-Forwarded-For", forwarded_for)]);
        assert_eq!(shown, client, "{forwarded_for:?}");
    }
    // Two headers of the name are one list.
    let headers = [
        ("X-Forwarded-For", "6.6.6.6, 198.51.100.1"),
        ("x-forwarded-for", "10.0.0.9"),
    ];
    assert_eq!(shown_address(&server, &headers), "198.51.100.1");
    // Other headers of proxies are ignored.
    let headers = [
        ("X-Real-IP", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
    ];
    assert_eq!(shown_address(&server, &headers), "127.0.0.1");
}

/// A client that sends a new forwarded address each time still has one rate limit.
#[test]
fn spoofed_addresses_share_one_rate_limit() {
    let postiz = FakePostiz::start();
    let variables = [
        ("TRUSTED_PROXIES", "none"),
        ("LIMIT_LOGINS_PER_MINUTE", "3"),
    ];
    let server = server_with(&postiz, &variables);
    let statuses = (0..5).map(|i| {
        let address = format!("198.51.100.{i}");
        let headers = [("X-Forwarded-For", address.as_str())];
        server.send("POST", "/device/code", &headers, b"").status
    });
    assert_eq!(statuses.collect::<Vec<_>>(), [200, 200, 200, 429, 429]);
    assert_eq!(server.post_json("/device/code", &json!({})).status, 429);
}
