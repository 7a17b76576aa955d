//! The command line itself: help, version, misspellings, and arguments that no shell would send.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use super::harness::{Cli, Server, each, postiz};

/// Every command of the table.
const COMMANDS: [&str; 30] = [
    "auth:login",
    "auth:status",
    "auth:logout",
    "auth:token",
    "posts:create",
    "posts:update",
    "posts:list",
    "posts:delete",
    "posts:status",
    "posts:settings",
    "posts:missing",
    "posts:connect",
    "integrations:list",
    "integrations:groups",
    "integrations:settings",
    "integrations:trigger",
    "integrations:connect",
    "integrations:slot",
    "analytics:platform",
    "analytics:post",
    "notifications",
    "media:list",
    "clipping:create",
    "clipping:status",
    "clipping:list",
    "upload",
    "api",
    "completions",
    "skill",
    "man",
];

/// Scripts add `--json` out of habit. (posts:create has its own --json.)
#[test]
fn json_flag_is_taken_by_every_command() {
    each(COMMANDS, |command| {
        let page = postiz(command).arg("--help").run().code(0).stdout;
        assert!(page.contains("--json"), "{page}");
    });
    let server = Server::always(200, "[]");
    let lists = ["integrations:list --json", "--json posts:list"];
    each(lists, |line| {
        postiz(line).key_for(&server).run().code(0).stderr("");
    });
}

#[test]
fn help_works_on_every_level() {
    let overview = postiz("--help").run().code(0).stderr("").stdout;
    for command in COMMANDS {
        assert!(overview.contains(&format!("\n  {command} ")), "{command}");
        let page = postiz(command).arg("--help").run().code(0).stderr("");
        assert!(
            page.stdout.starts_with(&format!("postiz {command}: "))
                && page.stdout.contains("\nExamples:\n  "),
            "{}",
            page.stdout
        );
        postiz(command).arg("-h").run().code(0).stdout(&page.stdout);
        postiz("help")
            .arg(command)
            .run()
            .code(0)
            .stdout(&page.stdout);
        postiz(&command.replace(':', " "))
            .arg("--help")
            .run()
            .code(0)
            .stdout(&page.stdout);
    }
    for line in ["-h", "help"] {
        postiz(line).run().code(0).stdout(&overview);
    }
    postiz("posts --help")
        .run()
        .code(0)
        .stdout_has("posts:create")
        .stderr("");
    postiz("help posts")
        .run()
        .code(0)
        .stdout_has("posts:create")
        .stderr("");
}

#[test]
fn version_works_on_every_level() {
    let commit = option_env!("POSTIZ_COMMIT").map_or(String::new(), |c| format!(", {c}"));
    let expected = format!(
        "postiz {} (npm 2.1.0 compatible{commit})\n",
        env!("CARGO_PKG_VERSION")
    );
    for line in [
        "--version",
        "-v",
        "posts:list -v",
        "posts --version",
        "posts:delete --version",
        "upload x --version",
    ] {
        postiz(line).run().code(0).stdout(&expected).stderr("");
    }
}

#[test]
fn missing_command_shows_the_overview_on_stderr() {
    let done = Cli::new().run().code(2).stdout("");
    done.stderr_has("Commands:");
}

