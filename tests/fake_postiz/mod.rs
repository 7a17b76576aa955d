//! A fake Postiz for the tests and the demo: sign-in, consent page, token endpoint, public API.
//! It records its requests, and injects faults on command. The OAuth flow is in `oauth.rs`, clients and their registration in
//! `clients.rs`, the API in `api.rs` and `media.rs`.

// The demo and the tests each use only some of it.
#![allow(dead_code, unused_imports)]

pub mod api;
pub mod clients;
pub mod http;
pub mod media;
pub mod oauth;

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::json;

pub use clients::Registration;
pub use http::{Delivery, Gate, HttpServer, Reply, Request, Response};

use api::Api;
use oauth::OAuth;

/// The app's public name.
pub const CLIENT_ID: &str = "pca_fake0client0id";
/// The app's secret. It is unique, so that tests can search logs for it.
pub const CLIENT_SECRET: &str = "pcs_fake0client0secret0that0must0not0leak";
/// An API key of the organisation, as in Postiz' settings.
pub const API_KEY: &str = "0123456789abcdef0123456789abcdef";

/// A running fake Postiz; stops when dropped.
pub struct FakePostiz {
    server: HttpServer,
    postiz: Arc<Postiz>,
}

/// State that the connections' threads share.
struct Postiz {
    oauth: OAuth,
    api: Api,
    log: Mutex<Vec<Request>>,
    faults: Mutex<Vec<Planned>>,
}

/// A fault for the next `times` requests whose path begins with `path`.
struct Planned {
    path: String,
    fault: Fault,
    times: usize,
}

/// A kind of fault.
#[derive(Clone)]
pub enum Fault {
    /// The request is handled, but its answer is delivered in this way.
    Deliver(Delivery),
    /// The request is not handled, and this is the answer.
    Answer(Response),
}

impl FakePostiz {
    /// Starts one on a free port of 127.0.0.1.
    pub fn start() -> FakePostiz {
        FakePostiz::start_on(0).expect("a free port on loopback")
    }

    /// Starts one on `port` of 127.0.0.1.
    pub fn start_on(port: u16) -> io::Result<FakePostiz> {
        let postiz = Arc::new(Postiz {
            oauth: OAuth::new(CLIENT_ID, CLIENT_SECRET),
            api: Api::new(),
            log: Mutex::default(),
            faults: Mutex::default(),
        });
        let shared = Arc::clone(&postiz);
        let server = HttpServer::start(port, move |request| shared.reply(request))?;
        Ok(FakePostiz { server, postiz })
    }

    /// Its URL, for browsers and for the API.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Sets the callback URL of the hand-made app.
    pub fn set_callback_url(&self, url: &str) {
        self.postiz.oauth.clients.set_callback_url(url);
    }

    /// Changes who may register clients. At first everyone may.
    pub fn set_registration(&self, registration: Registration) {
        self.postiz.oauth.clients.set_registration(registration);
    }

    /// Makes the consent page of registered clients offer a self-hosted instance, as the cloud's does.
    pub fn offer_relay(&self) {
        let offers = &self.postiz.oauth.offers_relay;
        *offers.lock().expect("no handler panics") = true;
    }

    /// The ids of the registered clients that are not deleted.
    pub fn registered_clients(&self) -> Vec<String> {
        let clients = self.postiz.oauth.clients.registered();
        clients.into_iter().map(|client| client.id).collect()
    }

    /// Deletes a registered client.
    pub fn forget_client(&self, client_id: &str) {
        self.postiz.oauth.clients.forget(client_id);
    }

    /// Expires all codes that were issued so far.
    pub fn expire_codes(&self) {
        self.postiz.oauth.expire_codes();
    }

    /// The names under Settings > Approved Apps of `person`.
    pub fn approved_apps(&self, person: &str) -> Vec<String> {
        let apps = self.postiz.oauth.approved_apps(person);
        apps.into_iter().map(|(_, name)| name).collect()
    }

    /// Issues a code as the consent page does for `person`, for tests without a browser.
    pub fn consent(&self, person: &str) -> String {
        self.postiz.oauth.consent(CLIENT_ID, person)
    }

