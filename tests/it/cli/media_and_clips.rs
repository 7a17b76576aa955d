//! The commands for media, clips, notifications, free slots, and for connecting and finding channels.

use std::process::Command;

use super::harness::{Cli, Reply, Server, each, postiz, until};

#[test]
fn command_sends_its_request() {
    let rows = [
        ("media:list", "GET /public/v1/media?page=1", ""),
        (
            "media:list -p 3 -s cat",
            "GET /public/v1/media?page=3&search=cat",
            "",
        ),
        (
            "media:list --page=2 --search a&b",
            "GET /public/v1/media?page=2&search=a%26b",
            "",
        ),
        ("notifications", "GET /public/v1/notifications", ""),
        (
            "notifications --page 0",
            "GET /public/v1/notifications?page=0",
            "",
        ),
        ("integrations:slot c1", "GET /public/v1/find-slot/c1", ""),
        ("integrations:connect x", "GET /public/v1/social/x", ""),
        (
            "integrations:connect x --refresh c/1",
            "GET /public/v1/social/x?refresh=c%2F1",
            "",
        ),
        ("clipping:list", "GET /public/v1/clipping", ""),
        ("clipping:list -p 2", "GET /public/v1/clipping?page=2", ""),
        ("clipping:status c1", "GET /public/v1/clipping/c1", ""),
        (
            "clipping:create https://v.example/a",
            "POST /public/v1/clipping",
            r#"{"url":"https://v.example/a"}"#,
        ),
        (
            "clipping:create https://v.example/a -i c1,c2 --integrations c3 -n 10 -f crop",
            "POST /public/v1/clipping",
            r#"{"url":"https://v.example/a","integrations":["c1","c2","c3"],"clips":10,"fit":"crop"}"#,
        ),
    ];
    each(rows, |(line, request, body)| {
        let server = Server::always(200, r#"{"id":12345678901234567890,"a":1.0}"#);
        let done = postiz(line).key_for(&server).run().code(0).stderr("");
        done.stdout("{\n  \"id\": 12345678901234567890,\n  \"a\": 1.0\n}\n");
        let asked = server.only();
        assert_eq!(
            (asked.line().as_str(), asked.text().as_str()),
            (request, body),
            "{line}"
        );
    });
}

#[test]
fn wrong_usage_sends_nothing() {
    let server = Server::always(200, "{}");
    let rows = [
        ("media:list -p 0", "--page must be a number from 1, not `0`"),
        (
            "media:list -p two",
            "--page must be a number from 1, not `two`",
        ),
        (
            "notifications --page -1",
            "--page must be a number from 0, not `-1`",
        ),
        (
            "clipping:list -p 0",
            "--page must be a number from 1, not `0`",
        ),
        (
            "clipping:create video.mp4",
            "`video.mp4` is not the video's URL",
        ),
        (
            "clipping:create https://v.example -n 0",
            "--clips must be a number from 1 to 10, not `0`",
        ),
        (
            "clipping:create https://v.example -n 11",
            "--clips must be a number from 1 to 10, not `11`",
        ),
        (
            "clipping:create https://v.example -f wide",
            "--fit must be blur or crop, not `wide`",
        ),
        ("clipping:create https://v.example -i a,,b", "an empty"),
        ("clipping:status ..", "is not an ID"),
        ("integrations:slot .", "is not an ID"),
        ("integrations:connect ..", "is not an ID"),
        ("integrations:list --name=", "--name is empty"),
    ];
    each(rows, |(line, what)| {
        postiz(line)
            .key_for(&server)
            .run()
            .code(2)
            .stdout("")
            .stderr_has(what);
    });
    assert!(server.asked().is_empty(), "{:?}", server.lines());
}

const CHANNELS: &str = r#"[{"name":"Ada Works","identifier":"linkedin","id":"l1","n":1.0,"big":12345678901234567890},
    {"id":"x1","identifier":"x","name":"Ada"},{"id":"o1","identifier":"x","name":"Other"},{"id":"odd"}]"#;

