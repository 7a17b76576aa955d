//! After one signal the server finishes its requests and ends. After a second one it ends at once.

use std::thread;
use std::time::{Duration, Instant};

use crate::attack::server_with;
use crate::fake_postiz::{Delivery, FakePostiz, Fault, Gate};
use crate::support::{Browser, Connection, Login, Page, TestServer, eventually, expect};

/// Logins of `count` people whose callbacks are still to come, and whose exchanges will wait at a gate.
fn people_at_a_gate(
    server: &TestServer,
    postiz: &FakePostiz,
    count: usize,
) -> Vec<(Login, Browser, Page)> {
    let come = |i: usize| {
        let (login, mut browser) = (Login::start(server), Browser::new());
        let redirect = login.consent(&mut browser, &format!("person-{i}"));
        (login, browser, redirect)
    };
    let people = (0..count).map(come).collect();
    let under_way = postiz.requests_to("/oauth/token").len();
    assert_eq!(under_way, 0, "no exchange has begun");
    people
}

#[test]
fn requests_in_flight_are_finished() {
    let postiz = FakePostiz::start();
    let mut server = server_with(&postiz, &[]);
    let people = people_at_a_gate(&server, &postiz, 20);
    let gate = Gate::default();
    postiz.misbehave("/oauth/token", Fault::Deliver(Delivery::Held(gate.clone())));
    thread::scope(|scope| {
        let callbacks: Vec<_> = people
            .iter()
            .map(|(_, browser, redirect)| {
                let mut browser = browser.clone();
                scope.spawn(move || browser.follow(redirect))
            })
            .collect();
        eventually("all 20 exchanges are under way", || {
            postiz.requests_to("/oauth/token").len() == 20
        });
        server.signal("TERM");
        eventually("the listener is closed", || {
            Connection::try_open(server.address).is_err()
        });
        gate.open();
        for callback in callbacks {
            let page = callback.join().expect("the browser does not panic");
            expect::page(&page.answer, 200);
            assert_eq!(page.answer.header("connection"), Some("close"));
        }
    });
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert!(server.log().contains("stopped"), "{}", server.log());
}

#[test]
fn second_signal_ends_the_server_at_once() {
    for second in ["TERM", "INT"] {
        let postiz = FakePostiz::start();
        let mut server = server_with(&postiz, &[]);
        let people = people_at_a_gate(&server, &postiz, 1);
        let gate = Gate::default();
        postiz.misbehave("/oauth/token", Fault::Deliver(Delivery::Held(gate.clone())));
        let mut connection = Connection::open(server.address);
        let (_, browser, redirect) = &people[0];
        connection.send(browser.get_bytes(&redirect.location()));
        eventually("the exchange is under way", || {
            postiz.requests_to("/oauth/token").len() == 1
        });
        server.signal("TERM");
        eventually("the server is stopping", || {
            server.log().contains("stopping")
        });
        let begun = Instant::now();
        server.signal(second);
        let status = server.wait();
        assert_ne!(status.code(), Some(0), "requests were cut off");
        assert!(begun.elapsed() < Duration::from_secs(3));
        gate.open();
    }
}
