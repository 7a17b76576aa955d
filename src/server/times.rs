//! The server's timeouts, pauses and periods, except short ones. The lifetime of a login and the leases in its record are in
//! `login.rs`; IDLE_TIMEOUT and STOP_DELAY are settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::server::login;

/// The environment variable by which tests shorten the times, as JSON. Only builds with debug assertions read it.
pub const TEST_VARIABLE: &str = "POSTIZ_TEST_TIMES";

/// Timeouts, pauses and periods. Each is a timeout unless its comment says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// For receiving one request, from its first byte; also for a TLS handshake.
    pub request: Duration,
    /// For writing one answer.
    pub write: Duration,
    /// How long a connection is watched after a token was written to it: a round trip.
    pub delivery: Duration,
    /// The lease of a token's delivery. Longer than `write` and `delivery` together.
    pub delivery_lease: Duration,
    /// For discarding what a client sends after a bad request.
    pub unread: Duration,
    /// For each step of a metrics request. Short, since such requests are served one after the other.
    pub metrics: Duration,
    /// Pause between two log lines about failures to accept.
    pub failure_log_pause: Duration,
    /// How long a stopping server keeps idle connections open for a last request.
    pub last_request: Duration,
    /// How long a stopping server waits for requests in flight.
    pub stop: Duration,

    /// For a handler, except for the next three. It may have to wait for its turn to write to a busy disk.
    pub handler: Duration,
    /// For `/health` and `/ready`, which are documented to answer within 2 s.
    pub monitor_handler: Duration,
    /// For the callback, which waits for Postiz, and retries a failing store.
    pub callback_handler: Duration,
    /// Added to `handler` for a confirmation that registers a client at Postiz. Longer than `postiz`.
    pub registration: Duration,

    /// For one request to Postiz, from connecting to the end of the answer.
    pub postiz: Duration,
    /// For storing a token, from the start of the callback. Not longer than the exchange's lease.
    pub store_token: Duration,
    /// Pause between two tries to store a token.
    pub store_retry_pause: Duration,

    /// For the store, at a start and in a check.
    pub ping: Duration,
    /// Period of purges and of reading the certificate's files; a minute at most. Instances skip what another one is purging.
    pub purge_period: Duration,
    /// For the request of `healthcheck`. Shorter than the timeouts of container engines.
    pub healthcheck: Duration,

    /// For waiting for another writer of the embedded store. Shorter than `handler`.
    pub writer: Duration,
    /// For the leader of a batch. After it another caller leads, since the database may not respond to this one.
    pub leader: Duration,
    /// For a follower's result. Shorter than `handler`, so that the log names the cause.
    pub follower: Duration,
    /// For getting a connection to PostgreSQL while the pool returns none. Shorter than `monitor_handler`, so that the log names
    /// the cause.
    pub checkout: Duration,
    /// Pause before trying another connection after PostgreSQL refused one because it had too many, if others are open.
    pub crowded_pause: Duration,
    /// A connection to PostgreSQL that is in use for longer counts as hung, and is replaced. Longer than `handler`.
    pub hung: Duration,
}

impl Times {
    /// The times outside tests.
    pub const DEFAULT: Times = Times {
        request: Duration::from_secs(10),
        write: Duration::from_secs(10),
        delivery: Duration::from_secs(1),
        delivery_lease: login::DELIVERY_LEASE,
        unread: Duration::from_secs(2),
        metrics: Duration::from_secs(2),
        failure_log_pause: Duration::from_secs(5),
        last_request: Duration::from_secs(5),
        stop: Duration::from_secs(10),

        handler: Duration::from_secs(5),
        monitor_handler: Duration::from_secs(2),
        callback_handler: Duration::from_secs(43),
        registration: Duration::from_secs(11),

        postiz: Duration::from_secs(10),
        store_token: login::EXCHANGE_LEASE,
        store_retry_pause: Duration::from_millis(250),

        ping: Duration::from_secs(5),
        purge_period: Duration::from_secs(30),
        healthcheck: Duration::from_secs(5),

        writer: Duration::from_secs(2),
        leader: Duration::from_secs(1),
        follower: Duration::from_secs(4),
        checkout: Duration::from_millis(1_500),
        crowded_pause: Duration::from_secs(10),
        hung: Duration::from_secs(6),
    };
}
