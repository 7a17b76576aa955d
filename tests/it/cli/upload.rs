//! `upload`: the form, file names, several files, files that change during the upload, and memory.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::thread;

use serde_json::json;

use super::harness::{Asked, Cli, Reply, Server, each, postiz};

/// Answers with the file's name and size.
fn server() -> Server {
    Server::new(|asked, before| {
        Reply::json(
            201,
            &format!(r#"{{"id":"m{before}","bytes":{}}}"#, asked.body.len()),
        )
    })
}

/// The head and the content of the form's only part.
fn form(asked: &Asked) -> (String, Vec<u8>) {
    let content_type = asked.header("content-type").unwrap();
    let boundary = content_type
        .strip_prefix("multipart/form-data; boundary=")
        .unwrap();
    let body = &asked.body;
    let begin = format!("--{boundary}\r\n").into_bytes();
    let end = format!("\r\n--{boundary}--\r\n").into_bytes();
    assert!(body.starts_with(&begin) && body.ends_with(&end));
    let inner = &body[begin.len()..body.len() - end.len()];
    let cut = inner
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    (
        String::from_utf8(inner[..cut].to_vec()).unwrap(),
        inner[cut + 4..].to_vec(),
    )
}

#[test]
fn form_is_that_of_browsers() {
    let names: [(OsString, &str, &str); 6] = [
        ("photo.PNG".into(), "photo.PNG", "image/png"),
        (
            "a \"b\"\r\nc.jpeg".into(),
            "a %22b%22%0D%0Ac.jpeg",
            "image/jpeg",
        ),
        ("ü 100%.webm".into(), "ü 100%.webm", "video/webm"),
        ("-x.pdf".into(), "-x.pdf", "application/pdf"),
        (
            OsString::from_vec(b"bad\xff.gif".to_vec()),
            "bad\u{fffd}.gif",
            "image/gif",
        ),
        ("noext".into(), "noext", "application/octet-stream"),
    ];
    each(names, |(name, sent, content_type)| {
        let server = server();
        let cli = Cli::new()
            .args(["upload", "--"])
            .arg(name.clone())
            .key_for(&server);
        std::fs::write(cli.home.path().join(&name), b"\x00\xffbytes\r\n--").unwrap();
        cli.run().code(0).stderr("");
        let asked = server.only();
        assert_eq!(asked.line(), "POST /public/v1/upload");
        assert_eq!(
            asked.header("content-length"),
            Some(asked.body.len().to_string().as_str())
        );
        assert_eq!(asked.header("transfer-encoding"), None);
        let (head, file) = form(&asked);
        assert_eq!(
            head,
            format!(
                "Content-Disposition: form-data; name=\"file\"; filename=\"{sent}\"\r\nContent-Type: {content_type}"
            )
        );
        assert_eq!(file, b"\x00\xffbytes\r\n--");
    });
}

#[test]
fn one_file_gives_a_record_and_several_give_a_list() {
    let server = server();
    let cli = postiz("upload sub/a.png").key_for(&server);
    cli.home.write("sub/a.png", "a").write("b.png", "bb");
    assert!(cli.run().code(0).json().is_object());
    let list = Cli::at(cli.home.clone())
        .args(["upload", "sub/a.png", "b.png"])
        .key_for(&server)
        .run()
        .code(0)
        .json();
    assert_eq!(
        (
            list.as_array().unwrap().len(),
            list[0]["id"].as_str(),
            list[1]["id"].as_str()
        ),
        (2, Some("m1"), Some("m2"))
    );
    assert!(form(&server.asked()[0]).0.contains("filename=\"a.png\""));
}

/// A wrong name among several must not leave the others uploaded.
#[test]
fn files_are_checked_before_any_request() {
    let server = server();
    let cases: [(&[&str], &str); 5] = [
        (&["a.png", "nope.png"], "cannot read nope.png: "),
        (&["a.png", "empty.png"], "empty.png is empty"),
        (&["a.png", "."], ". is a folder"),
        (&["a.png", "-r", "folder"], "folder holds nothing to upload"),
        (&["-", "--name", "x.png"], "- is empty"),
    ];
    for (paths, words) in cases {
        let cli = postiz("upload")
            .args(paths.iter().copied())
            .key_for(&server);
        cli.home.write("a.png", "a").write("empty.png", "");
        cli.home.write("folder/notes.txt", "x");
        cli.run().code(1).stdout("").stderr_has(words);
    }
    assert!(server.asked().is_empty());
}

#[test]
fn stdin_of_unknown_length_is_streamed() {
    let server = server();
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|number| number.to_le_bytes()[0])
        .collect();
    postiz("upload - --name clip.mp4")
        .key_for(&server)
        .stdin(bytes.clone())
        .run()
        .code(0);
    let asked = server.only();
    assert_eq!(asked.header("transfer-encoding"), Some("chunked"));
    let (head, file) = form(&asked);
    assert!(head.contains("filename=\"clip.mp4\"\r\nContent-Type: video/mp4"));
    assert_eq!(file, bytes);
    postiz("upload /dev/stdin")
        .key_for(&server)
        .stdin(bytes.clone())
        .run()
        .code(0);
    assert_eq!(form(&server.asked()[1]).1, bytes);
}

