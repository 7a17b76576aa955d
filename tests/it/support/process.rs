//! A process seen from outside: its threads, its descriptors, and the limits that the system sets it, also while it runs.

use std::fs;
use std::process::{Child, Command};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

/// How many descriptors it has open.
pub fn descriptors(process: &Child) -> usize {
    let folder = format!("/proc/{}/fd", process.id());
    fs::read_dir(folder).expect("it runs, and is ours").count()
}

/// Sets a limit of a running process, as `prlimit` takes it: `set_limit(child, "nofile", "3:")` for the soft one.
pub fn set_limit(process: &Child, resource: &str, limit: &str) {
    let (id, limit) = (process.id().to_string(), format!("--{resource}={limit}"));
    let output = run(Command::new("prlimit").args(["--pid", &id, &limit]));
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
