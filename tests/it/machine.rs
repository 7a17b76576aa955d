//! What the server needs from the machine: descriptors, port 443, IPv4 beside IPv6, access to its files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::fake_postiz::FakePostiz;
use crate::support::server::ServerSetup;
use crate::support::tls::{Authority, take_tls_off};
use crate::support::{Browser, Login, Store, TestServer, eventually, expect, http, program, run};

/// A user id that no account has.
const STRANGER: u32 = 64_321;

fn text_of(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let text = text_of(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert!(
        !text.contains("panicked") && !text.contains("listening"),
        "{text}"
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
        assert!(!setup.data_dir().exists(), "no folder is made");
        // These are just enough for one request at a time.
        let server = setup.limited(&format!("-n {needed}")).start_for(&postiz);
        let login = Login::start(&server);
        expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
        expect::json(&login.outcome(&server), 200);
    }
}

/// The server run as another account, with its program and files in a folder that this account can read.
struct Account {
    folder: tempfile::TempDir,
    setup: ServerSetup,
}

impl Account {
    /// `None` if this is not root, which alone can run it as another account.
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

    /// A start must fail with these words, and `--check` must print them, too.
    #[track_caller]
    fn assert_cannot_start(&self, words: &[&str]) {
        assert_refused(&self.run(&[]), words);
        let checked = text_of(&self.run(&["--check"]));
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
fn files_of_another_user_are_reported() {
    let postiz = FakePostiz::start();
    let Some(account) = Account::new(&postiz) else {
        return;
    };
    let data = account.setup.data_dir();
    let (file, folder) = (data.join("postiz-auth.redb"), data.display().to_string());
    let runs_as = format!("the server runs as user {STRANGER} and group {STRANGER}");
    let give = format!("chown {STRANGER} {}", file.display());
    let make = format!("install -d -m 700 -o {STRANGER} {folder}");

    // The folder does not exist, and its parent belongs to root.
    let parent = data.parent().unwrap().display().to_string();
    let owner = format!("{parent} belongs to user 0 and group 0 (mode 755)");
    account.assert_cannot_start(&[&runs_as, &owner, &make]);
    // The folder belongs to root, and may not be entered or not be written to.
    fs::create_dir(&data).unwrap();
    for mode in [0o700, 0o755] {
        fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
        let owner = format!("{folder} belongs to user 0 and group 0 (mode {mode:o})");
        account.assert_cannot_start(&[&runs_as, &owner, &make, "Permission denied"]);
    }
    // The file belongs to root, since root has started the server by hand.
    chown(&data, Some(STRANGER), Some(STRANGER)).unwrap();
    drop(account.setup.start());
    for mode in [0o600, 0o644] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let owner = format!("postiz-auth.redb belongs to user 0 and group 0 (mode {mode:o})");
        account.assert_cannot_start(&[&runs_as, &owner, &give]);
    }
    chown(&file, Some(STRANGER), None).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    account.assert_cannot_start(&[&runs_as, &format!("chmod u+rw {}", file.display())]);
    // The command that was printed repairs it, except for the secret beside it.
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
        !text_of(&checked).contains("WARNING: a start"),
        "{}",
        text_of(&checked)
    );
}

#[test]
fn read_only_folders_are_reported() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    fs::create_dir(setup.data_dir()).unwrap();
    let setup = setup.in_own_mounts("mount -t tmpfs -o ro none \"$DATA_DIR\"");
    let output = setup.run(&[]);
    if text_of(&output).starts_with("unshare") {
        eprintln!("SKIPPED: only root can mount: {}", text_of(&output));
        return;
    }
    let words = ["Read-only file system", "DATA_DIR", "a volume"];
    assert_refused(&output, &words);
    let checked = text_of(&setup.run(&["--check"]));
    assert!(words.iter().all(|word| checked.contains(word)), "{checked}");
}

/// Set when a test runs itself again in its network namespace.
const INSIDE: &str = "POSTIZ_TEST_INSIDE_NETWORK";

