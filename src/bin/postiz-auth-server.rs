//! The `postiz-auth-server` program.
fn main() {}