    /// Issues a token of `person`, for tests without a login.
    pub fn token_for(&self, person: &str) -> String {
        let code = self.consent(person);
        self.postiz.oauth.token_for_code(CLIENT_ID, &code)
    }

    /// Does the API accept this token now?
    pub fn accepts(&self, access_token: &str) -> bool {
        self.postiz.oauth.person_of(access_token).is_some()
    }

    /// Injects `fault` into all further requests whose path begins with `path`.
    pub fn misbehave(&self, path: &str, fault: Fault) {
        self.misbehave_times(usize::MAX, path, fault);
    }

    /// Injects `fault` into the next `times` requests whose path begins with `path`.
    pub fn misbehave_times(&self, times: usize, path: &str, fault: Fault) {
        let planned = Planned {
            path: path.to_owned(),
            fault,
            times,
        };
        self.postiz
            .faults
            .lock()
            .expect("no handler panics")
            .push(planned);
    }

    /// Removes all faults.
    pub fn behave(&self) {
        self.postiz
            .faults
            .lock()
            .expect("no handler panics")
            .clear();
    }

    /// Every request so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.postiz.log.lock().expect("no handler panics").clone()
    }

    /// The requests so far to exactly this path.
    pub fn requests_to(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|r| r.path() == path);
        requests
    }
}

impl Postiz {
    fn reply(&self, request: &Request) -> Reply {
        self.log
            .lock()
            .expect("no handler panics")
            .push(request.clone());
        match self.next_fault(request.path()) {
            None => self.route(request).into(),
            Some(Fault::Answer(response)) => response.into(),
            Some(Fault::Deliver(delivery)) => Reply {
                response: self.route(request),
                delivery,
            },
        }
    }

    fn next_fault(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().expect("no handler panics");
        let planned = faults
            .iter_mut()
            .find(|f| f.times > 0 && path.starts_with(&f.path))?;
        planned.times -= 1;
        Some(planned.fault.clone())
    }

    fn route(&self, request: &Request) -> Response {
        // The official container serves the API under /api.
        let path = request.path();
        let path = path.strip_prefix("/api").unwrap_or(path);
        match (request.method.as_str(), path) {
            ("GET", "/") => Response::html(
                200,
                oauth::page("Postiz", "<p>Your calendar would be here.</p>"),
            ),
            ("GET", "/auth") => oauth::sign_in_page(request),
            ("POST", "/auth") => oauth::sign_in(request, &own_url(request)),
            ("GET", "/oauth/authorize") => self.oauth.consent_page(request),
            ("POST", "/oauth/authorize") => self.oauth.decide(request),
            ("POST", "/oauth/register") => self.oauth.clients.register(request),
            ("GET", "/settings/approved-apps") => self.oauth.approved_apps_page(request),
            ("POST", "/settings/approved-apps") => self.oauth.revoke(request),
            ("POST", "/oauth/token") => self.oauth.exchange(request),
            _ => match path.strip_prefix("/public/v1/") {
                Some(rest) => self.refusal_reason(request).unwrap_or_else(|| {
                    let token = request.header("authorization").unwrap_or_default();
                    let person = self.oauth.person_of(token);
                    self.api.answer(request, rest, person.as_deref())
                }),
                None => api::not_found(request),
            },
        }
    }

    /// The answer to invalid credentials. Postiz wants the token alone in the `Authorization` header; with `Bearer` in front it is
    /// an unknown API key.
    fn refusal_reason(&self, request: &Request) -> Option<Response> {
        let msg = match request.header("authorization").unwrap_or_default() {
            "" => "No API Key found",
            API_KEY => return None,
            token if self.oauth.person_of(token).is_some() => return None,
            token if token.starts_with("pos_") => "Invalid OAuth token",
            _ => "Invalid API key",
        };
        Some(Response::json(401, &json!({ "msg": msg })))
    }
}

/// The server's URL with the host of the request.
fn own_url(request: &Request) -> String {
    format!("http://{}", request.header("host").unwrap_or_default())
}
