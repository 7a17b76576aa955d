//! What the machine gives the server, or does not: descriptors, the port of https, IPv4 beside IPv6, rights to its files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::fake_postiz::FakePostiz;
use crate::support::server::ServerSetup;
use crate::support::tls::{Authority, take_tls_off};
use crate::support::{Browser, Login, Store, TestServer, eventually, expect, http, program, run};

/// An account that nobody has.
const STRANGER: u32 = 64_321;

fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for word in words {
        assert!(told.contains(word), "no {word:?} in {told}");
    }
    assert!(
        !told.contains("panicked") && !told.contains("listening"),
        "{told}"
    );
}

#[test]
fn too_few_descriptors_are_refused() {
    let postiz = FakePostiz::start();
    for (store, needed, hint) in [
        (Store::Embedded, 26, "LimitNOFILE"),
        (
            Store::Postgres,
            58,
            "lower DATABASE_POOL_SIZE: 8 connections take 32",
        ),
    ] {
        let setup = TestServer::setup(store).postiz(&postiz);
        for (limit, arguments) in [(16, None), (needed - 1, None), (16, Some("--check"))] {
            let limited = setup.clone().limited(&format!("-n {limit}"));
            let (few, enough) = (format!("may have {limit} files"), format!("needs {needed}"));
            let output = limited.run(arguments.as_slice());
            assert_refused(&output, &[&few, &enough, "ulimit -n", hint]);
        }
        assert!(!setup.data_dir().exists(), "nothing is made");
        // With these it works, for one at a time.
        let server = setup.limited(&format!("-n {needed}")).start_for(&postiz);
        let login = Login::start(&server);
        expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
        expect::json(&login.outcome(&server), 200);
    }
}

/// The server, and what it needs, where another account can read it.
struct Account {
    folder: tempfile::TempDir,
    setup: ServerSetup,
}

impl Account {
    /// `None`: only root can be another.
    fn new(postiz: &FakePostiz) -> Option<Account> {
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIPPED: only root can run the server as another user");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        fs::copy(program("postiz-auth-server"), folder.path().join("server")).unwrap();
        let setup = TestServer::setup(Store::Embedded).postiz(postiz);
        open_to_all(setup.data_dir().parent().unwrap());
        Some(Account { folder, setup })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("setpriv");
        let (user, group) = (format!("--reuid={STRANGER}"), format!("--regid={STRANGER}"));
        command.args([&*user, &*group, "--clear-groups"]);
        command
            .arg(self.folder.path().join("server"))
            .args(arguments);
        let setup = self.setup.command();
        let variables = setup.get_envs();
        let variables = variables.filter_map(|(name, value)| Some((name, value?)));
        run(command.env_clear().envs(variables).current_dir("/"))
    }

    /// A start ends with these words; a check says them, too.
    #[track_caller]
    fn assert_told(&self, words: &[&str]) {
        assert_refused(&self.run(&[]), words);
        let checked = told(&self.run(&["--check"]));
        let warned = checked.contains("a start as this user would fail");
        assert!(
            warned && words.iter().all(|word| checked.contains(word)),
            "{checked}"
        );
    }
}

fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn files_of_another_user_are_told() {
    let postiz = FakePostiz::start();
    let Some(account) = Account::new(&postiz) else {
        return;
    };
    let data = account.setup.data_dir();
    let (file, folder) = (data.join("postiz-auth.redb"), data.display().to_string());
    let runs_as = format!("the server runs as user {STRANGER} and group {STRANGER}");
    let give = format!("chown {STRANGER} {}", file.display());
    let make = format!("install -d -m 700 -o {STRANGER} {folder}");

    // No folder, in a folder of root.
    let parent = data.parent().unwrap().display().to_string();
    let owner = format!("{parent} belongs to user 0 and group 0 (mode 755)");
    account.assert_told(&[&runs_as, &owner, &make]);
    // Its folder is root's, and may not be entered, or not written to.
    fs::create_dir(&data).unwrap();
    for mode in [0o700, 0o755] {
        fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
        let owner = format!("{folder} belongs to user 0 and group 0 (mode {mode:o})");
        account.assert_told(&[&runs_as, &owner, &make, "Permission denied"]);
    }
    // The file is root's: somebody started the server by hand.
    chown(&data, Some(STRANGER), Some(STRANGER)).unwrap();
    drop(account.setup.start());
    for mode in [0o600, 0o644] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let owner = format!("postiz-auth.redb belongs to user 0 and group 0 (mode {mode:o})");
        account.assert_told(&[&runs_as, &owner, &give]);
    }
    chown(&file, Some(STRANGER), None).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    account.assert_told(&[&runs_as, &format!("chmod u+rw {}", file.display())]);
    // What was said mends it, but for the secret beside it.
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let secret = data.join("postiz-auth.redb.secret");
    fs::write(&secret, "s".repeat(64)).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let setup = account.setup.clone().without("POSTIZ_OAUTH_CLIENT_ID");
    let setup = setup.without("POSTIZ_OAUTH_CLIENT_SECRET");
    let account = Account { setup, ..account };
    let give = format!("chown {STRANGER} {}", secret.display());
    assert_refused(
        &account.run(&[]),
        &["cannot keep a secret in", &runs_as, &give],
    );
    let checked = account.run(&["--check"]);
    assert!(
        !told(&checked).contains("WARNING: a start"),
        "{}",
        told(&checked)
    );
}

#[test]
fn read_only_folders_are_told() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    fs::create_dir(setup.data_dir()).unwrap();
    let setup = setup.in_own_mounts("mount -t tmpfs -o ro none \"$DATA_DIR\"");
    let output = setup.run(&[]);
    if told(&output).starts_with("unshare") {
        eprintln!("SKIPPED: only root can mount: {}", told(&output));
        return;
    }
    let words = ["Read-only file system", "DATA_DIR", "a volume"];
    assert_refused(&output, &words);
    let checked = told(&setup.run(&["--check"]));
    assert!(words.iter().all(|word| checked.contains(word)), "{checked}");
}

/// Set for the run of a test within its network.
const INSIDE: &str = "POSTIZ_TEST_INSIDE_NETWORK";

/// Runs `test` again, in a network of its own that `network` makes. True: this is that run.
#[allow(
    clippy::disallowed_methods,
    reason = "nobody hands tests their environment"
)]
fn is_inside(test: &str, network: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own_network = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-euc"]);
        command.arg(format!("ip link set lo up\n{network}\n{then}"));
        command.arg("network");
        command
    };
    let possible = run(&mut own_network("true"));
    if !possible.status.success() {
        eprintln!(
            "SKIPPED: no network of our own can be made here: {}",
            told(&possible)
        );
        return false;
    }
    let mut again = own_network("exec \"$@\"");
    again.arg(std::env::current_exe().unwrap());
    again
        .args(["--exact", "--nocapture", test])
        .env(INSIDE, "1");
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("1 passed"), "{}", told(&output));
    false
}

#[test]
fn all_addresses_are_those_of_ipv4_too() {
    let test = "machine::all_addresses_are_those_of_ipv4_too";
    if !is_inside(test, "echo 1 >/proc/sys/net/ipv6/bindv6only") {
        return;
    }
    let health = http::request("GET", "/health", &[], b"");
    let start = |host: Option<&str>| {
        let setup = TestServer::setup(Store::Embedded).without("HOST");
        let setup = host.map_or(setup.clone(), |host| setup.var("HOST", host));
        let server = setup.var("PORT", "3111").start_without_waiting();
        eventually("it listens", || server.log().contains("listening on"));
        server
    };
    for host in [None, Some("::")] {
        let mut server = start(host);
        for address in ["127.0.0.1:3111", "[::1]:3111"] {
            let answer = http::exchange(address.parse().unwrap(), &health);
            assert_eq!(answer.status, 200, "{host:?} {address}");
        }
        server.kill();
    }
    // One address stays one.
    let _server = start(Some("::1"));
    assert!(std::net::TcpStream::connect("127.0.0.1:3111").is_err());
}

