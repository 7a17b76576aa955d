//! The posts' commands against Postiz' stand-in: channels by name, files, texts, dates, and refusals before any request.

use std::time::{Duration, SystemTime};

use postiz::shared::utc::iso8601;
use serde_json::{Value, json};

use super::harness::{CHANNEL, Cli, Done, Home, each, postiz};
use crate::fake_postiz::{API_KEY, FakePostiz, Fault, Request, Response};

/// `posts:create` with a text, for the channels of `fake`, and `arguments`.
fn create(fake: &FakePostiz, arguments: &[&str]) -> Cli {
    signed_in(
        fake,
        postiz("posts:create -c Hello").args(arguments.iter().copied()),
    )
}

fn signed_in(fake: &FakePostiz, cli: Cli) -> Cli {
    cli.var("POSTIZ_API_KEY", API_KEY)
        .var("POSTIZ_API_URL", fake.url())
}

/// The requests that changed something.
fn writes(fake: &FakePostiz) -> Vec<Request> {
    let mut requests = fake.requests();
    requests.retain(|request| request.method != "GET");
    requests
}

/// The body of the one post that was sent.
#[track_caller]
fn only_post(fake: &FakePostiz) -> Value {
    let writes = writes(fake);
    assert_eq!(writes.len(), 1);
    assert_eq!(
        (writes[0].method.as_str(), writes[0].path()),
        ("POST", "/public/v1/posts")
    );
    writes[0].json()
}

fn ids(body: &Value) -> Vec<&str> {
    let posts = body["posts"].as_array().unwrap();
    posts
        .iter()
        .map(|post| post["integration"]["id"].as_str().unwrap())
        .collect()
}

/// `posts:create --dry-run` for a channel that needs no look-up, so that no request is sent.
fn dry_run(arguments: &[&str]) -> Done {
    let cli = postiz("posts:create --dry-run -s 2030-01-15T10:00:00Z -i").arg(CHANNEL);
    let cli = cli
        .args(arguments.iter().copied())
        .var("POSTIZ_API_KEY", "k");
    cli.var("POSTIZ_API_URL", "http://127.0.0.1:1").run()
}

/// `A:a,b B:` for two parts, the first with two media.
fn parts_of(body: &Value) -> String {
    let parts = body["posts"][0]["value"].as_array().unwrap().iter();
    let shown = parts.map(|part| {
        let images = part["image"].as_array().unwrap().iter();
        let paths: Vec<&str> = images
            .map(|image| image["path"].as_str().unwrap())
            .collect();
        format!("{}:{}", part["content"].as_str().unwrap(), paths.join(","))
    });
    shown.collect::<Vec<_>>().join(" ")
}

const SOON: &str = "2030-01-15T10:00:00Z";

#[test]
fn channels_are_found_by_id_name_or_platform() {
    let rows: [(&[&str], &[&str]); 7] = [
        (&["-i", "ch-x"], &["ch-x"]),
        (&["-i", "x,linkedin"], &["ch-x", "ch-linkedin"]),
        (&["-i", "LinkedIn", "-i", "X"], &["ch-linkedin", "ch-x"]),
        (&["-i", "ada on VIDEO , Ada"], &["ch-youtube", "ch-x"]),
        (
            &["-i", "cm4ean69r0003w8w1cdomox9n"],
            &["cm4ean69r0003w8w1cdomox9n"],
        ),
        (
            &["-i", "d2b0e3a8-6f2d-4a0b-8f55-0e8c1b7a9d10"],
            &["d2b0e3a8-6f2d-4a0b-8f55-0e8c1b7a9d10"],
        ),
        (&["-i=Ada Works"], &["ch-linkedin"]),
    ];
    each(rows, |(arguments, expected)| {
        let fake = FakePostiz::start();
        create(&fake, arguments)
            .args(["-s", SOON])
            .run()
            .code(0)
            .stderr("");
        assert_eq!(ids(&only_post(&fake)), expected);
        // IDs need no look-up, as in the npm CLI.
        let asked = fake.requests_to("/public/v1/integrations").len();
        assert_eq!(asked, usize::from(expected[0].starts_with("ch-")));
    });
}

