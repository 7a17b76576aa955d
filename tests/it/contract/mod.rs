//! The HTTP contract: one file for each endpoint. Limits on connections and requests are in `attack`.

mod callback;
mod confirm;
mod device_code;
mod device_token;
mod framing;
mod malformed;
mod service;
mod store_down;
mod verify;
