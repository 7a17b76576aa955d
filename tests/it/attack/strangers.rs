//! Denial of service: whatever a crowd of clients does, the login of another user still works.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::attack::server_on;
use crate::fake_postiz::{Delivery, FakePostiz, Fault};
use crate::support::browser::{field_of, target_of};
use crate::support::people::{self, assert_token, log_in};
use crate::support::process::raise_own_limit;
use crate::support::sockets::{connect_from, connect_without_buffer};
use crate::support::{
    Answer, Browser, Connection, Login, Store, TestServer, at_once, eventually, expect,
};

/// Starts a login as a client at this address, which a proxy on loopback forwards.
#[track_caller]
fn start_from(server: &TestServer, address: &str) -> Login {
    let headers = [("X-Forwarded-For", address)];
    let answer = server.send("POST", "/device/code", &headers, b"");
    expect::json(&answer, 200);
    Login::of(&answer)
}

/// How Postiz reacts to the first of the junk codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Refused,
    RefusedLate,
    Unanswered,
}

/// The owner of a login gives away its `state`. With it, 140 connections at the same time send callbacks with junk codes, each
/// from another address.
fn junk_codes(store: Store, first: First) {
    const CONNECTIONS: usize = 140;
    raise_own_limit();
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(store).time(|times| times.postiz = Duration::from_secs(6));
    let server = setup.start_for(&postiz);
    let (login, mut browser) = (Login::start(&server), Browser::new());
    let callback = login.consent(&mut browser, &people::name()).location();
    let (before_code, _) = callback.split_once("code=").expect("a code comes back");
    let state = field_of(&callback, "state");
    let cookie = browser.cookies_for(&callback);
    let tried = AtomicUsize::new(0);
    let try_junk = || {
        let n = tried.fetch_add(1, Ordering::SeqCst);
        let url = format!("{before_code}code=junk-{n}&state={state}");
        let address = format!("203.0.113.{}", n % 250);
        let headers = [("Cookie", cookie.as_str()), ("X-Forwarded-For", &address)];
        server.send("GET", target_of(&url), &headers, b"")
    };
    // Counts the exchanges of junk codes, not those of other logins.
    let asked = || {
        let requests = postiz.requests_to("/oauth/token");
        let junk = |code: &str| code.starts_with("junk-");
        requests
            .iter()
            .filter(|r| r.json()["code"].as_str().is_some_and(junk))
            .count()
    };
    match first {
        First::Refused => {}
        First::RefusedLate => postiz.misbehave_times(
            1,
            "/oauth/token",
            Fault::Deliver(Delivery::Late(Duration::from_secs(3))),
        ),
        First::Unanswered => {
            postiz.misbehave_times(1, "/oauth/token", Fault::Deliver(Delivery::Hang));
        }
    }

    let answers: Vec<(Answer, Duration)> = thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            at_once(CONNECTIONS, |_| {
                let begun = Instant::now();
                (try_junk(), begun.elapsed())
            })
        });
        eventually("Postiz is asked", || asked() >= 1);
        log_in(&server, &postiz);
        crowd.join().expect("all are answered")
    });
    let of_status = |status: u16| answers.iter().filter(move |(a, _)| a.status == status);
    let reloading: Vec<_> = of_status(200).collect();
    for (answer, took) in &reloading {
        let reloads = answer
            .text()
            .contains("http-equiv=\"refresh\" content=\"2\"");
        assert!(reloads, "{}", answer.text());
        assert!(*took < Duration::from_secs(5), "answered at once: {took:?}");
    }
    let mut counts = HashMap::new();
    for (answer, _) in &answers {
        *counts.entry(answer.status).or_insert(0) += 1;
    }
    eprintln!("{store:?} {first:?}: {counts:?}");
    match first {
        // Some arrive after the first refusal.
        First::Refused => assert_eq!(
            reloading.len() + of_status(502).count() + of_status(400).count(),
            CONNECTIONS,
            "{counts:?}"
        ),
        First::RefusedLate => assert_eq!(counts, HashMap::from([(200, 139), (502, 1)])),
        First::Unanswered => assert_eq!(counts, HashMap::from([(200, 139), (504, 1)])),
    }

    // The login is pending until five codes were refused; a code that Postiz did not answer does not count.
    let unanswered = usize::from(first == First::Unanswered);
    eventually("the login is over", || {
        let answer = try_junk();
        if answer.status == 502 {
            return false;
        }
        expect::page(&answer, 400);
        true
    });
    assert_eq!(asked(), 5 + unanswered);
    expect::error(&login.poll(&server), 400, "access_denied");
    // Fewer than 128, above which callbacks are told to wait.
    for answer in at_once(100, |_| try_junk()) {
        expect::page(&answer, 400);
    }
    // Even the owner's valid code is rejected now.
    expect::page(&browser.open(&callback).answer, 400);
    expect::error(&login.poll(&server), 400, "access_denied");
    assert_eq!(asked(), 5 + unanswered, "Postiz is not asked again");
    log_in(&server, &postiz);
}

