//! Roles, rights and encodings of PostgreSQL databases, as administrators and hosting providers set them up.

use postgres::{Client, NoTls};

use postiz::server::store::StoreError;

use crate::pooler::{log_in, store};
use crate::support::{Cluster, Database, Store as Kind, TestServer, at_once, expect};

/// Creates a role with the database's name as a suffix, since tests share the cluster's roles.
fn role(database: &Database, name: &str, options: &str) -> String {
    let role = format!("{name}_{}", database.name());
    database.run(&format!("CREATE ROLE {role} LOGIN PASSWORD 'pw' {options}"));
    role
}

fn url(database: &Database, role: &str) -> String {
    let (address, name) = (database.address(), database.name());
    format!("postgres://{role}:pw@{address}/{name}?sslmode=disable")
}

fn client(database: &Database, role: &str) -> Client {
    Client::connect(&url(database, role), NoTls).expect("the role may connect")
}

/// The role allows fewer connections than the pool's size.
#[test]
fn role_limited_to_two_connections_serves_fifty_logins_at_once() {
    let database = Cluster::shared().database();
    database.run("GRANT CREATE ON SCHEMA public TO PUBLIC");
    let few = role(&database, "few", "CONNECTION LIMIT 2");
    let server = TestServer::setup(Kind::Embedded)
        .var("DATABASE_URL", &url(&database, &few))
        .var("DATABASE_POOL_SIZE", "8")
        .start();
    for _ in 0..3 {
        let answers = at_once(50, |_| {
            let start = server.post_json("/device/code", &serde_json::json!({}));
            let login = serde_json::json!({"device_code": start.json()["device_code"]});
            (start, server.post_json("/device/token", &login))
        });
        for (start, poll) in &answers {
            expect::json(start, 200);
            expect::error(poll, 400, "authorization_pending");
        }
    }
    drop(server);
    let store = store(&url(&database, &few), 8);
    store.ping().unwrap();
    at_once(50, |first| log_in(&[std::sync::Arc::clone(&store)], first));
}

/// Hosted databases grant all rights on new tables to roles whose keys are public.
const DEFAULT_GRANTS: &str =
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated;
    GRANT USAGE ON SCHEMA public TO anon, authenticated";

/// A cluster with these roles. Roles belong to a cluster, so the test needs its own.
fn cluster_with_public_roles() -> Cluster {
    let cluster = Cluster::start_new();
    let roles =
        "CREATE ROLE anon LOGIN PASSWORD 'pw'; CREATE ROLE authenticated LOGIN PASSWORD 'pw'";
    cluster.existing("postgres").run(roles);
    cluster
}

/// With write access to a login's key, an attacker would get the victim's token.
#[track_caller]
fn assert_public_roles_have_no_rights(database: &Database) {
    for role in ["anon", "authenticated"] {
        let mut public_role = client(database, role);
        for statement in [
            "UPDATE device_requests SET device_code = 'mine'",
            "SELECT 1 FROM device_requests",
            "INSERT INTO device_requests (device_code, user_code, expires_at) VALUES ('mine', 'x', now())",
            "DELETE FROM device_requests",
            "TRUNCATE device_requests",
            "SELECT 1 FROM device_requests_schema",
            "INSERT INTO device_requests_schema VALUES (99)",
        ] {
            let error = public_role.batch_execute(statement).expect_err(statement);
            let code = error.code().map(|code| code.code());
            assert_eq!(code, Some("42501"), "{statement}: {error}");
        }
    }
}

#[test]
fn public_roles_of_hosted_databases_have_no_rights_on_the_tables() {
    let cluster = cluster_with_public_roles();
    let server_of = |database: &Database| store(&database.url(), 2);

    let database = cluster.database();
    database.run(DEFAULT_GRANTS);
    server_of(&database).ping().unwrap();
    log_in(&[server_of(&database)], 0);
    assert_public_roles_have_no_rights(&database);

    // The previous version's tables had these rights.
    let database = cluster.database();
    database.run(DEFAULT_GRANTS);
    bring_to_version(&database, 2);
    database.run("INSERT INTO device_requests (device_code, user_code, expires_at) VALUES ('victim', 'x', now())");
    client(&database, "anon")
        .batch_execute(
            "UPDATE device_requests SET device_code = 'stolen' WHERE device_code = 'victim'",
        )
        .expect("the previous version's rights are granted");
    server_of(&database).ping().unwrap();
    log_in(&[server_of(&database)], 0);
    assert_public_roles_have_no_rights(&database);
}

