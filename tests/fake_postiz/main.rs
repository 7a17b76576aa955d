//! Runs the fake Postiz as a program, for the demo and the browser tests, until it is killed:
//! `fake-postiz [--port PORT] [--callback URL] [--registration open|too-old|DOMAIN,…] [--relay]`. The callback is that of the
//! hand-made app.

// The tests include the same modules, and a program may print where it listens.
#![allow(unreachable_pub, clippy::print_stderr)]

#[path = "mod.rs"]
mod fake_postiz;

use std::thread;

use fake_postiz::{FakePostiz, Registration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = pico_args::Arguments::from_env();
    let port = args.opt_value_from_str("--port")?.unwrap_or(0);
    let callback_url: Option<String> = args.opt_value_from_str("--callback")?;
    let registration: Option<String> = args.opt_value_from_str("--registration")?;
    let relay = args.contains("--relay");
    let rest = args.finish();
    if !rest.is_empty() {
        return Err(format!("unexpected arguments: {rest:?}").into());
    }
    let postiz = FakePostiz::start_on(port)?;
    postiz.set_callback_url(&callback_url.unwrap_or_default());
    postiz.set_registration(match registration.as_deref() {
        None | Some("open") => Registration::Open,
        Some("too-old") => Registration::TooOld,
        Some(domains) => {
            Registration::VerifiedDomains(domains.split(',').map(str::to_owned).collect())
        }
    });
    if relay {
        postiz.offer_relay();
    }
    eprintln!("fake Postiz listening on {}", postiz.url());
    loop {
        thread::park();
    }
}
