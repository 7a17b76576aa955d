//! How long the server waits for what: every timeout, pause and period that is longer than a moment. The lifetime of a
//! login and the leases in its record are in `login.rs`; IDLE_TIMEOUT and STOP_DELAY are settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::server::login;

/// The environment variable that tests put shortened times in, as JSON. Only builds with debug assertions read it.
pub const TEST_VARIABLE: &str = "POSTIZ_TEST_TIMES";

/// The server's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// For a client to send one whole request, from its first byte; or to make a TLS handshake.
    pub request: Duration,
    /// For a client to take one answer.
    pub write: Duration,
    /// To see whether a client takes its token: long enough for the answer's way there and the end of the connection's way
    /// back.
    pub delivery: Duration,
    /// The lease of a token's delivery: more than `write` and `delivery` together.
    pub delivery_lease: Duration,
    /// For a client with a bad request to go on sending, before its connection is closed.
    pub unread: Duration,
    /// For Prometheus to ask, to send its request, and to take the answer, each: short, since others wait meanwhile.
    pub metrics: Duration,
    /// Failures to accept are not logged more often than this.
    pub failure_log_pause: Duration,
    /// How long a stopping server keeps idle connections for a last request.
    pub last_request: Duration,
    /// How long a stopping server waits for the requests that are open.
    pub stop: Duration,

    /// For a handler, unless it is one of the three below. It may have to wait for its turn to write to a busy disk.
    pub handler: Duration,
    /// For the handlers of `/health` and `/ready`, which are promised within 2 s.
    pub monitor_handler: Duration,
    /// For the callback's handler, which waits for Postiz, and for a store that was away.
    pub callback_handler: Duration,
    /// How much longer a confirmation may take that registers a client at Postiz: more than `postiz`.
    pub registration: Duration,

    /// For one request to Postiz, from its connection to the end of the answer.
    pub postiz: Duration,
    /// For a token to be stored, counted from the callback: not longer than the exchange's lease.
    pub store_token: Duration,
    /// Between two tries to store a token.
    pub store_retry_pause: Duration,

    /// How long a starting server, or a check, waits for the store.
    pub ping: Duration,
    /// Between two purges, and two looks at the certificate's files: a minute at most. Of purges, any instance may do it for all: a batch that another one holds is skipped.
    pub purge_period: Duration,
    /// For `healthcheck` to get an answer: less than container engines wait for a check.
    pub healthcheck: Duration,

    /// For one writer of the embedded store to hold up the others: less than `handler`.
    pub writer: Duration,
    /// For the leader of a batch; then it hangs in a silent database, and another caller leads in its stead.
    pub leader: Duration,
    /// For a follower to wait for its result: less than `handler`, so that the log names the cause.
    pub follower: Duration,
    /// For a request to wait for a connection to PostgreSQL while the pool stands still: less than `monitor_handler`, so that
    /// the log names the cause.
    pub checkout: Duration,
    /// How long no further connection is tried when the database has none left for us, and others of ours are open.
    pub crowded_pause: Duration,
    /// A connection to PostgreSQL that is in use for longer hangs: a new one takes its slot. Longer than `handler`.
    pub hung: Duration,
}

impl Times {
    /// What holds outside tests.
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
