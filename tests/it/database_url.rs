//! Kinds of `DATABASE_URL` with a real PostgreSQL: sockets, sources of passwords, several hosts, and errors.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::fake_postiz::FakePostiz;
use crate::support::postgres::PASSWORD;
use crate::support::{Cluster, Store, TestServer};

/// Runs `--check` with this URL, and returns its output if it fails. HOME is an empty folder.
pub fn check(url: &str, variables: &[(&str, &str)]) -> Result<(), String> {
    let home = tempfile::tempdir().expect("a temporary folder");
    let home = home.path().display().to_string();
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .var("HOME", &home)
        .var("DATABASE_URL", url);
    let setup = variables
        .iter()
        .fold(setup, |setup, (name, value)| setup.var(name, value));
    let output = setup.run(&["--check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains(PASSWORD), "{said}");
    match output.status.success() {
        true => Ok(()),
        false => Err(said),
    }
}

/// Runs [`check`], which must fail with all these words.
#[track_caller]
pub fn assert_refused(url: &str, variables: &[(&str, &str)], words: &[&str]) {
    let said = check(url, variables).expect_err(url);
    for word in words {
        assert!(said.contains(word), "{url}: no {word:?} in: {said}");
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// In every spelling, with any sslmode, and with the account's name as the default user.
#[test]
fn sockets_connect_with_peer_authentication() {
    let cluster = Cluster::start_with_tls();
    let database = cluster.database();
    let (folder, port, name) = (cluster.file(""), database.address().port(), database.name());
    let folder = folder.trim_end_matches('/');
    let account = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    let account = String::from_utf8(account.stdout).unwrap().trim().to_owned();
    database.run(&format!("CREATE ROLE \"{account}\" SUPERUSER LOGIN"));
    let encoded = folder.replace('/', "%2F");
    for url in [
        format!("postgres://{account}@/{name}?host={folder}&port={port}"),
        format!("postgres://{account}@{encoded}:{port}/{name}"),
        format!("postgres:///{name}?host={folder}&port={port}&user={account}"),
        format!("postgres:///{name}?host={folder}&port={port}"),
        format!("postgres://:{port}/{name}?host={encoded}"),
        format!("postgres:///{name}?host={folder}&port={port}&sslmode=disable"),
        format!("postgres:///{name}?host={folder}&port={port}&sslmode=require"),
        format!("postgres:///{name}?host={folder}&port={port}&sslmode=verify-full"),
        format!("postgres:///{name}?host=127.0.0.1,{folder}&port=1,{port}"),
    ] {
        check(&url, &[]).unwrap_or_else(|said| panic!("{url}: {said}"));
    }
    let socket = format!("socket {folder}/.s.PGSQL.{port}");
    let url = format!("postgres://postgres@/{name}?host={folder}&port={port}");
    assert_refused(
        &url,
        &[],
        &[
            &socket,
            "user \"postgres\"",
            name,
            "Peer authentication failed",
        ],
    );
    let url = format!("postgres:///{name}?host=/nowhere");
    assert_refused(
        &url,
        &[],
        &["socket /nowhere/.s.PGSQL.5432", "No such file"],
    );
}

#[test]
fn passwords_come_from_the_url_the_environment_or_the_password_file() {
    let database = Cluster::shared().database();
    let (port, name) = (database.address().port(), database.name());
    let url = format!("postgres://postgres@localhost:{port}/{name}?sslmode=disable");
    let folder = tempfile::tempdir().unwrap();
    let (home, passfile) = (
        folder.path().display().to_string(),
        folder.path().join(".pgpass"),
    );
    let in_home = [("HOME", home.as_str())];
    assert_refused(
        &url,
        &[],
        &[
            "asks for a password",
            "PGPASSWORD",
            &format!("localhost:{port}"),
            "user \"postgres\"",
            name,
        ],
    );
    // Not retryable.
    let setup = TestServer::setup(Store::Embedded).var("HOME", "/nowhere");
    let output = setup.var("DATABASE_URL", &url).run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(check(&url, &[("PGPASSWORD", PASSWORD)]), Ok(()));
    assert_refused(
        &url,
        &[("PGPASSWORD", "wrong")],
        &["password authentication failed", "localhost"],
    );
    let line =
        format!("# ours\nlocalhost:*:other:*:wrong\nlocalhost:{port}:{name}:postgres:{PASSWORD}\n");
    write(&passfile, &line, 0o600);
    assert_eq!(check(&url, &in_home), Ok(()));
    write(&passfile, &line, 0o644);
    assert_refused(
        &url,
        &in_home,
        &["asks for a password", ".pgpass", "chmod 600"],
    );
    let other = folder.path().join("other");
    write(&other, &format!("*:*:*:postgres:{PASSWORD}\n"), 0o600);
    let other = other.display().to_string();
    assert_eq!(check(&url, &[("PGPASSFILE", &other)]), Ok(()));
    assert_eq!(check(&format!("{url}&passfile={other}"), &in_home), Ok(()));
    assert_eq!(
        check(
            &url.replace("postgres@", ""),
            &[("PGUSER", "postgres"), ("PGPASSFILE", &other)]
        ),
        Ok(())
    );
}

/// The password has every character that delimits parts of a URL.
#[test]
fn passwords_need_no_percent_encoding() {
    let database = Cluster::shared().database();
    let (port, name) = (database.address().port(), database.name());
    let role = format!("pasted_{name}");
    let password = "p?a#s/s@w:o%rd";
    database.run(&format!(
        "CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'"
    ));
    let url =
        |parameters| format!("postgres://{role}:{password}@127.0.0.1:{port}/{name}?{parameters}");
    assert_eq!(check(&url("sslmode=disable"), &[]), Ok(()));
    // The parameters after `?` are parsed as well.
    assert_refused(&url("sslmode=require"), &[], &["has no TLS"]);
    database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn parameters_of_other_programs_are_accepted_or_named() {
    let database = Cluster::shared().database();
    let url = |parameters| database.url_with("127.0.0.1", parameters);
    for parameters in [
        "connection_limit=1",
        "pgbouncer=true",
        "ssl=false",
        "gssencmode=disable",
        "channel_binding=prefer&target_session_attrs=read-write&load_balance_hosts=random",
        "target_session_attrs=primary",
        "options=-c%20search_path%3Dpublic",
    ] {
        assert_eq!(check(&url(parameters), &[]), Ok(()), "{parameters}");
    }
    assert_refused(&url("sslmode=no-verify"), &[], &["has no TLS"]);
    assert_refused(&url("ssl=true"), &[], &["has no TLS"]);
    assert_refused(&url("socket_timeout=3"), &[], &["socket_timeout"]);
}

/// The error names all hosts of the URL.
#[test]
fn errors_name_the_hosts_that_were_tried() {
    let database = Cluster::shared().database();
    let (port, name) = (database.address().port(), database.name());
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = |hosts: String, name: &str| {
        format!("postgres://postgres:{PASSWORD}@{hosts}/{name}?sslmode=disable")
    };
    let both = format!("127.0.0.1:{closed},localhost:{port}");
    assert_eq!(check(&url(both.clone(), name), &[]), Ok(()));
    let (first, second) = (format!("127.0.0.1:{closed}"), format!("localhost:{port}"));
    assert_refused(
        &url(both, "nowhere"),
        &[],
        &[
            &first,
            "refused",
            &second,
            "user \"postgres\"",
            "database \"nowhere\" does not exist",
        ],
    );
    assert_refused(
        &url("no.such.host.invalid".to_owned(), name),
        &[],
        &["no.such.host.invalid:5432"],
    );
}

/// The first host is read-only, as a standby is.
#[test]
fn writable_host_is_chosen() {
    let (standby, primary) = (Cluster::start_new(), Cluster::start_new());
    let database = primary.database();
    let (port, name) = (standby.database().address().port(), database.name());
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    standby.existing("postgres").run(&read_only);
    let url = |hosts: &str| {
        format!("postgres://postgres:{PASSWORD}@{hosts}/{name}?target_session_attrs=read-write")
    };
    let standby = format!("127.0.0.1:{port}");
    let primary = format!("127.0.0.1:{}", database.address().port());
    assert_refused(&url(&standby), &[], &[&standby, "does not allow writes"]);
    assert_eq!(check(&url(&format!("{standby},{primary}")), &[]), Ok(()));
}
