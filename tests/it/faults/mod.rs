//! The store fails in every way that stores do, with a login in progress: the process lives, clients are told to come
//! again, what was acknowledged is kept, and the first request after the end of the fault is served at once.

mod database;
mod endurance;
mod file;
