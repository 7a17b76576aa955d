//! Which address is opened in which browser, and that no browser can block a login.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::harness::{Asked, Cli, Reply, Server, each, postiz, until};

/// An auth server whose codes have these addresses (`HOST` is its own), and that grants the first poll.
fn auth_server(uris: &'static str) -> Server {
    Server::new(move |asked, _| match asked.target.as_str() {
        "/device/code" => {
            let uris = uris.replace("HOST", asked.header("host").unwrap());
            Reply::json(
                200,
                &format!(r#"{{"device_code":"d","user_code":"WDJB-MJHT","interval":1,{uris}}}"#),
            )
        }
        _ => grant(asked),
    })
}

/// A grant whose API is the server itself, which has no `/me`.
fn grant(asked: &Asked) -> Reply {
    match asked.target.as_str() {
        "/device/token" => {
            let host = asked.header("host").unwrap();
            Reply::json(
                200,
                &format!(r#"{{"access_token":"t","api_url":"http://{host}"}}"#),
            )
        }
        _ => Reply::json(404, "{}"),
    }
}

const URIS: &str = r#""verification_uri":"http://HOST/v","verification_uri_complete":"http://HOST/v?user_code=WDJB-MJHT""#;

/// A login with a browser that records the address.
fn login(server: &Server) -> Cli {
    let cli = postiz("auth:login")
        .var("POSTIZ_AUTH_SERVER", server.url())
        .var("PATH", "/usr/bin:/bin");
    let log = cli.home.file("opened").display().to_string();
    let browser = cli.home.script("browser", &format!("echo \"$@\" >> {log}"));
    cli.var("BROWSER", browser)
}

/// The address that the browser got, with `HOST` for the auth server's.
fn opened(cli: &Cli, server: &Server) -> String {
    until("the browser writes", || cli.home.file("opened").exists());
    std::thread::sleep(Duration::from_millis(50));
    let host = server.url().replace("http://", "");
    cli.home.read("opened").replace(&host, "HOST")
}

#[test]
fn browser_gets_the_complete_address() {
    each(
        [
            (URIS, "http://HOST/v?user_code=WDJB-MJHT\n"),
            (
                r#""verification_uri":"http://HOST/v""#,
                "http://HOST/v?code=WDJB-MJHT\n",
            ),
            (
                r#""verification_uri":"http://HOST/v?lang=de""#,
                "http://HOST/v?lang=de&code=WDJB-MJHT\n",
            ),
        ],
        |(uris, expected)| {
            let server = auth_server(uris);
            let cli = login(&server);
            cli.run()
                .code(0)
                .stderr_has("Your browser should open it now.")
                .stderr_has("\nWDJB-MJHT\n");
            assert_eq!(opened(&cli, &server), expected);
        },
    );
}

/// Only the user opens a page that is not the auth server's own.
#[test]
fn page_elsewhere_is_shown_and_not_opened() {
    let server = auth_server(
        r#""verification_uri":"https://public.example/v","verification_uri_complete":"https://public.example/v?x""#,
    );
    let cli = login(&server);
    let done = cli.run().code(0);
    assert!(
        done.stderr
            .lines()
            .any(|line| line == "https://public.example/v")
    );
    assert!(
        done.stderr
            .lines()
            .any(|line| line == "https://public.example/v?x")
    );
    done.stderr_has("not at the auth server's own address");
    assert!(!cli.home.file("opened").exists());
}

/// The opened address would not be the one that is shown.
#[test]
fn complete_address_elsewhere_ends_the_login() {
    each(
        [
            r#""verification_uri":"http://HOST/v","verification_uri_complete":"https://evil.example/v""#,
            r#""verification_uri":"http://HOST/v","verification_uri_complete":"http://HOST@evil.example/v""#,
            r#""verification_uri":"http://HOST/v","verification_uri_complete":"javascript:alert(1)""#,
        ],
        |uris| {
            let server = auth_server(uris);
            let cli = login(&server);
            let done = cli.run().code(1).stdout("").hides("WDJB-MJHT");
            done.stderr_has("verification_uri_complete that leads elsewhere");
            assert_eq!(server.lines(), ["POST /device/code"]);
            assert!(!cli.home.file("opened").exists());
        },
    );
}

/// The npm CLI runs `$(…)` in a server's answer.
#[test]
fn server_answer_never_reaches_a_shell() {
    for uri in [
        "http://HOST/$(touch pwned)",
        "http://HOST/`touch pwned`",
        "http://HOST/;touch pwned",
        "http://HOST/\\\"&touch pwned",
    ] {
        let server = Server::new(move |asked, _| match asked.target.as_str() {
            "/device/code" => {
                let uri = uri.replace("HOST", asked.header("host").unwrap());
                Reply::json(
                    200,
                    &format!(
                        r#"{{"device_code":"d","user_code":"A","interval":1,"verification_uri":"{uri}"}}"#
                    ),
                )
            }
            _ => grant(asked),
        });
        let cli = login(&server);
        cli.run();
        assert!(!cli.home.file("pwned").exists(), "{uri}");
    }
}

#[test]
fn login_does_not_wait_for_the_browser() {
    let server = auth_server(URIS);
    each(
        [
            "sleep 20",
            "exec sleep 20 <&- >&- 2>&-",
            "exit 7",
            "kill -9 $$",
        ],
        |body| {
            let cli = postiz("auth:login")
                .var("POSTIZ_AUTH_SERVER", server.url())
                .var("PATH", "/usr/bin:/bin");
            let browser = cli.home.script("browser", body);
            let start = Instant::now();
            cli.var("BROWSER", browser).run().code(0);
            assert!(
                start.elapsed() < Duration::from_secs(8),
                "{body}: {:?}",
                start.elapsed()
            );
        },
    );
}

#[test]
fn missing_browser_is_no_error() {
    let server = auth_server(URIS);
    type Row = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
    );
    let rows: [Row; 5] = [
        (
            "auth:login",
            &[("DISPLAY", ":9"), ("PATH", "/nowhere")],
            "No browser could be opened",
        ),
        (
            "auth:login",
            &[("BROWSER", "/nowhere/browser"), ("PATH", "/nowhere")],
            "No browser could be opened",
        ),
        (
            "auth:login",
            &[("DISPLAY", ":9"), ("SSH_CONNECTION", "1 2 3 4")],
            "This is an SSH session",
        ),
        ("auth:login", &[], "There is no display"),
        (
            "auth:login --no-browser",
            &[("DISPLAY", ":9")],
            "No browser is opened",
        ),
    ];
    each(rows, |(line, vars, words)| {
        let mut cli = postiz(line).var("POSTIZ_AUTH_SERVER", server.url());
        for (name, value) in vars {
            cli = cli.var(name, value);
        }
        let done = cli.run().code(0).stderr_has(words);
        done.stderr_has(&format!("\n{}/v?user_code=WDJB-MJHT\n", server.url()));
    });
}

/// Over SSH the user's own BROWSER may reach the user's machine.
#[test]
fn browser_variable_wins_over_ssh_and_no_display() {
    let server = auth_server(URIS);
    let cli = login(&server).var("SSH_CONNECTION", "1 2 3 4");
    cli.run().code(0);
    assert_eq!(opened(&cli, &server), "http://HOST/v?user_code=WDJB-MJHT\n");
}

#[test]
fn browser_variable_is_a_list_with_placeholders() {
    let server = auth_server(URIS);
    let cli = login(&server);
    let browser = cli.home.file("browser").display().to_string();
    let cli = cli.var(
        "BROWSER",
        format!("/nowhere/b:{browser} --new=%s --percent=%%"),
    );
    cli.run().code(0);
    assert_eq!(
        opened(&cli, &server),
        "--new=http://HOST/v?user_code=WDJB-MJHT --percent=%\n"
    );
}

#[test]
fn xdg_open_without_a_desktop_is_found() {
    let server = auth_server(URIS);
    let cli = postiz("auth:login")
        .var("POSTIZ_AUTH_SERVER", server.url())
        .var("DISPLAY", ":9");
    let log = cli.home.file("opened").display().to_string();
    cli.home
        .script("bin/xdg-open", &format!("echo \"$@\" >> {log}"));
    symlink("/bin/sh", cli.home.file("bin/sh")).unwrap();
    let path = cli.home.file("bin");
    let cli = cli.var("PATH", path);
    cli.run().code(0);
    assert_eq!(opened(&cli, &server), "http://HOST/v?user_code=WDJB-MJHT\n");
}

/// Agents show the address themselves.
#[test]
fn events_do_not_mention_browsers() {
    let server = auth_server(URIS);
    let done = postiz("auth:login --json --no-browser")
        .var("POSTIZ_AUTH_SERVER", server.url())
        .run()
        .code(0);
    assert_eq!(done.events().len(), 2);
    assert!(!done.stderr.contains("rowser"), "{}", done.stderr);
}
