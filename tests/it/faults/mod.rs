//! The store fails in every way that stores do, with a login in progress: the process lives, clients are told to come
//! again, what was acknowledged is kept, and the first request after the end of the fault is served at once.

mod database;
mod endurance;
mod file;

use std::time::{Duration, Instant};

use crate::fake_postiz::FakePostiz;
use crate::support::server::ServerSetup;
use crate::support::{Browser, Login, Page, TestServer, expect};

/// A server that is ready to log people in.
fn start(setup: &ServerSetup, postiz: &FakePostiz) -> TestServer {
    let server = setup.start();
    postiz.set_callback_url(&format!("{}/device/callback", server.public_url));
    server
}

/// A login whose user is on the way back from Postiz.
struct OnTheWay {
    login: Login,
    browser: Browser,
    redirect: Page,
}

impl OnTheWay {
    fn new(server: &TestServer, person: &str) -> OnTheWay {
        let (login, mut browser) = (Login::start(server), Browser::new());
        let redirect = login.consent(&mut browser, person);
        OnTheWay {
            login,
            browser,
            redirect,
        }
    }

    /// The fault has just ended: the very next request is served, within a second, and the login ends well.
    #[track_caller]
    fn assert_goes_on(&mut self, server: &TestServer) {
        let begun = Instant::now();
        expect::error(&self.login.poll(server), 400, "authorization_pending");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "it took {took:?}");
        expect::page(&self.browser.follow(&self.redirect).answer, 200);
        expect::json(&self.login.outcome(server), 200);
    }
}