fn junk_codes_that_postiz_refuses_end_only_their_login(store: Store) {
    junk_codes(store, First::Refused);
}

fn junk_codes_that_postiz_refuses_late_end_only_their_login(store: Store) {
    junk_codes(store, First::RefusedLate);
}

fn junk_codes_that_postiz_does_not_answer_keep_one_connection_waiting(store: Store) {
    junk_codes(store, First::Unanswered);
}

/// A crowd with the addresses of `address` starts more logins than the store keeps, twice. A login that another network
/// started before stays, a new login is admitted at any time, and the crowd's own logins are evicted.
fn crowd_of_logins(store: Store, address: impl Fn(usize) -> String + Sync) {
    const LIMIT: usize = 300;
    let postiz = FakePostiz::start();
    let limit = LIMIT.to_string();
    let server = server_on(store, &postiz, &[("LIMIT_LIVE_LOGINS", &limit)]);
    let unconfirmed = start_from(&server, "198.51.100.7");
    let (confirmed, mut browser) = (start_from(&server, "192.0.2.1"), Browser::new());
    let redirect = confirmed.consent(&mut browser, &people::name());
    let crowd = |range: std::ops::Range<usize>| {
        let next = AtomicUsize::new(range.start);
        let started = at_once(4, |_| {
            let mut started = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::SeqCst);
                if n >= range.end {
                    return started;
                }
                let headers = [("X-Forwarded-For", address(n))];
                let headers = headers.each_ref().map(|(n, v)| (*n, v.as_str()));
                let answer = server.send("POST", "/device/code", &headers, b"");
                if answer.status != 200 {
                    // The crowd may be refused. The next test counts how often others are.
                    expect::unavailable(&answer);
                    continue;
                }
                let start = answer.json();
                started.push((n, Login { start }));
            }
        });
        let mut started = started.concat();
        started.sort_by_key(|(n, _)| *n);
        started
    };
    let mut all = crowd(0..LIMIT);
    log_in(&server, &postiz);
    // The newcomer's login stays as well.
    let newcomer = start_from(&server, "192.0.2.129");
    all.extend(crowd(LIMIT..2 * LIMIT));
    log_in(&server, &postiz);

    let is_alive =
        |login: &&(usize, Login)| login.1.poll(&server).error() == "authorization_pending";
    let alive = all.iter().filter(is_alive).count();
    assert!(
        alive < LIMIT,
        "{alive} of the crowd's {} live on",
        all.len()
    );
    assert!(alive > LIMIT / 2, "only {alive} of the crowd live on");
    for login in [&unconfirmed, &newcomer] {
        expect::error(&login.poll(&server), 400, "authorization_pending");
    }
    expect::page(&browser.follow(&redirect).answer, 200);
    assert_token(&confirmed.outcome(&server), &postiz);
    for login in [&unconfirmed, &newcomer] {
        expect::page(
            &login.approve(&mut Browser::new(), &people::name()).answer,
            200,
        );
        assert_token(&login.outcome(&server), &postiz);
    }
}

