//! The HTTP contract, row by row: one file for each of its sections. Its table of limits is the front's business.

mod callback;
mod confirm;
mod device_code;
mod device_token;
mod framing;
mod malformed;
mod service;
mod store_down;
mod verify;
