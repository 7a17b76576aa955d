//! Secrets must appear neither in a stolen database nor in a log, at any stage of a login.

use std::fs;
use std::path::Path;

use postiz::shared::hash::sha256_hex;
use serde_json::Value;

use crate::fake_postiz::{CLIENT_SECRET, FakePostiz, Fault, Response};
use crate::support::postgres::PASSWORD;
use crate::support::server::ServerSetup;
use crate::support::{
    Browser, Cluster, Database, Login, Page, Store, TestServer, VerifyForm, expect,
};

/// The secrets of one login.
fn secrets_of(login: &Login, browser: &Browser, redirect: &Page) -> Vec<String> {
    let location = redirect.location();
    let (_, query) = location.split_once('?').expect("a query");
    let values = query
        .split('&')
        .map(|pair| pair.split_once('=').expect("a value").1.to_owned());
    let mut secrets: Vec<String> = values.collect();
    secrets.push(login.device_code().to_owned());
    secrets.extend(browser.cookie_values());
    // The person's name at Postiz is not a secret.
    secrets.retain(|s| s.len() > 8);
    assert!(
        secrets.len() >= 4,
        "code, state, device code, cookie: {secrets:?}"
    );
    secrets
}

/// The secret must be absent as text, and as the bytes that its hex digits encode.
#[track_caller]
fn assert_absent(place: &str, bytes: &[u8], secret: &str) {
    let found = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(!found(secret.as_bytes()), "{secret} is in {place}");
    let digits = secret
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok());
    let raw: Option<Vec<u8>> = digits.map(|d| u8::from_str_radix(d?, 16).ok()).collect();
    if let Some(raw) = raw {
        assert!(!found(&raw), "the bytes of {secret} are in {place}");
    }
}

/// The files of the embedded store.
fn bytes_below(folder: &Path) -> Vec<u8> {
    let files = fs::read_dir(folder).expect("the folder is there");
    let paths = files.map(|file| file.expect("a file").path());
    paths
        .flat_map(|path| fs::read(path).expect("it is readable"))
        .collect()
}

fn stored(setup: &ServerSetup, database: Option<&Database>) -> Vec<u8> {
    match database {
        Some(database) => database.dump().into_bytes(),
        None => bytes_below(&setup.data_dir()),
    }
}

#[test]
fn stolen_store_holds_nothing_usable() {
    for store in [Store::Embedded, Store::Postgres] {
        let postiz = FakePostiz::start();
        let database = (store == Store::Postgres).then(|| Cluster::shared().database());
        let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
        let setup = database
            .iter()
            .fold(setup, |setup, database| setup.database(database));
        let server = setup.start_for(&postiz);

        let login = Login::start(&server);
        let mut browser = Browser::new();
        let redirect = login.consent(&mut browser, "ada");
        let secrets = secrets_of(&login, &browser, &redirect);
        let waiting = stored(&setup, database.as_ref());
        let key = sha256_hex(login.device_code().as_bytes());
        assert!(
            String::from_utf8_lossy(&waiting).contains(&key) || database.is_none(),
            "the store has the login's hash, so it is the right place"
        );
        expect::page(&browser.follow(&redirect).answer, 200);
        let completed = stored(&setup, database.as_ref());
        assert_ne!(completed, waiting, "the sealed token is stored");
        let answer = login.poll(&server);
        let token = answer.json()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        let redeemed = stored(&setup, database.as_ref());
        for (stage, bytes) in [
            ("waiting", waiting),
            ("completed", completed),
            ("redeemed", redeemed),
        ] {
            let place = format!("the {store:?} store while {stage}");
            for secret in secrets.iter().chain([
                &token,
                &CLIENT_SECRET.to_owned(),
                &token["pos_".len()..].to_owned(),
            ]) {
                assert_absent(&place, &bytes, secret);
            }
        }
    }
}

