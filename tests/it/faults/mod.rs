//! Faults of the store during a login. The process keeps running, clients get 503 with Retry-After, acknowledged logins are
//! kept, and the first request after the end of the fault is served at once.

mod database;
mod endurance;
mod file;
