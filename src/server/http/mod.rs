//! HTTP: routes each request to its handler, a function from a [`Request`] to a [`Reply`] that needs no socket.

mod routes;

mod callback;
mod device_code;
mod service;
mod token;
mod verify;

mod answer;
mod app;
mod browser;
pub mod reply;
pub mod request;
mod wire;

pub use app::App;
pub use reply::Reply;
pub use request::{Request, RequestId};
pub(crate) use routes::Routed;
