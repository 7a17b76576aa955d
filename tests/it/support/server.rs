//! Runs the real server program: on a free port, with its log collected, until the end of the test.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;

use postiz::server::times::{self, Times};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use super::http::{self, Answer};
use super::postgres::{Cluster, Database};
use super::tls::Authority;
use crate::fake_postiz::{CLIENT_ID, CLIENT_SECRET, FakePostiz};

/// The store that a server keeps its logins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A file of its own.
    Embedded,
    /// A fresh database.
    Postgres,
}

/// A running server; killed when dropped.
pub struct TestServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its public URL, which it sends to clients.
    pub public_url: String,
    /// The process.
    pub child: Child,
    /// Its stderr. A file, since a line written before an answer is then in it when the answer arrives.
    log: NamedTempFile,
    // Its folder, removed after the process has ended.
    _dir: Arc<TempDir>,
}

/// A server's settings before its start. One setup can start several instances, or the same one again after a crash.
#[derive(Clone)]
pub struct ServerSetup {
    variables: Vec<(String, String)>,
    /// A command that runs the server as its argument; empty for none.
    wrapper: Vec<String>,
    dir: Arc<TempDir>,
}

impl TestServer {
    /// Starts a server on `store` for `postiz`, and registers its callback URL there.
    pub fn start(store: Store, postiz: &FakePostiz) -> TestServer {
        TestServer::setup(store).start_for(postiz)
    }

    /// The settings of a server on `store`, to be changed before the start.
    pub fn setup(store: Store) -> ServerSetup {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let setup = ServerSetup {
            variables: Vec::new(),
            wrapper: Vec::new(),
            dir: Arc::new(dir),
        };
        let setup = setup
            .var("HOST", "127.0.0.1")
            .var("PORT", "0")
            .var("POSTIZ_OAUTH_CLIENT_ID", CLIENT_ID)
            .var("POSTIZ_OAUTH_CLIENT_SECRET", CLIENT_SECRET)
            // All clients of a test share one address, so rate limits are off. Tests of rate limits set them.
            .var("LIMIT_LOGINS_PER_MINUTE", "0")
            .var("LIMIT_WRONG_CODES_PER_MINUTE", "0")
            .var("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL", "0")
            .var("LIMIT_CALLBACKS_PER_MINUTE", "0")
            .var("LIMIT_CONNECTIONS_PER_ADDRESS", "0");
        match store {
            Store::Embedded => setup.embedded(),
            Store::Postgres => setup.database(&Cluster::shared().database()),
        }
    }

    /// Sets this server's callback URL at `postiz`.
    pub fn register_at(&self, postiz: &FakePostiz) {
        postiz.set_callback_url(&format!("{}/device/callback", self.public_url));
    }

    /// Sends one request and returns the answer.
    pub fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        http::exchange(self.address, http::request(method, target, headers, body))
    }

    /// `GET`.
    pub fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    /// `GET` as a browser sends it for a navigation.
    pub fn page(&self, target: &str) -> Answer {
        self.send("GET", target, &[("Accept", "text/html")], b"")
    }

    /// `POST` with JSON.
    pub fn post_json(&self, target: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.send("POST", target, &headers, body.to_string().as_bytes())
    }

    /// `POST` with a form that the caller has encoded.
    pub fn post_form(&self, target: &str, body: &str) -> Answer {
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        self.send("POST", target, &headers, body.as_bytes())
    }

    /// All complete lines of its log so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).expect("the log is there");
        let log = String::from_utf8_lossy(&bytes);
        log.rsplit_once('\n').unwrap_or_default().0.to_owned()
    }

    /// Sends a signal (`TERM`, `INT`, `KILL`).
    pub fn signal(&self, name: &str) {
        super::signal(&self.child, name);
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        super::wait_for_exit(&mut self.child)
    }

    /// Kills it, as a crash would, and waits until it has ended.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().expect("the child can be waited for");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("log of the server at {}:\n{}", self.address, self.log());
        }
    }
}