/// Makes the schema as an earlier version left it.
pub fn bring_to_version(database: &Database, version: usize) {
    let steps = [
        include_str!("../../sql/0001_reference.sql"),
        include_str!("../../sql/0002_hashed_and_bound.sql"),
    ];
    database.run("CREATE TABLE device_requests_schema (version integer NOT NULL)");
    for (step, sql) in steps.into_iter().take(version).enumerate() {
        database.run(sql);
        let version = step + 1;
        database.run(&format!(
            "INSERT INTO device_requests_schema VALUES ({version})"
        ));
    }
}

/// Another role granted the rights, so the migration's role cannot revoke them. Logins still work.
#[test]
fn migration_succeeds_without_the_right_to_revoke() {
    let cluster = cluster_with_public_roles();
    let database = cluster.database();
    database.run(DEFAULT_GRANTS);
    database.run("GRANT CREATE ON SCHEMA public TO PUBLIC");
    let owner = role(&database, "owner", "");
    bring_to_version(&database, 2);
    database.run(&format!(
        "ALTER TABLE device_requests OWNER TO {owner}; GRANT SELECT, INSERT ON device_requests_schema TO {owner}"
    ));
    let store = store(&url(&database, &owner), 2);
    store.ping().unwrap();
    log_in(&[store], 0);
    let error = client(&database, "anon").batch_execute("SELECT 1 FROM device_requests");
    assert!(error.is_err(), "on the owner's own table it may");
}

/// The owner migrates, and the server's role may only read and write rows. Row level security would hide all rows from it.
#[test]
fn role_that_may_only_read_and_write_rows_works_after_a_migration() {
    for has_strangers in [false, true] {
        let cluster = if has_strangers {
            cluster_with_public_roles()
        } else {
            Cluster::start_new()
        };
        let database = cluster.database();
        let owner = role(&database, "owner", "");
        let writer = role(&database, "writer", "");
        database.run(&format!(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT CREATE ON SCHEMA public TO {owner}"
        ));

        // Tables and the right to create them are missing, which is not retryable.
        let without = store(&url(&database, &writer), 2).ping();
        let Err(StoreError::Unusable(why)) = without else {
            panic!("{without:?}")
        };
        assert!(why.contains("permission denied for schema public"), "{why}");
        assert!(
            why.contains(&writer) && why.contains(database.name()),
            "{why}"
        );

        store(&url(&database, &owner), 2).ping().unwrap();
        client(&database, &owner)
            .batch_execute(&format!(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON device_requests TO {writer}; \
                 GRANT SELECT ON device_requests_schema TO {writer}"
            ))
            .unwrap();
        // The owner has lost the right to create tables, too.
        database.run(&format!("REVOKE CREATE ON SCHEMA public FROM {owner}"));
        let instances = [&owner, &writer].map(|role| store(&url(&database, role), 2));
        at_once(10, |first| log_in(&instances, first));
        assert!(
            !instances[1]
                .purge(10)
                .unwrap()
                .iter()
                .any(|purged| purged.expired)
        );
    }
}

/// A user agent may have characters that the database's encoding lacks.
#[test]
fn latin1_database_stores_every_user_agent() {
    let cluster = Cluster::shared();
    let name = format!("latin1_{}", cluster.database().name());
    cluster.existing("postgres").run(&format!(
        "CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'"
    ));
    let database = cluster.existing(&name);
    log_in(&[store(&database.url(), 2)], 0);
    let server = TestServer::setup(Kind::Embedded)
        .database(&database)
        .start();
    for agent in ["postiz/1", "L\u{e4}ptop", "\u{65e5}\u{672c} \u{1f600}"] {
        let headers = [("User-Agent", agent), ("Content-Type", "application/json")];
        let start = server.send("POST", "/device/code", &headers, b"{}");
        expect::json(&start, 200);
    }
}
