//! The `postiz` command line.
fn main() {}
