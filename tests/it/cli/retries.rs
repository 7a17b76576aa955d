//! Which requests are retried, and which redirects are followed.

use std::time::Duration;

use super::harness::{Reply, Server, each, postiz};

const GET: &str = "posts:missing p1";
const PUT: &str = "posts:status p1 -s draft";
const DELETE: &str = "posts:delete p1";
const POST: &str = "posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01";

/// A server that fails so many times, and then succeeds.
fn failing(times: usize, reply: fn() -> Reply) -> Server {
    Server::new(move |_, before| {
        if before < times {
            reply()
        } else {
            Reply::json(200, "[]")
        }
    })
}

const FAILURES: [fn() -> Reply; 4] = [
    || Reply::Drop,
    || Reply::html(502, "<html>"),
    || Reply::json(503, ""),
    || Reply::html(504, "<html>").with("Retry-After: 0"),
];

#[test]
fn idempotent_requests_are_tried_three_times() {
    let rows = FAILURES
        .into_iter()
        .flat_map(|failure| [GET, PUT, DELETE].map(|command| (failure, command)));
    each(rows, |(failure, command)| {
        let server = failing(2, failure);
        postiz(command)
            .key_for(&server)
            .run()
            .code(0)
            .stdout("[]\n")
            .stderr("");
        assert_eq!(server.asked().len(), 3);
        let server = failing(3, failure);
        let is_unanswered = matches!(failure(), Reply::Drop) && command != GET;
        let code = if is_unanswered { 5 } else { 1 };
        postiz(command).key_for(&server).run().code(code).stdout("");
        assert_eq!(server.asked().len(), 3);
    });
}

#[test]
fn post_is_never_sent_twice() {
    each(FAILURES, |failure| {
        // After a 503 nothing was done.
        let is_refused = matches!(failure(), Reply::Answer(503, ..));
        let code = if is_refused { 1 } else { 5 };
        for command in [
            POST,
            "integrations:trigger i m",
            "api POST /x",
            "api PATCH /x",
        ] {
            let server = failing(1, failure);
            postiz(command).key_for(&server).run().code(code).stdout("");
            assert_eq!(server.asked().len(), 1, "{command}");
        }
        let server = failing(1, failure);
        let cli = postiz("upload a.png").key_for(&server);
        cli.home.write("a.png", "x");
        cli.run().code(code).stdout("");
        assert_eq!(server.asked().len(), 1);
    });
}

/// A request that got a 429 was not processed.
#[test]
fn post_after_a_429_is_retried() {
    for command in [POST, "upload a.png", "api POST /x"] {
        let server = failing(2, || Reply::json(429, "{}").with("Retry-After: 1"));
        let cli = postiz(command).key_for(&server);
        cli.home.write("a.png", "x");
        cli.run()
            .code(0)
            .stderr("Postiz asks to wait 1 s\nPostiz asks to wait 1 s\n");
        assert_eq!(server.asked().len(), 3);
    }
}