/// Only the client secret decrypts the token. With another secret, the login has ended and no request fails.
#[test]
fn another_client_secret_decrypts_no_token() {
    for store in [Store::Embedded, Store::Postgres] {
        let postiz = FakePostiz::start();
        let setup = TestServer::setup(store).postiz(&postiz);
        let server = setup.start_for(&postiz);
        let login = Login::start(&server);
        expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
        drop(server);
        let server = setup.var("POSTIZ_OAUTH_CLIENT_SECRET", "another").start();
        let answer = login.poll(&server);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(!answer.text().contains("pos_"));
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

/// Logins of every outcome run with both log formats, and then the log is searched for their secrets.
#[test]
fn no_log_line_holds_a_secret() {
    for format in ["text", "json"] {
        let postiz = FakePostiz::start();
        let setup = TestServer::setup(Store::Postgres)
            .postiz(&postiz)
            .var("LOG_FORMAT", format);
        let server = setup.start_for(&postiz);
        let mut secrets = vec![CLIENT_SECRET.to_owned(), PASSWORD.to_owned()];

        let login = Login::start(&server);
        let mut browser = Browser::new();
        login.poll(&server);
        let redirect = login.consent(&mut browser, "ada");
        secrets.extend(secrets_of(&login, &browser, &redirect));
        let echo = Response::html(502, format!("{} {}", CLIENT_SECRET, redirect.location()));
        postiz.misbehave_times(1, "/oauth/token", Fault::Answer(echo));
        browser.follow(&redirect);
        let redirect = login.consent(&mut browser, "ada");
        secrets.extend(secrets_of(&login, &browser, &redirect));
        expect::page(&browser.follow(&redirect).answer, 200);
        let token = login.poll_form(&server).json()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        secrets.push(token);
        login.poll(&server);

        // Secrets in wrong places of a request.
        let code = login.device_code();
        server.page(&format!("/device/verify?user_code={code}&x={code}"));
        server.get(&format!("/{code}?{code}"));
        server.get(&format!("/device/callback?error={code}&state={code}"));
        server.post_form("/device/verify", &format!("user_code={code}"));
        server.post_form(
            "/device/token",
            &format!("device_code={code}&grant_type={code}"),
        );
        server.send(
            "POST",
            "/device/code",
            &[("User-Agent", "an agent")],
            code.as_bytes(),
        );

        let denied = Login::start(&server);
        let mut browser = Browser::new();
        let page = denied.reach_consent(&mut browser, "bob");
        let redirect = browser.press(&page, "action", "deny");
        browser.follow(&redirect);
        denied.poll(&server);
        secrets.extend(
            browser
                .cookie_values()
                .into_iter()
                .filter(|value| value != "bob"),
        );
        secrets.push(denied.device_code().to_owned());

        let log = server.log();
        for secret in &secrets {
            assert_absent("the log", log.as_bytes(), secret);
        }
    }
}

/// Each event is one line. All lines of a login have its short id, and requests have client, route, status and duration.
#[test]
fn log_records_each_step_of_a_login() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .var("LOG_FORMAT", "json");
    let server = setup.start_for(&postiz);
    let login = Login::start(&server);
    login.approve(&mut Browser::new(), "ada");
    login.poll(&server);
    let refused = Login::start(&server);
    let form = format!("user_code={}&action=deny", refused.user_code());
    VerifyForm::open(&server).send(&server, &form, &[]);

    crate::support::eventually("the last request is logged", || {
        server.log().contains("denied")
    });
    let log = server.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let event = |word: &str| {
        let found = lines
            .iter()
            .find(|l| l["event"].as_str().is_some_and(|e| e.contains(word)));
        found.unwrap_or_else(|| panic!("nothing {word}: {log}"))
    };
    let id = event("started")["id"].clone();
    assert!(
        id.as_str().is_some_and(|id| (4..=16).contains(&id.len())),
        "{id}"
    );
    for stage in ["confirmed", "completed", "redeemed"] {
        assert_eq!(event(stage)["id"], id, "{log}");
    }
    assert_ne!(event("denied")["id"], id);
    let requests: Vec<&Value> = lines.iter().filter(|l| l["event"] == "request").collect();
    let poll = requests.iter().find(|r| r["route"] == "/device/token");
    let poll = poll.unwrap_or_else(|| panic!("no request line: {log}"));
    for field in ["time", "level", "method", "status", "ms", "client"] {
        assert!(!poll[field].is_null(), "{field}: {poll}");
    }
}

/// The server that purges an expired login logs it. A server purges when it starts.
#[test]
fn log_records_an_expiry() {
    let database = Cluster::shared().database();
    let setup = TestServer::setup(Store::Embedded).database(&database);
    Login::start(&setup.start());
    database.run("UPDATE device_requests SET expires_at = now() - interval '16 minutes'");
    let server = setup.start();
    crate::support::eventually("the expiry is logged", || {
        server.log().contains("login expired id=")
    });
}

/// The database's error about a refused password does not contain the password.
#[test]
fn refused_password_is_not_shown() {
    let url = Cluster::shared()
        .database()
        .url()
        .replace(PASSWORD, "wr0ng0password");
    let output = TestServer::setup(Store::Embedded)
        .var("DATABASE_URL", &url)
        .run(&[]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("wr0ng0password"), "{stderr}");
    assert!(stderr.contains("password"), "{stderr}");
}
