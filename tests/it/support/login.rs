//! One login, step by step: the CLI's requests, the person's actions in the browser, the answers to polls.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::browser::{Browser, Page};
use super::expect;
use super::http::{self, Answer};
use super::server::TestServer;

/// What a browser gets with the verify page: a cookie, and the form's token.
pub struct VerifyForm {
    /// `name=value`.
    pub cookie: String,
    /// The hidden field's value.
    pub token: String,
}

impl VerifyForm {
    /// Opens the page with a new browser.
    pub fn open(server: &TestServer) -> VerifyForm {
        let page = server.page("/device/verify");
        let cookie = page.header("set-cookie").expect("the page sets a cookie");
        let html = page.text();
        let (_, token) = html
            .split_once("name=\"form_token\" value=\"")
            .expect("the form has a token");
        VerifyForm {
            cookie: cookie.split(';').next().unwrap_or_default().to_owned(),
            token: token.split('"').next().unwrap_or_default().to_owned(),
        }
    }

    /// Sends the form with these headers, and with these fields, which the caller has encoded.
    pub fn send(&self, server: &TestServer, fields: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Cookie", self.cookie.as_str()),
        ];
        all.extend(headers);
        let body = format!("form_token={}&{fields}", self.token);
        server.send("POST", "/device/verify", &all, body.as_bytes())
    }

    /// Confirms a code.
    pub fn confirm(&self, server: &TestServer, user_code: &str) -> Answer {
        self.send(
            server,
            &format!("action=continue&user_code={user_code}"),
            &[],
        )
    }
}

/// A started login.
#[derive(Clone, Debug)]
pub struct Login {
    /// The whole answer to `/device/code`.
    pub start: Value,
}

impl Login {
    /// Starts a login at `server`, as the CLI does.
    pub fn start(server: &TestServer) -> Login {
        Login::of(&server.post_json("/device/code", &json!({})))
    }

    /// The login that this answer of `/device/code` starts.
    #[track_caller]
    pub fn of(answer: &Answer) -> Login {
        assert_eq!(answer.status, 200, "{}", answer.text());
        Login {
            start: answer.json(),
        }
    }

    /// The device code, which is the CLI's secret.
    pub fn device_code(&self) -> &str {
        self.field("device_code")
    }

    /// The user code, which the person compares.
    pub fn user_code(&self) -> &str {
        self.field("user_code")
    }

    /// The `verification_uri_complete`.
    pub fn link(&self) -> &str {
        self.field("verification_uri_complete")
    }

    fn field(&self, name: &str) -> &str {
        self.start[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}: {}", self.start))
    }

    /// One poll as the npm CLI sends it.
    pub fn poll(&self, server: &TestServer) -> Answer {
        server.post_json("/device/token", &self.poll_body())
    }

    /// The body of such a poll.
    pub fn poll_body(&self) -> Value {
        json!({"device_code": self.device_code()})
    }

    /// The bytes of such a poll.
    pub fn poll_bytes(&self) -> Vec<u8> {
        let headers = [("Content-Type", "application/json")];
        let body = self.poll_body().to_string();
        http::request("POST", "/device/token", &headers, body.as_bytes())
    }

    /// One poll as standard clients send it.
    pub fn poll_form(&self, server: &TestServer) -> Answer {
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        let device_code = self.device_code();
        let form = format!("grant_type={grant}&device_code={device_code}&client_id=test");
        server.post_form("/device/token", &form)
    }

    /// Polls until the answer is not "pending": a token that is being delivered to one client is pending for others.
    pub fn outcome(&self, server: &TestServer) -> Answer {
        super::eventually_some("the login ends", || {
            let answer = self.poll(server);
            (answer.error() != "authorization_pending").then_some(answer)
        })
    }

    /// The person opens the link and confirms the code. Returns the redirect to Postiz.
    pub fn confirm(&self, browser: &mut Browser) -> Page {
        let page = browser.open(self.link());
        assert_eq!(page.status(), 200, "{}", page.html());
        let page = browser.submit(&page, &[]);
        assert_eq!(page.status(), 302, "{}", page.html());
        page
    }

    /// The person opens the link and refuses. Returns the last page.
    pub fn refuse(&self, browser: &mut Browser) -> Page {
        let page = browser.open(self.link());
        browser.press(&page, "action", "deny")
    }

    /// The person confirms the code, signs in at Postiz as `person`, and arrives at the consent page.
    pub fn reach_consent(&self, browser: &mut Browser, person: &str) -> Page {
        let redirect = self.confirm(browser);
        let page = browser.settle(redirect);
        if !page.url.contains("/auth?") {
            return page;
        }
        let page = browser.submit(&page, &[("person", person)]);
        browser.settle(page)
    }

    /// The person confirms the code and consents at Postiz. Returns the redirect back to the server, not followed yet.
    pub fn consent(&self, browser: &mut Browser, person: &str) -> Page {
        let page = self.reach_consent(browser, person);
        let page = browser.press(&page, "action", "approve");
        assert_eq!(page.status(), 302, "{}", page.html());
        page
    }

    /// The person confirms the code and consents at Postiz. Returns the last page.
    pub fn approve(&self, browser: &mut Browser, person: &str) -> Page {
        let redirect = self.consent(browser, person);
        browser.follow(&redirect)
    }
}

/// A login whose user has consented at Postiz and has not yet followed the redirect to the callback.
pub struct ApprovedLogin {
    /// The login.
    pub login: Login,
    /// The user's browser.
    pub browser: Browser,
    /// The redirect back to the server, not followed yet.
    pub redirect: Page,
}

impl ApprovedLogin {
    /// Starts a login at `server` for `person`.
    pub fn new(server: &TestServer, person: &str) -> ApprovedLogin {
        let (login, mut browser) = (Login::start(server), Browser::new());
        let redirect = login.consent(&mut browser, person);
        ApprovedLogin {
            login,
            browser,
            redirect,
        }
    }

    /// Follows the redirect to the callback, and returns its answer.
    pub fn call_back(&mut self) -> Answer {
        self.browser.follow(&self.redirect).answer
    }

    /// After a fault has ended, the next request must be served within a second, and the login must succeed.
    #[track_caller]
    pub fn assert_recovers(&mut self, server: &TestServer) {
        let begun = Instant::now();
        expect::error(&self.login.poll(server), 400, "authorization_pending");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "it took {took:?}");
        expect::page(&self.call_back(), 200);
        expect::json(&self.login.outcome(server), 200);
    }
}
