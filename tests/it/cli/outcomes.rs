//! Requests whose outcome is unknown: exit code 5, and no repeat without `--again`.

use std::fs::OpenOptions;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::harness::{Cli, Home, Reply, Server, each, postiz};

const POST: &str = "posts:create -c x -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01";
const PUT: &str = "posts:status p1 -s draft";
const DELETE: &str = "posts:delete p1";

/// A server that sends the first `count` bytes of `answer` and closes the connection.
fn cut(answer: &'static [u8], count: usize) -> Server {
    Server::new(move |_, _| Reply::Raw(answer[..count].to_vec()))
}

#[test]
fn answer_cut_at_any_byte_leaves_the_outcome_unknown() {
    let answers: [&[u8]; 2] = [
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n",
    ];
    for answer in answers {
        let whole = answer.len() - usize::from(answer.ends_with(b"[]"));
        each(0..=whole, |count| {
            let server = cut(answer, count);
            let done = postiz(POST).key_for(&server).run().code(5).stdout("");
            done.stderr_has("error: the post may have been created: ")
                .stderr_has("hint: `postiz posts:list` shows whether it was; do not repeat it");
            assert_eq!(server.asked().len(), 1, "{count}");
        });
    }
}

/// The status is enough, however little of the body arrives.
#[test]
fn error_answer_cut_short_is_still_an_error() {
    let answer = b"HTTP/1.1 400 Bad\r\nContent-Length: 21\r\n\r\n{\"message\":\"Bad day\"}";
    let head = answer.len() - 21;
    each(head..=answer.len(), |count| {
        let server = cut(answer, count);
        postiz(POST)
            .key_for(&server)
            .run()
            .code(1)
            .stderr_has("Postiz refused: ")
            .stderr_has("HTTP 400")
            .stdout("");
    });
    let done = postiz(POST)
        .key_for(&cut(answer, answer.len()))
        .run()
        .code(1);
    done.stderr("error: Postiz refused: Bad day (HTTP 400)\n");
}

