//! The files that settings name may be anything: pipes, devices, halves. No start, check or reload hangs on one, or reads without
//! end, and the message names the setting and the path.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::attack::tls::{EC, Files};
use crate::fake_postiz::{CLIENT_SECRET, FakePostiz};
use crate::support::server::ServerSetup;
use crate::support::{Store, TestServer, each, eventually, run};

/// Files that no setting can use, and what is said of each.
struct Odd {
    folder: tempfile::TempDir,
}

impl Odd {
    fn new() -> Odd {
        let folder = tempfile::tempdir().unwrap();
        make_pipe(&folder.path().join("pipe"));
        symlink("/dev/zero", folder.path().join("endless")).unwrap();
        fs::write(folder.path().join("large"), vec![b'a'; 1024 * 1024 + 1]).unwrap();
        let odd = Odd { folder };
        for name in ["pipe", "large"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(odd.path(name), mode).unwrap();
        }
        odd
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

/// Start and check end with this code and these words.
#[track_caller]
fn assert_refused(setup: &ServerSetup, code: i32, words: &[&str]) {
    each([&[][..], &["--check"]], |arguments| {
        let output = setup.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in {stderr}");
        }
    });
}

const KINDS: [(&str, &str); 2] = [
    ("pipe", "it is not a regular file"),
    ("endless", "it is not a regular file"),
];

#[test]
fn files_of_certificates_must_be_regular() {
    let (odd, files) = (Odd::new(), Files::new());
    files.certificate("own", EC);
    let large = ("large", "it is larger than 1024 KiB");
    for (name, words) in KINDS.into_iter().chain([large]) {
        let path = odd.path(name);
        for variable in ["TLS_CERT_FILE", "TLS_KEY_FILE"] {
            let setup = files.setup("own.crt", "own.key").var(variable, &path);
            assert_refused(&setup, 2, &[variable, &path, words]);
        }
        let setup = TestServer::setup(Store::Embedded);
        for variable in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
            // Their files may be larger: whole bundles of roots.
            if name != "large" {
                assert_refused(
                    &setup.clone().var(variable, &path),
                    2,
                    &[variable, &path, words],
                );
            }
        }
        for parameter in ["sslrootcert", "sslcert"] {
            let key = files.path("own.key");
            let url = match parameter {
                "sslrootcert" => format!("postgres://u@h/d?sslmode=verify-full&sslrootcert={path}"),
                _ => format!("postgres://u@h/d?sslmode=require&sslcert={path}&sslkey={key}"),
            };
            let setup = setup.clone().var("DATABASE_URL", &url);
            assert_refused(&setup, 2, &["DATABASE_URL", parameter, &path, words]);
        }
        // A device is open to others, which is found first.
        if name != "endless" {
            let certificate = files.path("own.crt");
            let url =
                format!("postgres://u@h/d?sslmode=require&sslcert={certificate}&sslkey={path}");
            let setup = setup.var("DATABASE_URL", &url);
            assert_refused(&setup, 2, &["DATABASE_URL", "sslkey", &path, words]);
        }
    }
}

/// The system's roots are those of SSL_CERT_FILE for PostgreSQL, too.
#[test]
fn roots_of_the_environment_hold_no_database_url() {
    let (odd, files) = (Odd::new(), Files::new());
    files.certificate("own", EC);
    let [certificate, key] = ["own.crt", "own.key"].map(|name| files.path(name));
    let url = format!("postgres://u@h/d?sslmode=verify-full&sslcert={certificate}&sslkey={key}");
    let setup = TestServer::setup(Store::Embedded).var("DATABASE_URL", &url);
    let path = odd.path("pipe");
    let setup = setup.var("SSL_CERT_FILE", &path);
    assert_refused(&setup, 2, &["SSL_CERT_FILE", &path, "not a regular file"]);
}

#[test]
fn files_of_secrets_end() {
    let odd = Odd::new();
    let settings = [
        ("SERVER_SECRET_FILE", "SERVER_SECRET"),
        (
            "POSTIZ_OAUTH_CLIENT_SECRET_FILE",
            "POSTIZ_OAUTH_CLIENT_SECRET",
        ),
        ("DATABASE_URL_FILE", "DATABASE_URL"),
    ];
    each(settings, |(variable, setting)| {
        let setup = TestServer::setup(Store::Embedded).without(setting);
        for (name, words) in [
            (
                "pipe",
                "it is a pipe whose writer has not finished within 5 s",
            ),
            ("endless", "it is not a regular file"),
            ("large", "it is larger than 1024 KiB"),
        ] {
            let path = odd.path(name);
            assert_refused(
                &setup.clone().var(variable, &path),
                2,
                &[variable, &path, words],
            );
        }
    });
}