impl ServerSetup {
    /// With this environment variable.
    pub fn var(mut self, name: &str, value: &str) -> ServerSetup {
        self.variables.retain(|(n, _)| n != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With one timeout shorter: `.time(|times| times.request = …)`.
    pub fn time(self, shorten: fn(&mut Times)) -> ServerSetup {
        let mut times = Times::DEFAULT;
        shorten(&mut times);
        self.times(&times)
    }

    /// With shorter timeouts, so that tests need not wait for the real ones. Release builds have only the defaults.
    pub fn times(self, times: &Times) -> ServerSetup {
        let text = serde_json::to_string(times).expect("times are JSON");
        self.var(times::TEST_VARIABLE, &text)
    }

    /// Without this environment variable.
    pub fn without(mut self, name: &str) -> ServerSetup {
        self.variables.retain(|(n, _)| n != name);
        self
    }

    /// Under a limit that the shell's `ulimit` sets, such as `-n 128`.
    pub fn limited(self, ulimit: &str) -> ServerSetup {
        self.wrapped(&["/bin/sh", "-c"], &format!("ulimit {ulimit}"))
    }

    /// In a mount namespace of its own, in which this command makes mounts. Needs root.
    pub fn in_own_mounts(self, mount: &str) -> ServerSetup {
        self.wrapped(&["unshare", "-m", "/bin/sh", "-c"], mount)
    }

    fn wrapped(mut self, shell: &[&str], first: &str) -> ServerSetup {
        self.wrapper = shell.iter().map(ToString::to_string).collect();
        self.wrapper.push(format!("{first} && exec \"$0\" \"$@\""));
        self
    }

    /// For this Postiz, unless another one is set.
    pub fn postiz(mut self, postiz: &FakePostiz) -> ServerSetup {
        for name in ["POSTIZ_FRONTEND_URL", "POSTIZ_API_URL"] {
            if self.variables.iter().all(|(n, _)| n != name) {
                self = self.var(name, &postiz.url());
            }
        }
        self
    }

    /// With https and the certificate of `authority`.
    pub fn https(self, authority: &Authority) -> ServerSetup {
        let path = |name| authority.file(name).display().to_string();
        self.var("TLS_CERT_FILE", &path("server.crt"))
            .var("TLS_KEY_FILE", &path("server.key"))
    }

    /// With this database as its store.
    pub fn database(self, database: &Database) -> ServerSetup {
        self.without("DATA_DIR")
            .var("DATABASE_URL", &database.url())
    }

    fn embedded(self) -> ServerSetup {
        let data = self.data_dir().display().to_string();
        self.var("DATA_DIR", &data)
    }

    /// The folder of the embedded store.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The command that starts the program, with only the environment that was set here.
    pub fn command(&self) -> Command {
        let program = super::program("postiz-auth-server");
        let mut words = self
            .wrapper
            .iter()
            .map(OsString::from)
            .chain([program.into()]);
        let mut command = Command::new(words.next().expect("there is at least the program"));
        command.args(words);
        command.env_clear().current_dir(self.dir.path());
        let variables = self.variables.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        command.envs(variables);
        command
    }

    /// Runs it with these arguments until it ends.
    pub fn run(&self, args: &[&str]) -> Output {
        super::run(self.command().args(args))
    }

    /// Starts it for `postiz`, and registers its callback URL there.
    pub fn start_for(&self, postiz: &FakePostiz) -> TestServer {
        let server = self.clone().postiz(postiz).start();
        server.register_at(postiz);
        server
    }

    /// Starts it and waits until it listens.
    pub fn start(&self) -> TestServer {
        let mut server = self.start_without_waiting();
        let listening = super::eventually_some("the server listens", || {
            let found = listening_at(&server.log());
            let ended = server
                .child
                .try_wait()
                .expect("the child can be waited for");
            assert!(
                found.is_some() || ended.is_none(),
                "it ended: {}",
                server.log()
            );
            found
        });
        server.address = listening;
        if server.public_url.is_empty() {
            let tls = self.variables.iter().any(|(n, _)| n == "TLS_CERT_FILE");
            let scheme = if tls { "https" } else { "http" };
            server.public_url = format!("{scheme}://localhost:{}", listening.port());
        }
        server
    }

    /// Starts it without waiting. Its address is not known yet.
    pub fn start_without_waiting(&self) -> TestServer {
        let log = NamedTempFile::new_in(self.dir.path()).expect("the test may write the folder");
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().expect("it was made a moment ago"))
            .spawn()
            .expect("the server program starts");
        let public_url = self.variables.iter().find(|(n, _)| n == "SERVER_URL");
        TestServer {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: public_url.map_or(String::new(), |(_, url)| url.clone()),
            child,
            log,
            _dir: Arc::clone(&self.dir),
        }
    }
}

/// The address in the log's line `… listening on http://127.0.0.1:PORT`, or in JSON `"url":"http://127.0.0.1:PORT"`; the
/// scheme may be `https`.
fn listening_at(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|l| l.contains("listening"))?;
    let (_, rest) = line.split_once("://")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || ".:".contains(c)));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}