#[test]
fn refused_upload_names_the_file() {
    let rows = [
        (
            400,
            r#"{"message":"Unsupported file type."}"#,
            1,
            "a.txt is not uploaded: Postiz refused: Unsupported file type. (HTTP 400)",
        ),
        (
            413,
            "<html>Too Large</html>",
            1,
            "larger than Postiz, or a proxy in front of it, takes",
        ),
        (
            401,
            r#"{"msg":"Invalid API key"}"#,
            4,
            "a.txt is not uploaded: Postiz refused the credentials",
        ),
    ];
    for (status, body, code, words) in rows {
        let server = Server::new(move |_, _| Reply::json(status, body));
        let cli = postiz("upload a.txt").key_for(&server);
        cli.home.write("a.txt", "a");
        cli.run().code(code).stdout("").stderr_has(words);
    }
}

/// The next command needs their paths, and a second upload would leave copies.
#[test]
fn failed_upload_prints_the_records_before_it() {
    let server = Server::new(|_, before| match before {
        0 | 1 => Reply::json(201, r#"{"path":"p"}"#),
        _ => Reply::json(400, r#"{"message":"Unsupported file type."}"#),
    });
    let cli = postiz("upload a.png b.png c.txt d.png").key_for(&server);
    for name in ["a.png", "b.png", "c.txt", "d.png"] {
        cli.home.write(name, "x");
    }
    let done = cli.run().code(1).stderr_has("c.txt is not uploaded");
    assert_eq!(done.json(), json!([{"path": "p"}, {"path": "p"}]));
    done.stderr_has("(of 4 files, 2 went before)");
    assert_eq!(server.asked().len(), 3);
}

/// stdout is empty when the first file fails.
#[test]
fn record_of_several_files_is_always_a_list() {
    let server = Server::new(|_, before| match before {
        0 => Reply::json(201, "{}"),
        _ => Reply::Drop,
    });
    let cli = postiz("upload a.png b.png").key_for(&server);
    cli.home.write("a.png", "x").write("b.png", "x");
    let done = cli
        .run()
        .code(5)
        .stderr_has("b.png: the file may have been uploaded");
    assert_eq!(done.json(), json!([{}]));
}

#[test]
fn folder_upload_sends_what_postiz_accepts() {
    let server = server();
    let cli = postiz("upload -r photos").key_for(&server);
    for name in [
        "b.PNG",
        "a.jpg",
        "sub/c.mp4",
        "notes.txt",
        ".hidden.png",
        ".git/d.png",
    ] {
        cli.home.write(&format!("photos/{name}"), "x");
    }
    std::os::unix::fs::symlink("..", cli.home.file("photos/sub/circle")).unwrap();
    let done = cli.run().code(0);
    assert_eq!(done.json().as_array().unwrap().len(), 3);
    done.stderr_has("1 files in photos are left out: Postiz does not take them");
    let names: Vec<String> = server.asked().iter().map(|asked| form(asked).0).collect();
    for (name, head) in ["a.jpg", "b.PNG", "c.mp4"].iter().zip(&names) {
        assert!(head.contains(&format!("filename=\"{name}\"")), "{head}");
    }
    // Without -r it is an error. One file in a folder gives a list, too.
    Cli::at(cli.home.clone())
        .args(["upload", "photos"])
        .key_for(&server)
        .run()
        .code(1)
        .stderr_has("add -r");
    let one = Cli::at(cli.home.clone())
        .args(["upload", "photos/sub", "--recursive"])
        .key_for(&server);
    assert!(one.run().code(0).json().is_array());
}

/// There are more files than a process may have open.
#[test]
fn folder_of_many_files_needs_few_descriptors() {
    let server = server();
    let cli = postiz("upload -r many").key_for(&server);
    for number in 0..100 {
        cli.home.write(&format!("many/{number:03}.png"), "x");
    }
    let command = cli.command();
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -n 20; exec \"$@\"", "sh"])
        .arg(command.get_program());
    limited
        .args(command.get_args())
        .current_dir(cli.home.path())
        .env_clear();
    limited.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = limited.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(server.asked().len(), 100);
}