#[test]
fn unknown_and_ambiguous_channels_are_refused() {
    let rows: [(&[&str], &str, &str); 6] = [
        (
            &["-i", "myspace"],
            "there is no channel `myspace`",
            "Ada (x, ch-x), Ada Works (linkedin, ch-linkedin)",
        ),
        (
            &["-i", "x,ch-y"],
            "there is no channel `ch-y`",
            "Ada (x, ch-x)",
        ),
        (
            &["-i", "mastodon"],
            "`mastodon` is the name or platform of 2 channels",
            "One (mastodon, m1), Two (mastodon, m2)",
        ),
        (&["-i", "x,Ada"], "Ada (x, ch-x) is named twice", ""),
        (
            &["-i", "x", "--settings", "linkedin:{}"],
            "--settings is for `linkedin`, which is none",
            "Ada (x, ch-x)",
        ),
        (
            &["-i", "x", "--settings", "x:{}", "--settings", "x:{}"],
            "--settings for x is given twice",
            "",
        ),
    ];
    each(rows, |(arguments, what, hint)| {
        let fake = FakePostiz::start();
        let channel = |id, platform, name| json!({"id": id, "identifier": platform, "name": name});
        let channels = json!([
            channel("ch-x", "x", "Ada"),
            channel("ch-linkedin", "linkedin", "Ada Works"),
            channel("m1", "mastodon", "One"),
            channel("m2", "mastodon", "Two"),
        ]);
        fake.misbehave(
            "/public/v1/integrations",
            Fault::Answer(Response::json(200, &channels)),
        );
        let cli = create(&fake, arguments).args(["-s", SOON, "-m", "photo.png"]);
        cli.home.write("photo.png", "x");
        cli.run()
            .code(2)
            .stdout("")
            .stderr_has(what)
            .stderr_has(hint);
        assert!(writes(&fake).is_empty());
    });
}

#[test]
fn settings_of_one_channel_override_those_of_all() {
    let fake = FakePostiz::start();
    let settings = [
        "--settings",
        r#"x:{"a":2,"c":1.0}"#,
        "-i",
        "x,linkedin",
        "--settings",
        r#"{"a":1,"b":12345678901234567890}"#,
    ];
    create(&fake, &settings).args(["-s", SOON]).run().code(0);
    let body = only_post(&fake);
    assert_eq!(
        body["posts"][0]["settings"].to_string(),
        r#"{"a":2,"b":12345678901234567890,"c":1.0}"#
    );
    assert_eq!(
        body["posts"][1]["settings"].to_string(),
        r#"{"a":1,"b":12345678901234567890}"#
    );
    let fake = FakePostiz::start();
    create(
        &fake,
        &[
            "-i",
            "x,linkedin",
            "--settings",
            r#"Ada Works:{"a":1}"#,
            "-s",
            SOON,
        ],
    )
    .run()
    .code(0);
    let body = only_post(&fake);
    assert_eq!(
        (&body["posts"][0]["settings"], &body["posts"][1]["settings"]),
        (&Value::Null, &json!({"a": 1}))
    );
}

#[test]
fn media_belong_to_the_part_before_them() {
    let rows: [(&[&str], &str); 9] = [
        (&["-c", "A", "-m", "x://a", "-c", "B"], "A:x://a B:"),
        (&["-c", "A", "-m", "x://a", "-m", "x://b"], "A:x://a,x://b"),
        (&["-c", "A", "-m", " x://a , x://b "], "A:x://a,x://b"),
        (&["-m", "x://a", "-c", "A", "-m", "x://b"], "A:x://a,x://b"),
        (
            &[
                "-c", "A", "-m", "x://a", "-c", "B", "-m", "x://b", "-m", "x://c",
            ],
            "A:x://a B:x://b,x://c",
        ),
        // When all are at the end, they pair up by count, as always in the npm CLI.
        (
            &["-c", "A", "-c", "B", "-m", "x://a", "-m", "x://b"],
            "A:x://a B:x://b",
        ),
        (&["-c", "A", "-c", "B", "-m", "x://a"], "A:x://a B:"),
        (
            &["-c", "A", "-c", "B", "-m", "", "-m", "x://b"],
            "A: B:x://b",
        ),
        (&["-c", "", "-m", "x://a"], ":x://a"),
    ];
    each(rows, |(arguments, expected)| {
        assert_eq!(
            parts_of(&dry_run(arguments).code(0).json()),
            expected,
            "{arguments:?}"
        );
    });
}

