//! The request of each command, byte for byte, and its result on stdout.

use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::harness::{CHANNEL, Cli, Reply, Server, each, postiz};

/// Each row has the arguments, the request line, and the body.
#[test]
fn command_sends_its_request() {
    let rows: [(&[&str], &str, &str); 26] = [
        (
            &[
                "posts:list",
                "--startDate",
                "2030-01-01T00:00:00Z",
                "--endDate",
                "2030-01-31T23:59:59+02:00",
            ],
            "GET /public/v1/posts?startDate=2030-01-01T00%3A00%3A00Z&endDate=2030-01-31T23%3A59%3A59%2B02%3A00",
            "",
        ),
        (
            &[
                "posts:list",
                "--startDate",
                "2030-01-01",
                "--endDate",
                "2030-02-01",
                "--customer",
                "a b&c",
            ],
            "GET /public/v1/posts?startDate=2030-01-01&endDate=2030-02-01T23%3A59%3A59.999Z&customer=a%20b%26c",
            "",
        ),
        (&["posts:delete", "p1"], "DELETE /public/v1/posts/p1", ""),
        (
            &["posts:delete", "../integrations/x"],
            "DELETE /public/v1/posts/..%2Fintegrations%2Fx",
            "",
        ),
        (
            &["posts:delete", "a?x=1#b c/ü%"],
            "DELETE /public/v1/posts/a%3Fx%3D1%23b%20c%2F%C3%BC%25",
            "",
        ),
        (
            &["posts:status", "p1", "--status", "draft"],
            "PUT /public/v1/posts/p1/status",
            r#"{"status":"draft"}"#,
        ),
        (
            &["posts:status", "p1", "-s", "schedule"],
            "PUT /public/v1/posts/p1/status",
            r#"{"status":"schedule"}"#,
        ),
        (
            &[
                "posts:settings",
                "p1",
                "--settings",
                r#"{"b":1.0,"a":[12345678901234567890]}"#,
            ],
            "PUT /public/v1/posts/p1/settings",
            r#"{"settings":{"b":1.0,"a":[12345678901234567890]}}"#,
        ),
        (
            &["posts:missing", "p1"],
            "GET /public/v1/posts/p1/missing",
            "",
        ),
        (
            &["posts:connect", "p1", "--release-id", "007"],
            "PUT /public/v1/posts/p1/release-id",
            r#"{"releaseId":"007"}"#,
        ),
        (
            &["posts:connect", "p1", "--releaseId=-7"],
            "PUT /public/v1/posts/p1/release-id",
            r#"{"releaseId":"-7"}"#,
        ),
        (&["integrations:list"], "GET /public/v1/integrations", ""),
        (
            &["integrations:list", "--group", "g 1"],
            "GET /public/v1/integrations?group=g%201",
            "",
        ),
        (&["integrations:groups"], "GET /public/v1/groups", ""),
        (
            &["integrations:settings", "i1"],
            "GET /public/v1/integration-settings/i1",
            "",
        ),
        (
            &["integrations:trigger", "i1", "get\"Lists"],
            "POST /public/v1/integration-trigger/i1",
            r#"{"methodName":"get\"Lists","data":{}}"#,
        ),
        (
            &["integrations:trigger", "i1", "m", "-d", r#"{"n":1e400}"#],
            "POST /public/v1/integration-trigger/i1",
            r#"{"methodName":"m","data":{"n":1e400}}"#,
        ),
        (
            &["analytics:platform", "i1"],
            "GET /public/v1/analytics/i1?date=7",
            "",
        ),
        (
            &["analytics:platform", "i1", "-d30"],
            "GET /public/v1/analytics/i1?date=30",
            "",
        ),
        (
            &["analytics:post", "p1", "--date=90"],
            "GET /public/v1/analytics/post/p1?date=90",
            "",
        ),
        (
            &["api", "get", "/public/v1/is-connected"],
            "GET /public/v1/is-connected",
            "",
        ),
        (
            &["api", "GET", "public/v1/notifications?page=2"],
            "GET /public/v1/notifications?page=2",
            "",
        ),
        (
            &["api", "PATCH", "/x", "-d", r#"{"a": 1.0}"#],
            "PATCH /x",
            r#"{"a": 1.0}"#,
        ),
        (
            &["api", "POST", "/x", "--data", "@body.json"],
            "POST /x",
            r#"[1]"#,
        ),
        (&["api", "DELETE", "/x"], "DELETE /x", ""),
        (
            &["posts:create", "--json", "body.json"],
            "POST /public/v1/posts",
            "[1]",
        ),
    ];
    each(rows, |(arguments, line, body)| {
        let server = Server::always(200, r#"{"z":1.0,"a":12345678901234567890,"e":[]}"#);
        let cli = Cli::new().args(arguments.iter().copied()).key_for(&server);
        cli.home.write("body.json", " [1]\n");
        let done = cli.run().code(0).stderr("");
        if arguments[0] == "api" {
            // The body is sent unchanged.
            done.stdout(r#"{"z":1.0,"a":12345678901234567890,"e":[]}"#);
        } else {
            done.stdout("{\n  \"z\": 1.0,\n  \"a\": 12345678901234567890,\n  \"e\": []\n}\n");
        }
        let asked = server.only();
        assert_eq!(asked.line(), line);
        assert_eq!(asked.text(), body);
        assert_eq!(
            asked.header("authorization"),
            Some("key-0123456789abcdef0123456789abcdef")
        );
        assert_eq!(
            asked.header("content-type"),
            (!body.is_empty()).then_some("application/json"),
            "{line}"
        );
    });
}

#[test]
fn create_sends_what_the_npm_cli_sends() {
    let server = Server::always(201, r#"[{"postId":"p","integration":"i1"}]"#);
    let channels = ["1", "2", "3"].map(|last| format!("{}{last}", &CHANNEL[..24]));
    let cli = Cli::new().args([
        "posts:create",
        "-c",
        "A",
        "-m",
        "https://x/a.png , https://x/b.png",
        "-c",
        "B",
        "-i",
        &channels[..2].join(","),
        "-i",
        &channels[2],
    ]);
    let cli = cli
        .args([
            "-s",
            "2030-01-15T10:00:00Z",
            "-d",
            "5",
            "--settings",
            r#"{"z":1,"a":1.0}"#,
        ])
        .key_for(&server);
    cli.run()
        .code(0)
        .stdout("[\n  {\n    \"postId\": \"p\",\n    \"integration\": \"i1\"\n  }\n]\n")
        .stderr("");
    let asked = server.only();
    assert_eq!(asked.line(), "POST /public/v1/posts");
    let body: Value = serde_json::from_str(&asked.text()).unwrap();
    let id = |place: usize| {
        body["posts"][0]["value"][0]["image"][place]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (a, b) = (id(0), id(1));
    assert!(
        a.len() == 7
            && a != b
            && a.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    );
    let value = format!(
        r#"[{{"content":"A","image":[{{"id":"{a}","path":"https://x/a.png"}},{{"id":"{b}","path":"https://x/b.png"}}],"delay":5}},{{"content":"B","image":[],"delay":5}}]"#
    );
    let posts: Vec<String> = channels
        .iter()
        .map(|id| {
            format!(
                r#"{{"integration":{{"id":"{id}"}},"value":{value},"settings":{{"z":1,"a":1.0}}}}"#
            )
        })
        .collect();
    let expected = format!(
        r#"{{"type":"schedule","creationMethod":"CLI","date":"2030-01-15T10:00:00Z","shortLink":true,"tags":[],"posts":[{}]}}"#,
        posts.join(",")
    );
    assert_eq!(asked.text(), expected);
}

/// Text that looks like a flag is sent, too.
#[test]
fn content_arrives_unchanged() {
    let long = "ä".repeat(50_000);
    let contents = [
        "- item",
        "-x",
        "--help",
        "-h",
        "--",
        "-",
        "a\nb\tc",
        "\"quoted\" 'too'",
        "👩‍🚀; rm -rf /",
        "=x",
        " spaced ",
        "$(id) `id`",
        "{}",
        &long,
    ];
    each(contents, |content| {
        let spellings = [
            vec!["-c".to_owned(), content.to_owned()],
            vec![format!("-c={content}")],
            vec![format!("--content={content}")],
            vec!["--content".to_owned(), content.to_owned()],
        ];
        for spelling in spellings {
            let server = Server::always(201, "[]");
            let cli = postiz("posts:create --no-html -s 2030-01-15 -i")
                .arg(CHANNEL)
                .args(spelling)
                .key_for(&server);
            cli.run().code(0);
            // Before a long text, the channel's limit is requested.
            let sent = server.asked().pop().unwrap().text();
            let body: Value = serde_json::from_str(&sent).unwrap();
            assert_eq!(body["posts"][0]["value"][0]["content"], content);
        }
    });
}

#[test]
fn create_accepts_its_switches() {
    for (arguments, field, expected) in [
        ("--no-shortLink", "shortLink", "false"),
        ("--no-short-link", "shortLink", "false"),
        ("--shortLink=false", "shortLink", "false"),
        ("--shortLink false", "shortLink", "false"),
        ("--short-link", "shortLink", "true"),
        ("-t draft", "type", "\"draft\""),
        ("-tnow", "type", "\"now\""),
    ] {
        let server = Server::always(201, "[]");
        postiz("posts:create -c x -s 2030-01-15 -i")
            .arg(CHANNEL)
            .args(arguments.split(' '))
            .key_for(&server)
            .run()
            .code(0);
        let body: Value = serde_json::from_str(&server.only().text()).unwrap();
        assert_eq!(body[field].to_string(), expected, "{arguments}");
    }
}

#[test]
fn create_sends_a_file_or_stdin_unchanged() {
    let text = "{\"b\": 1.0, \"a\": 12345678901234567890,\n \"é\": \"\\u00e9\"}";
    let server = Server::always(201, "[]");
    let cli = postiz("posts:create -j post.json").key_for(&server);
    cli.home.write("post.json", format!("\u{feff}{text}\n"));
    cli.run().code(0);
    postiz("posts:create --json -")
        .key_for(&server)
        .stdin(text)
        .run()
        .code(0);
    postiz("posts:create --json /dev/stdin")
        .key_for(&server)
        .stdin(text)
        .run()
        .code(0);
    postiz("api POST /public/v1/posts -d -")
        .key_for(&server)
        .stdin(text)
        .run()
        .code(0);
    assert!(server.asked().iter().all(|asked| asked.text() == text) && server.asked().len() == 4);
}

#[test]
fn file_that_is_not_json_is_named() {
    let server = Server::always(201, "[]");
    for (content, wrong) in [
        ("", "does not hold JSON"),
        ("{", "does not hold JSON"),
        ("<h1>", "does not hold JSON"),
    ] {
        let cli = postiz("posts:create --json post.json").key_for(&server);
        cli.home.write("post.json", content);
        cli.run()
            .code(1)
            .stdout("")
            .stderr_has("post.json")
            .stderr_has(wrong);
    }
    let cli = postiz("posts:create --json post.json").key_for(&server);
    cli.home.write("post.json", b"\"\xff\"");
    cli.run().code(1).stderr_has("post.json is not valid UTF-8");
    postiz("posts:create --json nope.json")
        .key_for(&server)
        .run()
        .code(1)
        .stderr_has("cannot read nope.json: ");
    postiz("posts:create --json .")
        .key_for(&server)
        .run()
        .code(1)
        .stderr_has("cannot read .: ");
    postiz("api POST /x -d @nope.json")
        .key_for(&server)
        .run()
        .code(1)
        .stderr_has("cannot read nope.json: ");
    assert!(server.asked().is_empty());
}

/// Thirty days back, thirty ahead, in UTC with milliseconds.
#[test]
fn list_has_its_default_span() {
    let server = Server::always(200, r#"{"posts":[]}"#);
    postiz("posts:list").key_for(&server).run().code(0);
    let target = server.only().target;
    let query = target.strip_prefix("/public/v1/posts?startDate=").unwrap();
    let (start, end) = query.split_once("&endDate=").unwrap();
    let date = |text: &str| date_of(&text.replace("%3A", ":"));
    let (start, end) = (date(start), date(end));
    assert_eq!(
        end.duration_since(start).unwrap(),
        Duration::from_secs(60 * 86_400)
    );
    let middle = start + Duration::from_secs(30 * 86_400);
    assert!(SystemTime::now().duration_since(middle).unwrap() < Duration::from_secs(10));
}

/// Reads `2026-10-25T23:11:59.200Z` with a tool that is not ours.
fn date_of(text: &str) -> SystemTime {
    assert_eq!((text.len(), text.ends_with('Z')), (24, true), "{text}");
    let output = Command::new("date")
        .args(["-u", "+%s%3N", "-d", text])
        .output()
        .unwrap();
    let millis = String::from_utf8(output.stdout).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis.trim().parse().unwrap())
}

#[test]
fn empty_success_is_null() {
    for status in [200, 204] {
        let server = Server::new(move |_, _| Reply::json(status, ""));
        postiz("posts:delete p1")
            .key_for(&server)
            .run()
            .code(0)
            .stdout("null\n")
            .stderr("");
    }
}

#[test]
fn request_without_a_body_has_content_length_0_where_one_is_usual() {
    for (method, length) in [
        ("POST", Some("0")),
        ("PATCH", Some("0")),
        ("DELETE", None),
        ("GET", None),
    ] {
        let server = Server::always(200, "{}");
        postiz("api")
            .args([method, "/x"])
            .key_for(&server)
            .run()
            .code(0);
        let asked = server.only();
        assert_eq!(asked.header("content-length"), length, "{method}");
        assert_eq!(asked.header("transfer-encoding"), None, "{method}");
        assert_eq!(asked.header("content-type"), None, "{method}");
    }
}

/// HEAD has no body.
#[test]
fn api_prints_the_body_unchanged() {
    let server = Server::new(|_, _| Reply::Answer(200, String::new(), b"\x00raw \xff\n".to_vec()));
    let output = postiz("api GET /x")
        .key_for(&server)
        .command()
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"\x00raw \xff\n");
    postiz("api HEAD /x")
        .key_for(&server)
        .run()
        .code(0)
        .stdout("");
    postiz("api GET")
        .arg("/a b")
        .key_for(&server)
        .run()
        .code(2)
        .stderr_has("cannot be part of a URL");
}

/// Files and pipes that are read whole must not fill the memory.
#[test]
fn text_length_is_limited() {
    let server = Server::always(201, "[]");
    for (command, name) in [
        ("posts:create --json /dev/zero", "/dev/zero"),
        ("api POST /x -d @/dev/zero", "/dev/zero"),
        ("posts:create --json big.json", "big.json"),
    ] {
        let cli = postiz(command).key_for(&server);
        let file = std::fs::File::create(cli.home.file("big.json")).unwrap();
        file.set_len((64 << 20) + 1).unwrap();
        cli.run()
            .code(1)
            .stdout("")
            .stderr_has(&format!("{name} is larger than 64 MiB"));
    }
    let endless = postiz("posts:create --json -").key_for(&server);
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let output = endless.command().stdin(zeros).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("stdin is larger than 64 MiB"));
    assert!(server.asked().is_empty());
}
