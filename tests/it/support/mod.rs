//! What all tests share: servers and databases that end with the test, an HTTP client, a browser, waiting for conditions.

pub mod browser;
pub mod expect;
pub mod frozen;
pub mod http;
pub mod login;
pub mod people;
pub mod pooler;
pub mod postgres;
pub mod process;
pub mod proxies;
pub mod relay;
pub mod server;
pub mod sockets;
pub mod tls;

pub use browser::{Browser, Page};
pub use http::{Answer, Connection};
pub use login::{Login, VerifyForm};
pub use pooler::Pooler;
pub use postgres::{Cluster, Database};
pub use server::{Store, TestServer};

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Makes one test for each store: `on_each_store!(poll_is_pending)` makes the tests `poll_is_pending::embedded` and
/// `poll_is_pending::postgres` of the function `poll_is_pending`. The function takes a [`Store`], or a type made from one.
macro_rules! on_each_store {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::support::Store;

            #[test]
            fn embedded() {
                super::$name(Store::Embedded.into());
            }

            #[test]
            fn postgres() {
                super::$name(Store::Postgres.into());
            }
        }
    )+};
}

/// The path of a program under test, `postiz` or `postiz-auth-server`: in the folder POSTIZ_TEST_BIN_DIR if that is set, else
/// from this build.
#[allow(
    clippy::disallowed_methods,
    reason = "tests read their environment directly"
)]
pub fn program(name: &str) -> PathBuf {
    match std::env::var_os("POSTIZ_TEST_BIN_DIR") {
        Some(folder) => Path::new(&folder).join(name),
        // Cargo puts both programs into one folder.
        None => Path::new(env!("CARGO_BIN_EXE_postiz")).with_file_name(name),
    }
}

/// Longest wait for a condition. It is long because machines that run tests are busy.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until `condition` is true. After [`SOON`] it panics with `what`.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Waits until `attempt` returns a value. After [`SOON`] it panics with `what`.
pub fn eventually_some<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out, not true yet: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a child process has ended.
pub fn wait_for_exit(child: &mut Child) -> ExitStatus {
    eventually_some("the program ends", || {
        child.try_wait().expect("the child can be waited for")
    })
}

/// Runs a program with an empty standard input. It must end within [`SOON`].
pub fn run(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let stdout = read_in_thread(child.stdout.take().expect("the stream is piped"));
    let stderr = read_in_thread(child.stderr.take().expect("the stream is piped"));
    let status = wait_for_exit(&mut child);
    let read = |reader: thread::JoinHandle<Vec<u8>>| reader.join().expect("reading does not panic");
    Output {
        status,
        stdout: read(stdout),
        stderr: read(stderr),
    }
}

/// Sends a signal by name. It uses the shell's `kill`, since a system call would need `unsafe`.
pub fn signal(child: &Child, name: &str) {
    let command = format!("kill -{name} {}", child.id());
    let status = Command::new("sh").args(["-c", &command]).status();
    assert!(status.is_ok_and(|s| s.success()), "{command} failed");
}

/// Runs `act` on `count` threads that start at the same moment, and returns their results.
pub fn at_once<T: Send>(count: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = std::sync::Barrier::new(count);
    thread::scope(|scope| {
        let start = |i| {
            let (barrier, act) = (&barrier, &act);
            scope.spawn(move || {
                barrier.wait();
                act(i)
            })
        };
        let threads: Vec<_> = (0..count).map(start).collect();
        let finish =
            |t: thread::ScopedJoinHandle<T>| t.join().expect("the test's threads do not panic");
        threads.into_iter().map(finish).collect()
    })
}

/// Runs `check` on all rows in parallel, since some of them wait.
pub fn each<Row: Send>(rows: impl IntoIterator<Item = Row>, check: impl Fn(Row) + Sync) {
    thread::scope(|scope| {
        for row in rows {
            let check = &check;
            scope.spawn(move || check(row));
        }
    });
}

fn read_in_thread(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // After an error, the bytes that were read before it are still shown.
        pipe.read_to_end(&mut bytes).ok();
        bytes
    })
}