#[test]
fn inconsistent_parts_are_refused() {
    let rows: [(&[&str], &str); 14] = [
        (&["-c", "A", "-m", ""], "-m is empty"),
        (
            &["-c", "A", "-m", "x://a,,b"],
            "--media `x://a,,b` has an empty part",
        ),
        (
            &["-c", "A", "-m", "x://a,"],
            "--media `x://a,` has an empty part",
        ),
        (&["-c", ""], "a part has neither text nor media"),
        (&["-c", "A", "-c", ""], "a part has neither text nor media"),
        (
            &["-m", "x://a", "-c", "A", "-c", "B"],
            "the first -m stands before any -c",
        ),
        (
            &[
                "-c", "A", "-c", "B", "-m", "x://a", "-m", "x://b", "-m", "x://c",
            ],
            "3 -m cannot pair up with 2 -c",
        ),
        (&["-m", "x://a"], "posts:create needs --content or --json"),
        (
            &["-c", "A", "-d", "-1"],
            "--delay must be a number of minutes, not `-1`",
        ),
        (
            &["-c", "A", "-d", "abc"],
            "--delay must be a number of minutes, not `abc`",
        ),
        (
            &["-c", "A", "-d", "inf"],
            "--delay must be a number of minutes, not `inf`",
        ),
        (
            &["-c", "A", "--settings", "[1]"],
            "--settings must be a JSON object",
        ),
        (&["-c", "A", "--settings", "x:{"], "--settings is not JSON"),
        (
            &["-c", "A", "-i", ","],
            "--integrations `,` has an empty part",
        ),
    ];
    each(rows, |(arguments, wrong)| {
        let done = dry_run(arguments).code(2).stdout("");
        assert!(
            done.stderr.starts_with(&format!("error: {wrong}")),
            "{}",
            done.stderr
        );
    });
}

