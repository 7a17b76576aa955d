//! The output on a terminal. `script` (util-linux) gives the program a real pseudo-terminal.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::harness::{Cli, Reply, Server, each, postiz, until};

/// Grants the third poll, so that the time left counts down before.
fn auth_server() -> Server {
    Server::new(|asked, before| match asked.target.as_str() {
        "/device/code" => Reply::json(
            200,
            r#"{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://auth.example.com/device/verify","verification_uri_complete":"https://auth.example.com/device/verify?user_code=WDJB-MJHT","interval":1,"expires_in":600}"#,
        ),
        _ if before < 3 => Reply::json(400, r#"{"error":"authorization_pending"}"#),
        _ => Reply::json(200, r#"{"access_token":"t","organization_id":"org-1"}"#),
    })
}

/// The program's output on a terminal of this many columns.
fn on_terminal(cli: &Cli, columns: u32) -> String {
    let command = cli.command();
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = Command::new("script");
    script.args([
        "-qec",
        // The browser that was just opened must survive the end of this terminal.
        &format!("trap '' HUP; stty cols {columns}; exec {}", words.join(" ")),
        "/dev/null",
    ]);
    script
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("SHELL", "/bin/sh");
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    let output = script
        .current_dir(cli.home.path())
        .stdin(Stdio::null())
        .output()
        .expect("script runs");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The final screen of this many columns. It interprets the sequences that the program sends.
fn screen(bytes: &str, columns: usize) -> Vec<String> {
    let mut rows: Vec<Vec<char>> = vec![Vec::new()];
    let (mut column, mut wraps) = (0, true);
    let mut input = bytes.chars().peekable();
    while let Some(c) = input.next() {
        match c {
            '\r' => column = 0,
            '\n' => rows.push(Vec::new()),
            '\u{1b}' => {
                assert_eq!(input.next(), Some('['));
                let mut sequence = String::new();
                for c in input.by_ref() {
                    sequence.push(c);
                    if c.is_ascii_alphabetic() {
                        break;
                    }
                }
                match sequence.as_str() {
                    "K" => rows.last_mut().unwrap().truncate(column),
                    "?7l" => wraps = false,
                    "?7h" => wraps = true,
                    colour => assert!(colour.ends_with('m'), "{colour}"),
                }
            }
            c => {
                if column == columns && wraps {
                    rows.push(Vec::new());
                    column = 0;
                }
                let place = column.min(columns - 1);
                let row = rows.last_mut().unwrap();
                row.resize(row.len().max(place + 1), ' ');
                row[place] = c;
                column = (column + 1).min(columns);
            }
        }
    }
    rows.into_iter()
        .map(|row| row.into_iter().collect::<String>().trim_end().to_owned())
        .collect()
}

fn login(server: &Server) -> Cli {
    postiz("auth:login --no-browser")
        .var("POSTIZ_AUTH_SERVER", server.url())
        .var("TERM", "xterm-256color")
        // These logins have no API, and must not look for one outside of this machine.
        .var("https_proxy", "http://127.0.0.1:1")
}

#[test]
fn time_left_counts_down_in_place() {
    let server = auth_server();
    let bytes = on_terminal(&login(&server), 80);
    for left in ["10:00 left", "9:58 left", "9:57 left"] {
        assert!(bytes.contains(left), "{left}: {bytes:?}");
    }
    assert!(bytes.contains("\x1b[1mWDJB-MJHT\x1b[0m\r\n"), "{bytes:?}");
    let screen = screen(&bytes, 80);
    // The countdown is removed, and code and address are alone on their lines.
    assert!(
        !screen.iter().any(|row| row.contains("left")),
        "{screen:#?}"
    );
    for row in ["WDJB-MJHT", "https://auth.example.com/device/verify"] {
        assert!(screen.iter().any(|line| line == row), "{screen:#?}");
    }
    assert!(
        screen.iter().any(|row| row == "Organization: org-1"),
        "{screen:#?}"
    );
}

/// A countdown wider than the terminal would fill a new row each second.
#[test]
fn narrow_terminal_shows_one_line() {
    let server = auth_server();
    let bytes = on_terminal(&login(&server), 12);
    let cut = bytes.find("Signed in.").unwrap();
    let before = screen(&bytes[..cut], 12);
    assert!(
        !before.iter().any(|row| row.contains("Waiting")),
        "{before:#?}"
    );
}

#[test]
fn no_color_is_respected() {
    let server = auth_server();
    let bytes = on_terminal(&login(&server).var("NO_COLOR", "1"), 80);
    assert!(bytes.contains("left"), "{bytes:?}");
    assert!(
        !bytes.contains("\x1b[1m") && !bytes.contains("\x1b[0m"),
        "{bytes:?}"
    );
}

#[test]
fn dumb_terminal_gets_no_escapes() {
    let server = auth_server();
    let cli = postiz("auth:login --no-browser").var("POSTIZ_AUTH_SERVER", server.url());
    let bytes = on_terminal(&cli.var("TERM", "dumb"), 80);
    assert!(!bytes.contains('\x1b'), "{bytes:?}");
    assert!(
        bytes.contains("Waiting for you to confirm the code"),
        "{bytes:?}"
    );
}

#[test]
fn output_without_a_terminal_has_no_escapes() {
    let server = auth_server();
    login(&server)
        .run()
        .code(0)
        .stderr_has("Waiting for you to confirm the code …\n")
        .hides("\x1b")
        .hides("left");
}

/// The QR code is never the only way.
#[test]
fn qr_code_comes_with_code_and_address() {
    let server = auth_server();
    let cli = postiz("auth:login --no-browser --qr")
        .var("POSTIZ_AUTH_SERVER", server.url())
        .var("TERM", "xterm");
    let bytes = on_terminal(&cli, 80);
    assert!(bytes.contains("\x1b[30;107m") && bytes.contains('▀'));
    let done = cli
        .run()
        .code(0)
        .stdout("")
        .stderr_has("\nWDJB-MJHT\n")
        .stderr_has("https://auth.example.com/device/verify\n");
    done.hides("\x1b").stderr_has("█▀");
}

/// What a phone's camera reads from a picture of half blocks. Blocks are light.
fn scanned(picture: &[&str]) -> String {
    const SCALE: usize = 6;
    let rows: Vec<Vec<bool>> = picture
        .iter()
        .flat_map(|line| {
            ["█▀", "█▄"].map(|light| line.chars().map(|c| !light.contains(c)).collect())
        })
        .collect();
    let (width, height) = (rows[0].len() * SCALE, rows.len() * SCALE);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
        let dark = rows[y / SCALE].get(x / SCALE).copied().unwrap_or(false);
        if dark { 0 } else { 255 }
    });
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1);
    grids[0].decode().unwrap().1
}

