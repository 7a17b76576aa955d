//! The receiver, which takes requests from tiny_http and sees to it that they are answered.
//!
//! Threads that hand each other requests cost more than the requests do. So one thread receives, and it takes all that wait:
//! the polls among them are answered by one look at the store, and the logins that start are kept by one commit. What
//! takes longer gets a thread of its own.

use std::collections::HashMap;
use std::iter;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tiny_http::{Header, Response, StatusCode};

use crate::server::http::overdue::{Place, Role, Watch};
use crate::server::http::reply::{OnDelivered, Reply};
use crate::server::http::request::Request;
use crate::server::http::routes::{Kind, Manner};
use crate::server::http::{App, routes};
use crate::shared::secret::Secret;

/// Most requests that are taken at once.
const TOGETHER_MAX: usize = 64;

/// Callbacks at once, each waiting for Postiz: half of what the front hands over at once, so that there is room for others.
/// Further ones are told to come again.
const CALLBACKS_MAX: usize = 128;

/// Others at once that have a thread of their own, those included that hang and were answered for.
const OTHERS_MAX: usize = 256;

/// A second receiver, hired while the first one was held up, leaves when it had nothing to do for so long (or sees, between
/// two requests, that another one has nothing to do).
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

struct Receiver {
    app: Arc<App>,
    server: tiny_http::Server,
    deliveries: Arc<Deliveries>,
    front_secret: Secret<String>,
    /// A copy for each callback that is being answered.
    callbacks: Arc<()>,
    /// A copy for each other request that is being answered aside.
    others: Arc<()>,
    /// How many receivers have nothing to do.
    waiting: AtomicUsize,
    watch: Watch,
}

/// One request, to be read and to be answered.
struct Received {
    inner: tiny_http::Request,
    request: Request,
}

/// Answers what `server` receives, in threads that run until the process ends.
pub(crate) fn serve(
    server: tiny_http::Server,
    app: Arc<App>,
    deliveries: Arc<Deliveries>,
    front_secret: Secret<String>,
) -> std::io::Result<()> {
    let receiver = Arc::new(Receiver {
        app,
        server,
        deliveries,
        front_secret,
        callbacks: Arc::default(),
        others: Arc::default(),
        waiting: AtomicUsize::new(0),
        watch: Watch::default(),
    });
    receiver.hire()?;
    let look = move || {
        receiver.watch.look(
            |inner| {
                let why = "it does not answer";
                let reply = routes::unavailable(&receiver.app, path_of(&inner), why);
                respond(inner, reply);
            },
            || {
                if let Err(error) = receiver.hire() {
                    receiver.thread_failed(&error);
                }
            },
        )
    };
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(look)
        .map(drop)
}

impl Receiver {
    /// Starts one more thread that receives.
    fn hire(self: &Arc<Receiver>) -> std::io::Result<()> {
        let receiver = Arc::clone(self);
        let place = self.watch.place(Role::Receiver);
        // Handlers catch their own panics. One beside them must not leave the server without a receiver.
        let work =
            move || while catch_unwind(AssertUnwindSafe(|| receiver.work(&place))).is_err() {};
        let builder = thread::Builder::new().name("receiver".to_owned());
        builder.spawn(work).map(drop)
    }

    /// Receives, until one request takes so long that somebody else answers it, or there is too little to do for two.
    fn work(self: &Arc<Receiver>, place: &Arc<Place>) {
        loop {
            let spare = match self.wait() {
                Some(first) => {
                    if self.take_all(first, place).is_none() {
                        return;
                    }
                    // Two share what one would answer together.
                    self.waiting.load(Ordering::Acquire) > 0
                }
                None => true,
            };
            if spare && self.watch.may_leave(place) {
                return;
            }
        }
    }

