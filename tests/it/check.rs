//! `--check` reports what a start would do and changes nothing. Also: which problems end a start, and which are retried.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::database_roles::bring_to_version;
use crate::fake_postiz::http::Response;
use crate::fake_postiz::{CLIENT_SECRET, FakePostiz, Fault, Registration};
use crate::pooler::{log_in, store};
use crate::support::postgres::PASSWORD;
use crate::support::server::ServerSetup;
use crate::support::tls::{Authority, make_certificates};
use crate::support::{Cluster, Database, Login, Pooler, Store, TestServer, expect, program};

/// Exit code, standard output, standard error.
fn run(setup: &ServerSetup, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = setup.run(arguments);
    parts_of(&output)
}

fn parts_of(output: &Output) -> (Option<i32>, String, String) {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    for text in [&out, &err] {
        assert!(
            !text.contains(CLIENT_SECRET) && !text.contains(PASSWORD),
            "{text}"
        );
        assert!(!text.contains("panicked"), "{text}");
    }
    (output.status.code(), out, err)
}

#[track_caller]
fn assert_finds(setup: &ServerSetup, code: i32, words: &[&str]) {
    let (found, out, err) = run(setup, &["--check"]);
    assert_eq!(found, Some(code), "{out}{err}");
    assert_eq!(err.is_empty(), code == 0, "{err}");
    for word in words {
        let output = out.clone() + &err;
        assert!(output.contains(word), "no {word:?} in: {output}");
    }
}

fn setup(postiz: &FakePostiz) -> ServerSetup {
    TestServer::setup(Store::Embedded).postiz(postiz)
}

/// All that a migration could change.
fn state(database: &Database) -> String {
    let columns = "SELECT coalesce(string_agg(c::text, E'\\n' ORDER BY c::text), '') FROM (
        SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns
        WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
        UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema')) AS c";
    let row = database.connect().query_one(columns, &[]).unwrap();
    database.dump() + &row.get::<_, String>(0)
}

const REFERENCE: &str = "CREATE TABLE device_requests (
        device_code TEXT PRIMARY KEY, user_code TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
        access_token TEXT, api_url TEXT, organization_id TEXT, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
    INSERT INTO device_requests (device_code, user_code) VALUES ('reference-pending-code', 'WDJB-MJHT')";

#[test]
fn check_leaves_every_schema_of_a_database_as_it_is() {
    let postiz = FakePostiz::start();
    for (version, words) in [
        (
            None,
            "it is empty: a start would make its tables (schema 3)",
        ),
        (Some(0), "a start would bring the schema from 0 to 3"),
        (Some(1), "a start would bring the schema from 1 to 3"),
        (Some(2), "a start would bring the schema from 2 to 3"),
        (Some(3), "its schema is 3"),
    ] {
        let database = Cluster::shared().database();
        match version {
            None => {}
            Some(0) => database.run(REFERENCE),
            Some(3) => store(&database.url(), 1).ping().unwrap(),
            Some(version) => bring_to_version(&database, version),
        }
        let before = state(&database);
        let direct = setup(&postiz).database(&database);
        assert_finds(
            &direct,
            0,
            &[words, "PostgreSQL answers: 127.0.0.1", database.name()],
        );
        let pooler = Pooler::start(&database, "");
        assert_finds(
            &setup(&postiz).database(&pooler.database(&database)),
            0,
            &[words],
        );
        assert_eq!(state(&database), before, "{version:?}");
        // The check was right.
        drop(direct.start());
        assert_finds(&direct, 0, &["its schema is 3", "logins"]);
    }
    let database = Cluster::shared().database();
    store(&database.url(), 1).ping().unwrap();
    database.run("INSERT INTO device_requests_schema VALUES (99)");
    assert_finds(
        &setup(&postiz).database(&database),
        1,
        &["99", "run a newer server"],
    );
}

#[test]
fn check_reads_the_schema_of_the_url() {
    let (postiz, database) = (FakePostiz::start(), Cluster::shared().database());
    database.run("CREATE SCHEMA logins");
    let url =
        |schema: &str| database.url_with("127.0.0.1", &format!("sslmode=disable&schema={schema}"));
    let of = |schema: &str| setup(&postiz).var("DATABASE_URL", &url(schema));
    assert_finds(&of("logins"), 0, &["a start would make its tables"]);
    log_in(&[store(&url("logins"), 1)], 0);
    assert_finds(&of("logins"), 0, &["its schema is 3", "it holds 1 logins"]);
    assert_finds(&of("public"), 0, &["a start would make its tables"]);
    assert_finds(
        &of("nowhere"),
        1,
        &["there is no schema in which", database.name()],
    );
}

