//! Runs the stand-in for Postiz alone, for the demo.
fn main() {}
