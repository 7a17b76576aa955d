//! Runs the stand-in for Postiz alone, for the demo: `fake-postiz --port PORT --callback URL`, until it is ended.

// The tests link the same modules, and a program may say where it listens.
#![allow(unreachable_pub, clippy::print_stderr)]

#[path = "mod.rs"]
mod fake_postiz;

use std::thread;

use fake_postiz::FakePostiz;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = pico_args::Arguments::from_env();
    let port = args.opt_value_from_str("--port")?.unwrap_or(0);
    let callback_url: String = args.value_from_str("--callback")?;
    let rest = args.finish();
    if !rest.is_empty() {
        return Err(format!("unexpected arguments: {rest:?}").into());
    }
    let postiz = FakePostiz::start_on(port)?;
    postiz.set_callback_url(&callback_url);
    eprintln!("fake Postiz listening on {}", postiz.url());
    loop {
        thread::park();
    }
}