/// The check finds what would make a start fail.
#[test]
fn check_finds_missing_rights() {
    let (postiz, cluster) = (FakePostiz::start(), Cluster::start_new());
    let database = cluster.database();
    database.run("CREATE ROLE reader LOGIN PASSWORD 'pw'; CREATE ROLE anon; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let url = database
        .url()
        .replace(&format!("postgres:{PASSWORD}"), "reader:pw");
    let reader = setup(&postiz).var("DATABASE_URL", &url);
    assert_finds(
        &reader,
        1,
        &[
            "user \"reader\"",
            "no schema in which the role may make tables",
        ],
    );
    bring_to_version(&database, 2);
    database.run("GRANT SELECT ON device_requests_schema TO reader");
    assert_finds(&reader, 1, &["does not own"]);
    store(&database.url(), 1).ping().unwrap();
    database.run("GRANT SELECT, INSERT ON device_requests TO reader");
    assert_finds(&reader, 1, &["lacks UPDATE, DELETE on device_requests"]);
    database.run("GRANT UPDATE, DELETE ON device_requests TO reader");
    assert_finds(&reader, 0, &["its schema is 3"]);
    database.run("GRANT UPDATE ON device_requests TO anon");
    assert_finds(&reader, 0, &["WARNING: anon may change device_requests"]);
    cluster.restart_after("touch data/standby.signal");
    assert_finds(&reader, 1, &["the database is read-only"]);
}

fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.display().to_string(),
                fs::read(&path).unwrap_or_default(),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn check_leaves_the_embedded_file_as_it_is() {
    let postiz = FakePostiz::start();
    let setup = setup(&postiz);
    let folder = setup.data_dir();
    assert_finds(&setup, 0, &["a start would make its tables"]);
    assert!(!folder.exists(), "nothing is made");

    let mut server = setup.start();
    let login = Login::start(&server);
    assert_finds(
        &setup,
        0,
        &["another server has it open", "postiz-auth.redb"],
    );
    expect::error(&login.poll(&server), 400, "authorization_pending");
    server.signal("TERM");
    server.wait();
    drop(server);

    let before = files_below(&folder);
    assert_eq!(before.len(), 1);
    assert_finds(&setup, 0, &["its schema is 2", "it holds 1 logins"]);
    assert_eq!(files_below(&folder), before);

    // Another account, which may not read the folder.
    let script = "exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" --check";
    let own = tempfile::tempdir().unwrap();
    fs::copy(program("postiz-auth-server"), own.path().join("server")).unwrap();
    let copy = own.path().join("server");
    let opened = Command::new("chmod")
        .arg("755")
        .args([own.path(), &copy, folder.parent().unwrap()])
        .status();
    assert!(opened.unwrap().success());
    let variables = setup.command();
    let variables = variables
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let mut other = Command::new("sh");
    other
        .args(["-c", script])
        .arg(copy)
        .env_clear()
        .envs(variables);
    let (code, out, err) = parts_of(&other.output().unwrap());
    assert_eq!(code, Some(1), "{out}{err}");
    let words = "a start as this user would fail";
    assert!(
        err.contains(words) && err.contains("Permission denied"),
        "{err}"
    );
    assert_eq!(files_below(&folder), before);

    let mut server = setup.start();
    server.kill();
    assert_finds(&setup, 0, &["it holds 1 logins"]);
    fs::write(
        folder.join("postiz-auth.redb"),
        "somebody's text. ".repeat(1_000),
    )
    .unwrap();
    assert_finds(&setup, 1, &["postiz-auth.redb", "Not a redb database"]);
}

#[test]
fn check_reports_what_postiz_answers() {
    let postiz = FakePostiz::start();
    let setup = setup(&postiz);
    postiz.set_registration(Registration::TooOld);
    assert_finds(
        &setup,
        0,
        &[
            "Postiz answers",
            &postiz.url(),
            "too old to register clients",
        ],
    );
    postiz.set_registration(Registration::Open);
    assert_finds(&setup, 0, &["it registers clients"]);
    assert!(postiz.registered_clients().is_empty());
    let wrong = setup.clone().var("POSTIZ_OAUTH_CLIENT_SECRET", "pcs_wrong");
    assert_finds(&wrong, 2, &["invalid_client", "POSTIZ_OAUTH_CLIENT_SECRET"]);

    // A path without /api, a web page, a proxy without its Postiz, and a closed port.
    let answers = [
        (Response::redirect(307, "/auth"), 2, "POSTIZ_API_URL"),
        (
            Response::html(200, "<h1>Welcome</h1>"),
            2,
            "https://host/api",
        ),
        (Response::html(502, "<h1>Bad gateway</h1>"), 1, "502"),
    ];
    for (answer, code, word) in answers {
        postiz.misbehave_times(1, "/oauth/token", Fault::Answer(answer));
        assert_finds(&setup, code, &[word]);
    }
    let unreachable = setup.clone().var("POSTIZ_API_URL", "http://127.0.0.1:1");
    assert_finds(&unreachable, 1, &["no answer from http://127.0.0.1:1"]);
    // All problems are reported together, and the exit code is that of the configuration.
    let both = wrong.var(
        "DATABASE_URL",
        "postgres://u:p@127.0.0.1:1/x?sslmode=disable",
    );
    assert_finds(&both, 2, &["invalid_client", "127.0.0.1:1", "user \"u\""]);
}

#[test]
fn check_inspects_the_certificate() {
    let (postiz, authority) = (FakePostiz::start(), Authority::new());
    let https = |url: &str| setup(&postiz).https(&authority).var("SERVER_URL", url);
    assert_finds(
        &https("https://postiz.test"),
        0,
        &["is valid until", "renew it"],
    );
    assert_finds(&https("https://postiz.test:8443/x"), 0, &["is valid until"]);
    let (_, out, _) = run(&https("https://postiz.test"), &["--check"]);
    assert!(!out.contains("is not for"), "{out}");
    assert_finds(
        &https("https://auth.example"),
        0,
        &[
            "WARNING",
            "is not for auth.example",
            "it is for localhost, postiz.test",
        ],
    );
    assert_finds(&https("https://192.0.2.1"), 0, &["is not for 192.0.2.1"]);

    let folder = tempfile::tempdir().unwrap();
    for (dates, code, words) in [
        (
            "-not_before 20200101000000Z -not_after 20210101000000Z",
            2,
            "it has expired",
        ),
        (
            "-not_before 20900101000000Z -not_after 20910101000000Z",
            2,
            "is not valid before Sun, 01 Jan 2090",
        ),
        (
            "-not_before 20200101000000Z -not_after 20910101000000Z",
            0,
            "is valid until Mon, 01 Jan 2091",
        ),
    ] {
        let script = format!(
            "self_signed ca x $key; request leaf x $key; touch index; echo 01 >serial
             printf '[ca]\\ndatabase=index\\nnew_certs_dir=.\\nserial=serial\\ndefault_md=sha256\\npolicy=p\\nx509_extensions=v\\n[v]\\nsubjectAltName=DNS:x\\n[p]\\ncommonName=supplied\\n' >cnf
             openssl ca -batch -config cnf -name ca -cert ca.crt -keyfile ca.key {} -in leaf.csr -out leaf.crt -notext",
            dates.replace("-not_before", "-startdate").replace("-not_after", "-enddate")
        );
        fs::remove_file(folder.path().join("index")).ok();
        make_certificates(folder.path(), &script);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let setup = setup(&postiz)
            .var("TLS_CERT_FILE", &path("leaf.crt"))
            .var("TLS_KEY_FILE", &path("leaf.key"));
        assert_finds(&setup, code, &["TLS_CERT_FILE", words]);
    }
}

#[test]
fn check_warns_of_weak_settings() {
    let postiz = FakePostiz::start();
    let public = setup(&postiz).var("SERVER_URL", "https://auth.example");
    let proxies = "WARNING: TRUSTED_PROXIES";
    assert_finds(
        &public,
        0,
        &[proxies, "clients are sent to https://auth.example"],
    );
    for trusted in [
        setup(&postiz),
        public.clone().var("TRUSTED_PROXIES", "none"),
        public.https(&Authority::new()),
    ] {
        assert!(!run(&trusted, &["--check"]).1.contains(proxies));
    }
    // Codes and tokens would be sent without encryption (RFC 6749 §3.2).
    let plain = setup(&postiz).var("SERVER_URL", "http://auth.example.com");
    assert_finds(&plain, 0, &["WARNING: SERVER_URL is plain http"]);
}

/// An error that is not retryable ends the start with exit code 1, and names host, user and database.
#[test]
fn fatal_database_errors_end_the_start() {
    let cluster = Cluster::start_with_tls();
    let database = cluster.database();
    let plain = Cluster::shared().database();
    database.run(
        "CREATE ROLE nobody_may LOGIN PASSWORD 'pw'; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    );
    let other = cluster.file("other.crt");
    let ca = cluster.file("ca.crt");
    let tls = |host: &str, parameters: &str| database.url_with(host, parameters);
    let by = |user: &str| plain.url().replace(&format!("postgres:{PASSWORD}"), user);
    let cases = [
        (by("postgres"), "asks for a password"),
        (by("postgres:wrong"), "password authentication failed"),
        (by("nobody:x"), "password authentication failed"),
        (
            Cluster::shared().existing("no_such_database").url(),
            "does not exist",
        ),
        (
            plain.url_with("127.0.0.1", "sslmode=disable&schema=nowhere"),
            "no schema",
        ),
        (
            tls("localhost", "sslmode=disable")
                .replace(&format!("postgres:{PASSWORD}"), "nobody_may:pw"),
            "permission denied for schema public",
        ),
        (
            tls(
                "localhost",
                &format!("sslmode=verify-ca&sslrootcert={other}"),
            ),
            "not trusted",
        ),
        (
            tls(
                "127.0.0.1",
                &format!("sslmode=verify-full&sslrootcert={ca}"),
            ),
            "it is not for 127.0.0.1",
        ),
        (
            plain.url_with("127.0.0.1", "sslmode=require"),
            "it has no TLS",
        ),
        (
            tls("localhost", "sslmode=disable").replace(&format!("postgres:{PASSWORD}"), "dave:x"),
            "password authentication failed",
        ),
    ];
    for (url, words) in cases {
        let setup = TestServer::setup(Store::Embedded)
            .var("DATABASE_URL", &url)
            .var("HOME", "/nowhere");
        let (code, out, err) = run(&setup, &[]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{url}: {err}");
        for word in [
            words,
            "user \"",
            "database \"",
            if url.contains("localhost") {
                "localhost:"
            } else {
                "127.0.0.1:"
            },
        ] {
            assert!(err.contains(word), "{url}: no {word:?} in {err}");
        }
        assert!(!err.contains("listening"), "{err}");
    }
}

/// After a retryable error the server listens, and is ready once the database is.
#[test]
fn retryable_database_errors_are_retried() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    let crowded = Cluster::start_new();
    let database = crowded.database();
    database.run(&format!(
        "ALTER DATABASE {} CONNECTION LIMIT 0; CREATE ROLE app LOGIN PASSWORD 'pw'",
        database.name()
    ));
    database.run("GRANT ALL ON SCHEMA public TO app");
    let full = database
        .url()
        .replace(&format!("postgres:{PASSWORD}"), "app:pw");
    let starting = Cluster::start_new();
    let recovering = starting.database().url();
    starting.restart_after(
        "touch data/standby.signal; echo hot_standby=off >>data/postgresql.auto.conf",
    );
    for (url, words) in [
        (
            "postgres://u:p@127.0.0.1:1/x?sslmode=disable".to_owned(),
            "Connection refused",
        ),
        (
            format!("postgres://u:p@127.0.0.1:{silent}/x?sslmode=disable&connect_timeout=2"),
            "no answer within",
        ),
        (
            "postgres://u:p@no-such-host.invalid/x".to_owned(),
            "no-such-host.invalid",
        ),
        (full.clone(), "too many connections"),
        (recovering, "not accepting connections"),
    ] {
        let mut setup = TestServer::setup(Store::Embedded).var("DATABASE_URL", &url);
        if words == "no answer within" {
            setup = setup.time(|times| times.ping = Duration::from_secs(1));
        }
        let server = setup.start();
        let log = server.log();
        assert!(
            log.contains("store unavailable") && log.contains(words),
            "{url}: {log}"
        );
        assert_eq!(server.get("/health").status, 200);
        expect::json(&server.get("/ready"), 503);
    }
    let server = TestServer::setup(Store::Embedded)
        .var("DATABASE_URL", &full)
        .start();
    database.run(&format!(
        "ALTER DATABASE {} CONNECTION LIMIT -1",
        database.name()
    ));
    crate::support::eventually("there is room", || server.get("/ready").status == 200);
}

/// A wrong configuration ends the start with exit code 2. All problems are reported, including those of files and proxies.
#[test]
fn configuration_problems_are_reported_together() {
    let setup = TestServer::setup(Store::Embedded)
        .var("PORT", "x")
        .var(
            "DATABASE_URL",
            "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=/nowhere/ca.crt",
        )
        .var("TLS_CERT_FILE", "/nowhere/cert.pem")
        .var("TLS_KEY_FILE", "/nowhere/key.pem")
        .var("HTTPS_PROXY", "gopher://x")
        .var("NODE_EXTRA_CA_CERTS", "/nowhere/extra.pem");
    for arguments in [&[][..], &["--check"]] {
        let (code, out, err) = run(&setup, arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        for words in [
            "6 problems",
            "PORT is \"x\"",
            "DATABASE_URL (its value is not shown) sslrootcert /nowhere/ca.crt",
            "/nowhere/cert.pem",
            "/nowhere/key.pem",
            "HTTPS_PROXY: ",
            "NODE_EXTRA_CA_CERTS: ",
        ] {
            assert!(err.contains(words), "no {words:?} in {err}");
        }
    }
}
