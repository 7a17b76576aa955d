//! The credentials file, in all the places that a user may name: what is read, replaced and removed there, and what stays.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::harness::{Cli, Done, Home, Reply, Server, TOKEN, each, postiz};

const FILE: &str = "POSTIZ_CREDENTIALS_FILE";
const STARTED: &str = ".postiz/credentials.json.login";

/// An auth server that grants the first poll.
fn auth_server() -> Server {
    Server::new(|asked, _| match asked.target.as_str() {
        "/device/code" => {
            let host = asked.header("host").unwrap();
            let codes = format!(
                r#"{{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"http://{host}/device/verify","interval":1}}"#
            );
            Reply::json(200, &codes)
        }
        "/device/token" => {
            let host = asked.header("host").unwrap();
            Reply::json(
                200,
                &format!(r#"{{"access_token":"{TOKEN}","api_url":"http://{host}"}}"#),
            )
        }
        _ => Reply::json(404, "{}"),
    })
}

fn login(home: &Home, server: &Server) -> Cli {
    Cli::at(home.clone())
        .args(["auth:login", "--no-browser"])
        .var("POSTIZ_AUTH_SERVER", server.url())
}

fn stored(url: &str) -> String {
    format!(r#"{{"accessToken":"{TOKEN}","apiUrl":"{url}"}}"#)
}

/// Runs it as a user other than root, for whom file permissions hold.
fn bound_by_rights(cli: &Cli) -> Done {
    let plain = cli.command();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--bounding-set",
            "-dac_override,-dac_read_search,-fowner,-chown",
        ])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(cli.home.path())
        .env_clear()
        .envs(
            plain
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let mut done = if is_root() { command } else { plain };
    Done::from(done.output().expect("setpriv starts"))
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn make(program: &str, arguments: &[&str], path: &Path, more: &[&str]) {
    let mut command = Command::new(program);
    let made = command.args(arguments).arg(path).args(more).status();
    assert!(made.expect("it starts").success());
}

fn mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Devices, pipes, sockets, folders and large files are not read, replaced or removed.
#[test]
fn only_small_regular_files_are_read_or_changed() {
    let server = auth_server();
    let home = Home::new();
    make("mkfifo", &[], &home.file("pipe"), &[]);
    fs::create_dir(home.file("folder")).unwrap();
    home.write("large", vec![b' '; 64 * 1024 + 1]);
    let _socket = UnixListener::bind(home.file("socket")).unwrap();
    symlink("pipe", home.file("link")).unwrap();
    symlink("loop-b", home.file("loop-a")).unwrap();
    symlink("loop-a", home.file("loop-b")).unwrap();
    let mut names = vec!["pipe", "folder", "large", "socket", "link", "loop-a"];
    if is_root() {
        make("mknod", &[], &home.file("zero"), &["c", "1", "5"]);
        make("mknod", &[], &home.file("full"), &["c", "1", "7"]);
        names.extend(["zero", "full"]);
    }
    let before = listing(&home);
    each(names, |name| {
        for command in [
            "integrations:list",
            "auth:status",
            "auth:token",
            "auth:logout",
        ] {
            let cli = Cli::at(home.clone()).arg(command).var(FILE, name);
            let done = cli.var("POSTIZ_API_KEY", "k").run().code(1).stdout("");
            done.stderr_has(&format!(" {name}: "));
        }
        let done = login(&home, &server).var(FILE, name).run().code(1);
        done.stderr_has(&format!("cannot write {name}: "))
            .stderr_has("--credentials");
    });
    assert_eq!(listing(&home), before);
    assert!(server.asked().is_empty());
}

/// The names, kinds and sizes of the files in a home.
fn listing(home: &Home) -> Vec<(String, u32, u64)> {
    let entries = fs::read_dir(home.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, found.mode(), found.len())
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

/// `/dev/null` means no file. Root could remove the device.
#[test]
fn null_device_is_no_login_and_stays() {
    if !is_root() {
        return;
    }
    let server = auth_server();
    let home = Home::new();
    let null = home.file("null");
    make("mknod", &[], &null, &["c", "1", "3"]);
    symlink("null", home.file("link")).unwrap();
    for name in ["null", "link"] {
        let run = |command| Cli::at(home.clone()).arg(command).var(FILE, name);
        run("auth:token").run().code(4);
        let done = run("auth:token").var("POSTIZ_API_KEY", "k").run().code(0);
        done.stdout("k\n");
        run("auth:logout")
            .run()
            .code(0)
            .stderr_has("Nobody was signed in");
        let done = login(&home, &server).var(FILE, name).run().code(1);
        done.stderr_has("not a regular file");
    }
    assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
    assert!(home.file("link").is_symlink());
}

/// There is no login without a file, and in an empty one.
#[test]
fn api_key_is_used_where_there_is_no_login() {
    let home = Home::new();
    for (name, content) in [
        ("empty", ""),
        ("blank", " \r\n"),
        ("mark", "\u{feff}"),
        ("object", "{}"),
    ] {
        home.write(name, content);
    }
    home.write("locked/c.json", stored("http://127.0.0.1:1"));
    symlink("nowhere", home.file("dangling")).unwrap();
    mode(home.file("locked"), 0o000);
    let names = [
        "empty",
        "blank",
        "mark",
        "object",
        "absent",
        "no/such/folder",
        "empty/below-a-file",
        "locked/c.json",
        "dangling",
    ];
    for name in names {
        let cli = Cli::at(home.clone()).arg("auth:token").var(FILE, name);
        bound_by_rights(&cli).code(4).stdout("");
        let done = bound_by_rights(&cli.var("POSTIZ_API_KEY", "k"));
        done.code(0).stdout("k\n").stderr("");
    }
    // A home that may not be entered, and none. (An empty HOME means the home in the system's list of users, which no test
    // may touch.)
    let locked = home.file("locked").into_os_string();
    for value in [locked, "relative".into(), "/nonexistent".into()] {
        let cli = postiz("auth:token")
            .var("HOME", value)
            .var("POSTIZ_API_KEY", "k");
        bound_by_rights(&cli).code(0).stdout("k\n").stderr("");
    }
    mode(home.file("locked"), 0o700);
}

/// A file that exists and cannot be read may hold another account's login.
#[test]
fn file_that_cannot_be_read_is_named() {
    let cli = postiz("auth:token").var("POSTIZ_API_KEY", "k");
    cli.home.signed_in("http://127.0.0.1:1");
    mode(cli.home.credentials(), 0o000);
    let done = bound_by_rights(&cli).code(1).stdout("");
    done.stderr_has("credentials.json").stderr_has("denied");
}

#[test]
fn unknown_home_is_an_error_for_a_login() {
    let server = auth_server();
    for value in ["relative", "."] {
        let cli = login(&Home::new(), &server).var("HOME", value);
        cli.run().code(1).stderr_has("no home folder is known");
        assert!(listing(&cli.home).is_empty());
        let cli = cli.var(FILE, "~/c.json");
        cli.run().code(1).stderr_has("no home folder is known");
    }
    assert!(server.asked().is_empty());
}

/// In a container or a service, no shell expands the variable.
#[test]
fn variable_is_expanded_without_a_shell() {
    for (value, file) in [
        ("~/x/c.json", "x/c.json"),
        ("~/c.json\r", "c.json"),
        (" ./c.json \r\n", "c.json"),
        ("\t", ".postiz/credentials.json"),
        ("./~x", "~x"),
        ("../../../../../../../tmp/../HOME/c.json", "c.json"),
        ("a b.json", "a b.json"),
    ] {
        let home = Home::new();
        let value = value.replace("/HOME", &home.path().display().to_string());
        home.write(file, stored("http://127.0.0.1:1"));
        let cli = Cli::at(home.clone()).arg("auth:token");
        cli.var(FILE, value)
            .run()
            .code(0)
            .stdout(&format!("{TOKEN}\n"));
    }
    let done = postiz("auth:token")
        .var(FILE, "~nobody/c.json")
        .run()
        .code(2);
    done.stderr_has("~nobody/c.json");
    let server = auth_server();
    let home = Home::new();
    login(&home, &server)
        .var(FILE, "~/new/c.json")
        .run()
        .code(0);
    assert!(home.read("new/c.json").contains(TOKEN) && !home.file("~").exists());
}

#[test]
fn path_need_not_be_utf8() {
    let server = auth_server();
    let home = Home::new();
    let name = std::ffi::OsString::from_vec(b"c\xff.json".to_vec());
    login(&home, &server).var(FILE, name.clone()).run().code(0);
    let run = |command| Cli::at(home.clone()).arg(command).var(FILE, name.clone());
    run("auth:token")
        .run()
        .code(0)
        .stdout(&format!("{TOKEN}\n"));
    run("auth:logout").run().code(0);
    assert!(!home.path().join(&name).exists());
}

/// Login and logout change the file at the end of the links. The links stay for the next login.
#[test]
fn links_are_followed_and_stay() {
    let server = auth_server();
    for exists in [true, false] {
        let home = Home::new();
        home.write(".postiz/other", "");
        if exists {
            home.write("vault/deep/c.json", "{bad");
        }
        symlink("../first", home.credentials()).unwrap();
        symlink("vault/deep/c.json", home.file("first")).unwrap();
        login(&home, &server).run().code(0);
        assert!(home.read("vault/deep/c.json").contains(TOKEN));
        let done = Cli::at(home.clone()).arg("auth:token").run().code(0);
        done.stdout(&format!("{TOKEN}\n"));
        let done = Cli::at(home.clone()).arg("auth:logout").run().code(0);
        done.stderr_has("Signed out");
        assert!(!home.file("vault/deep/c.json").exists());
        assert!(home.credentials().is_symlink() && home.file("first").is_symlink());
        Cli::at(home.clone()).arg("auth:token").run().code(4);
    }
}

#[test]
fn logout_removes_a_started_login() {
    let server = auth_server();
    let home = Home::new();
    login(&home, &server).arg("--start").run().code(0);
    assert!(home.file(STARTED).exists());
    let done = Cli::at(home.clone()).arg("auth:logout").run().code(0);
    done.stderr_has("--start");
    assert!(home.credentials_folder().is_empty());
    // Also behind a link, and together with the credentials.
    home.signed_in("http://127.0.0.1:1").write("away", "{}");
    symlink("../away", home.file(STARTED)).unwrap();
    let logout = Cli::at(home.clone()).args(["auth:logout", "--json"]);
    let done = logout.run().code(0);
    assert_eq!(done.json()["removed"], true);
    assert_eq!(done.json()["started_login_removed"], true);
    assert!(!home.file("away").exists() && !home.credentials().exists());
}

/// A file without a login is not ours to remove.
#[test]
fn logout_leaves_a_file_without_a_login() {
    let home = Home::new();
    for content in ["", "{}", r#"{"name":"package"}"#, r#"{"accessToken":null}"#] {
        home.write("c.json", content);
        let cli = Cli::at(home.clone()).arg("auth:logout").var(FILE, "c.json");
        cli.run().code(0).stderr_has("Nobody was signed in");
        assert_eq!(home.read("c.json"), content);
    }
}

#[test]
fn file_keeps_its_owner_when_root_replaces_it() {
    if !is_root() {
        return;
    }
    let server = auth_server();
    let home = Home::new();
    home.signed_in("http://127.0.0.1:1");
    std::os::unix::fs::chown(home.credentials(), Some(65_534), Some(65_533)).unwrap();
    login(&home, &server).run().code(0);
    let found = fs::metadata(home.credentials()).unwrap();
    assert_eq!((found.uid(), found.gid()), (65_534, 65_533));
    assert_eq!(found.mode() & 0o777, 0o600);
    assert_eq!(home.credentials_folder(), ["credentials.json"]);
}

/// As with a single file that is mounted into a container. A logout empties it.
#[test]
fn file_in_a_read_only_folder_is_rewritten() {
    let server = auth_server();
    let home = Home::new();
    home.write("c/c.json", "{}");
    mode(home.file("c"), 0o500);
    bound_by_rights(&login(&home, &server).var(FILE, "c/c.json")).code(0);
    assert!(home.read("c/c.json").contains(TOKEN));
    let logout = Cli::at(home.clone())
        .arg("auth:logout")
        .var(FILE, "c/c.json");
    bound_by_rights(&logout).code(0).stderr_has("Signed out");
    assert_eq!(home.read("c/c.json"), "");
    let absent = login(&home, &server).var(FILE, "c/absent.json");
    bound_by_rights(&absent)
        .code(1)
        .stderr_has("cannot write c/absent.json");
    mode(home.file("c"), 0o700);
}

/// The disk has one page. The old file stays.
#[test]
fn full_disk_is_reported_before_the_login() {
    let server = auth_server();
    let home = Home::new();
    fs::create_dir(home.file("disk")).unwrap();
    let cli = login(&home, &server).var(FILE, "disk/c.json");
    let plain = cli.command();
    let script = "mount -t tmpfs -o size=4k none disk && echo '{}' > disk/c.json && \"$@\"; code=$?; ls -A disk; exit $code";
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(home.path())
        .envs(
            plain
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let done = Done::from(command.output().expect("unshare starts")).code(1);
    done.stdout("c.json\n")
        .stderr_has("cannot write disk/c.json: No space left");
    assert!(server.asked().is_empty());
}

/// The last login wins.
#[test]
fn concurrent_logins_leave_a_whole_file() {
    let server = auth_server();
    let home = Home::new();
    each(0..4, |_| drop(login(&home, &server).run().code(0)));
    assert_eq!(home.credentials_folder(), ["credentials.json"]);
    let done = Cli::at(home).arg("auth:token").run().code(0);
    done.stdout(&format!("{TOKEN}\n"));
}

/// The end of a login must not remove a newer one that was started meanwhile.
#[test]
fn finish_of_an_older_login_leaves_a_newer_one() {
    let server = Server::new(|asked, before| match asked.target.as_str() {
        "/device/code" => {
            let host = asked.header("host").unwrap();
            Reply::json(
                200,
                &format!(
                    r#"{{"device_code":"d{before}","user_code":"A","verification_uri":"http://{host}/v","interval":1}}"#
                ),
            )
        }
        _ => Reply::json(400, r#"{"error":"authorization_pending"}"#),
    });
    let home = Home::new();
    login(&home, &server).arg("--start").run().code(0);
    let mut finish = Cli::at(home.clone())
        .args(["auth:login", "--finish", "--no-wait"])
        .spawn();
    login(&home, &server).arg("--start").run().code(0);
    let newer = home.read(STARTED);
    assert_eq!(finish.wait().unwrap().code(), Some(3));
    assert_eq!(home.read(STARTED), newer);
    let mut rest = String::new();
    finish.stdout.unwrap().read_to_string(&mut rest).unwrap();
}