/// The npm CLI exits 0 without a message on most of these.
#[test]
fn wrong_usage_names_the_mistake_and_the_nearest_word() {
    for (line, what, instead) in [
        ("foo:bar", "there is no command `foo:bar`", "postiz --help"),
        (
            "post:list",
            "there is no command `post:list`",
            "did you mean `postiz posts:list`?",
        ),
        (
            "posts lst",
            "there is no command `posts:lst`",
            "did you mean `postiz posts:list`?",
        ),
        (
            "Posts:List",
            "there is no command `Posts:List`",
            "did you mean `postiz posts:list`?",
        ),
        (
            "login",
            "there is no command `login`",
            "did you mean `postiz auth:login`?",
        ),
        (
            "groups",
            "there is no command `groups`",
            "did you mean `postiz integrations:groups`?",
        ),
        (
            "whoami",
            "there is no command `whoami`",
            "did you mean `postiz auth:status`?",
        ),
        (
            "posts get p1",
            "there is no command `posts:get`",
            "did you mean `postiz posts:list`?",
        ),
        (
            "posts:updat p1",
            "there is no command `posts:updat`",
            "did you mean `postiz posts:update`?",
        ),
        (
            "posts:frobnicate",
            "there is no command `posts:frobnicate`",
            "`postiz posts --help` lists what can follow",
        ),
        (
            "uplaod x",
            "there is no command `uplaod`",
            "did you mean `postiz upload`?",
        ),
        (
            "posts",
            "`posts` is only half of a command",
            "postiz posts --help",
        ),
        ("--foo", "no command follows `--foo`", "postiz --help"),
        (
            "--startDate 2030-01-01",
            "no command follows `--startDate`",
            "postiz --help",
        ),
        (
            "posts:list --stratDate x",
            "posts:list has no flag --stratDate",
            "did you mean --startDate?",
        ),
        (
            "posts:create --cont x",
            "posts:create has no flag --cont",
            "did you mean --content?",
        ),
        (
            "posts:list -x",
            "posts:list has no flag -x",
            "postiz posts:list --help",
        ),
        (
            "auth:login --tenant x",
            "auth:login has no flag --tenant",
            "postiz auth:login --help",
        ),
        (
            "posts:list --startDate",
            "--startDate needs a value",
            "postiz posts:list --help",
        ),
        ("posts:list --startDate=", "--startDate is empty", ""),
        (
            "posts:list --startDate tomorrow",
            "--startDate must be a date like",
            "",
        ),
        (
            "posts:missing",
            "posts:missing needs <id>",
            "postiz posts:missing --help",
        ),
        (
            "posts:delete a b",
            "`b` is one argument too many for posts:delete",
            "postiz posts:delete --help",
        ),
        (
            "integrations:trigger a",
            "integrations:trigger needs <method>",
            "",
        ),
        ("posts:status a", "posts:status needs --status", ""),
        (
            "posts:status a --status now",
            "--status must be draft or schedule, not `now`",
            "",
        ),
        (
            "posts:status a -s draft -s draft",
            "--status is given twice",
            "",
        ),
        ("posts:connect a", "posts:connect needs --release-id", ""),
        (
            "posts:settings a --settings [1]",
            "--settings must be a JSON object",
            "",
        ),
        (
            "posts:settings a --settings {",
            "--settings is not JSON",
            "",
        ),
        (
            "analytics:post a -d -30",
            "--date must be a number of days, not `-30`",
            "",
        ),
        (
            "analytics:platform a -d many",
            "--date must be a number of days, not `many`",
            "",
        ),
        ("integrations:list --group=", "--group is empty", ""),
        ("auth:status --json=yes", "--json takes no value", ""),
        (
            "posts:create --shortLink=maybe",
            "--shortLink must be true or false, not `maybe`",
            "",
        ),
        ("posts:create -c a -i x", "posts:create needs --date", ""),
        (
            "posts:create -c a -s 2030-01-01",
            "posts:create needs --integrations",
            "",
        ),
        (
            "posts:create -i x -s 2030-01-01",
            "posts:create needs --content or --json",
            "",
        ),
        (
            "posts:create -c a -i x -s soon",
            "--date must be a date like",
            "",
        ),
        (
            "posts:create -c a -i x -s 2030-01-01 -t later",
            "--type must be schedule or draft or now, not `later`",
            "",
        ),
        (
            "posts:create --json f -c a",
            "--json sends the file as it is, so --content has no place beside it",
            "",
        ),
        ("integrations:trigger a m -d bad", "--data is not JSON", ""),
        ("api FETCH /x", "`FETCH` is not one of GET, POST", ""),
        ("api GET https://evil.example/x", "is a whole URL", ""),
        ("api GET /x -d {", "--data is not JSON", ""),
        ("upload a --name b", "--name goes with -", ""),
        ("upload -", "what comes from stdin needs a --name", ""),
        (
            "completions tcsh",
            "`tcsh` is not one of bash, zsh and fish",
            "",
        ),
        (
            "auth:login --start --finish",
            "--start and --finish cannot be combined",
            "",
        ),
        ("auth:login --no-wait", "--no-wait goes with --finish", ""),
    ] {
        // Wrong usage is reported before credentials are looked for.
        let done = postiz(line).run().code(2).stdout("");
        assert!(
            done.stderr.starts_with("error: ") && done.stderr.lines().count() <= 3,
            "{line}: {}",
            done.stderr
        );
        done.stderr_has(what).stderr_has(instead);
    }
}

#[test]
fn path_parts_that_are_no_ids_are_refused() {
    let server = Server::always(200, "{}");
    for command in [
        "posts:delete",
        "posts:missing",
        "integrations:settings",
        "analytics:post",
    ] {
        for id in ["", ".", ".."] {
            postiz(command)
                .arg(id)
                .key_for(&server)
                .run()
                .code(2)
                .stderr_has("is not an ID");
        }
    }
    assert!(server.asked().is_empty());
}