#[test]
fn files_are_uploaded_before_the_post() {
    let fake = FakePostiz::start();
    let cli = create(
        &fake,
        &[
            "-m",
            "a.png,https://x/b.png",
            "-c",
            "Two",
            "-m",
            "dir/c.png",
            "-m",
            "a.png",
        ],
    );
    let cli = cli.args(["-i", "x", "-s", SOON]);
    cli.home.write("a.png", "x").write("dir/c.png", "x");
    let done = cli.run().code(0);
    done.stderr("uploaded a.png: https://uploads.example.com/a.png\nuploaded dir/c.png: https://uploads.example.com/c.png\n");
    let writes = writes(&fake);
    let paths: Vec<&str> = writes.iter().map(Request::path).collect();
    assert_eq!(
        paths,
        ["/public/v1/upload", "/public/v1/upload", "/public/v1/posts"]
    );
    let value = &writes[2].json()["posts"][0]["value"];
    let images = |part: usize| {
        let images = value[part]["image"].as_array().unwrap().iter();
        images
            .map(|image| image["path"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        images(0),
        ["https://uploads.example.com/a.png", "https://x/b.png"]
    );
    assert_eq!(
        images(1),
        [
            "https://uploads.example.com/c.png",
            "https://uploads.example.com/a.png"
        ]
    );
    assert_eq!(value[0]["image"][0]["id"], "media-1");
}

#[test]
fn unusable_file_stops_the_post() {
    for (media, what) in [
        ("a.png,nope.png", "cannot read nope.png"),
        ("empty.png", "empty.png is empty"),
        ("dir", "dir is a folder"),
        ("-", "stdin (-) cannot be a -m"),
    ] {
        let fake = FakePostiz::start();
        let cli = create(&fake, &["-i", "x", "-s", SOON, "-m", media]);
        cli.home
            .write("a.png", "x")
            .write("empty.png", "")
            .write("dir/x", "");
        cli.run()
            .code(2)
            .stdout("")
            .stderr_has(what)
            .stderr_has("nothing was sent");
        assert!(fake.requests().is_empty(), "{media}");
    }
    // A failed upload stops the post too.
    let fake = FakePostiz::start();
    let refused = Response::json(400, &json!({"msg": "File type not allowed"}));
    fake.misbehave("/public/v1/upload", Fault::Answer(refused));
    let cli = create(&fake, &["-i", "x", "-s", SOON, "-m", "a.png"]);
    cli.home.write("a.png", "x");
    cli.run()
        .code(1)
        .stderr_has("a.png")
        .stderr_has("File type not allowed");
    assert!(fake.requests_to("/public/v1/posts").is_empty());
}

#[test]
fn dry_run_prints_the_body_and_sends_nothing() {
    let fake = FakePostiz::start();
    let cli = create(
        &fake,
        &["-m", "a.png", "-i", "x", "-s", "next", "--dry-run"],
    );
    cli.home.write("a.png", "x");
    let done = cli
        .run()
        .code(0)
        .stderr_has("would upload a.png\n")
        .stderr_has("dry run: nothing was sent");
    let body = done.json();
    assert_eq!(ids(&body), ["ch-x"]);
    assert_eq!(body["posts"][0]["value"][0]["image"][0]["path"], "a.png");
    assert!(writes(&fake).is_empty());

    let cli = signed_in(&fake, postiz("posts:create --json post.json --dry-run"));
    cli.home.write("post.json", r#"{"b":1.0}"#);
    cli.run().code(0).stdout("{\n  \"b\": 1.0\n}\n");
    signed_in(
        &fake,
        postiz("posts:update post-waiting -c New --text-only --dry-run"),
    )
    .run()
    .code(0)
    .stdout_has(r#""type": "update""#);
    assert!(writes(&fake).is_empty());
}

#[test]
fn text_comes_from_files_and_stdin() {
    let run = |arguments: &[&str], stdin: &str| {
        let fake = FakePostiz::start();
        let cli = Cli::new()
            .args(["posts:create", "-i", "x", "-s", SOON])
            .args(arguments.iter().copied());
        let cli = signed_in(&fake, cli).stdin(stdin);
        cli.home
            .write("text.txt", "\u{feff}- one\r\ntwo <3\n\n")
            .write("blank.txt", " \n");
        let done = cli.run();
        (done, fake)
    };
    let contents = |fake: &FakePostiz| {
        let body = only_post(fake);
        let value = body["posts"][0]["value"].as_array().unwrap().iter();
        value
            .map(|part| part["content"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (done, fake) = run(&["--content-file", "text.txt"], "");
    done.code(0).stderr("");
    assert_eq!(contents(&fake), ["<p>- one</p><p>two &lt;3</p>"]);
    let (done, fake) = run(
        &[
            "-c",
            "First",
            "--content-file",
            "-",
            "--contentFile=text.txt",
            "--html",
        ],
        "Second & <b>\n",
    );
    done.code(0).stderr("");
    assert_eq!(contents(&fake), ["First", "Second & <b>", "- one\ntwo <3"]);
    for (arguments, what) in [
        (["--content-file", "nope.txt"], "cannot read nope.txt"),
        (["--content-file", "blank.txt"], "blank.txt holds no text"),
    ] {
        let (done, fake) = run(&arguments, "");
        assert_ne!(done.code, Some(0));
        done.stdout("").stderr_has(what);
        assert!(fake.requests().is_empty());
    }
}

#[test]
fn html_is_recognised_and_reported() {
    let told = "warning: the text holds <p>, so it is sent as HTML";
    for (text, flag, sent, warning) in [
        ("I <3 Q&A", None, "<p>I &lt;3 Q&amp;A</p>", ""),
        ("Q&A", None, "Q&A", ""),
        ("say <p>hi</p>", None, "say <p>hi</p>", told),
        ("say <p>", Some("--html"), "say <p>", ""),
        ("say <p>", Some("--no-html"), "<p>say &lt;p&gt;</p>", ""),
        ("a<b c", Some("--html"), "a<b c", ""),
    ] {
        let fake = FakePostiz::start();
        let cli = postiz("posts:create -i x -s")
            .arg(SOON)
            .args(["-c", text])
            .args(flag);
        let done = signed_in(&fake, cli).run().code(0);
        assert!(
            done.stderr.starts_with(warning) && done.stderr.is_empty() == warning.is_empty(),
            "{}",
            done.stderr
        );
        assert_eq!(only_post(&fake)["posts"][0]["value"][0]["content"], sent);
    }
}

/// Europe/Berlin as zic(8) writes it, without a table: one rule for all years (RFC 8536 §3.3).
fn berlin(home: &Home) -> std::path::PathBuf {
    let header = |version: u8| {
        let counts = [0_u32, 0, 0, 0, 1, 4];
        let counts = counts.iter().flat_map(|count| count.to_be_bytes());
        let start = [*b"TZif", [version, 0, 0, 0]].concat();
        start
            .into_iter()
            .chain([0; 12])
            .chain(counts)
            .collect::<Vec<u8>>()
    };
    let types = [&3600_i32.to_be_bytes()[..], &[0, 0], b"CET\0"].concat();
    let block = [header(b'2'), types].concat();
    let file = [&block[..], &block, b"\nCET-1CEST,M3.5.0,M10.5.0/3\n"].concat();
    home.write("zones/Europe/Berlin", file).file("zones")
}

#[test]
fn times_are_in_the_named_zone() {
    let run = |arguments: &[&str], zones: Option<&str>| {
        let fake = FakePostiz::start();
        let cli = create(&fake, &["-i", "x"]).args(arguments.iter().copied());
        let folder = zones.map_or_else(|| berlin(&cli.home), |zones| cli.home.file(zones));
        (cli.var("TZDIR", folder).run(), fake)
    };
    for (date, zone, sent) in [
        (
            "2030-01-15T09:00",
            "Europe/Berlin",
            "2030-01-15T08:00:00.000Z",
        ),
        (
            "2030-07-15T09:00",
            "Europe/Berlin",
            "2030-07-15T07:00:00.000Z",
        ),
        ("2030-07-15T09:00Z", "Europe/Berlin", "2030-07-15T09:00Z"),
        ("2030-07-15T09:00", "UTC", "2030-07-15T09:00:00.000Z"),
    ] {
        let (done, fake) = run(&["-s", date, "--tz", zone], None);
        done.code(0);
        assert_eq!(only_post(&fake)["date"], sent, "{date}");
    }
    let unknown = [
        "../zones/Europe/Berlin",
        "/etc/passwd",
        "Europe",
        "Europe/Berln",
        "Europe//Berlin",
    ];
    let rows = unknown.map(|zone| {
        (
            "2030-01-15T09:00",
            zone,
            2,
            format!("there is no time zone `{zone}`"),
        )
    });
    let gap = "--date 2030-03-31T02:30 does not exist in Europe/Berlin".to_owned();
    for (date, zone, code, what) in
        rows.into_iter()
            .chain([("2030-03-31T02:30", "Europe/Berlin", 2, gap)])
    {
        let (done, fake) = run(&["-s", date, "--tz", zone], None);
        done.code(code).stdout("").stderr_has(&what);
        assert!(fake.requests().is_empty(), "{zone}");
    }
    let (done, _) = run(
        &["-s", "2030-01-15T09:00", "--tz", "Europe/Berlin"],
        Some("none"),
    );
    done.code(1)
        .stderr_has("this system has no time zones")
        .stderr_has("write the offset");
}

fn minutes_ago(minutes: u64) -> String {
    iso8601(SystemTime::now() - Duration::from_secs(minutes * 60))
}

#[test]
fn dates_that_have_passed_are_refused() {
    let run = |arguments: &[&str]| {
        let fake = FakePostiz::start();
        (
            create(&fake, &["-i", "x"])
                .args(arguments.iter().copied())
                .run(),
            fake,
        )
    };
    let (long_ago, just_now) = (minutes_ago(6), minutes_ago(4));
    for arguments in [
        &["-s", &long_ago][..],
        &["-s", "2020-01-01", "-t", "schedule"],
        &["-s", "0000-01-01"],
    ] {
        let (done, fake) = run(arguments);
        done.code(2)
            .stdout("")
            .stderr_has("has passed")
            .stderr_has("-t now publishes at once");
        assert!(fake.requests().is_empty());
    }
    for (arguments, kind) in [
        (&["-s", &just_now][..], "schedule"),
        (&["-s", &long_ago, "-t", "now"], "now"),
        (&["-s", "2020-01-01", "-t", "draft"], "draft"),
    ] {
        let (done, fake) = run(arguments);
        done.code(0);
        let body = only_post(&fake);
        assert_eq!(
            (&body["type"], &body["date"]),
            (&json!(kind), &json!(arguments[1]))
        );
    }
    let (done, fake) = run(&["-t", "now"]);
    done.code(0);
    let date = only_post(&fake)["date"].as_str().unwrap().to_owned();
    assert!(minutes_ago(1) < date && date <= minutes_ago(0), "{date}");
    run(&["-t", "draft"])
        .0
        .code(2)
        .stderr_has("posts:create needs --date");
}

#[test]
fn next_means_the_next_free_slot() {
    let fake = FakePostiz::start();
    let slot = json!({"date": "2030-02-01T09:30:00"});
    fake.misbehave(
        "/public/v1/find-slot",
        Fault::Answer(Response::json(200, &slot)),
    );
    let done = create(&fake, &["-i", "linkedin,x", "-s", "next"])
        .run()
        .code(0);
    done.stderr("the next free slot is 2030-02-01T09:30:00.000Z\n");
    assert_eq!(only_post(&fake)["date"], "2030-02-01T09:30:00.000Z");
    assert_eq!(
        fake.requests_to("/public/v1/find-slot/ch-linkedin").len(),
        1
    );
    for answer in [json!({}), json!({"date": "soon"}), json!([])] {
        let fake = FakePostiz::start();
        fake.misbehave(
            "/public/v1/find-slot",
            Fault::Answer(Response::json(200, &answer)),
        );
        create(&fake, &["-i", "x", "-s", "next"])
            .run()
            .code(1)
            .stderr_has("named no free slot");
        assert!(writes(&fake).is_empty());
    }
}

#[test]
fn delay_of_more_than_a_day_gets_a_warning() {
    for (delay, warned) in [
        ("1440", false),
        ("1441", true),
        ("5000", true),
        ("0.5", false),
    ] {
        let fake = FakePostiz::start();
        let done = create(&fake, &["-i", "x", "-s", SOON, "-d", delay])
            .run()
            .code(0);
        assert_eq!(
            done.stderr.contains("--delay is in minutes"),
            warned,
            "{delay}"
        );
        assert_eq!(
            only_post(&fake)["posts"][0]["value"][0]["delay"].to_string(),
            delay
        );
    }
}

#[test]
fn texts_too_long_for_a_channel_are_refused() {
    let long = "ä".repeat(281);
    let run = |arguments: &[&str]| {
        let fake = FakePostiz::start();
        let cli = postiz("posts:create -s")
            .arg(SOON)
            .args(arguments.iter().copied());
        (signed_in(&fake, cli).run(), fake)
    };
    let (done, fake) = run(&["-c", "short", "-c", &long, "-i", "linkedin,x"]);
    done.code(2)
        .stdout("")
        .stderr_has("part 2 has 281 characters, Ada (x, ch-x) takes 280");
    assert!(writes(&fake).is_empty());
    let fits = "ä".repeat(280);
    let tagged = format!("<p>{fits}</p>");
    let address = format!(
        "{} https://example.com/{}",
        "ä".repeat(250),
        "a".repeat(100)
    );
    for text in [&fits, &tagged] {
        let (done, fake) = run(&["-c", text, "-i", "x"]);
        done.code(0);
        assert_eq!(writes(&fake).len(), 1);
    }
    // Where the count is uncertain, Postiz decides.
    let (done, fake) = run(&["-c", &address, "-i", "x"]);
    done.code(1).stderr_has("too long");
    assert_eq!(writes(&fake).len(), 1);
    run(&["-c", &long, "-i", "linkedin"]).0.code(0);
    // A draft can be shortened later. No limit is known where Postiz names none.
    let (done, _) = run(&["-c", &long, "-i", "x", "-t", "draft"]);
    done.stderr_has("warning: part 1 has 281 characters");
    for answer in [
        Response::json(404, &json!({"msg": "x"})),
        Response::json(200, &json!({"output": {"maxLength": 0}})),
    ] {
        let fake = FakePostiz::start();
        fake.misbehave("/public/v1/integration-settings", Fault::Answer(answer));
        let cli = postiz("posts:create -i linkedin -c").args([&long, "-s", SOON]);
        signed_in(&fake, cli).run().code(0);
    }
    // A short text fits everywhere, and needs no request for the limit.
    let (_, fake) = run(&["-c", "short", "-i", "x"]);
    assert!(
        fake.requests()
            .iter()
            .all(|request| !request.path().contains("settings"))
    );
}

#[test]
fn wrong_shape_of_a_file_is_explained() {
    for (wrong, what) in [
        (
            r#"{"integrations":["x"],"posts":[]}"#,
            "has `integrations` at its top",
        ),
        (r#"{"provider":"x","post":[]}"#, "has `provider` at its top"),
        (
            r#"{"posts":[{"provider":"x","post":[]}]}"#,
            "has `provider` in an entry of `posts`",
        ),
    ] {
        let fake = FakePostiz::start();
        let cli = signed_in(&fake, postiz("posts:create --json post.json"));
        cli.home.write("post.json", wrong);
        let done = cli
            .run()
            .code(2)
            .stdout("")
            .stderr_has("post.json")
            .stderr_has(what);
        done.stderr_has(r#""posts":[{"integration":{"id":"#);
        assert!(fake.requests().is_empty());
    }
    postiz("posts:create --help")
        .run()
        .stdout_has(r#""posts": [{"integration": {"id": "CHANNEL"},"#);
}

#[test]
fn list_filters_by_state_and_group() {
    let fake = FakePostiz::start();
    create(&fake, &["-i", "x", "-s", SOON, "-t", "draft"])
        .run()
        .code(0);
    for (arguments, expected) in [
        ("", &["post-lost", "post-waiting", "post-2"][..]),
        ("--state draft", &["post-2"]),
        ("--state queue", &["post-waiting"]),
        ("--state error", &[]),
        ("--group group-lost", &["post-lost"]),
        ("--group group-lost --state draft", &[]),
    ] {
        let cli = postiz("posts:list").args(arguments.split_whitespace());
        let answer = signed_in(&fake, cli).run().code(0).stderr("").json();
        let posts = answer["posts"].as_array().unwrap().iter();
        let ids: Vec<&str> = posts.map(|post| post["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{arguments}");
    }
    signed_in(&fake, postiz("posts:list --state DONE"))
        .run()
        .code(2)
        .stderr_has("--state must be queue or draft");
}

#[test]
fn list_accepts_whole_days_in_a_zone() {
    let fake = FakePostiz::start();
    let cli = signed_in(
        &fake,
        postiz("posts:list --startDate 2030-01-01 --endDate 2030-01-31 --tz Europe/Berlin"),
    );
    let folder = berlin(&cli.home);
    cli.var("TZDIR", folder).run().code(0);
    let asked = fake.requests_to("/public/v1/posts");
    assert_eq!(
        asked[0].query("startDate").as_deref(),
        Some("2029-12-31T23:00:00.000Z")
    );
    assert_eq!(
        asked[0].query("endDate").as_deref(),
        Some("2030-01-31T22:59:59.999Z")
    );
}

#[test]
fn delete_accepts_an_id_or_a_group() {
    let fake = FakePostiz::start();
    signed_in(&fake, postiz("posts:delete --group group-lost"))
        .run()
        .code(0);
    assert_eq!(
        fake.requests_to("/public/v1/posts/group/group-lost").len(),
        1
    );
    signed_in(&fake, postiz("posts:list --group group-lost"))
        .run()
        .stdout("{\n  \"posts\": []\n}\n");
    for arguments in ["posts:delete", "posts:delete a --group b"] {
        postiz(arguments)
            .run()
            .code(2)
            .stderr_has("posts:delete needs either <id> or --group");
    }
    postiz("posts:delete --help")
        .run()
        .stdout_has("Usage: postiz posts:delete [id] [flags]");
}

/// README and `postiz skill` show this line, for all drafts of a customer.
#[test]
fn one_line_deletes_all_drafts() {
    let fake = FakePostiz::start();
    for kind in ["draft", "draft", "schedule"] {
        create(&fake, &["-i", "linkedin,x", "-s", SOON, "-t", kind])
            .run()
            .code(0);
    }
    let home = Home::new();
    let line = "postiz posts:list --state draft | jq -r '.posts[].group' | sort -u | while read -r group; do postiz posts:delete --group \"$group\"; done";
    let bin = crate::support::program("postiz")
        .parent()
        .unwrap()
        .display()
        .to_string();
    let output = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", line])
        .env_clear()
        .env("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin"))
        .env("HOME", home.path())
        .env("POSTIZ_API_KEY", API_KEY)
        .env("POSTIZ_API_URL", fake.url())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let left = signed_in(&fake, postiz("posts:list")).run().json();
    let states = left["posts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|post| post["state"].clone());
    assert_eq!(
        states.collect::<Vec<_>>(),
        ["PUBLISHED", "QUEUE", "QUEUE", "QUEUE"]
    );
}

#[test]
fn old_flags_are_reported_as_ignored() {
    let fake = FakePostiz::start();
    let done = create(&fake, &["-i", "x", "-s", SOON, "-p", "x"])
        .run()
        .code(0);
    done.stderr("warning: --provider changes nothing: Postiz has no such thing\n");
    let done = signed_in(&fake, postiz("posts:list -p 1 -l 10 -s hello"))
        .run()
        .code(0);
    for flag in ["page", "limit", "search"] {
        assert!(
            done.stderr.contains(&format!("--{flag} changes nothing")),
            "{}",
            done.stderr
        );
    }
    for (flag, instead) in [("--image a.png", "--media"), ("--comments b", "--content")] {
        let done = postiz("posts:create -c a")
            .args(flag.split(' '))
            .run()
            .code(2);
        done.stderr_has(instead);
    }
}

#[test]
fn update_keeps_what_is_not_given() {
    let update = |arguments: &[&str]| {
        let fake = FakePostiz::start();
        let cli = postiz("posts:update post-waiting").args(arguments.iter().copied());
        signed_in(&fake, cli).run().code(0).stderr("");
        let mut body = only_post(&fake);
        if let Some(image) = body["posts"][0]["value"][0]["image"].get_mut(0) {
            assert!(image["id"].is_string());
            image["id"] = json!("a");
        }
        body.to_string()
    };
    let expected = |date: &str, links: bool, content: &str, image: &str, settings: &str| {
        format!(
            r#"{{"type":"update","creationMethod":"CLI","date":"{date}","shortLink":{links},"inter":7,"tags":[{{"value":"weekly","label":"weekly"}}],"posts":[{{"integration":{{"id":"ch-linkedin"}},"group":"group-waiting","value":[{{"id":"post-waiting","content":"{content}","image":[{image}],"delay":0}}],"settings":{settings}}}]}}"#
        )
    };
    let (date, settings) = (
        "2030-01-20T09:00:00.000Z",
        r#"{"post_type":"post","n":1.0}"#,
    );
    let image = r#"{"id":"a","path":"https://x/a.png"}"#;
    for (arguments, body) in [
        (
            &["-s", SOON, "--text-only"][..],
            expected(SOON, false, "Later", "", settings),
        ),
        (
            &["-c", "New", "--text-only"],
            expected(date, true, "New", "", settings),
        ),
        (
            &["-c", "New", "-m", "https://x/a.png"],
            expected(date, true, "New", image, settings),
        ),
        (
            &["--settings", r#"{"n":2,"m":3}"#, "--text-only"],
            expected(
                date,
                false,
                "Later",
                "",
                r#"{"post_type":"post","n":2,"m":3}"#,
            ),
        ),
    ] {
        assert_eq!(update(arguments), body);
    }
}

#[test]
fn update_changes_the_post_in_place() {
    let fake = FakePostiz::start();
    let cli = postiz("posts:update post-waiting --text-only -s").arg(SOON);
    signed_in(&fake, cli).run().code(0);
    let posts = signed_in(&fake, postiz("posts:list")).run().json();
    let post = &posts["posts"][1];
    assert_eq!(
        (&post["id"], &post["publishDate"], &post["state"]),
        (&json!("post-waiting"), &json!(SOON), &json!("QUEUE"))
    );
    assert_eq!(posts["posts"].as_array().unwrap().len(), 2);
}

#[test]
fn update_refuses_to_drop_parts_or_media() {
    let refused = |fake: &FakePostiz, arguments: &str, code: i32, what: &str| -> Done {
        let cli = postiz("posts:update").args(arguments.split_whitespace());
        let done = signed_in(fake, cli)
            .run()
            .code(code)
            .stdout("")
            .stderr_has(what);
        assert!(writes(fake).is_empty(), "{arguments}");
        done
    };
    let fake = FakePostiz::start();
    for (arguments, what) in [
        ("post-waiting", "posts:update needs something to change"),
        (
            "post-waiting --text-only",
            "posts:update needs something to change",
        ),
        (
            "post-waiting -s 2030-01-01",
            "the parts (-c) and their media (-m), or --text-only",
        ),
        (
            "post-waiting -c New",
            "the media (-m, or --text-only where there are none)",
        ),
        ("post-waiting -m https://x/a.png", "the parts' texts (-c)"),
        (
            "post-waiting -c New -m https://x/a.png --text-only",
            "--text-only says that there are no media",
        ),
        ("post-waiting -c New -m nope.png", "cannot read nope.png"),
        ("post-waiting -s 2020-01-01 --text-only", "has passed"),
        ("post-waiting -s soon --text-only", "--date must be a date"),
        (
            "post-waiting --settings [] --text-only",
            "--settings must be a JSON object",
        ),
    ] {
        refused(&fake, arguments, 2, what);
    }
    refused(
        &fake,
        "post-none -c New --text-only",
        1,
        "there is no post `post-none`",
    );
    refused(&fake, "post-lost -c New --text-only", 1, "is published");
    // An older Postiz lists less.
    let post = json!({
        "id": "old", "content": "a", "publishDate": SOON, "state": "DRAFT", "group": "g", "integration": {"id": "ch-x"},
    });
    let listed = |post: Value| Fault::Answer(Response::json(200, &json!({"posts": [post]})));
    let old = FakePostiz::start();
    old.misbehave("/public/v1/posts", listed(post.clone()));
    refused(
        &old,
        "old -c New --text-only",
        1,
        "does not show the settings",
    )
    .stderr_has("--settings");
    let cli = postiz("posts:update old -c New --text-only -s 2020-01-01 --settings {}");
    signed_in(&old, cli).run().code(0);
    for field in ["group", "publishDate", "integration"] {
        let mut less = post.clone();
        less["settings"] = json!("{}");
        less.as_object_mut().unwrap().remove(field);
        let old = FakePostiz::start();
        old.misbehave("/public/v1/posts", listed(less));
        refused(&old, "old -c New --text-only", 1, "does not show the");
    }
}
