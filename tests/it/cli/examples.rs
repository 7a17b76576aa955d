//! The examples of `--help` and README, run as they stand: in a real shell, with jq, against Postiz' stand-in.

use std::process::{Command, Stdio};

use super::harness::{Home, each, postiz};
use crate::fake_postiz::{API_KEY, FakePostiz};

#[test]
fn the_examples_of_help_work() {
    let overview = postiz("--help").run().stdout;
    let commands = overview
        .split("Commands:\n")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next())
        .unwrap();
    let mut examples = Vec::new();
    for line in commands.lines() {
        let command = line.split_whitespace().next().unwrap();
        let page = postiz(command).arg("--help").run().stdout;
        let of_command = page.split("\nExamples:\n").nth(1).unwrap();
        examples.extend(of_command.lines().map(|line| line.trim().to_owned()));
    }
    assert!(examples.len() > 20);
    run(examples);
}

/// Rows of its table of commands, and its recipes.
#[test]
fn the_examples_of_readme_work() {
    let readme = include_str!("../../../README.md");
    let rows = readme.lines().filter_map(|line| {
        line.strip_prefix("| `")?
            .strip_suffix("` |")?
            .split_once("` | `postiz ")
    });
    let mut examples: Vec<String> = rows
        .map(|(_, example)| format!("postiz {}", example.replace("\\|", "|")))
        .collect();
    let recipes = readme.split("### Recipes").nth(1).unwrap_or_default();
    let recipes = recipes.split("\n### ").next().unwrap_or_default();
    let blocks = recipes
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    examples.extend(blocks.map(str::to_owned));
    // A README that is laid out otherwise must not pass for one whose examples work.
    assert!(examples.len() > 15, "{examples:?}");
    run(examples);
}

/// Each finds the same channels, posts and files. Logins wait for a person, and are tested with one.
fn run(examples: Vec<String>) {
    let examples: Vec<String> = examples
        .into_iter()
        .filter(|example| !example.contains("auth:login"))
        .collect();
    each(examples.chunks(8), |examples| {
        for example in examples {
            let fake = FakePostiz::start();
            in_shell(&fake, example);
        }
    });
}

fn in_shell(fake: &FakePostiz, line: &str) {
    let home = Home::new();
    home.write("photo.png", "x").write("clip.mp4", "x");
    home.write(
        "week.tsv",
        "2030-01-15T10:00:00Z\tHello\n2030-01-16T10:00:00Z\t- again\n",
    );
    home.write("post.json", r#"{"type":"draft","date":"2030-01-15T10:00:00Z","posts":[{"integration":{"id":"ch-x"},"value":[]}]}"#);
    std::fs::create_dir(home.file("bin")).unwrap();
    std::os::unix::fs::symlink(crate::support::program("postiz"), home.file("bin/postiz")).unwrap();
    let path = format!(
        "{}:/usr/local/bin:/usr/bin:/bin",
        home.file("bin").display()
    );
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", line])
        .current_dir(home.path())
        .env_clear()
        .env("PATH", path)
        .env("HOME", home.path())
        .env("POSTIZ_API_KEY", API_KEY)
        .env("POSTIZ_API_URL", fake.url())
        .env("CHANNEL", "ch-youtube")
        .env(
            "POST",
            if line.contains("posts:update") {
                "post-waiting"
            } else {
                "post-lost"
            },
        )
        .env("GROUP", "group-1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{line}\n{stdout}{stderr}");
    if !line.contains("auth:logout") && !line.contains("eval") {
        assert!(!stdout.trim().is_empty(), "{line}");
        assert!(!stderr.contains("warning:"), "{line}\n{stderr}");
    }
}
