//! `auth:status`, `auth:logout`, `auth:token`, and which credential is used.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::harness::{Cli, Home, Reply, Server, TOKEN, postiz};

const TWO_CHANNELS: &str = r#"[{"id":"a"},{"id":"b"}]"#;

#[test]
fn status_shows_a_login() {
    let server = Server::always(200, TWO_CHANNELS);
    let cli = postiz("auth:status");
    cli.home.signed_in(&server.url());
    std::fs::set_permissions(
        cli.home.credentials(),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let expected = format!(
        "Method:       OAuth2 (auth:login)\nAPI URL:      {}\nCredentials:  {}\nToken:        pos_abcd…\nOrganization: org-1\nStatus:       valid, 2 integrations connected\n",
        server.url(),
        cli.home.credentials().display()
    );
    cli.run().code(0).stdout(&expected).stderr("");
    assert_eq!(
        server.lines(),
        ["GET /public/v1/integrations", "GET /public/v1/me"]
    );
    let asked = server.asked().remove(0);
    assert_eq!(asked.header("authorization"), Some(TOKEN));
    assert_eq!(asked.header("content-type"), None);
    let agent = asked.header("user-agent").unwrap();
    assert_eq!(
        agent,
        format!(
            "postiz-rust/{} (linux {})",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH
        )
    );
}

#[test]
fn status_shows_an_api_key() {
    let server = Server::always(200, r#"[{"id":"a"}]"#);
    let expected = format!(
        "Method:       API key (POSTIZ_API_KEY)\nAPI URL:      {}\nKey:          key-0123…\nStatus:       valid, 1 integration connected\n",
        server.url()
    );
    postiz("auth status")
        .key_for(&server)
        .run()
        .code(0)
        .stdout(&expected)
        .stderr("");
}

#[test]
fn status_is_json_for_programs() {
    let server = Server::always(200, TWO_CHANNELS);
    let cli = postiz("auth:status --json");
    cli.home.signed_in(&server.url());
    let done = cli.run().code(0).stderr("");
    let file = cli.home.credentials().display().to_string();
    assert_eq!(
        done.json(),
        json!({"authenticated": true, "method": "oauth2", "api_url": server.url(), "organization_id": "org-1", "organization": null, "user": null, "credentials_file": file, "not_used": [], "integrations": 2})
    );
    // Flags may stand before the command.
    let done = postiz("--json auth:status").key_for(&server).run().code(0);
    assert_eq!(
        done.json(),
        json!({"authenticated": true, "method": "api_key", "api_url": server.url(), "organization_id": null, "organization": null, "user": null, "credentials_file": null, "not_used": [], "integrations": 2})
    );
}

/// A Postiz with `/me` gives names instead of IDs.
#[test]
fn status_names_the_organisation_and_the_person() {
    let server = Server::new(|asked, _| match asked.target.as_str() {
        "/public/v1/me" => Reply::json(
            200,
            r#"{"organization":{"id":"org-7","name":"Acme\u001b[2J"},"user":{"id":"u","name":"Jo","picture":null}}"#,
        ),
        _ => Reply::json(200, "[]"),
    });
    let cli = postiz("auth:status");
    cli.home.signed_in(&server.url());
    let done = cli.run().code(0).hides("\u{1b}");
    done.stdout_has("\nOrganization: Acme[2J\nUser:         Jo\n");
    let done = postiz("auth:status --json").key_for(&server).run().code(0);
    let json = done.json();
    assert_eq!(json["organization_id"], "org-7");
    assert_eq!(json["organization"], "Acme\u{1b}[2J");
    assert_eq!(json["user"], "Jo");
    // A key has no person. An older Postiz, or one that fails, gives no names.
    for me in [
        Reply::json(200, r#"{"organization":{"id":"o","name":""},"user":null}"#),
        Reply::json(404, r#"{"message":"Cannot GET /public/v1/me"}"#),
        Reply::json(200, "[]"),
        Reply::html(200, "<html>"),
    ] {
        let me = std::sync::Mutex::new(Some(me));
        let server = Server::new(move |asked, _| match asked.target.as_str() {
            "/public/v1/me" => me.lock().unwrap().take().unwrap(),
            _ => Reply::json(200, "[]"),
        });
        let cli = postiz("auth:status");
        cli.home.signed_in(&server.url());
        let done = cli.run().code(0).stderr_has("");
        done.stdout_has("\nOrganization: org-1\nStatus:");
    }
}

#[test]
fn status_names_unused_variables() {
    let server = Server::always(200, "[]");
    let url = server.url();
    let with_url = format!(r#"{{"accessToken":"{TOKEN}","apiUrl":"{url}"}}"#);
    let without = format!(r#"{{"accessToken":"{TOKEN}"}}"#);
    for (stored, variables, expected) in [
        (
            Some(&with_url),
            "POSTIZ_API_KEY POSTIZ_API_URL",
            "POSTIZ_API_KEY POSTIZ_API_URL",
        ),
        (
            Some(&with_url),
            "POSTIZ_API_URL POSTIZ_AUTH_SERVER",
            "POSTIZ_API_URL",
        ),
        (
            Some(&without),
            "POSTIZ_API_KEY POSTIZ_API_URL",
            "POSTIZ_API_KEY",
        ),
        (None, "POSTIZ_API_KEY POSTIZ_API_URL", ""),
        (
            None,
            "POSTIZ_API_KEY POSTIZ_API_URL POSTIZ_AUTH_SERVER",
            "POSTIZ_AUTH_SERVER",
        ),
    ] {
        for json in [false, true] {
            let mut cli = postiz("auth:status");
            for variable in variables.split(' ') {
                cli = cli.var(variable, url.clone());
            }
            if let Some(stored) = stored {
                cli.home.write(".postiz/credentials.json", stored);
                let private = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(cli.home.credentials(), private).unwrap();
            }
            if json {
                let done = cli.arg("--json").run().code(0).stderr("");
                let expected: Vec<&str> = expected.split_whitespace().collect();
                assert_eq!(done.json()["not_used"], json!(expected));
                continue;
            }
            let done = cli.run().code(0);
            let said: Vec<&str> = done
                .stderr
                .lines()
                .filter_map(|line| line.strip_prefix("warning: ")?.split(' ').next())
                .collect();
            assert_eq!(said.join(" "), expected, "{}", done.stderr);
        }
    }
}

#[test]
fn status_without_credentials_names_both_ways_to_sign_in() {
    postiz("auth:status")
        .run()
        .code(4)
        .stdout("")
        .stderr_has("postiz auth:login")
        .stderr_has("POSTIZ_API_KEY");
    let done = postiz("auth:status --json").run().code(4);
    assert_eq!(done.json()["authenticated"], false);
    assert_eq!(done.json()["error"], "not_signed_in");
}

#[test]
fn status_distinguishes_refused_from_unverified() {
    let refusing = Server::always(401, r#"{"msg":"Invalid API key"}"#);
    let done = postiz("auth:status").key_for(&refusing).run().code(4);
    done.stderr_has("Postiz refused the credentials: Invalid API key (HTTP 401)")
        .stderr_has("check POSTIZ_API_KEY");
    let done = postiz("auth:status --json")
        .key_for(&refusing)
        .run()
        .code(4);
    assert_eq!(
        (&done.json()["authenticated"], &done.json()["error"]),
        (&json!(false), &json!("refused"))
    );

    let failing = Server::always(
        500,
        r#"{"statusCode":500,"message":"Internal server error"}"#,
    );
    let done = postiz("auth:status").key_for(&failing).run().code(1);
    done.stderr_has("could not be verified")
        .stderr_has("Internal server error");
    let done = postiz("auth:status --json").key_for(&failing).run().code(1);
    assert_eq!(done.json()["authenticated"], json!(null));

    let unlike = Server::always(200, r#"{"posts":[]}"#);
    postiz("auth:status")
        .key_for(&unlike)
        .run()
        .code(1)
        .stderr_has("could not be verified");
    // No server listens on port 1.
    let nobody = postiz("auth:status")
        .var("POSTIZ_API_KEY", "k")
        .var("POSTIZ_API_URL", "http://127.0.0.1:1");
    nobody
        .run()
        .code(1)
        .stderr_has("could not be verified")
        .stderr_has("connection refused");
}

/// A plan that ran out is no problem of the login.
#[test]
fn no_subscription_is_not_a_refused_credential() {
    let server = Server::always(401, r#"{"msg":"No subscription found"}"#);
    postiz("auth:status")
        .key_for(&server)
        .run()
        .code(1)
        .stderr_has("No subscription found")
        .stderr_has("plan");
}

#[test]
fn short_secret_shows_at_most_a_quarter() {
    let server = Server::always(200, "[]");
    for (key, shown) in [
        ("abc", "…"),
        ("abcdefgh", "ab…"),
        ("12345678901234567890123456789012", "12345678…"),
    ] {
        let cli = postiz("auth:status")
            .var("POSTIZ_API_KEY", key)
            .var("POSTIZ_API_URL", server.url());
        cli.run()
            .code(0)
            .stdout_has(&format!("Key:          {shown}\n"));
    }
}

#[test]
fn file_that_others_can_read_is_reported() {
    let server = Server::always(200, "[]");
    let cli = postiz("auth:status").var("POSTIZ_API_KEY", "k");
    cli.home.signed_in(&server.url());
    std::fs::set_permissions(
        cli.home.credentials(),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let done = cli.run().code(0).stderr_has("chmod 600");
    done.stderr_has("POSTIZ_API_KEY is set, and not used");
}

#[test]
fn stored_login_wins_over_the_api_key() {
    let (stored, other) = (Server::always(200, "[]"), Server::always(200, "[]"));
    let cli = postiz("integrations:list").key_for(&other);
    cli.home.signed_in(&stored.url());
    cli.run().code(0).stdout("[]\n").stderr("");
    assert_eq!(stored.only().header("authorization"), Some(TOKEN));
    assert!(other.asked().is_empty());
}

/// The npm CLI sends such a token to the cloud.
#[test]
fn login_without_api_url_uses_that_of_the_environment() {
    let server = Server::always(200, "[]");
    let cli = postiz("integrations:list").var("POSTIZ_API_URL", server.url());
    cli.home.write(
        ".postiz/credentials.json",
        format!(r#"{{"accessToken":"{TOKEN}"}}"#),
    );
    cli.run().code(0);
    assert_eq!(server.only().header("authorization"), Some(TOKEN));
}

#[test]
fn api_url_keeps_its_path_and_drops_its_last_slash() {
    let server = Server::always(200, "[]");
    let cli = postiz("integrations:list");
    cli.home.signed_in(&format!("{}/api/", server.url()));
    cli.run().code(0);
    assert_eq!(server.only().line(), "GET /api/public/v1/integrations");
}

#[test]
fn file_without_a_token_counts_as_none() {
    let server = Server::always(200, "[]");
    for content in [
        "{}",
        r#"{"accessToken":""}"#,
        r#"{"accessToken":null,"x":1}"#,
        r#"{"apiUrl":"http://a"}"#,
    ] {
        let cli = postiz("integrations:list").key_for(&server);
        cli.home.write(".postiz/credentials.json", content);
        cli.run().code(0);
        let cli = postiz("integrations:list");
        cli.home.write(".postiz/credentials.json", content);
        cli.run().code(4).stdout("");
    }
}

/// A command that skips it would act for another account.
#[test]
fn broken_file_is_an_error() {
    let server = Server::always(200, "[]");
    for content in [
        "{bad",
        "[]",
        "null",
        "\"x\"",
        r#"{"accessToken":7}"#,
        r#"{"accessToken":"a","apiUrl":"nonsense"}"#,
        r#"{"accessToken":"a\nb"}"#,
    ] {
        let cli = postiz("integrations:list").key_for(&server);
        cli.home.write(".postiz/credentials.json", content);
        let path = cli.home.credentials().display().to_string();
        cli.run()
            .code(1)
            .stdout("")
            .stderr_has(&format!("cannot use {path}: "));
        assert_eq!(cli.home.read(".postiz/credentials.json"), content);
    }
    let cli = postiz("integrations:list").key_for(&server);
    std::fs::create_dir_all(cli.home.credentials()).unwrap();
    cli.run().code(1).stdout("");
    let cli = postiz("integrations:list").key_for(&server);
    cli.home.write(".postiz/credentials.json", b"\xff{}");
    cli.run().code(1).stderr_has("not valid UTF-8");
    assert!(server.asked().is_empty());
}

#[test]
fn byte_order_mark_is_ignored() {
    let server = Server::always(200, "[]");
    let cli = postiz("integrations:list");
    cli.home.write(
        ".postiz/credentials.json",
        format!(
            "\u{feff}{{\"accessToken\":\"{TOKEN}\",\"apiUrl\":\"{}\"}}",
            server.url()
        ),
    );
    cli.run().code(0);
}

/// People have one file for each account.
#[test]
fn variable_moves_the_file() {
    let server = Server::always(200, "[]");
    let cli = postiz("integrations:list");
    let cli = cli.var("POSTIZ_CREDENTIALS_FILE", "other.json");
    cli.home.write(
        "other.json",
        format!(r#"{{"accessToken":"other","apiUrl":"{}"}}"#, server.url()),
    );
    cli.run().code(0);
    assert_eq!(server.only().header("authorization"), Some("other"));
}

#[test]
fn key_that_cannot_be_sent_is_named() {
    let cli = postiz("integrations:list").var("POSTIZ_API_KEY", "a\nb");
    cli.run()
        .code(2)
        .stdout("")
        .stderr_has("POSTIZ_API_KEY")
        .hides("a\nb");
    let cli = postiz("integrations:list")
        .var("POSTIZ_API_KEY", "k")
        .var("POSTIZ_API_URL", "localhost:3000");
    cli.run()
        .code(2)
        .stderr_has("POSTIZ_API_URL `localhost:3000` must begin with http:// or https://");
}

#[test]
fn logout_removes_only_the_file() {
    let cli = postiz("auth:logout");
    cli.home
        .signed_in("http://127.0.0.1:1")
        .write(".postiz/other", "");
    let done = cli.run().code(0).stdout("");
    done.stderr_has("is removed")
        .stderr_has("Settings > Approved Apps");
    assert_eq!(cli.home.credentials_folder(), ["other"]);
    Cli::at(cli.home.clone())
        .arg("auth:logout")
        .run()
        .code(0)
        .stdout("")
        .stderr_has("Nobody was signed in");
}

#[test]
fn logout_removes_a_broken_file_and_mentions_the_key() {
    let cli = postiz("auth:logout").var("POSTIZ_API_KEY", "k");
    cli.home.write(".postiz/credentials.json", "{bad");
    cli.run()
        .code(0)
        .stderr_has("POSTIZ_API_KEY is set and still signs you in");
    assert!(cli.home.credentials_folder().is_empty());
}

#[test]
fn logout_is_json_for_programs() {
    let home = Home::new();
    home.signed_in("http://127.0.0.1:1");
    let file = home.credentials().display().to_string();
    let done = Cli::at(home.clone())
        .args(["auth:logout", "--json"])
        .run()
        .code(0)
        .stderr("");
    assert_eq!(
        done.json(),
        json!({"removed": true, "started_login_removed": false, "credentials_file": file, "api_key_in_use": false})
    );
    let done = Cli::at(home)
        .args(["auth:logout", "--json"])
        .var("POSTIZ_API_KEY", "k")
        .run()
        .code(0);
    assert_eq!(
        done.json(),
        json!({"removed": false, "started_login_removed": false, "credentials_file": file, "api_key_in_use": true})
    );
}

#[test]
fn token_prints_only_the_credential() {
    let cli = postiz("auth:token").var("POSTIZ_API_KEY", "k");
    cli.run().code(0).stdout("k\n").stderr("");
    cli.home.signed_in("http://127.0.0.1:1");
    cli.run().code(0).stdout(&format!("{TOKEN}\n")).stderr("");
    postiz("auth:token").run().code(4).stdout("");
}

/// Only auth:login asks for a code.
#[test]
fn login_is_started_by_no_other_command() {
    let server = Server::new(|_, _| Reply::json(401, r#"{"msg":"Invalid OAuth token"}"#));
    for command in [
        "posts:list",
        "auth:status",
        "integrations:list",
        "auth:logout",
        "auth:token",
    ] {
        let cli = postiz(command).var("POSTIZ_AUTH_SERVER", server.url());
        cli.run();
        cli.home.signed_in(&server.url());
        cli.run();
    }
    assert!(server.lines().iter().all(|line| !line.contains("/device/")));
}
