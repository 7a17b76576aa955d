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
pub(crate) mod reply;
pub(crate) mod request;

pub(crate) use app::App;
pub(crate) use reply::Reply;
pub(crate) use request::{Request, RequestId};
pub(crate) use routes::Routed;