on_each_store!(
    junk_codes_that_postiz_refuses_end_only_their_login,
    junk_codes_that_postiz_refuses_late_end_only_their_login,
    junk_codes_that_postiz_does_not_answer_keep_one_connection_waiting,
    crowd_from_many_addresses_evicts_its_own_logins,
    crowd_from_one_ipv6_network_evicts_its_own_logins,
    newcomers_at_the_same_moment_are_all_admitted,
    crowd_of_networks_evicts_no_confirmed_login,
    refused_logins_of_a_crowd_are_evicted_first,
    wrong_codes_from_everywhere_do_not_block_the_right_code,
);

fn crowd_from_many_addresses_evicts_its_own_logins(store: Store) {
    // 60 networks of 4 addresses each.
    crowd_of_logins(store, |n| format!("10.{}.1.{}", n % 60, n % 4));
}

fn crowd_from_one_ipv6_network_evicts_its_own_logins(store: Store) {
    // A /48 has 65,536 networks of size /64, each of which counts as one address.
    crowd_of_logins(store, |n| format!("2001:db8:1:{n:x}::1"));
}

/// The store is full, and few of its logins have ended. Eight newcomers at the same moment are all admitted.
fn newcomers_at_the_same_moment_are_all_admitted(store: Store) {
    const LIMIT: usize = 100;
    let postiz = FakePostiz::start();
    let limit = LIMIT.to_string();
    let server = server_on(store, &postiz, &[("LIMIT_LIVE_LOGINS", &limit)]);
    for n in 0..LIMIT {
        start_from(&server, &format!("10.0.0.{n}"));
    }
    for round in 0..5 {
        // A login that has ended.
        log_in(&server, &postiz);
        at_once(8, |n| {
            start_from(&server, &format!("192.0.{}.1", 8 * round + n))
        });
    }
}

/// In a crowd with as many networks as logins, no network holds most. Then unconfirmed logins are evicted.
fn crowd_of_networks_evicts_no_confirmed_login(store: Store) {
    let postiz = FakePostiz::start();
    let server = server_on(store, &postiz, &[("LIMIT_LIVE_LOGINS", "100")]);
    let (confirmed, mut browser) = (start_from(&server, "192.0.2.1"), Browser::new());
    let redirect = confirmed.consent(&mut browser, &people::name());
    at_once(4, |thread| {
        for n in 0..50 {
            start_from(&server, &format!("10.{thread}.{n}.1"));
        }
    });
    expect::page(&browser.follow(&redirect).answer, 200);
    assert_token(&confirmed.outcome(&server), &postiz);
}

/// Logins that their own users have refused do not fill the store.
fn refused_logins_of_a_crowd_are_evicted_first(store: Store) {
    const LIMIT: usize = 40;
    let postiz = FakePostiz::start();
    let limit = LIMIT.to_string();
    let server = server_on(store, &postiz, &[("LIMIT_LIVE_LOGINS", &limit)]);
    let refuse = |n: usize| {
        let login = start_from(&server, &format!("10.0.0.{n}"));
        let mut browser = Browser::new();
        let page = login.refuse(&mut browser);
        expect::page(&page.answer, 200);
    };
    (0..LIMIT).for_each(refuse);
    log_in(&server, &postiz);
}

