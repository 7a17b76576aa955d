//! `auth:login` with auth servers that work, and with those that do not.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Asked, Cli, Done, Home, Reply, Server, TOKEN, each, postiz, until};

/// The answer of our own server to `/device/code`, with a short interval.
fn codes(asked: &Asked) -> Reply {
    let host = asked.header("host").unwrap();
    Reply::json(
        200,
        &format!(
            r#"{{"device_code":"{DEVICE_CODE}","user_code":"WDJB-MJHT","verification_uri":"http://{host}/device/verify","verification_uri_complete":"http://{host}/device/verify?user_code=WDJB-MJHT","expires_in":900,"interval":1}}"#
        ),
    )
}

const DEVICE_CODE: &str = "d0d0c0de0000000000000000000000000000000000000000000000000000c0de";
/// The first 8 hex digits of the SHA-256 of [`DEVICE_CODE`], as sha256sum(1) prints it.
const REFERENCE: &str = "ec6fc11b";

const PENDING: &str = r#"{"error":"authorization_pending"}"#;

fn grant() -> Reply {
    Reply::json(
        200,
        &format!(
            r#"{{"access_token":"{TOKEN}","token_type":"bearer","api_url":"https://postiz.example/api","organization_id":"org-1"}}"#
        ),
    )
}

