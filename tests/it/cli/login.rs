//! `auth:login` against auth servers that behave, and against those that do not.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::harness::{Asked, Cli, Done, Home, Reply, Server, TOKEN, each, postiz, until};

/// The answer of our own server to `/device/code`, but with an interval that does not keep tests waiting.
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
const PENDING: &str = r#"{"error":"authorization_pending"}"#;

fn grant() -> Reply {
    Reply::json(
        200,
        &format!(
            r#"{{"access_token":"{TOKEN}","token_type":"bearer","api_url":"https://postiz.example/api","organization_id":"org-1"}}"#
        ),
    )
}

/// An auth server whose polls go by `script`; it gets the number of the poll, from 0.
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
    // The API of these logins is not there, and is not looked for outside of this machine.
    cli.var("https_proxy", "http://127.0.0.1:1")
}

/// The code and both addresses are shown; the requests are those that the npm CLI sends, with this machine's name.
#[test]
fn a_login_from_start_to_end() {
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
    // Each alone on its line.
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

/// Byte for byte what the npm CLI writes, and readable by nobody else from its first byte on.
#[test]
fn the_credentials_file_is_the_npm_one() {
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
fn an_organisation_may_be_absent_null_or_a_number() {
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
fn a_login_replaces_the_file_and_keeps_what_it_does_not_know() {
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
fn a_login_mends_a_broken_file_and_follows_a_link() {
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
fn a_file_that_cannot_be_written_is_told_before_anyone_is_asked() {
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

/// A folder that vanishes while the user is busy: the token is lost, but not in silence.
#[test]
fn a_login_that_cannot_be_kept_says_so() {
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
fn events_for_programs() {
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

/// Exit 0 means that somebody signed in.
#[test]
fn a_code_that_nobody_reads_is_no_login() {
    for more in ["--json", "--start"] {
        let server = auth_server(|_| grant());
        let cli = login(&server).arg(more);
        let mut command = cli.command();
        // A pipe whose reader has ended before anything is written.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).spawn().unwrap().wait_with_output();
        let done = Done::from(output.unwrap()).code(1);
        done.stderr_has("nobody reads what to open on stdout");
        assert_eq!(server.lines(), ["POST /device/code"]);
        assert!(cli.home.credentials_folder().is_empty());
    }
}

/// The published skill of the npm CLI says these flags, which it ignores in silence.
#[test]
fn the_flags_of_older_documents_are_said_to_be_ignored() {
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

/// The token must not go over an open network because an auth server says so.
#[test]
fn an_api_over_plain_http_is_refused_unless_allowed() {
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
    // The flag counts where the answer is read.
    let cli = login(&server).arg("--start");
    cli.run().code(0);
    let finish = |more: &str| {
        let finish = Cli::at(cli.home.clone()).args(["auth:login", "--finish"]);
        finish.args(more.split_whitespace()).run()
    };
    finish("--allow-http --no-wait").code(0);
}

/// Five million characters are no code that anybody compares.
#[test]
fn a_code_without_end_ends_the_login() {
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

/// Names instead of an ID, where Postiz says them; a Postiz that does not answer takes nothing back.
#[test]
fn a_login_names_the_organisation_and_the_person() {
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

/// The network, proxies and servers in trouble are waited out.
#[test]
fn trouble_in_the_middle_is_waited_out() {
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

/// Each end has its own words, and no request follows it.
#[test]
fn each_end_has_its_own_words() {
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
        done.stderr_has("error: ").stderr_has(words);
        assert_eq!(server.asked().len(), 2);
        assert!(cli.home.credentials_folder().is_empty());
    });
}

#[test]
fn a_lost_answer_is_told_apart() {
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

/// The pause after a slow_down is five seconds longer.
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
fn servers_that_hand_out_no_codes() {
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
        login(&server).run().code(1).stdout("").stderr_has(words);
        assert_eq!(server.asked().len(), 1);
    }
    let server = Server::new(|_, _| Reply::html(200, "<h1>hello"));
    login(&server)
        .run()
        .code(1)
        .stderr_has("does not look like an auth server");
    // A redirect would take the login elsewhere.
    let server = Server::new(|_, _| Reply::json(302, "").with("Location: http://127.0.0.1:1/"));
    login(&server).run().code(1);
    postiz("auth:login --auth-server http://127.0.0.1:1")
        .run()
        .code(1)
        .stderr_has("cannot reach the auth server at http://127.0.0.1:1");
}

#[test]
fn the_auth_server_is_a_flag_a_variable_or_the_default() {
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

/// A token must not cross a network in clear without a word. (0.0.0.0 reaches this machine but is no loopback address.)
#[test]
fn plain_http_elsewhere_is_warned_about() {
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
fn a_key_in_the_environment_is_mentioned() {
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
    assert!(cli.home.credentials_folder().is_empty());
}

/// The npm CLI prints such sequences as they come.
#[test]
fn a_server_cannot_write_to_the_terminal() {
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