/// 240 addresses send many more wrong codes than all addresses together may. The right code is still accepted from the network
/// that started its login, and from anywhere by the server's own link.
fn wrong_codes_from_everywhere_do_not_block_the_right_code(store: Store) {
    let postiz = FakePostiz::start();
    let limits = [
        ("LIMIT_WRONG_CODES_PER_MINUTE", "10"),
        ("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL", "30"),
    ];
    let server = server_on(store, &postiz, &limits);
    let guess = |address: &str, code: &str| {
        let headers = [("Accept", "text/html"), ("X-Forwarded-For", address)];
        let target = format!("/device/verify?user_code={code}");
        server.send("GET", &target, &headers, b"")
    };
    let (over, guesses) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let n = guesses.fetch_add(1, Ordering::SeqCst);
                    let address = format!("10.{}.{}.1", n % 16, n / 16 % 15);
                    let status = guess(&address, "WDJB-MJHT").status;
                    assert!(matches!(status, 200 | 429), "{status}");
                }
            });
        }
        eventually("the total limit is reached", || {
            guesses.load(Ordering::SeqCst) > 300
        });
        let refused = guess("198.51.100.1", "WDJB-MJHT");
        expect::page(&refused, 429);
        expect::retry_after(&refused);

        // Typed by a person in the client's network: browser and client are both on loopback.
        let login = Login::start(&server);
        let mut browser = Browser::new();
        let page = browser.open(login.start["verification_uri"].as_str().unwrap());
        let page = browser.submit(&page, &[("user_code", login.user_code())]);
        expect::page(&page.answer, 200);
        let page = browser.submit(&page, &[]);
        assert_eq!(page.status(), 302, "{}", page.html());
        let redirect = browser.settle(page);
        let page = browser.submit(&redirect, &[("person", &people::name())]);
        let page = browser.settle(page);
        let page = browser.press(&page, "action", "approve");
        expect::page(&browser.follow(&page).answer, 200);
        assert_token(&login.outcome(&server), &postiz);

        // By the link, for a client in another network.
        let login = start_from(&server, "198.51.100.9");
        let link = login.link();
        assert!(link.contains("&mac="), "{link}");
        expect::page(
            &login.approve(&mut Browser::new(), &people::name()).answer,
            200,
        );
        assert_token(&login.outcome(&server), &postiz);

        // From another network without the MAC, or with another code's, the right code is refused as wrong ones are.
        let (login, other) = (
            start_from(&server, "198.51.100.9"),
            start_from(&server, "198.51.100.9"),
        );
        let link = other.link();
        let (_, mac) = link.split_once("&mac=").unwrap();
        let code = login.user_code();
        expect::page(&guess("192.0.2.77", code), 429);
        expect::page(&guess("192.0.2.77", &format!("{code}&mac={mac}")), 429);
        expect::page(&guess("198.51.100.200", code), 200);
    });
    eprintln!("{store:?}: {} wrong codes", guesses.load(Ordering::SeqCst));
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Idle connections (or almost idle ones, in three ways) fill the connection limit. A newcomer is served and stays connected.
fn idle_crowd(count: usize, variables: &[(&str, &str)], source: impl Fn(usize) -> Ipv4Addr + Sync) {
    raise_own_limit();
    let postiz = FakePostiz::start();
    let variables = [variables, &[("TRUSTED_PROXIES", "none")]].concat();
    let server = server_on(Store::Embedded, &postiz, &variables);
    // A client that was connected before.
    let mut early = Connection::open(server.address);
    let poll = {
        let login = Login::start(&server);
        let request = login.poll_bytes();
        String::from_utf8(request)
            .unwrap()
            .replace("Connection: close\r\n", "")
    };
    early.send(&poll);
    expect::error(&early.answer(), 400, "authorization_pending");

    let come = |n: usize| -> TcpStream {
        let mut stream = connect_from(IpAddr::V4(source(n)), server.address).expect("it connects");
        let sent: &[u8] = match n % 3 {
            0 => b"",
            1 => b"GET /health HTTP/1.1\r\nHost: a\r\nX: ",
            _ => b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        };
        // The server may close it at once.
        stream.write_all(sent).ok();
        stream
    };
    let mut crowd: Vec<TcpStream> = (0..count).map(come).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        scope.spawn(|| {
            // A client whose connection was closed connects again.
            let mut n = count;
            while !over.load(Ordering::SeqCst) {
                let oldest = n % count;
                crowd[oldest] = come(n);
                n += 1;
                thread::sleep(Duration::from_millis(1));
            }
        });
        let begun = Instant::now();
        expect::json(&server.get("/health"), 200);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        for _ in 0..5 {
            log_in(&server, &postiz);
        }
        // The earlier client is one of few in its network, so it is still connected.
        early.send(&poll);
        expect::error(&early.answer(), 400, "authorization_pending");
    });
}

