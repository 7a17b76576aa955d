//! A database that stops answering while its connections stay open, as on a frozen machine.

use super::Cluster;

/// A cluster whose processes are stopped (SIGSTOP) until this is dropped.
pub struct Frozen<'a>(&'a Cluster);

impl Frozen<'_> {
    /// Stops all its processes.
    pub fn new(cluster: &Cluster) -> Frozen<'_> {
        let frozen = Frozen(cluster);
        cluster.control("freeze");
        frozen
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.control("thaw");
    }
}