#[test]
fn qr_code_leads_to_the_page() {
    let server = auth_server();
    let cli = postiz("auth:login --no-browser --qr").var("POSTIZ_AUTH_SERVER", server.url());
    let stderr = cli.run().code(0).stderr;
    let picture: Vec<&str> = stderr.lines().filter(|line| line.contains('█')).collect();
    assert_eq!(
        scanned(&picture),
        "https://auth.example.com/device/verify?user_code=WDJB-MJHT"
    );
}

#[test]
fn terminal_gets_json_without_control_characters() {
    let server = Server::always(200, "[\"a\u{9b}31m\",\"b\u{7f}\"]");
    let bytes = on_terminal(
        &postiz("integrations:list")
            .key_for(&server)
            .var("TERM", "xterm"),
        80,
    );
    assert_eq!(bytes, "[\r\n  \"a\\u009b31m\",\r\n  \"b\\u007f\"\r\n]\r\n");
    let bytes = on_terminal(
        &postiz("api GET /x").key_for(&server).var("TERM", "xterm"),
        80,
    );
    assert_eq!(bytes, "[\"a31m\",\"b\"]\r\n");
    // A program gets the bytes that were sent.
    postiz("api GET /x")
        .key_for(&server)
        .run()
        .code(0)
        .stdout("[\"a\u{9b}31m\",\"b\u{7f}\"]");
}

