//! Runs the `postiz` program with its own home and environment, and has a scripted server for the other end.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::fake_postiz::http::{self, Delivery, HttpServer, Response};
use crate::support::program;

/// A request as it arrived.
pub(super) use crate::fake_postiz::http::Request as Asked;
pub(super) use crate::support::{each, eventually as until};

/// A run of the program in preparation: with an empty home, and only the environment that the test gives it.
pub(super) struct Cli {
    pub(super) home: Home,
    arguments: Vec<OsString>,
    vars: Vec<(String, OsString)>,
    stdin: Vec<u8>,
}

/// A home folder that is removed at the end of the test.
#[derive(Clone)]
pub(super) struct Home(Arc<tempfile::TempDir>);

/// The result of a run.
pub(super) struct Done {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// The program with these arguments, separated by blanks.
pub(super) fn postiz(arguments: &str) -> Cli {
    Cli::new().args(arguments.split_whitespace())
}

impl Cli {
    pub(super) fn new() -> Cli {
        Cli::at(Home::new())
    }

    /// With a home that an earlier run may have used.
    pub(super) fn at(home: Home) -> Cli {
        Cli {
            home,
            arguments: Vec::new(),
            vars: Vec::new(),
            stdin: Vec::new(),
        }
    }

    pub(super) fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Cli {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(super) fn arg(self, argument: impl Into<OsString>) -> Cli {
        self.args([argument.into()])
    }

    pub(super) fn var(mut self, name: &str, value: impl Into<OsString>) -> Cli {
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Cli {
        self.stdin = bytes.into();
        self
    }

    /// Signed in with an API key, for the API of `server`.
    pub(super) fn key_for(self, server: &Server) -> Cli {
        self.var("POSTIZ_API_KEY", "key-0123456789abcdef0123456789abcdef")
            .var("POSTIZ_API_URL", server.url())
    }

    /// The process to start. Its stdin is closed unless the test sends something.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(program("postiz"));
        command
            .args(&self.arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .stdin(if self.stdin.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(super) fn spawn(&self) -> Child {
        let mut child = self.command().spawn().expect("postiz starts");
        if let Some(mut stdin) = child.stdin.take() {
            let bytes = self.stdin.clone();
            // A program that does not read its stdin must not block the test.
            thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        child
    }

    pub(super) fn run(&self) -> Done {
        Done::from(self.spawn().wait_with_output().expect("postiz ends"))
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Done {
        Done {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

impl Done {
    /// Asserts the exit code. Like the other assertions, returns itself for more.
    #[track_caller]
    pub(super) fn code(self, code: i32) -> Done {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self
    }

    #[track_caller]
    pub(super) fn stdout(self, expected: &str) -> Done {
        assert_eq!(self.stdout, expected, "stderr: {}", self.stderr);
        self
    }

    #[track_caller]
    pub(super) fn stderr(self, expected: &str) -> Done {
        assert_eq!(self.stderr, expected, "stdout: {}", self.stdout);
        self
    }

    #[track_caller]
    pub(super) fn stderr_has(self, part: &str) -> Done {
        assert!(
            self.stderr.contains(part),
            "no {part:?} in stderr: {}",
            self.stderr
        );
        self
    }

    #[track_caller]
    pub(super) fn stdout_has(self, part: &str) -> Done {
        assert!(
            self.stdout.contains(part),
            "no {part:?} in stdout: {}",
            self.stdout
        );
        self
    }

    /// Asserts that neither stream shows `secret`.
    #[track_caller]
    pub(super) fn hides(self, secret: &str) -> Done {
        assert!(
            !self.stdout.contains(secret) && !self.stderr.contains(secret),
            "{secret} is shown"
        );
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// Each line of stdout as JSON.
    #[track_caller]
    pub(super) fn events(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }
}

impl Home {
    pub(super) fn new() -> Home {
        Home(Arc::new(tempfile::tempdir().expect("a temporary folder")))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The credentials file, unless a variable moves it.
    pub(super) fn credentials(&self) -> PathBuf {
        self.file(".postiz/credentials.json")
    }

    /// Writes a file, and creates its folder.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Home {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(path, content).expect("a file");
        self
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("the file is there")
    }

    /// Stores a login for the API at `api_url`.
    pub(super) fn signed_in(&self, api_url: &str) -> &Home {
        let text = format!(
            "{{\n  \"accessToken\": \"{TOKEN}\",\n  \"apiUrl\": \"{api_url}\",\n  \"organizationId\": \"org-1\"\n}}"
        );
        self.write(".postiz/credentials.json", text)
    }

    /// The names of the files in the credentials' folder.
    pub(super) fn credentials_folder(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.file(".postiz")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// An executable script that the program finds instead of another program.
    pub(super) fn script(&self, name: &str, body: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, format!("#!/bin/sh\n{body}\n"));
        std::fs::set_permissions(self.file(name), std::fs::Permissions::from_mode(0o755))
            .expect("an executable");
        self.file(name)
    }
}

/// An ID in Postiz' form: other text would be looked up as a name.
pub(super) const CHANNEL: &str = "cm4ean69r0003w8w1cdomox9n";

/// The token of the tests' logins.
pub(super) const TOKEN: &str = "pos_abcdefghijklmnopqrstuvwxyz012345";

/// A server that answers by a script and records the requests.
pub(super) struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What the server does after a request.
pub(super) enum Reply {
    /// Status, further head lines, body.
    Answer(u16, String, Vec<u8>),
    /// Sends these bytes, and closes the connection.
    Raw(Vec<u8>),
    /// Closes the connection without an answer.
    Drop,
}

impl Reply {
    pub(super) fn json(status: u16, body: &str) -> Reply {
        Reply::Answer(
            status,
            "Content-Type: application/json\r\n".to_owned(),
            body.as_bytes().to_vec(),
        )
    }

    pub(super) fn html(status: u16, body: &str) -> Reply {
        Reply::Answer(
            status,
            "Content-Type: text/html\r\n".to_owned(),
            body.as_bytes().to_vec(),
        )
    }

    pub(super) fn with(self, header: &str) -> Reply {
        match self {
            Reply::Answer(status, headers, body) => {
                Reply::Answer(status, format!("{headers}{header}\r\n"), body)
            }
            other => other,
        }
    }
}

impl From<Reply> for http::Reply {
    fn from(reply: Reply) -> http::Reply {
        let (status, headers, body, delivery) = match reply {
            Reply::Answer(status, headers, body) => (status, headers, body, Delivery::Prompt),
            Reply::Raw(bytes) => (200, String::new(), Vec::new(), Delivery::Raw(bytes)),
            Reply::Drop => (200, String::new(), Vec::new(), Delivery::Cut),
        };
        let headers = headers.lines().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let response = Response {
            status,
            headers: headers.collect(),
            body,
        };
        http::Reply { response, delivery }
    }
}

impl Server {
    /// A server on a free port. `script` gets each request, and the number of requests before it.
    pub(super) fn new(script: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Server {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let http = HttpServer::start(0, move |request: &Asked| {
            let before = {
                let mut log = log.lock().expect("no handler panicked");
                log.push(request.clone());
                log.len() - 1
            };
            script(request, before)
        });
        let http = http.expect("a free port");
        let url = http.url();
        // It serves until the tests end, since some pass its address on and drop it.
        std::mem::forget(http);
        Server { url, asked }
    }

    /// A server that always gives the same answer.
    pub(super) fn always(status: u16, body: &'static str) -> Server {
        Server::new(move |_, _| Reply::json(status, body))
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no handler panicked").clone()
    }

    /// The method and target of all requests.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }

    /// The only request.
    #[track_caller]
    pub(super) fn only(&self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{:?}", self.lines());
        asked[0].clone()
    }
}