#[test]
fn idle_connections_from_16_addresses_do_not_block_newcomers() {
    let limits = [
        ("LIMIT_CONNECTIONS", "128"),
        ("LIMIT_CONNECTIONS_PER_ADDRESS", "16"),
    ];
    idle_crowd(160, &limits, |n| {
        Ipv4Addr::new(127, 0, 1 + (n % 16) as u8, 1)
    });
}

#[test]
fn idle_connections_from_one_address_do_not_block_newcomers() {
    for per_address in ["0", "16"] {
        let limits = [
            ("LIMIT_CONNECTIONS", "128"),
            ("LIMIT_CONNECTIONS_PER_ADDRESS", per_address),
        ];
        idle_crowd(160, &limits, |_| Ipv4Addr::new(127, 0, 7, 1));
    }
}

/// Connections that send requests and read no answers fill the connection limit, and reconnect when they are closed.
#[test]
fn connections_that_do_not_read_do_not_block_newcomers() {
    const CONNECTIONS: usize = 24;
    raise_own_limit();
    let postiz = FakePostiz::start();
    let limit = CONNECTIONS.to_string();
    let limits = [
        ("LIMIT_CONNECTIONS", limit.as_str()),
        ("LIMIT_CONNECTIONS_PER_ADDRESS", "2"),
        ("TRUSTED_PROXIES", "none"),
    ];
    let server = server_on(Store::Embedded, &postiz, &limits);
    // More than the system's buffers hold.
    let pages = "GET /device/verify HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_500);
    let come = |n: usize| -> TcpStream {
        let source = Ipv4Addr::new(127, 0, 1 + (n % 12) as u8, 1);
        let stream = connect_without_buffer(source.into(), server.address).expect("it connects");
        // Without blocking: the server does not read all of it.
        stream.set_nonblocking(true).expect("it is a socket");
        (&stream).write_all(pages.as_bytes()).ok();
        stream
    };
    let crowd: Vec<TcpStream> = (0..CONNECTIONS).map(come).collect();
    let answered = || server.log().matches("route=/device/verify").count();
    let mut before = 0;
    eventually("their answers are stuck", || {
        thread::sleep(Duration::from_millis(200));
        let now = answered();
        std::mem::replace(&mut before, now) == now && now > CONNECTIONS
    });
    for _ in 0..3 {
        let begun = Instant::now();
        let served = Connection::try_open(server.address).and_then(|mut newcomer| {
            newcomer.try_send("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            newcomer.try_answer(true)
        });
        let served = served.expect("a newcomer is served");
        assert_eq!(served.status, 200);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }
    log_in(&server, &postiz);
    drop(crowd);
}

/// Images of the callback on another site's page do not use up the visitor's rate limit.
#[test]
fn cross_site_images_of_the_callback_are_not_charged() {
    let postiz = FakePostiz::start();
    let server = server_on(
        Store::Embedded,
        &postiz,
        &[("LIMIT_CALLBACKS_PER_MINUTE", "10")],
    );
    let (login, mut browser) = (Login::start(&server), Browser::new());
    let redirect = login.consent(&mut browser, &people::name());
    for n in 0..35 {
        let headers = [
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Mode", "no-cors"),
            ("Sec-Fetch-Dest", "image"),
        ];
        let target = format!("/device/callback?code={n}&state={n}");
        assert_ne!(server.send("GET", &target, &headers, b"").status, 200);
    }
    expect::page(&browser.follow(&redirect).answer, 200);
    assert_token(&login.outcome(&server), &postiz);
}
