//! Metrics of the process, by the names that Prometheus' client libraries use. Values that the system does not provide are left
//! out.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::server::metrics::text::Text;

pub(super) fn print(text: &mut Text) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = number(&status, "VmRSS:") {
        let name = "process_resident_memory_bytes";
        text.gauge(name, "Resident memory size in bytes.", kib * 1024);
    }
    if let Some(threads) = number(&status, "Threads:") {
        text.gauge("process_threads", "Number of threads.", threads);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is open for this listing.
        let open = open.count().saturating_sub(1) as u64;
        text.gauge("process_open_fds", "Number of open file descriptors.", open);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        let help = "Maximum number of open file descriptors.";
        text.gauge("process_max_fds", help, most);
    }
}

/// The number after `field` in the text of `/proc/self/status`.
fn number(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_found_by_its_field() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t7\n";
        assert_eq!(number(status, "VmRSS:"), Some(2048));
        assert_eq!(number(status, "Threads:"), Some(7));
        assert_eq!(number(status, "VmHWM:"), None);
        assert_eq!(number("", "Threads:"), None);
    }
}