    /// The next request, if one comes soon.
    fn wait(&self) -> Option<tiny_http::Request> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let received = self.received(self.server.recv_timeout(IDLE_TIME_MAX));
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        // tiny_http may have told this thread of one, and then found that its time was over: nobody else knows of it.
        received.or_else(|| self.received(self.server.try_recv()))
    }

    /// Serves `first` and all that wait behind it. `None`: this thread is lost, since the store did not answer it in time.
    fn take_all(self: &Arc<Receiver>, first: tiny_http::Request, place: &Place) -> Option<()> {
        let (mut polls, mut starts) = (Vec::new(), Vec::new());
        let behind = iter::from_fn(|| self.received(self.server.try_recv()));
        for inner in iter::once(first).chain(behind).take(TOGETHER_MAX) {
            let Some(received) = self.read(inner) else {
                continue;
            };
            match routes::manner(&self.app, &received.request) {
                Manner::AtOnce => {
                    let reply = self.app.answer(&received.request);
                    self.reply(received, reply);
                }
                Manner::Aside => self.answer_aside(received),
                Manner::Together(Kind::Poll) => polls.push(received),
                Manner::Together(Kind::Start) => starts.push(received),
            }
        }
        // Polls first: nothing is written for them, so that they do not take long.
        let polls = self.answer_together(Kind::Poll, polls, place);
        if polls.is_none() {
            starts
                .into_iter()
                .for_each(|start| self.answer_aside(start));
            return None;
        }
        self.answer_together(Kind::Start, starts, place)
    }

    /// Answers requests of one kind by one call to the store.
    fn answer_together(
        self: &Arc<Receiver>,
        kind: Kind,
        all: Vec<Received>,
        place: &Place,
    ) -> Option<()> {
        let Some(first) = all.first() else {
            return Some(());
        };
        let patience = routes::patience(&self.app, &first.request.path);
        let (inners, requests): (Vec<_>, Vec<_>) = all
            .into_iter()
            .map(|received| (received.inner, received.request))
            .unzip();
        place.begin(inners, patience);
        let replies = self.app.answer_together(kind, &requests);
        let inners = place.end()?;
        for ((inner, request), reply) in inners.into_iter().zip(requests).zip(replies) {
            let received = Received { inner, request };
            match reply {
                Some(reply) => self.reply(received, reply),
                None => self.answer_aside(received),
            }
        }
        Some(())
    }

    /// Answers in a thread of its own, and under the watch.
    fn answer_aside(self: &Arc<Receiver>, received: Received) {
        let Received { inner, request } = received;
        let (crowd, crowd_max) = match routes::is_callback(&self.app, &request.path) {
            true => (&self.callbacks, CALLBACKS_MAX),
            false => (&self.others, OTHERS_MAX),
        };
        let path = request.path.clone();
        let unavailable = |why| routes::unavailable(&self.app, &path, why);
        if Arc::strong_count(crowd) > crowd_max {
            return respond(inner, unavailable("too many requests at once"));
        }
        let place = self.watch.place(Role::Aside);
        let patience = routes::patience(&self.app, &path);
        place.begin(vec![inner], patience);
        let answer = {
            let (receiver, place, present) =
                (Arc::clone(self), Arc::clone(&place), Arc::clone(crowd));
            move || {
                let _present = present;
                let reply = receiver.app.answer(&request);
                // If its client was told to come again, a token that was for it stays where it was.
                if let Some(inner) = place.end_one() {
                    receiver.reply(Received { inner, request }, reply);
                }
            }
        };
        let builder = thread::Builder::new().name("aside".to_owned());
        if let Err(error) = builder.spawn(answer) {
            self.thread_failed(&error);
            if let Some(inner) = place.end_one() {
                respond(inner, unavailable("no more threads"));
            }
        }
    }

    /// Reads what the front handed over.
    fn read(&self, mut inner: tiny_http::Request) -> Option<Received> {
        match self.vouched(&inner) {
            Vouched::Request(id, client) => {
                match Request::from_tiny_http(&mut inner, id, client) {
                    Ok(request) => return Some(Received { inner, request }),
                    // The front hands over whole requests, so this is the front gone away: nobody hears the answer.
                    Err(_) => respond(inner, Reply::plain_error(400, "invalid_request")),
                }
            }
            Vouched::Greeting => respond(inner, Reply::plain_error(200, "none")),
            Vouched::No => send_away(inner),
        }
        None
    }

    fn reply(&self, received: Received, mut reply: Reply) {
        if let Some(on_delivered) = reply.on_delivered.take() {
            self.deliveries.put(received.request.id, on_delivered);
        }
        respond(received.inner, reply);
    }

    fn received(
        &self,
        received: std::io::Result<Option<tiny_http::Request>>,
    ) -> Option<tiny_http::Request> {
        received.unwrap_or_else(|error| {
            self.app
                .log
                .error("http_failed", &[("error", &error.to_string())]);
            None
        })
    }

    fn thread_failed(&self, error: &std::io::Error) {
        self.app
            .log
            .error("thread_failed", &[("error", &error.to_string())]);
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

/// Gives no answer to somebody who is not the front, since writing one could be made to wait.
fn send_away(stranger: tiny_http::Request) {
    // Shorter bodies have been read by now.
    const LENGTH_READ: usize = 1024;
    let is_framing =
        |header: &Header| header.field.equiv("transfer-encoding") || header.field.equiv("expect");
    let is_long = stranger
        .body_length()
        .is_some_and(|length| length > LENGTH_READ);
    if is_long || stranger.headers().iter().any(is_framing) {
        // Dropped, it would wait for the rest of its body, and make room for as much as it says, be that more than there is.
        std::mem::forget(stranger);
    } else {
        drop(stranger.into_writer());
    }
}

fn path_of(inner: &tiny_http::Request) -> &str {
    inner.url().split('?').next().unwrap_or_default()
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