/// https on its own port and a public name, by an unprivileged user with the one capability, and nothing before it.
#[test]
fn stand_alone_https_on_a_public_name() {
    let hosts = "printf '127.0.0.1 localhost postiz.test\\n' >/run/hosts && mount --bind /run/hosts /etc/hosts";
    let network = format!("mount -t tmpfs none /run\n{hosts}");
    if !is_inside("machine::stand_alone_https_on_a_public_name", &network) {
        return;
    }
    let (postiz, authority) = (FakePostiz::start(), Authority::new());
    let account = Account::new(&postiz).unwrap();
    postiz.set_callback_url("https://postiz.test/device/callback");
    open_to_all(authority.file("").as_path());
    let key = authority.file("server.key");
    let data = account.setup.data_dir();
    fs::create_dir(&data).unwrap();
    chown(&data, Some(STRANGER), None).unwrap();
    let setup = account.setup.clone().https(&authority);
    let setup = setup
        .without("HOST")
        .var("PORT", "443")
        .var("SERVER_URL", "https://postiz.test");
    let account = Account { setup, ..account };
    let (output, runs_as) = (
        account.run(&[]),
        format!("the server runs as user {STRANGER}"),
    );
    assert_eq!(output.status.code(), Some(2));
    for words in ["TLS_KEY_FILE", &runs_as, "server.key belongs to user 0"] {
        assert!(told(&output).contains(words), "{}", told(&output));
    }
    chown(&key, Some(STRANGER), None).unwrap();
    assert_refused(
        &account.run(&[]),
        &["cannot listen on [::]:443", "CAP_NET_BIND_SERVICE"],
    );

    let server = account.folder.path().join("server");
    let privileged = format!(
        "exec setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups \
         --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service {}",
        server.display()
    );
    let server = account
        .setup
        .clone()
        .limited(&format!("-n 1024 && {privileged}"));
    let server = server.start_without_waiting();
    eventually("it listens", || server.log().contains("listening on https"));
    assert!(account.run(&["healthcheck"]).status.success());
    let checked = told(&account.run(&["--check"]));
    assert!(
        checked.contains("clients are sent to https://postiz.test"),
        "{checked}"
    );
    for word in ["is not for", "TRUSTED_PROXIES", "plain http"] {
        assert!(!checked.contains(word), "{checked}");
    }
    log_in_at("https://postiz.test", &authority);
    // As a tool for renewal that runs as root leaves it.
    chown(&key, Some(0), None).unwrap();
    server.signal("HUP");
    eventually("it says whose the key is", || {
        let log = server.log();
        log.contains("certificate rejected") && log.contains("server.key belongs to user 0")
    });
    log_in_at("https://postiz.test", &authority);
}

/// The CLI and a browser, by the public name.
fn log_in_at(url: &str, authority: &Authority) {
    let home = tempfile::tempdir().unwrap();
    let cli = |arguments: &str| {
        let mut command = Command::new(program("postiz"));
        command.args(arguments.split(' ')).env_clear();
        command.env("HOME", home.path());
        command.env("SSL_CERT_FILE", authority.file("ca.crt"));
        let output = run(&mut command);
        assert!(output.status.success(), "{}", told(&output));
        output.stdout
    };
    let start = cli(&format!("auth:login --start --auth-server {url}"));
    let codes: Value = serde_json::from_slice(&start).unwrap();
    let login = Login { start: codes };
    assert!(
        login.start["verification_uri"]
            .as_str()
            .unwrap()
            .starts_with(url)
    );
    let mut browser = Browser::new();
    let socket = take_tls_off("127.0.0.1:443".parse().unwrap(), authority);
    browser.route("postiz.test", socket);
    expect::page(&login.approve(&mut browser, "ada").answer, 200);
    cli("auth:login --finish");
}