#[test]
fn unreadable_success_leaves_the_outcome_unknown() {
    let rows: [(&'static [u8], &str); 5] = [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n[1,", "is not JSON"),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n\"\xff\"", "is not valid UTF-8"),
        (
            b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
            "it is compressed (gzip)",
        ),
        (b"no http at all\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n", "HTTP 504"),
    ];
    each(rows, |(bytes, words)| {
        let server = Server::new(|_, _| Reply::Raw(bytes.to_vec()));
        postiz(POST)
            .key_for(&server)
            .run()
            .code(5)
            .stderr_has("may have been created")
            .stderr_has(words);
        assert_eq!(server.asked().len(), 1);
        // A read changes nothing.
        let get = Server::new(|_, _| Reply::Raw(bytes.to_vec()));
        postiz("integrations:list").key_for(&get).run().code(1);
    });
}

/// The message names the request, and how to check.
#[test]
fn unknown_outcome_names_what_may_have_happened() {
    let rows = [
        (
            DELETE,
            "the post may have been deleted",
            "postiz posts:list",
        ),
        (PUT, "the post may have been changed", "postiz posts:list"),
        (
            "integrations:trigger i m",
            "the tool may have run",
            "look at the channel",
        ),
        (
            "api PATCH /x",
            "PATCH /x may have been done",
            "look at it in Postiz",
        ),
        (
            "api POST /public/v1/clipping",
            "the clips may have been created",
            "postiz clipping:list",
        ),
        (
            "upload a.png",
            "a.png: the file may have been uploaded",
            "postiz media:list",
        ),
        (
            "upload https://example.com/a.png",
            "the file may have been uploaded",
            "postiz media:list",
        ),
    ];
    each(rows, |(command, what, look)| {
        let server = Server::new(|_, _| Reply::Drop);
        let cli = postiz(command).key_for(&server);
        cli.home.write("a.png", "x");
        cli.run()
            .code(5)
            .stdout("")
            .stderr_has(what)
            .stderr_has(look);
    });
}

#[test]
fn failed_retry_leaves_the_outcome_unknown() {
    for status in [400, 401, 404, 409, 500] {
        each([PUT, DELETE], |command| {
            let server = Server::new(move |_, before| match before {
                0 => Reply::Drop,
                _ => Reply::json(status, r#"{"message":"Post not found"}"#),
            });
            let done = postiz(command).key_for(&server).run().code(5).stdout("");
            done.stderr_has("the post may have been ")
                .stderr_has("Post not found");
            assert_eq!(server.asked().len(), 2);
        });
    }
    each([PUT, DELETE], |command| {
        let server = Server::new(|_, before| match before {
            0 => Reply::Drop,
            _ => Reply::json(200, "{}"),
        });
        postiz(command).key_for(&server).run().code(0).stderr("");
        let silent = Server::new(|_, _| Reply::Drop);
        postiz(command).key_for(&silent).run().code(5);
        assert_eq!(silent.asked().len(), 3);
    });
}

/// A request that was never sent was not done.
#[test]
fn request_without_a_connection_is_a_plain_failure() {
    each(
        [POST, PUT, DELETE, "api POST /x", "upload a.png"],
        |command| {
            let cli = postiz(command)
                .var("POSTIZ_API_KEY", "k")
                .var("POSTIZ_API_URL", "http://127.0.0.1:1");
            cli.home.write("a.png", "x");
            cli.run().code(1).stderr_has("connection refused");
            cli.run().code(1);
            assert!(cli.home.credentials_folder().is_empty());
        },
    );
}

fn again_at(home: &Home, command: &str, server: &Server) -> Cli {
    Cli::at(home.clone())
        .args(command.split_whitespace())
        .key_for(server)
}

#[test]
fn unanswered_post_is_not_sent_again() {
    let server = Server::new(|_, before| match before {
        0 => Reply::Drop,
        _ => Reply::json(201, "[]"),
    });
    let command = "posts:create -c x -m https://x/a.png -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01";
    let first = postiz(command).key_for(&server);
    let home = first.home.clone();
    first.run().code(5);
    for repeated in [
        command,
        "--timeout 9 posts:create -c x -m https://x/a.png -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01",
    ] {
        let done = again_at(&home, repeated, &server).run().code(5).stdout("");
        done.stderr_has("nothing was sent now")
            .stderr_has("repeat the command with --again");
    }
    assert_eq!(server.asked().len(), 1);
    // Another post is sent.
    again_at(
        &home,
        "posts:create -c y -i cm4ean69r0003w8w1cdomox9n -s 2030-01-01",
        &server,
    )
    .run()
    .code(0);
    again_at(&home, &format!("{command} --again"), &server)
        .run()
        .code(0);
    again_at(&home, command, &server).run().code(0);
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn unanswered_post_is_forgotten_after_a_day() {
    let server = Server::new(|_, before| match before {
        0 => Reply::Drop,
        _ => Reply::json(201, "[]"),
    });
    let first = postiz(POST).key_for(&server);
    let home = first.home.clone();
    first.run().code(5);
    let name = ".postiz/credentials.json.unanswered";
    let text = home.read(name);
    assert!(!text.contains("key-0123"), "{text}");
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (hash, at) = all.iter().next().unwrap();
    assert!(now.as_secs() - at.as_u64().unwrap() < 60 && all.len() == 1);
    home.write(
        name,
        format!(
            "{{\"{hash}\":{}}}",
            (now - Duration::from_secs(86_401)).as_secs()
        ),
    );
    again_at(&home, POST, &server).run().code(0);
}

/// The content of files and stdin is part of the request.
#[test]
fn unanswered_post_is_identified_by_its_files_too() {
    let server = Server::new(|asked, _| match asked.text().as_str() {
        "[1]" => Reply::Drop,
        _ => Reply::json(201, "[]"),
    });
    let first = postiz("posts:create --json -")
        .key_for(&server)
        .stdin("[1]");
    let home = first.home.clone();
    first.run().code(5);
    again_at(&home, "posts:create --json -", &server)
        .stdin("[2]")
        .run()
        .code(0);
    again_at(&home, "posts:create --json -", &server)
        .stdin("[1]")
        .run()
        .code(5);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn unprinted_result_of_a_write_is_no_success() {
    let rows = [
        ("integrations:list", 0, 1),
        ("api GET /x", 0, 1),
        (POST, 5, 5),
        (PUT, 5, 5),
        (DELETE, 5, 5),
        ("api POST /x", 5, 5),
        ("upload a.png", 5, 5),
    ];
    each(rows, |(command, pipe, full)| {
        let server = Server::new(|_, _| Reply::json(200, &format!("[{}1]", "1,".repeat(500_000))));
        let cli = postiz(command).key_for(&server);
        cli.home.write("a.png", "x");
        let mut child = cli.spawn();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(pipe), "{command}: {stderr}");
        assert_eq!(stderr.is_empty(), pipe == 0, "{command}: {stderr}");
        let cli = Cli::at(Home::new())
            .args(command.split_whitespace())
            .key_for(&server);
        cli.home.write("a.png", "x");
        let stdout = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = cli.command().stdout(stdout).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(full), "{command}: {stderr}");
        assert!(
            stderr.contains("cannot write the result to stdout"),
            "{command}: {stderr}"
        );
    });
}
