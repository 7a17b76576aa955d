//! A private PostgreSQL for the tests. One cluster serves the whole run, with a new database for each test; tests that stop
//! PostgreSQL start a cluster of their own. `postgres_guard.sh` ends each cluster with this process, even a killed one.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use postgres::{Client, NoTls};

use super::eventually;
use super::tls::make_certificates;

/// The superuser's password. It is unique, so that tests can search logs and pages for it.
pub const PASSWORD: &str = "dbpw0that0must0not0leak";

/// A running PostgreSQL; ends when dropped, or with this process.
pub struct Cluster {
    port: u16,
    databases: AtomicU32,
    guard: Mutex<Guard>,
}

/// The script that starts and ends the cluster.
struct Guard {
    child: Child,
    /// The guard ends when this is closed.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// A database of a cluster.
#[derive(Clone, Debug)]
pub struct Database {
    port: u16,
    name: String,
}

impl Cluster {
    /// The cluster that all tests share, started on first use.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Cluster::start_with("", &[]))
    }

    /// A cluster for one test, which may stop and start it.
    pub fn start_new() -> Cluster {
        Cluster::start_with(&Cluster::shared().file(""), &[])
    }

    /// A cluster that also accepts encrypted connections, with a certificate for `localhost`, and has its socket in its folder.
    pub fn start_with_tls() -> Cluster {
        Cluster::start_with(&Cluster::shared().file(""), &["tls"])
    }

    /// Starts a cluster on a copy of the initial data of the cluster in the folder `template`, since initdb takes a second.
    fn start_with(template: &str, options: &[&str]) -> Cluster {
        // Another process may take the free port first, so it tries several times.
        let mut tries = (0..5).map(|_| Cluster::try_start(template, options));
        let last = tries.find(Result::is_ok);
        last.and_then(Result::ok).unwrap_or_else(|| {
            let why = Cluster::try_start(template, options)
                .err()
                .unwrap_or_default();
            panic!("cannot start PostgreSQL (on Debian: apt-get install postgresql): {why}")
        })
    }

    fn try_start(template: &str, options: &[&str]) -> Result<Cluster, String> {
        let port = free_port();
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/support/postgres_guard.sh"
        );
        let mut child = Command::new("sh")
            .args([script, &port.to_string(), PASSWORD, template])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // In its own process group, so that Ctrl-C ends the tests first and the guard after them.
            .process_group(0)
            .spawn()
            .map_err(|e| e.to_string())?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("the stream is piped"));
        let mut guard = Guard {
            child,
            commands,
            answers,
        };
        match guard.answer().as_str() {
            "ready" => Ok(Cluster {
                port,
                databases: AtomicU32::new(0),
                guard: Mutex::new(guard),
            }),
            problem => Err(problem.to_owned()),
        }
    }

    /// A new, empty database.
    pub fn database(&self) -> Database {
        let number = self.databases.fetch_add(1, Ordering::SeqCst);
        let name = format!("test_{number}");
        let database = self.existing("postgres");
        let create = format!("CREATE DATABASE {name} TEMPLATE template0");
        database.run(&create);
        self.existing(&name)
    }

    /// A database by its name; it need not exist.
    pub fn existing(&self, name: &str) -> Database {
        Database {
            port: self.port,
            name: name.to_owned(),
        }
    }

    /// Sends the guard a command: `stop` (as an administrator), `kill` (as a crash), `sigkill` (SIGKILL to all processes),
    /// `start`, `freeze` (SIGSTOP to all processes) or `thaw` (SIGCONT).
    pub fn control(&self, command: &str) {
        assert_eq!(self.tell(command), "done", "{command}");
    }

    /// The path of a file in its folder: `ca.crt` is the authority of its certificate, `other.crt` an unrelated one.
    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.tell("folder"))
    }

    /// Stops it, runs a shell script in its folder and starts it again. The script may make another `server.crt` and
    /// `server.key` by `certificates.sh`.
    pub fn restart_after(&self, script: &str) {
        self.control("stop");
        let folder = self.file("");
        make_certificates(folder.as_ref(), script);
        let started = self.tell("start");
        let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        assert_eq!(started, "done", "{script}: {last:?}");
    }

    /// Runs a shell script in its folder and reloads its certificate and its settings.
    pub fn reload_after(&self, script: &str) {
        let loaded_at = || -> String {
            let mut client = self.existing("postgres").connect();
            let row = client.query_one("SELECT pg_conf_load_time()::text", &[]);
            row.expect("a time").get(0)
        };
        let before = loaded_at();
        make_certificates(self.file("").as_ref(), script);
        self.control("reload");
        eventually("it has read its settings", || loaded_at() != before);
    }

    fn tell(&self, command: &str) -> String {
        let mut guard = self.guard.lock().expect("no test panics in here");
        let commands = guard.commands.as_mut().expect("open until dropped");
        writeln!(commands, "{command}").expect("the guard listens");
        guard.answer()
    }
}

impl Guard {
    fn answer(&mut self) -> String {
        let mut line = String::new();
        // The empty string of a guard that has ended equals no valid answer.
        self.answers.read_line(&mut line).ok();
        line.trim().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let guard = self.guard.get_mut().expect("no test panics in here");
        drop(guard.commands.take());
        // However it ends, it is gone.
        guard.child.wait().ok();
    }
}

impl Database {
    /// Its `postgres://…` URL.
    pub fn url(&self) -> String {
        self.url_with("127.0.0.1", "sslmode=disable")
    }

    /// Its URL with this host and these parameters.
    pub fn url_with(&self, host: &str, parameters: &str) -> String {
        let Database { port, name } = self;
        format!("postgres://postgres:{PASSWORD}@{host}:{port}/{name}?{parameters}")
    }

    /// Its name, as PostgreSQL knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its server listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The same database by another port, on which a proxy listens.
    pub fn behind(&self, port: u16) -> Database {
        Database {
            port,
            name: self.name.clone(),
        }
    }

    /// A new connection for the test.
    pub fn connect(&self) -> Client {
        Client::connect(&self.url(), NoTls).expect("the test's database is there")
    }

    /// Runs statements and drops their results.
    pub fn run(&self, statements: &str) {
        let done = self.connect().batch_execute(statements);
        done.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    }

    /// All its tables as text, as a stolen backup would hold them.
    pub fn dump(&self) -> String {
        let mut client = self.connect();
        let tables = "SELECT table_schema || '.' || table_name FROM information_schema.tables \
                      WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";
        let tables = client
            .query(tables, &[])
            .expect("the catalogue is readable");
        let mut dump = String::new();
        for table in tables {
            let name: String = table.get(0);
            let rows = client.query(&format!("SELECT t::text FROM {name} t"), &[]);
            for row in rows.expect("the table is readable") {
                dump += &format!("{name}: {}\n", row.get::<_, String>(0));
            }
        }
        dump
    }
}

/// A port on which no process listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    listener.local_addr().expect("it is bound").port()
}
