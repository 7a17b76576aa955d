//! Threads, descriptors and resource limits of a running process, read from outside.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

use super::run;

/// The number of its threads.
pub fn threads(process: &Child) -> usize {
    thread_names(process).len()
}

/// The names of its threads.
pub fn thread_names(process: &Child) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    // A thread may end before its name is read.
    let names = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    });
    names.collect()
}

/// Sets its limit such that it can open `spare` more descriptors. (The limit is on the number of a descriptor, not on their
/// count.)
pub fn leave_descriptors(process: &Child, spare: usize) {
    let folder = fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it runs");
    let open = folder.flatten().map(|entry| entry.file_name());
    let open: Vec<usize> = open
        .filter_map(|number| number.to_str()?.parse().ok())
        .collect();
    let mut free = (0..).filter(|number| !open.contains(number));
    let limit = free.nth(spare).expect("numbers do not end");
    set_limit(process, "nofile", &format!("{limit}:"));
}

/// Sets a limit of a running process, in the syntax of `prlimit`: `set_limit(child, "nofile", "3:")` sets the soft one.
pub fn set_limit(process: &Child, resource: &str, limit: &str) {
    let (id, limit) = (process.id().to_string(), format!("--{resource}={limit}"));
    let folder = fs::metadata(format!("/proc/{id}")).expect("it runs");
    let (user, group) = (folder.uid(), folder.gid());
    let mut command = if user == getuid().as_raw() {
        Command::new("prlimit")
    } else {
        // In a container even root may not set a limit of another user's process.
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={group}")]);
        command.args(["--clear-groups", "prlimit"]);
        command
    };
    let output = run(command.args(["--pid", &id, &limit]));
    assert!(output.status.success(), "{limit}: {output:?}");
}

/// Raises this process's descriptor limit for tests with many connections.
pub fn raise_own_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum.map(|maximum| maximum.min(65_536)),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
}