/// Runs `test` again in a network namespace that the script `network` sets up. Returns true in that second run.
#[allow(
    clippy::disallowed_methods,
    reason = "tests read their environment directly"
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
            "SKIPPED: this machine allows no network namespace: {}",
            text_of(&possible)
        );
        return false;
    }
    let mut again = own_network("exec \"$@\"");
    again.arg(std::env::current_exe().unwrap());
    again
        .args(["--exact", "--nocapture", test])
        .env(INSIDE, "1");
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(
        text_of(&output).contains("1 passed"),
        "{}",
        text_of(&output)
    );
    false
}

#[test]
fn wildcard_address_accepts_ipv4_and_ipv6() {
    let test = "machine::wildcard_address_accepts_ipv4_and_ipv6";
    if !is_inside(test, "echo 1 >/proc/sys/net/ipv6/bindv6only") {
        return;
    }
    let health = http::request("GET", "/health", &[], b"");
    let start = |host: Option<&str>| {
        let setup = TestServer::setup(Store::Embedded).without("HOST");
        let setup = host.map_or(setup.clone(), |host| setup.var("HOST", host));
        let server = setup.var("PORT", "3111").start_without_waiting();
        eventually("the server listens", || {
            server.log().contains("listening on")
        });
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
    // A single address does not accept the other family.
    let _server = start(Some("::1"));
    assert!(std::net::TcpStream::connect("127.0.0.1:3111").is_err());
}

/// The server speaks https on port 443 with a public name, without a proxy, as an unprivileged user with only the capability
/// CAP_NET_BIND_SERVICE.
#[test]
fn https_works_without_a_proxy_on_port_443() {
    let hosts = "printf '127.0.0.1 localhost postiz.test\\n' >/run/hosts && mount --bind /run/hosts /etc/hosts";
    let network = format!("mount -t tmpfs none /run\n{hosts}");
    if !is_inside("machine::https_works_without_a_proxy_on_port_443", &network) {
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
        assert!(text_of(&output).contains(words), "{}", text_of(&output));
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
    eventually("the server listens", || {
        server.log().contains("listening on https")
    });
    assert!(account.run(&["healthcheck"]).status.success());
    let checked = text_of(&account.run(&["--check"]));
    assert!(
        checked.contains("clients are sent to https://postiz.test"),
        "{checked}"
    );
    for word in ["is not for", "TRUSTED_PROXIES", "plain http"] {
        assert!(!checked.contains(word), "{checked}");
    }
    log_in_at("https://postiz.test", &authority);
    // A renewal tool that runs as root leaves the key like this.
    chown(&key, Some(0), None).unwrap();
    server.signal("HUP");
    eventually("the log names the key's owner", || {
        let log = server.log();
        log.contains("certificate rejected") && log.contains("server.key belongs to user 0")
    });
    log_in_at("https://postiz.test", &authority);
}

/// A login of the CLI and a browser by the public name.
fn log_in_at(url: &str, authority: &Authority) {
    let home = tempfile::tempdir().unwrap();
    let cli = |arguments: &str| {
        let mut command = Command::new(program("postiz"));
        command.args(arguments.split(' ')).env_clear();
        command.env("HOME", home.path());
        command.env("SSL_CERT_FILE", authority.file("ca.crt"));
        let output = run(&mut command);
        assert!(output.status.success(), "{}", text_of(&output));
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

/// A port that only root may take.
#[test]
fn port_without_the_right_is_found_by_check() {
    let postiz = FakePostiz::start();
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let anyone_may = first.is_ok_and(|port| port.trim() == "0");
    let Some(mut account) = Account::new(&postiz).filter(|_| !anyone_may) else {
        return;
    };
    // The stranger's own store, so that the port alone is wrong.
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(STRANGER), Some(STRANGER)).unwrap();
    let data = folder.path().display().to_string();
    account.setup = account.setup.var("DATA_DIR", &data).var("PORT", "80");
    for arguments in [&[][..], &["--check"]] {
        let output = account.run(arguments);
        let text = text_of(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("CAP_NET_BIND_SERVICE"), "{text}");
        assert!(!text.contains("a start as this user would fail"), "{text}");
    }
}
