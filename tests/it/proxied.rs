//! HTTP as proxies and old clients send it: bodies of unknown length, which reach the proxy over HTTP/2 and the server in
//! chunks, and persistent HTTP/1.0 connections.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::proxies::Proxy;
use crate::support::{Login, Store, TestServer, run};

/// Polls with curl over HTTP/2. The body comes from a pipe, so its length is unknown until its end.
fn poll_over_http_2(proxy: &Proxy, body: &str) -> String {
    let url = format!("http://{}/device/token", proxy.address);
    let mut curl = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--http2-prior-knowledge",
            "--max-time",
            "15",
        ])
        .args(["--request", "POST", "--upload-file", "-"])
        .args(["--header", "Content-Type: application/json", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl starts (on Debian: apt-get install curl)");
    let mut pipe = curl.stdin.take().expect("the stream is piped");
    pipe.write_all(body.as_bytes()).expect("curl reads it");
    drop(pipe);
    let output = curl.wait_with_output().expect("curl ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn bodies_of_unknown_length_pass_through_proxies() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    let body = login.poll_body().to_string();
    for (name, proxy) in Proxy::http_2(server.address.port()) {
        for _ in 0..3 {
            let answer = poll_over_http_2(&proxy, &body);
            assert!(answer.contains("authorization_pending"), "{name}: {answer}");
        }
    }
}

/// `ab -k` asks for persistent HTTP/1.0 connections. Without `Connection: keep-alive` in the answer it waits for the end of the
/// connection for ever.
#[test]
fn ab_reuses_its_connections() {
    let server = TestServer::setup(Store::Embedded).start();
    let url = format!("http://{}/health", server.address);
    let output = run(Command::new("ab").args(["-q", "-k", "-n", "500", "-c", "5", &url]));
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let number = |name: &str| {
        let line = report.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        number.unwrap_or_else(|| panic!("no {name}: {report}"))
    };
    assert_eq!(number("Failed requests:"), 0, "{report}");
    assert_eq!(number("Keep-Alive requests:"), 500, "{report}");
}
