//! Errors people can act on: what Postiz, proxies and networks answer, and what stands on stderr then.

use super::harness::{Reply, Server, TOKEN, each, postiz};

struct Row(u16, &'static str, i32, &'static str, &'static str);

/// Each status and each of the five shapes of the API's error bodies: exit code, message, hint.
#[test]
fn each_status_has_its_words() {
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
            "Postiz refused: too long (HTTP 400)",
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

/// The most common mistake of people with a Postiz of their own: the frontend answers instead of the API.
#[test]
fn a_web_page_leads_to_the_api_url() {
    each([200, 400, 404, 502], |status| {
        let server = Server::new(move |_, _| {
            Reply::html(status, "<!DOCTYPE html><html>secret words</html>")
        });
        let done = postiz("posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01")
            .key_for(&server)
            .run()
            .code(1)
            .stdout("")
            .hides("secret words");
        if status != 502 {
            done.stderr_has(&format!("try {}/api as POSTIZ_API_URL", server.url()));
        }
    });
    // Where the URL has it already, it is not the cure.
    let server = Server::new(|_, _| Reply::html(200, "<html>"));
    let cli = postiz("integrations:list");
    cli.home.signed_in(&format!("{}/api", server.url()));
    let done = cli.run().code(1);
    assert!(!done.stderr.contains("/api/api"), "{}", done.stderr);
    done.stderr_has("postiz auth:status");
}

/// Postiz ends a login when the same account signs in elsewhere.
#[test]
fn a_refused_login_says_how_to_get_another() {
    let server = Server::always(401, r#"{"msg":"Invalid OAuth token"}"#);
    let cli = postiz("posts:list").var("POSTIZ_API_KEY", "k");
    cli.home.signed_in(&server.url());
    let done = cli.run().code(4).stdout("").hides(TOKEN);
    done.stderr_has("run `postiz auth:login`")
        .stderr_has("a later login on another machine")
        .stderr_has("POSTIZ_API_KEY is set, but");
}

#[test]
fn the_apis_words_cannot_write_to_the_terminal() {
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
fn answers_that_are_broken() {
    let rows: [(&'static [u8], &str); 5] = [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1,",
            "the connection was lost",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1,",
            "is not JSON",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\"\xff\"",
            "is not valid UTF-8",
        ),
        (b"no http at all\r\n\r\n", "the answer is not HTTP"),
        (b"", "the connection was lost"),
    ];
    each(rows, |(bytes, message)| {
        let server = Server::new(|_, _| Reply::Raw(bytes.to_vec()));
        let done = postiz("posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01")
            .key_for(&server)
            .run()
            .code(1)
            .stdout("");
        done.stderr_has(message);
        assert_eq!(server.asked().len(), 1);
    });
}

#[test]
fn unreachable_servers_are_named() {
    let cli = postiz("posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01")
        .var("POSTIZ_API_KEY", "k");
    cli.var("POSTIZ_API_URL", "http://127.0.0.1:1")
        .run()
        .code(1)
        .stderr_has("cannot reach http://127.0.0.1:1: connection refused");
}