/// An auth server whose polls are answered by `script`, which gets the number of the poll, from 0.
fn auth_server(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Server {
    Server::new(move |asked, before| {
        if asked.target == "/device/code" {
            codes(asked)
        } else {
            script(before - 1)
        }
    })
}

fn login(server: &Server) -> Cli {
    let cli = postiz("auth:login --no-browser").var("POSTIZ_AUTH_SERVER", server.url());
    // These logins have no API, and must not look for one outside of this machine.
    cli.var("https_proxy", "http://127.0.0.1:1")
}

/// The requests are the npm CLI's, with this machine's name.
#[test]
fn login_works_from_start_to_end() {
    let server = auth_server(|poll| {
        if poll == 0 {
            Reply::json(400, PENDING)
        } else {
            grant()
        }
    });
    let cli = login(&server);
    let done = cli.run().code(0).stdout("").hides(TOKEN).hides(DEVICE_CODE);
    let lines: Vec<&str> = done.stderr.lines().collect();
    let url = server.url();
    // Code and address are alone on their lines.
    assert!(lines.contains(&"WDJB-MJHT"), "{}", done.stderr);
    assert!(lines.contains(&format!("{url}/device/verify").as_str()));
    assert!(lines.contains(&format!("{url}/device/verify?user_code=WDJB-MJHT").as_str()));
    done.stderr_has(&format!("Auth server: {url}"))
        .stderr_has("Organization: org-1");

    let asked = server.asked();
    assert_eq!(
        server.lines(),
        [
            "POST /device/code",
            "POST /device/token",
            "POST /device/token"
        ]
    );
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    assert!(asked[0].text().starts_with(r#"{"machine":""#));
    assert_eq!(asked[1].header("content-type"), Some("application/json"));
    assert_eq!(
        asked[1].text(),
        format!(r#"{{"device_code":"{DEVICE_CODE}"}}"#)
    );
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
    // An interval of a second has passed before each poll.
    for pair in asked.windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_secs(1));
    }
}

/// No other user can read it at any time.
#[test]
fn credentials_file_is_byte_compatible_with_npm() {
    let server = auth_server(|_| grant());
    let cli = login(&server);
    cli.run()
        .code(0)
        .stderr_has(&cli.home.credentials().display().to_string());
    let expected = format!(
        "{{\n  \"accessToken\": \"{TOKEN}\",\n  \"apiUrl\": \"https://postiz.example/api\",\n  \"organizationId\": \"org-1\"\n}}"
    );
    assert_eq!(cli.home.read(".postiz/credentials.json"), expected);
    assert_eq!(cli.home.credentials_folder(), ["credentials.json"]);
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(cli.home.credentials()), 0o600);
    assert_eq!(mode(cli.home.file(".postiz")), 0o700);
}

#[test]
fn organisation_may_be_absent_null_or_a_number() {
    let rows = [
        ("", ""),
        (
            r#","organization_id":null"#,
            ",\n  \"organizationId\": null",
        ),
        (r#","organization_id":7"#, ",\n  \"organizationId\": 7"),
    ];
    each(rows, |(sent, kept)| {
        let server =
            auth_server(move |_| Reply::json(200, &format!(r#"{{"access_token":"t"{sent}}}"#)));
        let cli = login(&server);
        cli.run().code(0);
        let expected = format!(
            "{{\n  \"accessToken\": \"t\",\n  \"apiUrl\": \"https://api.postiz.com\"{kept}\n}}"
        );
        assert_eq!(cli.home.read(".postiz/credentials.json"), expected);
    });
}

#[test]
fn login_replaces_the_file_and_keeps_unknown_fields() {
    let server = auth_server(|_| {
        Reply::json(
            200,
            r#"{"access_token":"new","api_url":"https://new.example"}"#,
        )
    });
    let cli = login(&server);
    cli.home.write(".postiz/credentials.json", r#"{"theme":{"dark":1.0},"accessToken":"old","organizationId":"old","apiUrl":"http://old"}"#);
    std::fs::set_permissions(
        cli.home.credentials(),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    cli.run().code(0);
    let expected = "{\n  \"accessToken\": \"new\",\n  \"apiUrl\": \"https://new.example\",\n  \"theme\": {\n    \"dark\": 1.0\n  }\n}";
    assert_eq!(cli.home.read(".postiz/credentials.json"), expected);
    assert_eq!(
        std::fs::metadata(cli.home.credentials())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}

#[test]
fn login_replaces_a_broken_file_behind_a_link() {
    let server = auth_server(|_| grant());
    let cli = login(&server);
    cli.home.write("elsewhere.json", "{bad");
    cli.home.write(".postiz/other", "");
    symlink(cli.home.file("elsewhere.json"), cli.home.credentials()).unwrap();
    cli.run().code(0);
    assert!(cli.home.credentials().is_symlink());
    assert!(cli.home.read("elsewhere.json").contains(TOKEN));
}

#[test]
fn file_that_cannot_be_written_is_reported_before_the_login() {
    let server = auth_server(|_| grant());
    let cli = login(&server);
    cli.home
        .write(".postiz", "a file where the folder should be");
    cli.run()
        .code(1)
        .stdout("")
        .stderr_has("cannot write")
        .stderr_has("POSTIZ_CREDENTIALS_FILE");
    let cli = login(&server);
    std::fs::create_dir_all(cli.home.credentials()).unwrap();
    cli.run().code(1).stderr_has("it is a folder");
    let cli = login(&server)
        .var("POSTIZ_CREDENTIALS_FILE", "/proc/nowhere/c.json")
        .arg("--json");
    let done = cli.run().code(1);
    assert_eq!(done.events()[0]["error"], "cannot_save");
    assert!(server.asked().is_empty());
}

/// The folder vanishes while the user confirms.
#[test]
fn login_that_cannot_be_saved_says_so() {
    let home = Home::new();
    let folder = home.file(".postiz");
    let server = auth_server(move |_| {
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::write(&folder, "").unwrap();
        grant()
    });
    let cli = Cli::at(home)
        .args(["auth:login", "--json"])
        .var("POSTIZ_AUTH_SERVER", server.url());
    let done = cli.run().code(1).hides(TOKEN);
    assert_eq!(done.events()[1]["error"], "cannot_save");
    done.stderr_has("the login is approved, but")
        .stderr_has("auth:login` again");
}

#[test]
fn events_are_json_lines() {
    let server = auth_server(|_| grant());
    let cli = login(&server).arg("--json");
    let done = cli.run().code(0).hides(TOKEN).hides(DEVICE_CODE);
    let url = server.url();
    assert_eq!(
        done.events(),
        [
            json!({"event": "code", "user_code": "WDJB-MJHT", "verification_uri": format!("{url}/device/verify"),
                   "verification_uri_complete": format!("{url}/device/verify?user_code=WDJB-MJHT"), "expires_in": 900}),
            json!({"event": "done", "api_url": "https://postiz.example/api", "organization_id": "org-1",
                   "credentials_file": cli.home.credentials().display().to_string()}),
        ]
    );
}

/// Exit code 0 means that somebody signed in.
#[test]
fn code_that_nobody_reads_is_an_error() {
    for more in ["--json", "--start"] {
        let server = auth_server(|_| grant());
        let cli = login(&server).arg(more);
        let mut command = cli.command();
        // The pipe's reader has ended before anything is written.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).spawn().unwrap().wait_with_output();
        let done = Done::from(output.unwrap()).code(1);
        done.stderr_has("nobody reads what to open on stdout");
        assert_eq!(server.lines(), ["POST /device/code"]);
        assert!(cli.home.credentials_folder().is_empty());
    }
}

/// The npm CLI's published skill names these flags, which that CLI ignores without a message.
#[test]
fn flags_of_old_documents_are_reported_as_ignored() {
    let server = auth_server(|_| grant());
    let cli = login(&server).args(["--client-id", "pca_x", "--client-secret=pcs_y"]);
    let done = cli.run().code(0).hides("pcs_y").hides("pca_x");
    done.stderr_has("--client-id and --client-secret are ignored");
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| !asked.text().contains("pc"))
    );
}

/// No auth server may have the token sent unencrypted.
#[test]
fn api_over_plain_http_is_refused_unless_allowed() {
    let api = r#"{"access_token":"t","api_url":"http://192.0.2.1.example/api"}"#;
    let server = auth_server(move |_| Reply::json(200, api));
    let cli = login(&server);
    let done = cli
        .run()
        .code(1)
        .stderr_has("http://192.0.2.1.example/api is not encrypted");
    done.stderr_has("--allow-http");
    assert!(cli.home.credentials_folder().is_empty());
    let cli = login(&server).arg("--allow-http");
    cli.run().code(0);
    assert!(
        cli.home
            .read(".postiz/credentials.json")
            .contains("http://192.0.2.1.example/api")
    );
    // With two calls, the flag belongs to --finish.
    let cli = login(&server).arg("--start");
    cli.run().code(0);
    let finish = |more: &str| {
        let finish = Cli::at(cli.home.clone()).args(["auth:login", "--finish"]);
        finish.args(more.split_whitespace()).run()
    };
    finish("--allow-http --no-wait").code(0);
}

/// It has five million characters.
#[test]
fn endless_code_ends_the_login() {
    let server = Server::new(|asked, _| {
        let host = asked.header("host").unwrap();
        let code = "A".repeat(5_000_000);
        Reply::json(
            200,
            &format!(
                r#"{{"device_code":"d","user_code":"{code}","verification_uri":"http://{host}/"}}"#
            ),
        )
    });
    for more in ["--qr", "--json", "--start"] {
        let done = login(&server).arg(more).run().code(1);
        assert!(done.stderr.len() + done.stdout.len() < 2000);
        done.stderr_has("a user_code of more than 64 characters");
    }
}

/// The names come from `/me`. The login succeeds also when Postiz does not answer.
#[test]
fn login_names_the_organisation_and_the_person() {
    let server = Server::new(|asked, before| match asked.target.as_str() {
        "/device/code" => codes(asked),
        "/device/token" => {
            let host = asked.header("host").unwrap();
            Reply::json(
                200,
                &format!(
                    r#"{{"access_token":"{TOKEN}","api_url":"http://{host}","organization_id":"org-1"}}"#
                ),
            )
        }
        "/public/v1/me" if before == 2 => Reply::json(
            200,
            r#"{"organization":{"id":"org-1","name":"Acme"},"user":{"id":"u","name":"Jo"}}"#,
        ),
        _ => Reply::json(500, "{}"),
    });
    let done = login(&server).run().code(0);
    done.stderr_has("\nOrganization: Acme\nUser: Jo\n");
    assert_eq!(server.asked()[2].header("authorization"), Some(TOKEN));
    let done = login(&server).run().code(0);
    done.stderr_has("\nOrganization: org-1\n");
}

/// Network, proxy and server may fail in between.
#[test]
fn failures_during_a_login_are_retried() {
    let troubles: [fn() -> Reply; 3] = [
        || Reply::Drop,
        || Reply::html(502, "<html>Bad Gateway</html>"),
        || Reply::json(500, r#"{"error":"server_error"}"#),
    ];
    each(troubles, |trouble| {
        let server = auth_server(move |poll| if poll == 0 { trouble() } else { grant() });
        login(&server).run().code(0).stdout("");
        let asked = server.asked();
        let gap = asked[2].at - asked[1].at;
        assert!(gap >= Duration::from_secs(2), "{gap:?}");
    });
}

/// No request follows the end.
#[test]
fn end_of_a_login_has_its_own_message() {
    let rows = [
        (
            400,
            r#"{"error":"access_denied"}"#,
            "access_denied",
            "refused in the browser",
        ),
        (
            400,
            r#"{"error":"expired_token"}"#,
            "expired_token",
            "the code expired",
        ),
        (
            400,
            r#"{"error":"invalid_device_code"}"#,
            "invalid_device_code",
            "no longer knows this login",
        ),
        (
            400,
            r#"{"error":"invalid_grant"}"#,
            "invalid_device_code",
            "no longer knows this login",
        ),
        (
            401,
            r#"{"error":"invalid_client","error_description":"Who \u001b[31m are you"}"#,
            "invalid_client",
            "Who [31m are you (invalid_client)",
        ),
        (
            200,
            r#"{"access_token":null}"#,
            "no_token",
            "it sent no access token",
        ),
        (
            200,
            r#"{"access_token":"t","api_url":"javascript:alert(1)"}"#,
            "no_token",
            "its api_url is not a URL",
        ),
    ];
    each(rows, |(status, body, word, words)| {
        let server = auth_server(move |_| Reply::json(status, body));
        let cli = login(&server).arg("--json");
        let done = cli.run().code(1);
        assert_eq!(
            (&done.events()[1]["event"], &done.events()[1]["error"]),
            (&json!("error"), &json!(word))
        );
        assert_eq!(done.events()[1]["reference"], REFERENCE);
        let done = done.stderr_has("error: ").stderr_has(words);
        assert_eq!(reference(&done), Some(REFERENCE));
        assert_eq!(server.asked().len(), 2);
        assert!(cli.home.credentials_folder().is_empty());
    });
}

#[test]
fn undelivered_token_has_its_own_message() {
    let server = auth_server(|poll| {
        if poll == 0 {
            Reply::Drop
        } else {
            Reply::json(400, r#"{"error":"invalid_device_code"}"#)
        }
    });
    login(&server)
        .run()
        .code(1)
        .stderr_has("approved, but the answer with the token was lost");
}

/// The reference that stderr shows.
fn reference(done: &Done) -> Option<&str> {
    let mut lines = done.stderr.lines();
    lines.find_map(|line| line.strip_prefix("Reference: "))
}

/// The error of `--json-errors`.
fn json_error(done: &Done) -> Value {
    serde_json::from_str(done.stderr.lines().last().unwrap()).expect(&done.stderr)
}

/// Once a login has started, the IDs of its requests do not replace its own.
#[test]
fn json_error_of_a_failed_login_has_its_reference_and_the_answer() {
    let body = r#"{"error":"expired_token"}"#;
    let server = auth_server(move |_| Reply::json(400, body).with("X-Request-Id: 9cae0d66"));
    let done = login(&server).arg("--json-errors").run().code(1);
    let error = json_error(&done);
    assert_eq!(error["reference"], REFERENCE);
    assert_eq!(
        (&error["status"], &error["body"]["error"]),
        (&json!(400), &json!("expired_token"))
    );
    assert_eq!(reference(&done), Some(REFERENCE));
}

#[test]
fn login_that_does_not_start_shows_the_requests_id_and_status() {
    let rows = [
        (403, r#"{"error":"access_denied"}"#),
        (404, r#"{"error":"not_found"}"#),
        (404, "<html>"),
        (
            429,
            r#"{"error":"too_many_requests","error_description":"Wait."}"#,
        ),
        (500, r#"{"error":"server_error"}"#),
        (502, "<html>"),
        (503, r#"{"error":"temporarily_unavailable"}"#),
    ];
    let rows = rows
        .into_iter()
        .flat_map(|row| [(row, "--json"), (row, "--start")]);
    each(rows, |((status, body), more)| {
        let server =
            Server::new(move |_, _| Reply::json(status, body).with("X-Request-Id: 9cae0d66"));
        let done = login(&server).args([more, "--json-errors"]).run().code(1);
        assert_eq!(reference(&done), Some("9cae0d66"), "{}", done.stderr);
        assert_eq!(done.events().len(), 1);
        assert_eq!(done.events()[0]["reference"], "9cae0d66");
        let error = json_error(&done);
        assert_eq!(
            (&error["reference"], &error["status"]),
            (&json!("9cae0d66"), &json!(status))
        );
        let body = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
        assert_eq!(error["body"], body);
        // A finish finds no login that would have another reference.
        assert_eq!(server.lines(), ["POST /device/code"]);
    });
}

/// A server must not write lines of its own to the terminal.
#[test]
fn request_id_of_another_form_is_ignored() {
    let (longest, too_long) = ("a".repeat(64), "a".repeat(65));
    let rows = [
        (longest.as_str(), Some(longest.as_str())),
        ("3F2b-9", Some("3F2b-9")),
        (&too_long, None),
        ("", None),
        ("9cae0d66 and more", None),
        ("9cae_0d66", None),
        ("\u{1b}[2J", None),
        ("é", None),
    ];
    each(rows, |(id, shown)| {
        let header = format!("X-Request-Id: {id}");
        let server = Server::new(move |_, _| Reply::json(429, "{}").with(&header));
        let done = login(&server)
            .args(["--json", "--json-errors"])
            .run()
            .code(1);
        assert_eq!(reference(&done), shown, "{id}");
        for json in [json_error(&done), done.events()[0].clone()] {
            assert_eq!(json.get("reference").and_then(Value::as_str), shown, "{id}");
        }
    });
}

/// It has five million characters.
#[test]
fn json_error_cuts_an_endless_body() {
    let body = json!({ "error": "invalid_client", "x": "a".repeat(5_000_000) }).to_string();
    let server = Server::new(move |_, _| Reply::json(401, &body));
    let done = login(&server).arg("--json-errors").run().code(1);
    assert!(done.stderr.len() < 4000);
    let error = json_error(&done);
    assert_eq!(error["status"], 401);
    let shown = error["body"].as_str().unwrap();
    assert!(shown.starts_with(r#"{"error":"invalid_client""#), "{shown}");
}

/// The answer may hold a device code, or a token.
#[test]
fn json_error_leaves_the_body_of_a_success_out() {
    let start = format!(r#"{{"device_code":"{DEVICE_CODE}","user_code":"A"}}"#);
    let unusable = Server::new(move |_, _| Reply::json(200, &start));
    let grant = format!(r#"{{"access_token":"{TOKEN}","api_url":"ftp://a"}}"#);
    let no_token = auth_server(move |_| Reply::json(200, &grant));
    for server in [unusable, no_token] {
        let done = login(&server).arg("--json-errors").run().code(1);
        let error = json_error(&done.hides(DEVICE_CODE).hides(TOKEN));
        assert_eq!(
            (&error["status"], &error["body"]),
            (&Value::Null, &Value::Null)
        );
    }
}

/// The pause becomes five seconds longer.
#[test]
fn slow_down_is_obeyed() {
    let server = auth_server(|poll| {
        if poll == 0 {
            Reply::json(400, r#"{"error":"slow_down"}"#)
        } else {
            grant()
        }
    });
    login(&server).run().code(0);
    let asked = server.asked();
    assert!(asked[2].at - asked[1].at >= Duration::from_secs(6));
}

#[test]
fn server_without_codes_is_explained() {
    for (reply, words) in [
        (
            r#"200 {}"#,
            "does not look like an auth server: its answer has no user_code",
        ),
        (
            r#"200 {"device_code":"d","user_code":"u","verification_uri":"file:///etc/passwd"}"#,
            "no web address",
        ),
        (r#"200 null"#, "does not look like an auth server"),
        (
            r#"404 {"message":"Cannot POST"}"#,
            "does not look like an auth server: it answered HTTP 404",
        ),
        (
            r#"429 {"error":"too_many_requests","error_description":"slow down"}"#,
            "refused to start a login: slow down",
        ),
        (r#"503 sorry"#, "is in trouble (HTTP 503)"),
    ] {
        let (status, body) = reply.split_once(' ').unwrap();
        let (status, body) = (status.parse().unwrap(), body.to_owned());
        let server = Server::new(move |_, _| Reply::json(status, &body));
        let done = login(&server).run().code(1).stdout("").stderr_has(words);
        assert!(!done.stderr.contains("Reference"), "{}", done.stderr);
        assert_eq!(server.asked().len(), 1);
    }
    let server = Server::new(|_, _| Reply::html(200, "<h1>hello"));
    login(&server)
        .run()
        .code(1)
        .stderr_has("does not look like an auth server");
    // A redirect would move the login to another server.
    let server = Server::new(|_, _| Reply::json(302, "").with("Location: http://127.0.0.1:1/"));
    login(&server).run().code(1);
    postiz("auth:login --auth-server http://127.0.0.1:1")
        .run()
        .code(1)
        .stderr_has("cannot reach the auth server at http://127.0.0.1:1");
}

#[test]
fn auth_server_is_a_flag_a_variable_or_the_default() {
    let (flag, variable) = (auth_server(|_| grant()), auth_server(|_| grant()));
    let cli =
        postiz("auth login --no-browser --auth-server").arg(format!("{}/cli-auth/", flag.url()));
    cli.var("POSTIZ_AUTH_SERVER", variable.url()).run().code(1);
    assert_eq!(flag.lines(), ["POST /cli-auth/device/code"]);
    assert!(variable.asked().is_empty());
    for bad in ["localhost:3111", "ftp://a", ""] {
        postiz("auth:login --auth-server")
            .arg(bad)
            .run()
            .code(2)
            .stderr_has("--auth-server");
    }
    postiz("auth:login")
        .var("POSTIZ_AUTH_SERVER", "nonsense")
        .run()
        .code(2)
        .stderr_has("POSTIZ_AUTH_SERVER `nonsense`");
}

/// 0.0.0.0 reaches this machine and is no loopback address.
#[test]
fn plain_http_off_loopback_gets_a_warning() {
    let server = auth_server(|_| grant());
    let there = server.url().replace("127.0.0.1", "0.0.0.0");
    let cli = postiz("auth:login --no-browser --auth-server").arg(there);
    cli.run()
        .code(0)
        .stderr_has("warning:")
        .stderr_has("not encrypted");
    let done = login(&server).run().code(0);
    assert!(!done.stderr.contains("warning:"));
}

#[test]
fn key_in_the_environment_is_mentioned() {
    let server = auth_server(|_| grant());
    login(&server)
        .var("POSTIZ_API_KEY", "k")
        .run()
        .code(0)
        .stderr_has("POSTIZ_API_KEY is set, and not used from now on");
}

#[test]
fn ctrl_c_ends_with_130_and_leaves_nothing() {
    let server = auth_server(|_| Reply::json(400, PENDING));
    let cli = login(&server);
    let child = cli.spawn();
    until("a poll", || server.asked().len() > 1);
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Reference"));
    assert!(cli.home.credentials_folder().is_empty());
}

/// The npm CLI prints such sequences unchanged.
#[test]
fn server_text_loses_its_control_characters() {
    let server = Server::new(|asked, _| match asked.target.as_str() {
        "/device/code" => Reply::json(
            200,
            r#"{"device_code":"d","user_code":"A\u001b[2J\u202eB\nC","verification_uri":"https://a/v","interval":1}"#,
        ),
        _ => Reply::json(
            200,
            r#"{"access_token":"t","organization_id":"\u001b]0;evil\u0007"}"#,
        ),
    });
    let done = login(&server)
        .run()
        .code(0)
        .hides("\u{1b}")
        .hides("\u{202e}");
    assert!(
        done.stderr.lines().any(|line| line == "A[2JB C"),
        "{}",
        done.stderr
    );
    done.stderr_has("Organization: ]0;evil");
}
