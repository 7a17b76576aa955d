//! Rate limits: counts by address and in total, the answer when one is exceeded, and disabling each.

use serde_json::json;

use crate::attack::{assert_logs_in, server_with};
use crate::fake_postiz::FakePostiz;
use crate::support::{Answer, Login, TestServer, VerifyForm, at_once, expect};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

fn start_from(server: &TestServer, address: &str) -> Answer {
    server.send("POST", "/device/code", &[("X-Forwarded-For", address)], b"")
}

fn guess_from(server: &TestServer, address: &str) -> Answer {
    let headers = [FORM, ("X-Forwarded-For", address)];
    server.send("POST", "/device/verify", &headers, b"user_code=WDJB-MJHT")
}

/// An IPv6 client owns a whole /64, so its addresses share one limit.
#[test]
fn login_starts_are_limited() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[("LIMIT_LOGINS_PER_MINUTE", "3")]);
    for i in 0..3 {
        assert_eq!(start_from(&server, &format!("2001:db8::{i}")).status, 200);
    }
    let refused = start_from(&server, "2001:db8::ffff:1");
    expect::error(&refused, 429, "too_many_requests");
    expect::retry_after(&refused);
    assert_eq!(start_from(&server, "2001:db8:0:1::1").status, 200);
    // Other addresses are not affected.
    assert_logs_in(&server);
}

/// The limit for all addresses together also holds for simultaneous guesses.
#[test]
fn guesses_from_all_addresses_are_limited() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL", "20")]);
    let login = Login::start(&server);
    let rounds = at_once(8, |thread| {
        let guess =
            |i| guess_from(&server, &format!("10.9.{thread}.{i}, 203.0.{thread}.{i}")).status;
        (0..25).map(guess).collect::<Vec<_>>()
    });
    let statuses = rounds.concat();
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!(count(400) + count(429), 200, "{statuses:?}");
    // A burst of 20, then one every 3 s, and those that were admitted at the same moment.
    let tried = count(400);
    assert!((20..40).contains(&tried), "{tried} were tried");
    let page = guess_from(&server, "203.0.113.200");
    expect::page(&page, 429);
    expect::retry_after(&page);
    // The right code gets 429 as well, unless it is entered in the network that started its login or comes by the server's own
    // link. The clients' requests are not affected.
    let target = format!("/device/verify?user_code={}", login.user_code());
    let from =
        |target: &str, address| server.send("GET", target, &[("X-Forwarded-For", address)], b"");
    expect::page(&from(&target, "203.0.113.201"), 429);
    expect::page(&from(&target, "127.0.0.1"), 200);
    let link = login.link();
    let link = crate::support::browser::target_of(link);
    expect::page(&from(link, "203.0.113.201"), 200);
    expect::page(&from(&link.replace("mac=", "mac=0"), "203.0.113.201"), 429);
    expect::error(&login.poll(&server), 400, "authorization_pending");
}

#[test]
fn limit_of_zero_disables_it() {
    let postiz = FakePostiz::start();
    for (on, off) in [
        ("LIMIT_LOGINS_PER_MINUTE", "LIMIT_WRONG_CODES_PER_MINUTE"),
        ("LIMIT_WRONG_CODES_PER_MINUTE", "LIMIT_LOGINS_PER_MINUTE"),
    ] {
        let server = server_with(
            &postiz,
            &[(on, "2"), (off, "0"), ("LIMIT_LIVE_LOGINS", "0")],
        );
        let (mut starts, mut guesses) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            starts.push(start_from(&server, "203.0.113.1").status);
            guesses.push(guess_from(&server, "203.0.113.1").status);
        }
        let starts_refused = starts.iter().filter(|status| **status == 429).count();
        let guesses_refused = guesses.iter().filter(|status| **status == 429).count();
        if on.contains("LOGINS") {
            assert!(starts_refused >= 45, "{starts:?}");
            assert_eq!(guesses_refused, 0, "{guesses:?}");
        } else {
            assert!(guesses_refused >= 45, "{guesses:?}");
            assert_eq!(starts_refused, 0, "{starts:?}");
        }
    }
}

/// The limits without any variable.
#[test]
fn default_limits_are_on() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(crate::support::Store::Embedded).postiz(&postiz);
    let setup = [
        "LIMIT_LOGINS_PER_MINUTE",
        "LIMIT_WRONG_CODES_PER_MINUTE",
        "LIMIT_WRONG_CODES_PER_MINUTE_TOTAL",
    ]
    .iter()
    .fold(setup, |setup, name| setup.without(name));
    let server = setup.start();
    let served = |statuses: Vec<u16>| statuses.iter().filter(|status| **status != 429).count();
    let starts = (0..50).map(|_| server.post_json("/device/code", &json!({})).status);
    // A burst of 30, and what is refilled meanwhile on a slow machine.
    assert!((30..45).contains(&served(starts.collect())));
    let guesses = (0..30).map(|_| guess_from(&server, "203.0.113.1").status);
    assert!((10..20).contains(&served(guesses.collect())));
}

/// Opening the server's own link after its login has ended is not a guess, however often it happens.
#[test]
fn links_of_ended_logins_are_not_charged() {
    let postiz = FakePostiz::start();
    let variables = [
        ("LIMIT_WRONG_CODES_PER_MINUTE", "5"),
        ("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL", "10"),
    ];
    let server = server_with(&postiz, &variables);
    let dead = Login::start(&server);
    let form = VerifyForm::open(&server);
    let fields = format!("action=deny&user_code={}", dead.user_code());
    expect::page(&form.send(&server, &fields, &[]), 200);
    let link = dead.link();
    let target = crate::support::browser::target_of(link);
    let from =
        |target: &str, address| server.send("GET", target, &[("X-Forwarded-For", address)], b"");
    for _ in 0..100 {
        expect::page(&from(target, "203.0.113.1"), 200);
    }
    let login = Login::start(&server);
    let typed = format!("/device/verify?user_code={}", login.user_code());
    for address in ["203.0.113.1", "203.0.113.2", "198.51.100.1"] {
        let page = from(&typed, address);
        expect::page(&page, 200);
        assert!(
            page.text().contains("value=\"deny\""),
            "{address}: {}",
            page.text()
        );
    }
}
