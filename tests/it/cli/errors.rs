//! Error messages: what Postiz, proxies and networks answer, and what stderr says then.

use serde_json::{Value, json};

use super::harness::{Reply, Server, TOKEN, each, postiz};

struct Row(u16, &'static str, i32, &'static str, &'static str);

/// Covers each status, and each of the five shapes of the API's error bodies.
#[test]
fn status_and_body_decide_the_message() {
    let rows = [
        Row(
            400,
            r#"{"statusCode":400,"message":"Bad date","error":"Bad Request"}"#,
            1,
            "Postiz refused: Bad date (HTTP 400)",
            "",
        ),
        Row(
            400,
            r#"{"message":["a must be b","c is empty"],"error":"Bad Request"}"#,
            1,
            "Postiz refused: a must be b; c is empty (HTTP 400)",
            "",
        ),
        Row(
            400,
            r#"{"message":{"message":"inner","code":1}}"#,
            1,
            "Postiz refused: inner (HTTP 400)",
            "",
        ),
        Row(
            400,
            r#"{"statusCode":400,"provider":"x","name":"n","message":"too long"}"#,
            1,
            "Postiz refused the post for n (x): too long (HTTP 400)",
            "",
        ),
        Row(
            400,
            r#"{"error":"invalid_request","error_description":"why"}"#,
            1,
            "Postiz refused: why (HTTP 400)",
            "",
        ),
        Row(
            400,
            r#"{"odd":[1]}"#,
            1,
            r#"Postiz refused: {"odd":[1]} (HTTP 400)"#,
            "",
        ),
        Row(
            400,
            "plain words",
            1,
            "Postiz refused: plain words (HTTP 400)",
            "",
        ),
        Row(400, "", 1, "Postiz refused: HTTP 400 without a reason", ""),
        Row(
            401,
            r#"{"msg":"Invalid API key"}"#,
            4,
            "Postiz refused the credentials: Invalid API key (HTTP 401)",
            "check POSTIZ_API_KEY",
        ),
        Row(
            401,
            r#"{"msg":"No API Key found"}"#,
            4,
            "Postiz refused the credentials",
            "postiz auth:login",
        ),
        Row(
            401,
            "",
            4,
            "Postiz refused the credentials: HTTP 401 without a reason",
            "postiz auth:login",
        ),
        Row(
            401,
            r#"{"msg":"No subscription found"}"#,
            1,
            "Postiz refused: No subscription found (HTTP 401)",
            "no active plan",
        ),
        Row(
            401,
            r#"{"msg":"Channel disconnected due to expired token"}"#,
            1,
            "Channel disconnected",
            "reconnect the channel",
        ),
        Row(
            402,
            r#"{"statusCode":402,"message":"Limit","url":"https://platform.postiz.com/billing"}"#,
            1,
            "Postiz wants a bigger plan: Limit",
            "https://platform.postiz.com/billing",
        ),
        Row(
            403,
            r#"{"msg":"Unauthorized"}"#,
            1,
            "Postiz does not allow it: Unauthorized (HTTP 403)",
            "",
        ),
        Row(
            404,
            r#"{"msg":"Integration not found"}"#,
            1,
            "not found: Integration not found (HTTP 404)",
            "",
        ),
        Row(
            404,
            r#"{"statusCode":404,"message":"Cannot GET /public/v1/posts/p1/missing","error":"Not Found"}"#,
            1,
            "has no such path: Cannot GET",
            "/api",
        ),
        Row(
            409,
            r#"{"message":"Conflict"}"#,
            1,
            "Postiz refused: Conflict (HTTP 409)",
            "",
        ),
        Row(
            413,
            r#"{"message":"Payload Too Large"}"#,
            1,
            "Postiz refused: Payload Too Large (HTTP 413)",
            "",
        ),
        Row(
            422,
            r#"{"message":["x"]}"#,
            1,
            "Postiz refused: x (HTTP 422)",
            "",
        ),
        Row(
            500,
            r#"{"statusCode":500,"message":"Internal server error"}"#,
            1,
            "Postiz failed: Internal server error (HTTP 500)",
            "try again later",
        ),
        Row(
            501,
            "",
            1,
            "Postiz failed: HTTP 501 without a reason",
            "try again later",
        ),
    ];
    each(rows, |Row(status, body, exit, message, hint)| {
        let server = Server::always(status, body);
        let done = postiz("posts:missing p1")
            .key_for(&server)
            .run()
            .code(exit)
            .stdout("");
        assert!(
            done.stderr.starts_with("error: ") && done.stderr.lines().count() <= 3,
            "{}",
            done.stderr
        );
        done.stderr_has(message).stderr_has(hint);
    });
}

/// The most common mistake with a self-hosted Postiz: the frontend answers instead of the API.
#[test]
fn web_page_hints_at_the_api_url() {
    each([200, 400, 404, 502], |status| {
        let server = Server::new(move |_, _| {
            Reply::html(status, "<!DOCTYPE html><html>secret words</html>")
        });
        let done = postiz("posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01")
            .key_for(&server)
            .run()
            .code(if status == 502 { 5 } else { 1 })
            .stdout("")
            .hides("secret words");
        if status != 502 {
            done.stderr_has(&format!("try {}/api as POSTIZ_API_URL", server.url()));
        }
    });
    // Where the URL ends in /api already, that is no hint.
    let server = Server::new(|_, _| Reply::html(200, "<html>"));
    let cli = postiz("integrations:list");
    cli.home.signed_in(&format!("{}/api", server.url()));
    let done = cli.run().code(1);
    assert!(!done.stderr.contains("/api/api"), "{}", done.stderr);
    done.stderr_has("postiz auth:status");
}

/// Postiz ends a login when the same account signs in elsewhere.
#[test]
fn refused_login_says_how_to_sign_in_again() {
    let server = Server::always(401, r#"{"msg":"Invalid OAuth token"}"#);
    let cli = postiz("posts:list").var("POSTIZ_API_KEY", "k");
    cli.home.signed_in(&server.url());
    let done = cli.run().code(4).stdout("").hides(TOKEN);
    done.stderr_has("run `postiz auth:login`")
        .stderr_has("a later login on another machine")
        .stderr_has("POSTIZ_API_KEY is set, but");
}

#[test]
fn api_message_loses_its_control_characters() {
    let server = Server::always(400, r#"{"message":"a\u001b[2Jb\u009b31m\nc\u202e"}"#);
    let done = postiz("posts:list")
        .key_for(&server)
        .run()
        .code(1)
        .hides("\u{1b}")
        .hides("\u{9b}")
        .hides("\u{202e}");
    done.stderr_has("a[2Jb31m c (HTTP 400)");
}

#[test]
fn unreachable_server_is_named() {
    let cli = postiz("posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01")
        .var("POSTIZ_API_KEY", "k");
    cli.var("POSTIZ_API_URL", "http://127.0.0.1:1")
        .run()
        .code(1)
        .stderr_has("cannot reach http://127.0.0.1:1: connection refused");
}

/// Outside its API, Postiz answers so to every method.
#[test]
fn redirect_to_the_sign_in_page_means_a_missing_api() {
    let commands = [
        "integrations:list",
        "posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01",
        "posts:delete p1",
        "posts:status p1 -s draft",
        "api PATCH /public/v1/x",
    ];
    for location in [
        "/auth?returnUrl=x",
        "/auth/login",
        "https://elsewhere.example/auth",
        "//a/auth#x",
    ] {
        each(commands, |command| {
            let location = format!("Location: {location}");
            let server = Server::new(move |_, _| Reply::json(307, "").with(&location));
            let done = postiz(command).key_for(&server).run().code(1).stdout("");
            done.stderr_has("answered with its sign-in page instead of the API (HTTP 307")
                .stderr_has(&format!("try {}/api as POSTIZ_API_URL", server.url()));
            assert_eq!(server.asked().len(), 1);
        });
    }
    let server = Server::new(|_, _| Reply::json(307, "").with("Location: /authors"));
    postiz("posts:delete p1")
        .key_for(&server)
        .run()
        .code(1)
        .stderr_has("was redirected to /authors");
}

#[test]
fn web_page_with_403_is_from_a_firewall() {
    let server = Server::new(|_, _| Reply::html(403, "<html>Attention!</html>"));
    let done = postiz("posts:list").key_for(&server).run().code(1);
    done.stderr_has("error: a firewall in front of http://")
        .stderr_has("it is not Postiz that refuses");
}

#[test]
fn missing_path_of_a_known_command_names_the_version() {
    let rows = [
        ("integrations:groups", "v2.21.9 or newer"),
        ("posts:status p1 -s draft", "v2.21.7 or newer"),
        ("posts:settings p1 --settings {}", "newer than v2.23.0"),
        ("api GET /public/v1/me", "newer than v2.23.0"),
        ("api GET /public/v1/media?page=1", "newer than v2.23.0"),
        ("api POST /public/v1/clipping", "newer than v2.23.0"),
        ("api GET /public/v1/social/x", "v2.20.0 or newer"),
        ("api DELETE /public/v1/integrations/i", "v2.20.0 or newer"),
        ("api DELETE /public/v1/posts/group/g", "v2.18.0 or newer"),
        ("api GET /public/v1/notifications", "v2.18.0 or newer"),
    ];
    each(rows, |(command, version)| {
        let server = Server::new(|asked, _| {
            let message = format!("Cannot {} {}", asked.method, asked.target);
            Reply::json(
                404,
                &format!(r#"{{"statusCode":404,"message":"{message}","error":"Not Found"}}"#),
            )
        });
        let done = postiz(command).key_for(&server).run().code(1);
        done.stderr_has(&format!("this needs Postiz {version}"));
        // An unknown ID is another error.
        let server = Server::always(404, r#"{"msg":"Post not found"}"#);
        let done = postiz(command).key_for(&server).run().code(1);
        assert!(!done.stderr.contains("this needs"), "{}", done.stderr);
    });
}

#[test]
fn refused_post_names_its_channel() {
    let rows = [
        (
            r#"{"provider":"x","name":"Ada","message":"too long"}"#,
            "for Ada (x): too long",
            "Ada (x)",
        ),
        (
            r#"{"provider":"x","message":"too long"}"#,
            "for x: too long",
            "x",
        ),
        (
            r#"{"message":["posts.1.settings.who_can_reply_post must be one of: everyone"]}"#,
            "for cm4ean69r0003w8w1cdomox9o: posts.1.settings",
            "cm4ean69r0003w8w1cdomox9o",
        ),
    ];
    each(rows, |(body, words, channel)| {
        let server = Server::always(400, body);
        let cli = postiz("posts:create -c x -i cm4ean69r0003w8w1cdomox9n,cm4ean69r0003w8w1cdomox9o -s 2030-01-01 --json-errors").key_for(&server);
        let done = cli.run().code(1).stderr_has(words);
        assert_eq!(last_line(&done.stderr)["channel"], channel);
    });
}

/// Documents show the API's URL with this path.
#[test]
fn api_url_may_end_in_public_v1() {
    for end in ["/public/v1", "/public/v1/", "/api/public/v1"] {
        let server = Server::always(200, "[]");
        let cli = postiz("integrations:list").var("POSTIZ_API_KEY", "k");
        cli.var("POSTIZ_API_URL", format!("{}{end}", server.url()))
            .run()
            .code(0);
        let line = server.only().target;
        let path = end.trim_end_matches('/').trim_end_matches("/public/v1");
        assert_eq!(line, format!("{path}/public/v1/integrations"));
    }
}

#[test]
fn path_outside_the_public_api_gets_a_hint() {
    for status in [401, 403, 404] {
        let server =
            Server::new(move |_, _| Reply::json(status, r#"{"message":"Cannot GET /posts"}"#));
        let done = postiz("api GET /posts?page=1").key_for(&server).run();
        done.stderr_has("the public API is under /public/v1: try /public/v1/posts?page=1");
    }
}

fn last_line(stderr: &str) -> Value {
    serde_json::from_str(stderr.lines().last().unwrap_or_default()).expect(stderr)
}

/// The message for people comes first. It holds for wrong usage too.
#[test]
fn json_error_is_the_last_line_of_stderr() {
    let server = Server::new(|asked, _| match asked.target.as_str() {
        "/json" => Reply::json(400, r#"{"message":"Bad","n":1.0}"#),
        "/html" => Reply::html(502, "<html>"),
        _ => Reply::Drop,
    });
    let rows = [
        (
            "api POST /json --json-errors",
            1,
            json!(400),
            json!({"message": "Bad", "n": 1.0}),
        ),
        (
            "--json-errors api POST /html",
            5,
            json!(502),
            json!("<html>"),
        ),
        ("api POST /drop --jsonErrors", 5, Value::Null, Value::Null),
        ("api POST --json-errors", 2, Value::Null, Value::Null),
        ("nope --json-errors", 2, Value::Null, Value::Null),
        (
            "auth:status --json-errors --timeout x",
            2,
            Value::Null,
            Value::Null,
        ),
        ("upload nope.png --json-errors", 1, Value::Null, Value::Null),
        (
            "completions nope --json-errors",
            2,
            Value::Null,
            Value::Null,
        ),
    ];
    each(rows, |(command, code, status, body)| {
        let done = postiz(command).key_for(&server).run().code(code);
        let first = done.stderr.lines().next().unwrap();
        let error = last_line(&done.stderr);
        assert_eq!(
            format!("error: {}", error["error"].as_str().unwrap()),
            first
        );
        assert_eq!(
            (&error["status"], &error["body"]),
            (&status, &body),
            "{command}"
        );
        assert_eq!(error.as_object().unwrap().len(), 4);
    });
    // After `--` it is a text.
    let done = postiz("api POST /json -- --json-errors")
        .key_for(&server)
        .run()
        .code(2);
    assert!(!done.stderr.contains('{'), "{}", done.stderr);
    postiz("api GET /json")
        .key_for(&Server::always(200, "[]"))
        .arg("--json-errors")
        .run()
        .code(0)
        .stderr("");
}
