//! The workers that take requests from tiny_http, and answer them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tiny_http::{Header, Response, StatusCode};

use crate::server::http::overdue::{Place, Watch};
use crate::server::http::reply::{OnDelivered, Reply};
use crate::server::http::request::Request;
use crate::server::http::{App, RETRY_AFTER_S, routes};
use crate::server::pages::Page;
use crate::shared::secret::Secret;

/// Callbacks at once, each waiting for Postiz in a thread of its own; further ones are told to come again.
const CALLBACKS_MAX: usize = 128;

/// A worker beyond those that stay leaves when it had nothing to do for so long.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);

/// What is to be done once an answer has reached its client, by the front's number for the request. The http side puts it
/// here before it answers; the front, which alone knows the client's socket, takes it out and calls or drops it.
#[derive(Default)]
pub(crate) struct Deliveries(Mutex<HashMap<u64, OnDelivered>>);

impl Deliveries {
    fn put(&self, request_id: u64, on_delivered: OnDelivered) {
        self.map().insert(request_id, on_delivered);
    }

    /// What waits for the answer to this request, if anything.
    pub(crate) fn take(&self, request_id: u64) -> Option<OnDelivered> {
        self.map().remove(&request_id)
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<u64, OnDelivered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The header by which the front vouches for a request: its secret, its number for the request, the client's address.
/// Other programs on this machine can find the private socket, but do not know the secret.
pub(crate) const FRONT_HEADER: &str = "x-front";

struct Workers {
    app: Arc<App>,
    server: tiny_http::Server,
    deliveries: Arc<Deliveries>,
    front_secret: Secret<String>,
    callbacks: AtomicUsize,
    watch: Watch,
    /// Workers that stay even when there is nothing to do.
    enough: usize,
}

/// Starts `count` workers on what `server` receives. They run until the process ends.
pub(crate) fn serve(
    server: tiny_http::Server,
    app: Arc<App>,
    deliveries: Arc<Deliveries>,
    front_secret: Secret<String>,
    count: usize,
) -> std::io::Result<()> {
    let workers = Arc::new(Workers {
        app,
        server,
        deliveries,
        front_secret,
        callbacks: AtomicUsize::new(0),
        watch: Watch::default(),
        enough: count,
    });
    for _ in 0..count {
        workers.hire()?;
    }
    let look = move || {
        workers.watch.look(
            |inner| {
                let reply = routes::overdue(&workers.app, path_of(&inner));
                respond(inner, reply);
            },
            || {
                if let Err(error) = workers.hire() {
                    workers
                        .app
                        .log
                        .error("thread_failed", &[("error", &error.to_string())]);
                }
            },
        )
    };
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(look)
        .map(drop)
}

impl Workers {
    fn hire(self: &Arc<Workers>) -> std::io::Result<()> {
        let place = self.watch.place();
        let (workers, own) = (Arc::clone(self), Arc::clone(&place));
        let work = move || workers.work(&own);
        let hired = thread::Builder::new().name("http".to_owned()).spawn(work);
        if hired.is_err() {
            self.watch.may_leave(&place, 0);
        }
        hired.map(drop)
    }

    /// Answers requests, until one takes so long that somebody else answers it, or there is too little to do.
    fn work(self: &Arc<Workers>, place: &Arc<Place>) {
        loop {
            match self.server.recv_timeout(IDLE_TIME_MAX) {
                Ok(Some(inner)) if routes::may_be_slow(&self.app, path_of(&inner)) => {
                    self.answer_aside(inner)
                }
                Ok(Some(inner)) => {
                    if self.answer(inner, Some(place)).is_none() {
                        return;
                    }
                }
                Ok(None) => {
                    if self.watch.may_leave(place, self.enough) {
                        return;
                    }
                }
                Err(error) => self
                    .app
                    .log
                    .error("http_failed", &[("error", &error.to_string())]),
            }
        }
    }

    /// Answers in a thread of its own what may take as long as Postiz does: polls must not wait for that.
    fn answer_aside(self: &Arc<Workers>, inner: tiny_http::Request) {
        let busy = self.callbacks.fetch_add(1, Ordering::AcqRel) >= CALLBACKS_MAX;
        let done = Done(Arc::clone(self));
        if busy {
            let page = Page::Unavailable.render(&self.app.site);
            let reply = Reply::page(503, page).with("Retry-After", RETRY_AFTER_S);
            return respond(inner, reply);
        }
        let workers = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("callback".to_owned())
            .spawn(move || {
                let _done = done;
                workers.answer(inner, None);
            });
        if let Err(error) = spawned {
            // The request went with the closure; tiny_http has answered 500 for it.
            self.app
                .log
                .error("thread_failed", &[("error", &error.to_string())]);
        }
    }

    /// Answers; with a `place`, under the watch, and then `None` when the watch was quicker.
    fn answer(&self, mut inner: tiny_http::Request, place: Option<&Place>) -> Option<()> {
        let (request_id, client) = match self.vouched(&inner) {
            Vouched::Request(request_id, client) => (request_id, client),
            Vouched::Greeting => return answered(inner, Reply::plain_error(200, "none")),
            Vouched::No => return answered(inner, Reply::plain_error(403, "forbidden")),
        };
        let patience = routes::patience(&self.app, path_of(&inner));
        let Ok(request) = Request::from_tiny_http(&mut inner, request_id, client) else {
            // The front hands over whole requests, so this is the front gone away: nobody hears the answer.
            return answered(inner, Reply::plain_error(400, "invalid_request"));
        };
        let (inner, mut reply) = match place {
            None => (inner, self.app.answer(&request)),
            Some(place) => {
                place.begin(inner, patience);
                let reply = self.app.answer(&request);
                // If its client was told to come again, a token that was for it stays where it was.
                (place.end()?, reply)
            }
        };
        if let Some(on_delivered) = reply.on_delivered.take() {
            self.deliveries.put(request_id, on_delivered);
        }
        answered(inner, reply)
    }

    /// What the front says of the request, if it was the front.
    fn vouched(&self, inner: &tiny_http::Request) -> Vouched {
        let header = inner
            .headers()
            .iter()
            .find(|header| header.field.equiv(FRONT_HEADER));
        let mut parts = header.map_or("", |header| header.value.as_str()).split(' ');
        let secret = parts.next().unwrap_or_default();
        if !is_same(secret.as_bytes(), self.front_secret.expose().as_bytes()) {
            return Vouched::No;
        }
        let request = parts
            .next()
            .and_then(|id| id.parse().ok())
            .zip(parts.next().and_then(|ip| ip.parse().ok()));
        request.map_or(Vouched::Greeting, |(request_id, client)| {
            Vouched::Request(request_id, client)
        })
    }
}

/// Who sent a request over the private socket.
enum Vouched {
    /// The front, with its number for the request and the client's address.
    Request(u64, IpAddr),
    /// The front, to see whether its new connection is served.
    Greeting,
    /// Somebody else on this machine.
    No,
}

/// Compares in a time that says nothing of where they differ.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .fold(0, |differ, (l, r)| differ | (l ^ r))
            == 0
}

fn answered(inner: tiny_http::Request, reply: Reply) -> Option<()> {
    respond(inner, reply);
    Some(())
}

fn path_of(inner: &tiny_http::Request) -> &str {
    inner.url().split('?').next().unwrap_or_default()
}

/// Counts a callback out when its thread is done, however it ends.
struct Done(Arc<Workers>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.callbacks.fetch_sub(1, Ordering::AcqRel);
    }
}

fn respond(inner: tiny_http::Request, reply: Reply) {
    let length = reply.body.len();
    let headers = reply.headers.iter().filter_map(|(name, value)| {
        // All our header values are ASCII; one that is not would be a bug, and is left out rather than sent broken.
        Header::from_bytes(name.as_bytes(), value.as_bytes()).ok()
    });
    let response = Response::new(
        StatusCode(reply.status),
        headers.collect(),
        reply.body.as_slice(),
        Some(length),
        None,
    )
    // Never chunked: clients can rely on a Content-Length.
    .with_chunked_threshold(usize::MAX);
    // Only the front reads this; if it has gone, so has the client.
    let _ = inner.respond(response);
}