/// A shell's `<(…)`, whose writer may start later than the server, and a named pipe with a writer.
#[test]
fn secret_may_come_from_a_pipe() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let setup = setup.without("POSTIZ_OAUTH_CLIENT_SECRET");
    let check = |script: &str, path: &str| {
        let command = setup.command();
        let variables = command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        let mut shell = Command::new("bash");
        shell
            .args(["-c", script, "bash"])
            .arg(command.get_program())
            .arg(path);
        let output = run(shell
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(variables));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{script}: {stderr}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("knows the OAuth app"));
    };
    for wait in ["", "sleep 1; "] {
        let script =
            format!("POSTIZ_OAUTH_CLIENT_SECRET_FILE=<({wait}echo {CLIENT_SECRET}) \"$1\" --check");
        check(&script, "");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    make_pipe(&path);
    let writer = {
        let path = path.clone();
        thread::spawn(move || fs::write(path, CLIENT_SECRET).unwrap())
    };
    check(
        "POSTIZ_OAUTH_CLIENT_SECRET_FILE=\"$2\" \"$1\" --check",
        path.to_str().unwrap(),
    );
    writer.join().unwrap();
}

/// What stands beside the store, and the store itself.
#[test]
fn pipes_in_the_place_of_the_store_hold_nothing() {
    for name in ["postiz-auth.redb", "postiz-auth.redb.secret"] {
        let setup = TestServer::setup(Store::Embedded)
            .without("POSTIZ_OAUTH_CLIENT_ID")
            .without("POSTIZ_OAUTH_CLIENT_SECRET");
        fs::create_dir(setup.data_dir()).unwrap();
        make_pipe(&setup.data_dir().join(name));
        let output = setup.run(&[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(name), "{stderr}");
    }
    let setup = TestServer::setup(Store::Embedded);
    fs::create_dir(setup.data_dir()).unwrap();
    let path = setup.data_dir().join("postiz-auth.redb");
    symlink("/dev/zero", path).unwrap();
    assert_eq!(setup.run(&["--check"]).status.code(), Some(1));
}

/// The running server answers signals and keeps its certificate, whatever its files become; then it stops.
#[test]
fn reload_never_waits_for_a_file() {
    let (odd, files) = (Odd::new(), Files::new());
    files.certificate("own", EC);
    for name in ["own.crt", "own.key"] {
        fs::copy(files.path(name), files.path(&format!("live{}", &name[3..]))).unwrap();
    }
    let mut server = files.setup("live.crt", "live.key").start();
    let half = files.read("own.crt").split_at(300).0.to_owned();
    fs::write(odd.path("half"), half).unwrap();
    let cut = "is cut off: \\\"-----END CERTIFICATE-----\\\" is missing";
    for (name, words) in KINDS.into_iter().chain([("half", cut)]) {
        let (live, new) = (files.path("live.crt"), files.path("new"));
        symlink(odd.path(name), &new).unwrap();
        fs::rename(&new, &live).unwrap();
        let before = server.log().lines().count();
        server.signal("HUP");
        eventually(words, || {
            let log = server.log();
            let mut lines = log.lines().skip(before);
            lines.any(|line| line.contains("TLS_CERT_FILE") && line.contains(words))
        });
        files.connect(&server);
    }
    // As Kubernetes replaces them: a link to a folder changes.
    fs::create_dir(files.path("2")).unwrap();
    fs::copy(files.path("own.crt"), files.path("2/tls.crt")).unwrap();
    symlink("2", files.path("..data")).unwrap();
    symlink("..data/tls.crt", files.path("new")).unwrap();
    fs::rename(files.path("new"), files.path("live.crt")).unwrap();
    server.signal("HUP");
    eventually("it is loaded", || {
        server.log().matches("certificate loaded").count() == 2
    });
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

/// A check whose configuration comes from a pipe that stays open ends all the same.
#[test]
fn open_pipe_does_not_hold_a_start() {
    let setup = TestServer::setup(Store::Embedded).var("SERVER_SECRET_FILE", "/dev/stdin");
    let mut child = setup
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let held = child.stdin.take();
    let status = crate::support::wait_for_exit(&mut child);
    assert_eq!(status.code(), Some(2));
    drop(held);
}
