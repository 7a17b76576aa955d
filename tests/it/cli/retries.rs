//! What is sent again, what is not, and where redirects lead.

use std::time::Duration;

use super::harness::{Reply, Server, each, postiz};

const GET: &str = "posts:missing p1";
const PUT: &str = "posts:status p1 -s draft";
const DELETE: &str = "posts:delete p1";
const POST: &str = "posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01";

/// Fails so often, then succeeds.
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
        postiz(command).key_for(&server).run().code(1).stdout("");
        assert_eq!(server.asked().len(), 3);
    });
}

#[test]
fn a_post_is_never_sent_twice() {
    each(FAILURES, |failure| {
        for command in [
            POST,
            "integrations:trigger i m",
            "api POST /x",
            "api PATCH /x",
        ] {
            let server = failing(1, failure);
            postiz(command).key_for(&server).run().code(1).stdout("");
            assert_eq!(server.asked().len(), 1, "{command}");
        }
        let server = failing(1, failure);
        let cli = postiz("upload a.png").key_for(&server);
        cli.home.write("a.png", "x");
        cli.run().code(1).stdout("");
        assert_eq!(server.asked().len(), 1);
    });
    let server = failing(1, || {
        Reply::json(429, r#"{"message":"slow"}"#).with("Retry-After: 1")
    });
    postiz(POST)
        .key_for(&server)
        .run()
        .code(1)
        .stderr_has("too many requests: slow")
        .stderr_has("try again in 1 s");
    assert_eq!(server.asked().len(), 1);
}

/// Other failures are answers, and a second try would get the same.
#[test]
fn other_statuses_are_not_tried_again() {
    each([400, 401, 403, 404, 409, 500, 501], |status| {
        let server = Server::new(move |_, _| Reply::json(status, "{}"));
        postiz(GET).key_for(&server).run();
        assert_eq!(server.asked().len(), 1, "{status}");
    });
}

#[test]
fn too_many_requests_are_waited_out() {
    let server = failing(1, || Reply::json(429, "{}").with("Retry-After: 1"));
    postiz(GET)
        .key_for(&server)
        .run()
        .code(0)
        .stderr("Postiz asks to wait 1 s\n");
    let asked = server.asked();
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(1));
    // Nobody waits an hour.
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
fn a_get_follows_redirects_within_its_origin() {
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

/// A token must not go where an answer says, and a POST must not become a GET.
#[test]
fn other_redirects_are_errors_that_name_the_target() {
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
