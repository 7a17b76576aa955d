//! Completions in their shells; and homes that are missing, another user's, or not writable.

use std::path::Path;
use std::process::{Command, Output};

use super::harness::{Cli, Home, TOKEN};
use crate::support::{program, run};

/// The output of `shell` for `script`, with `postiz` in its PATH; `None`, with a message, where the shell is not installed.
fn in_shell(shell: &str, arguments: &[&str], script: &str) -> Option<String> {
    let home = Home::new();
    std::os::unix::fs::symlink(program("postiz"), home.file("postiz")).unwrap();
    let mut command = Command::new(shell);
    command.args(arguments).arg(script);
    command
        .env_clear()
        .env("HOME", home.path())
        .env("TERM", "dumb");
    command.env("PATH", format!("{}:/usr/bin:/bin", home.path().display()));
    if !["/usr/bin", "/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(shell).exists())
    {
        eprintln!("skipped: {shell} is not installed");
        return None;
    }
    let Output {
        status,
        stdout,
        stderr,
    } = run(command.current_dir(home.path()));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "", "{stdout}");
    Some(stdout.into_owned())
}

#[test]
fn fish_completes_commands_and_flags() {
    let script = "postiz completions fish | source
        complete --do-complete 'postiz upl'
        complete --do-complete 'postiz posts:list --st'";
    let Some(offers) = in_shell("fish", &["--no-config", "-c"], script) else {
        return;
    };
    let words: Vec<&str> = offers
        .lines()
        .filter_map(|l| l.split('\t').next())
        .collect();
    assert_eq!(words, ["upload", "--startDate", "--state"], "{offers}");
}

/// zsh completes only in a terminal, so that one zsh types into another.
#[test]
fn zsh_completes_commands_and_flags() {
    let script = r#"
        zmodload zsh/zpty
        zpty inner zsh -f -i
        read_until() {
            local all= more=
            local -i tries=0
            while [[ $all != *"$1"* ]]; do
                zpty -r -t inner more || { sleep 0.05; (( tries++ < 200 )) || { print -r "no $1: ${(q)all}"; exit 1 } }
                all+=$more more=
            done
        }
        zpty -w inner 'PS1= RPS1=; unsetopt zle_bracketed_paste; autoload -Uz compinit && compinit -u && eval "$(postiz completions zsh)"; print -r rea''dy'
        read_until ready
        zpty -w -n inner $'postiz upl\t'
        read_until 'postiz upload'
        zpty -w -n inner $'\Cupostiz posts:li\t--startD\t'
        read_until ' --startDate'
        print complete"#;
    if let Some(printed) = in_shell("zsh", &["-f", "-c"], script) {
        assert_eq!(printed, "complete\n");
    }
}

#[test]
fn reader_that_closes_early_is_no_error() {
    for command in ["--help", "completions bash", "posts:create --help"] {
        let script = format!("set -o pipefail; postiz {command} | head -n 1");
        let line = in_shell("bash", &["-c"], &script).unwrap();
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[test]
fn missing_home_is_an_error_for_logins_alone() {
    for home in [None, Some(""), Some("/nowhere")] {
        let folder = Home::new();
        let cli = |arguments: &str| {
            let cli = Cli::at(folder.clone()).args(arguments.split(' '));
            let mut command = cli.command();
            match home {
                None => command.env_remove("HOME"),
                Some(home) => command.env("HOME", home),
            };
            command
        };
        let status = run(cli("auth:status")
            .env("POSTIZ_API_KEY", "k")
            .env("POSTIZ_API_URL", "http://127.0.0.1:1"));
        let stderr = String::from_utf8_lossy(&status.stderr);
        assert!(
            stderr.contains("connection refused") && !stderr.contains("HOME"),
            "{home:?}: {stderr}"
        );
        assert_eq!(
            run(&mut cli("auth:status")).status.code(),
            Some(4),
            "{home:?}"
        );
    }
}

/// `sudo` without `-H` keeps the caller's home. A home may also be read-only.
#[test]
fn foreign_home_is_reported() {
    let home = Home::new();
    home.signed_in("http://127.0.0.1:1");
    let as_nobody = |arguments: &str| {
        let cli = Cli::at(home.clone()).args(arguments.split(' '));
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(program("postiz")).args(arguments.split(' '));
        command.env_clear().env("HOME", cli.home.path());
        run(&mut command)
    };
    if as_nobody("--version").stderr.starts_with(b"setpriv") {
        eprintln!("skipped: only root may become somebody else");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(home.path(), 0o755);
    mode(&home.credentials(), 0o600);
    let output = as_nobody("auth:status");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let file = home.credentials().display().to_string();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(&file) && stderr.contains("ermission denied"),
        "{stderr}"
    );
    assert!(!stderr.contains(TOKEN), "{stderr}");
    for arguments in [
        "auth:logout",
        "auth:login --no-browser --auth-server http://127.0.0.1:1",
    ] {
        let output = as_nobody(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {stderr}");
        assert!(
            stderr.contains(&file) && stderr.contains("ermission denied"),
            "{arguments}: {stderr}"
        );
    }
    assert!(home.credentials().exists());
}