/// The channels that are found pass through unchanged: key order, big integers, `1.0`.
#[test]
fn channels_are_found_by_name_and_platform() {
    let rows = [
        ("--name ada", vec!["l1", "x1"]),
        ("--name WORKS", vec!["l1"]),
        ("--platform x", vec!["x1", "o1"]),
        ("--platform X --name ada", vec!["x1"]),
        ("--platform linked", vec![]),
        ("--name nobody", vec![]),
    ];
    each(rows, |(flags, ids)| {
        let server = Server::always(200, CHANNELS);
        let done = postiz("integrations:list")
            .args(flags.split(' '))
            .key_for(&server)
            .run()
            .code(0);
        let json = done.json();
        let found: Vec<&str> = json
            .as_array()
            .unwrap()
            .iter()
            .map(|channel| channel["id"].as_str().unwrap())
            .collect();
        assert_eq!(found, ids, "{flags}");
        // When none is found, the others are listed.
        if ids.is_empty() {
            done.stderr_has("Ada Works (linkedin), Ada (x), Other (x)");
        } else {
            done.stderr("");
        }
    });
    let server = Server::always(200, CHANNELS);
    let line = "integrations:list --group g --name works";
    let done = postiz(line).key_for(&server).run().code(0);
    assert_eq!(server.only().line(), "GET /public/v1/integrations?group=g");
    done.stdout_has("    \"name\": \"Ada Works\",\n    \"identifier\": \"linkedin\",\n    \"id\": \"l1\",\n    \"n\": 1.0,\n    \"big\": 12345678901234567890\n");
    let server = Server::always(200, r#"{"channels":[]}"#);
    postiz("integrations:list --name a")
        .key_for(&server)
        .run()
        .code(1)
        .stdout("")
        .stderr_has("is no list of channels");
}

/// A server whose job has each of these states for one request.
fn clipping_in(states: &'static [&'static str]) -> Server {
    Server::new(move |_, before| {
        let state = states[before.min(states.len() - 1)];
        Reply::json(
            200,
            &format!(r#"{{"id":"c1","status":"{state}","error":"no speech in it","n":1.0}}"#),
        )
    })
}

#[test]
fn wait_ends_with_the_last_state() {
    let rows: [(&[&str], i32, &str); 4] = [
        (&["completed"], 0, ""),
        (&["rendering", "completed"], 0, "rendering …\n"),
        (
            &["picking", "failed"],
            1,
            "picking …\nerror: the clipping failed: no speech in it\n",
        ),
        // A state that only a later Postiz has.
        (&["polishing", "completed"], 0, "polishing …\n"),
    ];
    each(rows, |(states, code, stderr)| {
        let server = clipping_in(states);
        let done = postiz("clipping:status c1 --wait")
            .key_for(&server)
            .run()
            .code(code)
            .stderr(stderr);
        let last = states.last().unwrap();
        done.stdout(&format!(
            "{{\n  \"id\": \"c1\",\n  \"status\": \"{last}\",\n  \"error\": \"no speech in it\",\n  \"n\": 1.0\n}}\n"
        ));
        let asked = server.asked();
        assert_eq!(asked.len(), states.len());
        if let [first, second] = &asked[..] {
            let pause = second.at - first.at;
            assert!(pause.as_secs_f64() > 1.9, "{pause:?}");
        }
    });
}

#[test]
fn wait_is_interrupted_by_ctrl_c() {
    let server = clipping_in(&["rendering"]);
    let child = postiz("clipping:status c1 --wait").key_for(&server).spawn();
    until("the first question", || !server.asked().is_empty());
    let id = child.id().to_string();
    // Ctrl-C may come while the answer is read: the program then ends at once, with the same code.
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.is_empty());
}

/// This 503 of a self-hosted Postiz is permanent.
#[test]
fn unavailable_clipping_is_not_retried() {
    for line in [
        "clipping:list",
        "clipping:status c1 --wait",
        "clipping:create https://v.example/a",
    ] {
        let server = Server::always(
            503,
            r#"{"statusCode":503,"message":"Clipping is not available"}"#,
        );
        let done = postiz(line).key_for(&server).run().code(1).stdout("");
        done.stderr_has("Clipping is not available");
        assert_eq!(server.asked().len(), 1, "{line}");
    }
}

#[test]
fn connect_opens_no_browser_without_a_terminal() {
    let server = Server::always(200, r#"{"url":"https://x.example/oauth"}"#);
    let cli: Cli = postiz("integrations:connect x")
        .key_for(&server)
        .var("PATH", "/usr/bin:/bin");
    let log = cli.home.file("opened").display().to_string();
    let browser = cli.home.script("browser", &format!("echo \"$@\" >> {log}"));
    let cli = cli.var("BROWSER", browser);
    cli.run()
        .code(0)
        .stdout("{\n  \"url\": \"https://x.example/oauth\"\n}\n")
        .stderr("");
    assert!(!cli.home.file("opened").exists());
}
