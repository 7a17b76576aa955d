//! A private PgBouncer in transaction mode in front of a test cluster. `pooler_guard.sh` ends it with this process.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::Database;
use super::postgres::{PASSWORD, free_port};

/// A running PgBouncer; ends when dropped, or with this process.
pub struct Pooler {
    port: u16,
    child: Child,
    /// The guard ends when this is closed.
    stdin: Option<ChildStdin>,
}

impl Pooler {
    /// Starts one in front of the cluster of `database`. It has few sessions, so that its clients share them. `settings` are
    /// lines of its configuration.
    pub fn start(database: &Database, settings: &str) -> Pooler {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/support/pooler_guard.sh"
        );
        let port = free_port();
        let mut child = Command::new("sh")
            .arg(script)
            .args([port, database.address().port()].map(|port| port.to_string()))
            .args([PASSWORD, settings])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let stdin = child.stdin.take();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        super::eventually(
            "pgbouncer listens (on Debian: apt-get install pgbouncer)",
            || {
                let ended = child.try_wait().expect("the child can be waited for");
                assert!(ended.is_none(), "pgbouncer ended: {ended:?}");
                TcpStream::connect(address).is_ok()
            },
        );
        Pooler { port, child, stdin }
    }

    /// The same database through the pooler.
    pub fn database(&self, database: &Database) -> Database {
        database.behind(self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // The exit status does not matter.
        self.child.wait().ok();
    }
}
