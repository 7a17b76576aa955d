//! How many connections fit into the operating system's limits for this process: each needs file descriptors and a thread.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

use crate::server::log::Log;

/// Descriptors for one client: its socket, and one to Postiz or a file.
const DESCRIPTORS_PER_CLIENT: u64 = 2;
/// Descriptors for one connection to PostgreSQL: its socket, and those of its client library's event loop.
const DESCRIPTORS_PER_DATABASE_CONNECTION: u64 = 4;
/// Descriptors for the rest: the listener, the log, the store's file, name resolution.
const DESCRIPTORS_FOR_THE_SERVER: u64 = 24;
/// Threads beside those of connections: main, signals, accepting, watchdog, janitor, name resolution.
const THREADS_FOR_THE_SERVER: u64 = 16;

/// How many of `wanted` client connections fit, beside `database_connections`. Logs a warning if fewer do. An error if not even
/// one does.
pub(crate) fn affordable_connections(
    wanted: u32,
    database_connections: usize,
    log: &Log,
) -> Result<u32, String> {
    // Twice: a connection that hangs is kept beside its replacement.
    let for_database = 2 * DESCRIPTORS_PER_DATABASE_CONNECTION * database_connections as u64;
    let descriptors = sufficient_descriptors(database_connections)?.map(|limit| {
        let spare = limit.saturating_sub(DESCRIPTORS_FOR_THE_SERVER + for_database);
        (limit, spare / DESCRIPTORS_PER_CLIENT)
    });
    let threads = thread_limit().map(|limit| (limit, limit.saturating_sub(THREADS_FOR_THE_SERVER)));
    let mut affordable = wanted;
    let mut apply = |event: &'static str, found: Option<(u64, u64)>, hint: &str| {
        let Some((limit, connections)) = found else {
            return;
        };
        let connections = u32::try_from(connections).unwrap_or(u32::MAX).max(1);
        if connections < wanted {
            affordable = affordable.min(connections);
            let (limit, connections) = (limit.to_string(), connections.to_string());
            let fields = [
                ("limit", &*limit),
                ("connections", &connections),
                ("hint", hint),
            ];
            log.warn(event, &fields);
        }
    };
    let hint = "raise it with ulimit -n, or lower LIMIT_CONNECTIONS";
    apply("few_file_descriptors", descriptors, hint);
    let hint = "raise ulimit -u or the container's limit on pids, or lower LIMIT_CONNECTIONS";
    apply("few_threads", threads, hint);
    Ok(affordable)
}

/// Raises the soft limit on descriptors to the hard one, and returns it; `None`: unlimited. An error if it is too low for one
/// client.
pub(crate) fn sufficient_descriptors(database_connections: usize) -> Result<Option<u64>, String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // macOS has no hard limit, but refuses an unlimited soft one.
    let is_raised = setrlimit(Resource::Nofile, raised).is_ok();
    let limit = if is_raised { maximum } else { current };
    let for_database = DESCRIPTORS_PER_DATABASE_CONNECTION * database_connections as u64;
    let needed = DESCRIPTORS_FOR_THE_SERVER + for_database + DESCRIPTORS_PER_CLIENT;
    match limit.filter(|limit| *limit < needed) {
        None => Ok(limit),
        Some(few) => {
            let or = match database_connections {
                0 => String::new(),
                _ => format!(
                    ", or lower DATABASE_POOL_SIZE: {database_connections} connections take {for_database}"
                ),
            };
            Err(format!(
                "the process may have {few} files and sockets open (ulimit -n), and the server needs {needed} at least; \
                 raise that limit (ulimit -n, systemd: LimitNOFILE=, containers: --ulimit nofile=){or}"
            ))
        }
    }
}

/// How many threads this process may have: the lower of its user's limit (none for root) and its control groups'.
fn thread_limit() -> Option<u64> {
    let of_user = getrlimit(Resource::Nproc)
        .current
        .filter(|_| !getuid().is_root());
    let own_groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = pids_max_files(&own_groups).filter_map(|file| {
        let limit = fs::read_to_string(file).ok()?;
        limit.trim().parse().ok()
    });
    of_groups.chain(of_user).min()
}

/// The `pids.max` files of the control groups that `/proc/self/cgroup` lists, of version 2 and 1. In a container the file is at
/// the root, whatever the list says.
fn pids_max_files(own_groups: &str) -> impl Iterator<Item = String> {
    own_groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next(), parts.next().unwrap_or_default());
        let root = match controllers {
            Some("") => "/sys/fs/cgroup",
            Some("pids") => "/sys/fs/cgroup/pids",
            _ => return Vec::new(),
        };
        let group = group.trim_end_matches('/');
        vec![
            format!("{root}{group}/pids.max"),
            format!("{root}/pids.max"),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_max_files_cover_both_cgroup_versions() {
        let files = |text| pids_max_files(text).collect::<Vec<_>>();
        assert_eq!(
            files("0::/system.slice/auth.service\n"),
            [
                "/sys/fs/cgroup/system.slice/auth.service/pids.max",
                "/sys/fs/cgroup/pids.max"
            ]
        );
        assert_eq!(
            files("3:cpu,cpuacct:/x\n2:pids:/docker/1\n"),
            [
                "/sys/fs/cgroup/pids/docker/1/pids.max",
                "/sys/fs/cgroup/pids/pids.max"
            ]
        );
        assert!(files("").is_empty() && files("nonsense").is_empty());
    }
}
