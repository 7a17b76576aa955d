//! Encryption on the way to PostgreSQL: every `sslmode`, as libpq means it.

use crate::support::{Cluster, Database, Login, Store, TestServer, expect};

/// Does a server with this URL reach its database, and is the connection encrypted then?
fn connection(database: &Database, host: &str, parameters: &str) -> Option<bool> {
    let url = database.url_with(host, parameters);
    let setup = TestServer::setup(Store::Embedded).var("DATABASE_URL", &url);
    let checked = setup.run(&["--check"]);
    if !checked.status.success() {
        return None;
    }
    let server = setup.start();
    let login = Login::start(&server);
    expect::error(&login.poll(&server), 400, "authorization_pending");
    let query =
        "SELECT bool_or(ssl) AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let row = database.connect().query_one(query, &[]);
    row.expect("the server's connections are there").get(0)
}

#[test]
fn every_sslmode_with_a_database_that_encrypts() {
    let cluster = Cluster::start_with_tls();
    let database = cluster.database();
    let (ca, other) = (cluster.file("ca.crt"), cluster.file("other.crt"));
    let with = |parameters: &str| {
        let database = database.clone();
        let parameters = parameters.replace("CA", &ca).replace("OTHER", &other);
        move |host: &str| connection(&database, host, &parameters)
    };
    let (encrypted, clear, refused) = (Some(true), Some(false), None);
    for (parameters, by_name, by_address) in [
        ("sslmode=disable", clear, clear),
        ("", encrypted, encrypted),
        ("sslmode=prefer", encrypted, encrypted),
        ("sslmode=require", encrypted, encrypted),
        // As libpq: a root certificate makes `require` check the authority.
        ("sslmode=require&sslrootcert=CA", encrypted, encrypted),
        ("sslmode=require&sslrootcert=OTHER", refused, refused),
        ("sslmode=verify-ca&sslrootcert=CA", encrypted, encrypted),
        ("sslmode=verify-ca&sslrootcert=OTHER", refused, refused),
        ("sslmode=verify-full&sslrootcert=CA", encrypted, refused),
        ("sslmode=verify-full&sslrootcert=OTHER", refused, refused),
        ("sslmode=verify-full", refused, refused),
    ] {
        let connect = with(parameters);
        assert_eq!(
            (connect("localhost"), connect("127.0.0.1")),
            (by_name, by_address),
            "{parameters}"
        );
    }
}

#[test]
fn every_sslmode_with_a_database_that_does_not() {
    let database = Cluster::shared().database();
    for (parameters, expected) in [
        ("sslmode=disable", Some(false)),
        ("sslmode=prefer", Some(false)),
        ("", Some(false)),
        ("sslmode=require", None),
        ("sslmode=verify-ca", None),
        ("sslmode=verify-full", None),
    ] {
        assert_eq!(
            connection(&database, "127.0.0.1", parameters),
            expected,
            "{parameters}"
        );
    }
}

/// Settings that cannot work are told before anything is tried.
#[test]
fn wrong_settings_are_told() {
    let database = Cluster::shared().database();
    for (parameters, word) in [
        ("sslmode=sometimes", "sslmode"),
        (
            "sslmode=verify-ca&sslrootcert=/nowhere/ca.crt",
            "/nowhere/ca.crt",
        ),
    ] {
        let url = database.url_with("127.0.0.1", parameters);
        let output = TestServer::setup(Store::Embedded)
            .var("DATABASE_URL", &url)
            .run(&[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(word),
            "{parameters}: {stderr}"
        );
        assert!(
            !stderr.contains(crate::support::postgres::PASSWORD),
            "{stderr}"
        );
    }
}
