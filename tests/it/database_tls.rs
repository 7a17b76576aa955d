//! Connections to PostgreSQL with each `sslmode`, which must mean what it means in libpq.

use crate::database_url::{assert_refused, check};
use std::path::Path;

use crate::support::tls::{Authority, intercept_tls};
use crate::support::{Cluster, Database, Login, Store, TestServer, expect};

/// Whether the connection of a server with this URL is encrypted; `None` if it does not connect.
fn connection(database: &Database, host: &str, parameters: &str) -> Option<bool> {
    let url = database.url_with(host, parameters);
    let setup = TestServer::setup(Store::Embedded).var("DATABASE_URL", &url);
    if check(&url, &[]).is_err() {
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
fn sslmodes_with_a_database_that_encrypts() {
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
        // As in libpq, a root certificate makes `require` verify the authority.
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
fn sslmodes_with_a_database_that_does_not_encrypt() {
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

/// Settings that cannot work are reported before a connection is tried.
#[test]
fn wrong_settings_are_reported() {
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
        assert_eq!(output.status.code(), Some(2), "{parameters}: {stderr}");
        assert!(stderr.contains(word), "{parameters}: {stderr}");
        assert!(
            !stderr.contains(crate::support::postgres::PASSWORD),
            "{stderr}"
        );
    }
}

/// Whether an sslmode accepts a server's certificate.
enum Outcome {
    Connects,
    /// Refused with these words.
    Refused(&'static str),
}

#[test]
fn certificates_are_verified_as_libpq_does() {
    use Outcome::{Connects, Refused};
    let own = |options: &str| {
        (
            format!("self_signed server localhost {options}"),
            "server.crt",
        )
    };
    let signed = |options: &str| {
        let script = format!("signed server localhost ca DNS:localhost {options}");
        (script, "ca.crt")
    };
    let cluster = Cluster::start_with_tls();
    let database = cluster.database();
    let no_name = "names no host in subjectAltName";
    for (kind, (recipe, root), binding, authority, name) in [
        // PostgreSQL's manual, 19.9.5 (with openssl before 3.4, version 1).
        (
            "version 1",
            (
                "request server localhost; sign server -CA ca.crt -CAkey ca.key -CAcreateserial"
                    .to_owned(),
                "ca.crt",
            ),
            Connects,
            Refused("version 1"),
            Refused("version 1"),
        ),
        (
            "version 1, self-signed",
            (
                "request server localhost; sign server -signkey server.key".to_owned(),
                "server.crt",
            ),
            Connects,
            Connects,
            Refused("version 1"),
        ),
        (
            "the manual's self-signed one",
            own(""),
            Connects,
            Connects,
            Refused(no_name),
        ),
        (
            "self-signed with a name",
            own("-addext subjectAltName=DNS:localhost"),
            Connects,
            Connects,
            Connects,
        ),
        (
            "self-signed for another name",
            own("-addext subjectAltName=DNS:elsewhere"),
            Connects,
            Connects,
            Refused("not for localhost, but for"),
        ),
        (
            "self-signed and expired",
            (
                "request server localhost; sign server -signkey server.key -days -1".to_owned(),
                "server.crt",
            ),
            Connects,
            Refused("expired"),
            Refused("expired"),
        ),
        (
            "self-signed by another key",
            ("self_signed server localhost".to_owned(), "ca.crt"),
            Connects,
            Refused("not trusted"),
            Refused("not trusted"),
        ),
        (
            "a P-521 key",
            signed("-newkey ec -pkeyopt ec_paramgen_curve:P-521"),
            Refused("channel_binding"),
            Refused("P-521"),
            Refused("P-521"),
        ),
        (
            "signed by a P-521 key",
            (
                "self_signed odd odd -newkey ec -pkeyopt ec_paramgen_curve:P-521
                 request server localhost
                 sign server -CA odd.crt -CAkey odd.key -sha512 -CAcreateserial -extfile names"
                    .to_owned(),
                "odd.crt",
            ),
            Connects,
            Refused("signed by an algorithm"),
            Refused("signed by an algorithm"),
        ),
        (
            "ECDSA with SHA-512",
            own(
                "-newkey ec -pkeyopt ec_paramgen_curve:P-384 -sha512 -addext subjectAltName=DNS:localhost",
            ),
            Connects,
            Connects,
            Connects,
        ),
        (
            "a PSS signature",
            own(
                "-newkey rsa:2048 -sha384 -sigopt rsa_padding_mode:pss -addext subjectAltName=DNS:localhost",
            ),
            Connects,
            Connects,
            Connects,
        ),
        (
            "a PSS key",
            signed("-newkey rsa-pss -pkeyopt rsa_keygen_bits:2048"),
            Connects,
            Connects,
            Connects,
        ),
        (
            "RSA of 2049 bits",
            signed("-newkey rsa:2049"),
            Connects,
            Connects,
            Connects,
        ),
        (
            "RSA of 3000 bits",
            signed("-newkey rsa:3000"),
            Connects,
            Connects,
            Connects,
        ),
        (
            "RSA of 1024 bits",
            signed("-newkey rsa:1024"),
            Refused("channel_binding"),
            Refused("1024 bits"),
            Refused("1024 bits"),
        ),
        (
            "Ed25519",
            own("-newkey ed25519 -addext subjectAltName=DNS:localhost"),
            Refused("channel_binding"),
            Connects,
            Connects,
        ),
    ] {
        cluster.reload_after(&recipe);
        let root = cluster.file(root);
        for (parameters, outcome) in [
            ("sslmode=require", Connects),
            ("sslmode=prefer", Connects),
            ("sslmode=require&channel_binding=require", binding),
            ("sslmode=verify-ca&sslrootcert=ROOT", authority),
            ("sslmode=verify-full&sslrootcert=ROOT", name),
        ] {
            let url = database.url_with("localhost", &parameters.replace("ROOT", &root));
            match outcome {
                Connects => {
                    let checked = check(&url, &[]);
                    assert_eq!(checked, Ok(()), "{kind}, {parameters}");
                }
                Refused(words) => assert_refused(&url, &[], &[words, "localhost:"]),
            }
        }
    }
}

#[test]
fn channel_binding_needs_tls() {
    let cluster = Cluster::start_with_tls();
    let database = cluster.database();
    let url = |parameters| database.url_with("localhost", parameters);
    assert_eq!(check(&url("channel_binding=require"), &[]), Ok(()));
    assert_eq!(check(&url("channel_binding=disable"), &[]), Ok(()));
    assert_refused(
        &url("sslmode=disable&channel_binding=require"),
        &[],
        &["channel_binding=require"],
    );
}

/// Without verification of the certificate, channel binding still detects a man in the middle; `prefer` uses it if possible.
#[test]
fn channel_binding_detects_a_man_in_the_middle() {
    let cluster = Cluster::start_with_tls();
    let database = cluster.database();
    let ca = cluster.file("ca.crt");
    let relay = intercept_tls(database.address(), Path::new(&ca), &Authority::new());
    let url = |parameters| {
        database
            .behind(relay.port())
            .url_with("localhost", parameters)
    };
    assert_eq!(
        check(&url("sslmode=require&channel_binding=disable"), &[]),
        Ok(())
    );
    let found_out = "channel binding check failed";
    assert_refused(&url("sslmode=require"), &[], &[found_out]);
    assert_refused(
        &url("sslmode=require&channel_binding=require"),
        &[],
        &[found_out],
    );
}

/// After `hostssl … reject`, or with only `hostnossl`, libpq tries without TLS. Carol authenticates by a certificate.
#[test]
fn roles_connect_by_their_pg_hba_rule() {
    let cluster = Cluster::start_with_tls();
    let database = cluster.database();
    database.run(&format!(
        "CREATE ROLE carol SUPERUSER LOGIN; CREATE ROLE dave SUPERUSER LOGIN PASSWORD '{}'",
        crate::support::postgres::PASSWORD
    ));
    cluster.reload_after(
        "for name in carol other odd; do
             size=2048; [ $name = odd ] && size=2500
             request $name $name -newkey rsa:$size
             sign $name -CA ca.crt -CAkey ca.key -CAcreateserial
         done
         self_signed server localhost -newkey rsa:2048 -addext subjectAltName=DNS:localhost
         cp carol.key open.key
         cp carol.crt no.key
         chmod 600 carol.key other.key odd.key no.key
         chmod 644 open.key",
    );
    let (port, name) = (database.address().port(), database.name());
    let certificate = |certificate: &str, key: &str| {
        let (certificate, key) = (cluster.file(certificate), cluster.file(key));
        format!(
            "postgres://carol@localhost:{port}/{name}?sslmode=require&sslcert={certificate}&sslkey={key}"
        )
    };
    assert_eq!(check(&certificate("carol.crt", "carol.key"), &[]), Ok(()));
    for (crt, key, words) in [
        (
            "other.crt",
            "other.key",
            "certificate authentication failed",
        ),
        ("carol.crt", "other.key", "is not the key of sslcert"),
        ("carol.crt", "open.key", "chmod 600"),
        ("odd.crt", "odd.key", "RSA of 2048"),
        ("carol.crt", "nowhere.key", "nowhere.key"),
        ("carol.crt", "no.key", "holds no private key"),
    ] {
        assert_refused(&certificate(crt, key), &[], &[words]);
    }
    let without = format!("postgres://carol@localhost:{port}/{name}?sslmode=require");
    assert_refused(&without, &[], &["certificate"]);
    let dave = |parameters| {
        database
            .url_with("localhost", parameters)
            .replace("postgres:db", "dave:db")
    };
    assert_eq!(check(&dave("sslmode=prefer"), &[]), Ok(()));
    assert_refused(&dave("sslmode=require"), &[], &["pg_hba.conf rejects"]);
}