/// Flags and positionals in any order.
#[test]
fn flags_may_be_spelled_in_many_ways() {
    let lines: [&[&str]; 10] = [
        &[
            "posts:list",
            "--startDate",
            "2030-01-01",
            "--endDate",
            "2030-02-01",
        ],
        &[
            "posts:list",
            "--start-date",
            "2030-01-01",
            "--end-date=2030-02-01",
        ],
        &[
            "posts",
            "list",
            "--startDate=2030-01-01",
            "--end-date",
            "2030-02-01",
        ],
        &[
            "--startDate",
            "2030-01-01",
            "posts:list",
            "--endDate",
            "2030-02-01",
        ],
        &[
            "--startDate=2030-01-01",
            "--endDate=2030-02-01",
            "posts:list",
        ],
        &["integrations:trigger", "-d", "{}", "id", "m"],
        &["integrations:trigger", "id", "-d{}", "m"],
        &["integrations:trigger", "id", "m", "-d={}"],
        &["integrations:trigger", "--data={}", "--", "id", "m"],
        &["-d", "{}", "integrations:trigger", "id", "m"],
    ];
    let server = Server::always(200, "{}");
    each(lines, |line| {
        drop(
            Cli::new()
                .args(line.iter().copied())
                .key_for(&server)
                .run()
                .code(0),
        )
    });
    for asked in server.asked() {
        if asked.method == "GET" {
            assert_eq!(
                asked.target,
                "/public/v1/posts?startDate=2030-01-01&endDate=2030-02-01T23%3A59%3A59.999Z"
            );
        } else {
            assert_eq!(
                (asked.target.as_str(), asked.text().as_str()),
                (
                    "/public/v1/integration-trigger/id",
                    r#"{"methodName":"m","data":{}}"#
                )
            );
        }
    }
    assert_eq!(server.asked().len(), lines.len());
}

/// An argument after `--` is never a flag.
#[test]
fn two_dashes_end_the_flags() {
    let server = Server::always(200, "{}");
    postiz("posts:delete -- -x").key_for(&server).run().code(0);
    postiz("posts:delete -- --help")
        .key_for(&server)
        .run()
        .code(0);
    assert_eq!(
        server.lines(),
        [
            "DELETE /public/v1/posts/-x",
            "DELETE /public/v1/posts/--help"
        ]
    );
}

#[test]
fn arguments_that_are_not_utf8_are_named() {
    let bad = || OsString::from_vec(b"a\xffb".to_vec());
    Cli::new()
        .arg(bad())
        .run()
        .code(2)
        .stderr_has("not valid UTF-8");
    postiz("posts:delete")
        .arg(bad())
        .run()
        .code(2)
        .stderr_has("not valid UTF-8");
    postiz("posts:list --customer")
        .arg(bad())
        .run()
        .code(2)
        .stderr_has("--customer is not valid UTF-8");
    postiz("posts:list")
        .arg(OsString::from_vec(b"--customer=\xff".to_vec()))
        .run()
        .code(2)
        .stderr_has("not valid UTF-8");
    postiz("posts").arg(bad()).run().code(2);
}

/// The arguments are pseudo-random, made of words that mean something.
#[test]
fn arguments_never_panic() {
    let words: [&[u8]; 24] = [
        b"posts:create",
        b"posts",
        b"create",
        b"auth:token",
        b"upload",
        b"-c",
        b"--content",
        b"-m=",
        b"--media=\"",
        b"-",
        b"--",
        b"",
        b"-\xc3\xa9",
        b"--=",
        b"--no-",
        b"-=",
        b"\xff",
        b"-\xff",
        b"--json",
        b"-h=",
        b"--shortLink",
        b"true",
        b"-d5",
        b"--\xff=",
    ];
    let mut state = 7_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let lines: Vec<Vec<OsString>> = (0..400)
        .map(|_| {
            (0..1 + next(6))
                .map(|_| OsString::from_vec(words[next(words.len())].to_vec()))
                .collect()
        })
        .collect();
    let chunks: Vec<&[Vec<OsString>]> = lines.chunks(50).collect();
    each(chunks, |lines| {
        for line in lines {
            // No server listens there, and nobody is signed in.
            let done = Cli::new().args(line.iter().cloned()).run();
            assert!(
                matches!(done.code, Some(0 | 1 | 2 | 4)),
                "{line:?}: {:?} {}",
                done.code,
                done.stderr
            );
            assert!(!done.stderr.contains("panicked"), "{line:?}");
        }
    });
}

/// What bash's script completes `line` with.
fn bash_offers(line: &str) -> Vec<String> {
    let script = postiz("completions bash").run().code(0).stderr("").stdout;
    let ask = format!(
        "{script}\nCOMP_LINE='{line}' COMP_POINT={}\n_postiz\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line.len()
    );
    let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    let words = String::from_utf8(output.stdout).unwrap();
    words
        .lines()
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_commands_flags_and_words() {
    assert_eq!(bash_offers("postiz upl"), ["upload"]);
    assert_eq!(bash_offers("postiz "), COMMANDS);
    // bash splits words at a colon.
    assert_eq!(bash_offers("postiz posts:cr"), ["create"]);
    assert_eq!(
        bash_offers("postiz posts:list --st"),
        ["--startDate", "--state"]
    );
    assert_eq!(
        bash_offers("postiz posts:status id --status "),
        ["draft", "schedule"]
    );
    assert!(bash_offers("postiz upload ").is_empty());
    for shell in ["zsh", "fish"] {
        let script = postiz("completions")
            .arg(shell)
            .run()
            .code(0)
            .stderr("")
            .stdout;
        assert!(COMMANDS.iter().all(
            |command| script.contains(&command.replace(':', "\\:")) || script.contains(command)
        ));
    }
}