/// The server is slow, since a fast upload shows nothing.
#[test]
fn upload_shows_its_progress() {
    const SIZE: usize = 20_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1_000_000];
        let mut received = 0;
        while received < SIZE {
            received += stream.read(&mut buffer).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
        // The end of the form.
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let cli = postiz("upload big.mp4")
        .var("POSTIZ_API_KEY", "k")
        .var("POSTIZ_API_URL", url);
    let cli = cli.var("TERM", "xterm");
    cli.home.write("big.mp4", vec![b'x'; SIZE]);
    let bytes = on_terminal(&cli, 100);
    assert!(
        bytes.contains(" of 20.0 MB") && bytes.contains("/s"),
        "{bytes:?}"
    );
    assert_eq!(screen(&bytes, 100), ["{}", ""]);
}

#[test]
fn slow_answer_is_announced() {
    each(["xterm", "dumb", "no terminal", "upload"], |case| {
        let server = Server::new(|_, _| {
            thread::sleep(Duration::from_secs(4));
            Reply::json(200, "[]")
        });
        let waiting = format!("Waiting for {} …", server.url());
        let list = postiz("integrations:list").key_for(&server);
        match case {
            "xterm" => {
                let bytes = on_terminal(&list.var("TERM", "xterm"), 80);
                assert!(bytes.contains(&waiting), "{bytes:?}");
                assert_eq!(screen(&bytes, 80), ["[]", ""]);
            }
            "dumb" => {
                let bytes = on_terminal(&list.var("TERM", "dumb"), 80);
                assert_eq!(bytes, format!("{waiting}\r\n[]\r\n"));
            }
            "no terminal" => {
                list.run().code(0).stderr("");
            }
            _ => {
                let upload = postiz("upload a.png").key_for(&server).var("TERM", "xterm");
                upload.home.write("a.png", "x");
                let bytes = on_terminal(&upload, 80);
                assert!(
                    bytes.contains("All sent; waiting for the answer …  a.png"),
                    "{bytes:?}"
                );
                assert_eq!(screen(&bytes, 80), ["[]", ""]);
            }
        }
    });
}

/// Only on a terminal, and only by a browser that is wanted.
#[test]
fn connect_opens_the_page() {
    for (line, words, is_opened) in [
        (
            "integrations:connect x",
            "Your browser should open the page now.",
            true,
        ),
        (
            "integrations:connect x --no-browser",
            "Open the page in a browser.",
            false,
        ),
    ] {
        let server = Server::always(200, r#"{"url":"https://x.example/oauth?state=s"}"#);
        let cli = postiz(line).key_for(&server).var("PATH", "/usr/bin:/bin");
        let log = cli.home.file("opened").display().to_string();
        let browser = cli.home.script("browser", &format!("echo \"$@\" >> {log}"));
        let cli = cli.var("BROWSER", browser);
        let bytes = on_terminal(&cli, 80);
        assert!(
            bytes.contains(words) && bytes.contains("https://x.example/oauth?state=s"),
            "{bytes}"
        );
        if is_opened {
            until("the browser writes", || cli.home.file("opened").exists());
            until("the address is there", || {
                !cli.home.read("opened").is_empty()
            });
            assert_eq!(cli.home.read("opened"), "https://x.example/oauth?state=s\n");
        }
        assert_eq!(cli.home.file("opened").exists(), is_opened);
    }
}

/// Another address is only shown.
#[test]
fn connect_opens_only_web_pages() {
    let server = Server::always(200, r#"{"url":"file:///etc/passwd"}"#);
    let cli = postiz("integrations:connect x")
        .key_for(&server)
        .var("PATH", "/usr/bin:/bin");
    let log = cli.home.file("opened").display().to_string();
    let browser = cli.home.script("browser", &format!("echo \"$@\" >> {log}"));
    let bytes = on_terminal(&cli.var("BROWSER", browser), 80);
    assert!(bytes.contains("Open the page in a browser."), "{bytes}");
}