/// The message then does not claim that Postiz asked to wait.
#[test]
fn status_429_without_retry_after_is_retried_once() {
    each([GET, POST], |command| {
        let server = failing(2, || Reply::json(429, r#"{"message":"slow"}"#));
        let done = postiz(command).key_for(&server).run().code(1);
        done.stderr_has("too many requests: trying again in 5 s\n")
            .stderr_has("error: too many requests: slow (HTTP 429)");
        let asked = server.asked();
        assert_eq!(asked.len(), 2);
        assert!(asked[1].at - asked[0].at >= Duration::from_secs(5));
    });
}

/// `api` and `upload` have no limit by default.
#[test]
fn timeout_is_set_by_flag_or_variable() {
    let slow = || {
        Server::new(|_, _| {
            std::thread::sleep(Duration::from_secs(2));
            Reply::json(200, "[]")
        })
    };
    let commands = [
        (GET, 1),
        (POST, 5),
        (DELETE, 5),
        ("api GET /x", 1),
        ("upload a.png", 5),
    ];
    each(commands, |(command, code)| {
        for limit in ["1", "0.5"] {
            let by_flag = postiz(command).args(["--timeout", limit]);
            let by_variable = postiz(command).var("POSTIZ_TIMEOUT", limit);
            for cli in [by_flag, by_variable] {
                let server = slow();
                let cli = cli.key_for(&server);
                cli.home.write("a.png", "x");
                let done = cli.run().code(code).stdout("");
                done.stderr_has(&format!("no answer within {limit} s"));
                assert_eq!(server.asked().len(), 1);
            }
        }
        for limit in ["0", "60"] {
            let cli = postiz(command).args(["--timeout", limit]).key_for(&slow());
            let cli = cli.var("POSTIZ_TIMEOUT", "1");
            cli.home.write("a.png", "x");
            cli.run().code(0);
        }
    });
    for wrong in ["x", "-1", "1s", "inf", "NaN"] {
        let cli = postiz(GET).key_for(&slow());
        cli.args([format!("--timeout={wrong}")])
            .run()
            .code(2)
            .stderr_has("must be a number of seconds");
    }
}

/// A second try would get the same answer.
#[test]
fn other_statuses_are_not_retried() {
    each([400, 401, 403, 404, 409, 500, 501], |status| {
        let server = Server::new(move |_, _| Reply::json(status, "{}"));
        postiz(GET).key_for(&server).run();
        assert_eq!(server.asked().len(), 1, "{status}");
    });
}

#[test]
fn status_429_waits_for_retry_after() {
    let server = failing(1, || Reply::json(429, "{}").with("Retry-After: 1"));
    postiz(GET)
        .key_for(&server)
        .run()
        .code(0)
        .stderr("Postiz asks to wait 1 s\n");
    let asked = server.asked();
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(1));
    // An hour is too long to wait.
    let server = failing(1, || {
        Reply::json(429, r#"{"message":"slow"}"#).with("Retry-After: 3600")
    });
    postiz(GET)
        .key_for(&server)
        .run()
        .code(1)
        .stderr_has("try again in 3600 s");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn get_follows_redirects_within_its_origin() {
    let server = Server::new(|asked, _| match asked.target.as_str() {
        "/api/public/v1/integrations" => Reply::json(307, "").with("Location: /elsewhere?x=1"),
        "/elsewhere?x=1" => Reply::json(301, "").with("Location: last"),
        "/last" => Reply::json(308, "").with(&format!(
            "Location: http://{}/end",
            asked.header("host").unwrap()
        )),
        _ => Reply::json(200, "[]"),
    });
    let cli = postiz("integrations:list");
    cli.home.signed_in(&format!("{}/api", server.url()));
    cli.run().code(0).stdout("[]\n").stderr("");
    assert_eq!(
        server.lines(),
        [
            "GET /api/public/v1/integrations",
            "GET /elsewhere?x=1",
            "GET /last",
            "GET /end"
        ]
    );
}

/// The token must not go to another origin, and a POST must not become a GET.
#[test]
fn other_redirect_is_an_error_that_names_the_target() {
    let other = Server::always(200, "[]");
    for target in [
        format!("{}/x", other.url()),
        other.url().replace("http:", ""),
        "https://127.0.0.1/x".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let location = format!("Location: {target}");
        let server = Server::new(move |_, _| Reply::json(302, "").with(&location));
        postiz(GET)
            .key_for(&server)
            .run()
            .code(1)
            .stdout("")
            .stderr_has(&format!("was redirected to {target}"));
        assert_eq!(server.asked().len(), 1);
    }
    assert!(other.asked().is_empty());
    for command in [POST, PUT, DELETE] {
        let server = Server::new(|_, _| Reply::json(308, "").with("Location: /same"));
        postiz(command)
            .key_for(&server)
            .run()
            .code(1)
            .stdout("")
            .stderr_has("was redirected to /same");
        assert_eq!(server.asked().len(), 1);
    }
    let circle =
        Server::new(|_, _| Reply::json(302, "").with("Location: /public/v1/posts/p1/missing"));
    postiz(GET)
        .key_for(&circle)
        .run()
        .code(1)
        .stderr_has("was redirected");
    assert!(circle.asked().len() < 10);
}
