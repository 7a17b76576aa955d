//! HTTP: which request goes to which handler, and what the answers are.
//!
//! A handler is a function from a [`Request`] to a [`Reply`], and needs no socket.

mod routes;

mod callback;
mod device_code;
mod service;
mod token;
mod verify;

mod app;
pub mod reply;
pub mod request;
mod wire;

use crate::server::store::StoreError;

pub use app::App;
pub use reply::Reply;
pub use request::{Request, RequestId};
pub(crate) use routes::Routed;

/// What a handler makes of a request. If the store failed, the route's audience decides what the answer looks like.
type Handled = Result<Reply, StoreError>;

/// Seconds after which a client may ask again when the store is away: one poll interval.
const RETRY_AFTER_S: u64 = 5;

/// Whole seconds to wait, at least one (RFC 9110 §10.2.3).
fn whole_seconds(wait: std::time::Duration) -> u64 {
    wait.as_millis()
        .div_ceil(1_000)
        .max(1)
        .try_into()
        .unwrap_or(u64::MAX)
}