#[test]
fn url_is_fetched_by_postiz() {
    let server = Server::always(201, r#"{"path":"p"}"#);
    let cli = postiz("upload https://example.com/a.png a.png").key_for(&server);
    cli.home.write("a.png", "x");
    assert_eq!(
        cli.run().code(0).json(),
        json!([{"path": "p"}, {"path": "p"}])
    );
    let asked = server.asked();
    assert_eq!(asked[0].line(), "POST /public/v1/upload-from-url");
    assert_eq!(asked[0].text(), r#"{"url":"https://example.com/a.png"}"#);
    for wrong in [
        "http://example.com/a.png",
        "ftp://example.com/a.png",
        "file:///etc/passwd",
    ] {
        let done = postiz("upload").arg(wrong).key_for(&server).run().code(2);
        done.stderr_has("https:// addresses alone");
    }
    let refusing = Server::always(400, r#"{"msg":"Invalid URL"}"#);
    let done = postiz("upload https://example.com/a.png")
        .key_for(&refusing)
        .run()
        .code(1);
    done.stderr_has("https://example.com/a.png is not uploaded: Postiz refused: Invalid URL");
}

/// A server that reads the first megabyte, calls `act`, and reads on or closes the connection.
fn sluggish(act: impl FnOnce() + Send + 'static, goes_on: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1_000_000];
        stream.read_exact(&mut buffer).unwrap();
        act();
        while goes_on && stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    url
}

/// A sparse file of `size` zeros.
fn sparse(cli: &Cli, name: &str, size: u64) {
    let mut file = File::create(cli.home.file(name)).unwrap();
    file.seek(SeekFrom::Start(size - 1)).unwrap();
    file.write_all(&[0]).unwrap();
}

fn upload_to(url: &str) -> Cli {
    postiz("upload big.mp4")
        .var("POSTIZ_API_KEY", "k")
        .var("POSTIZ_API_URL", url)
}

const BIG: u64 = 50_000_000;

#[test]
fn connection_that_breaks_during_an_upload_is_one_clear_error() {
    let cli = upload_to(&sluggish(|| {}, false));
    sparse(&cli, "big.mp4", BIG);
    let done = cli
        .run()
        .code(1)
        .stdout("")
        .stderr_has("big.mp4 is not uploaded (")
        .stderr_has("the connection was lost");
    assert!(done.stderr.lines().count() <= 3);
}

#[test]
fn file_that_changes_during_the_upload_is_an_error() {
    for (size, words) in [
        (BIG / 2, "big.mp4 shrank while it was sent"),
        (BIG * 2, "big.mp4 grew while it was sent"),
    ] {
        let home = super::harness::Home::new();
        let path = home.file("big.mp4");
        let change = move || {
            drop(
                OpenOptions::new()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_len(size),
            )
        };
        let url = sluggish(change, true);
        let cli = Cli::at(home)
            .args(["upload", "big.mp4"])
            .var("POSTIZ_API_KEY", "k")
            .var("POSTIZ_API_URL", url);
        sparse(&cli, "big.mp4", BIG);
        cli.run().code(1).stdout("").stderr_has(words);
    }
}

/// Uploads 512 MB with at most 16 MB of memory, as the system counts it at the end.
#[test]
fn memory_does_not_grow_with_the_file() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let cli = upload_to(&format!("http://{}", listener.local_addr().unwrap()));
    sparse(&cli, "big.mp4", 512 << 20);
    let child = cli.spawn();
    let (mut stream, _) = listener.accept().unwrap();
    assert!(receive_all(&mut stream) > 512 << 20);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    stream
        .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
        .unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib <= 16 * 1024, "{kib} KiB");
}

/// Reads one request of known length: its size.
fn receive_all(stream: &mut TcpStream) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let mut head = Vec::new();
    let (mut received, mut total) = (0, u64::MAX);
    while received < total {
        let count = stream.read(&mut buffer).unwrap();
        received += count as u64;
        if total == u64::MAX {
            head.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = text
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split('\r').next());
            if let (Some(end), Some(length)) = (text.find("\r\n\r\n"), length) {
                total = end as u64 + 4 + length.parse::<u64>().unwrap();
            }
        }
    }
    received
}
