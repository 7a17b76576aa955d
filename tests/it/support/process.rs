//! A process seen from outside: its threads, its descriptors, and the limits that the system sets it, also while it runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

use super::run;

/// How many threads it has.
pub fn threads(process: &Child) -> usize {
    thread_names(process).len()
}

/// The names of its threads.
pub fn thread_names(process: &Child) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    // A thread may end while it is looked at.
    let names = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    });
    names.collect()
}

/// Leaves it so many descriptors that it can open beside those that it has. (The limit is one on their numbers.)
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

/// Sets a limit of a running process, as `prlimit` takes it: `set_limit(child, "nofile", "3:")` for the soft one.
pub fn set_limit(process: &Child, resource: &str, limit: &str) {
    let (id, limit) = (process.id().to_string(), format!("--{resource}={limit}"));
    let folder = fs::metadata(format!("/proc/{id}")).expect("it runs");
    let (user, group) = (folder.uid(), folder.gid());
    let mut command = if user == getuid().as_raw() {
        Command::new("prlimit")
    } else {
        // In a container not even root may do it for another user.
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={group}")]);
        command.args(["--clear-groups", "prlimit"]);
        command
    };
    let output = run(command.args(["--pid", &id, &limit]));
    assert!(output.status.success(), "{limit}: {output:?}");
}

/// Lets this process have as many connections as tests with crowds need.
pub fn raise_own_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum.map(|maximum| maximum.min(65_536)),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
}
