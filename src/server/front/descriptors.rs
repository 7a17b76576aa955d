//! How many clients this process can afford: each costs file descriptors, and the operating system gives out only so many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::log::Log;

/// The most descriptors for one client: its socket, a connection to tiny_http at both its ends (where tiny_http takes
/// two), and one to Postiz or a file.
const FOR_EACH_CLIENT: u64 = 5;
/// For all else: listeners, the log, the store's file.
const FOR_THE_SERVER: u64 = 24;

/// Raises the soft limit on descriptors to the hard one. Then says how many of `wanted` clients they suffice for beside
/// so many connections to a database: with fewer, and no descriptor left, nobody would be served.
pub(crate) fn affordable_clients(wanted: u32, database_connections: usize, log: &Log) -> u32 {
    let Some(limit) = raised_limit() else {
        return wanted;
    };
    let spare = limit.saturating_sub(FOR_THE_SERVER + database_connections as u64);
    let affordable = u32::try_from(spare / FOR_EACH_CLIENT).unwrap_or(u32::MAX);
    if affordable >= wanted {
        return wanted;
    }
    let affordable = affordable.max(1);
    log.warn(
        "few_file_descriptors",
        &[
            ("limit", &limit.to_string()),
            ("connections", &affordable.to_string()),
            (
                "hint",
                "raise it with ulimit -n, or lower LIMIT_CONNECTIONS",
            ),
        ],
    );
    affordable
}

/// The limit as high as it goes without asking anybody; `None`: there is none.
fn raised_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Some systems have no hard limit and yet refuse so high a soft one: then it stays as it was.
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}
