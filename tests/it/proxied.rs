//! HTTP as proxies and old clients send it: bodies of unknown length, which reach the proxy over HTTP/2 and the server in
//! chunks, and persistent HTTP/1.0 connections.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::support::proxies::Proxy;
use crate::support::sockets::connect_from;
use crate::support::{Login, Store, TestServer, eventually, http, run};

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

const METADATA: &str = "/.well-known/oauth-authorization-server/cli-auth";

#[test]
fn handbook_examples_work_under_a_path() {
    let setup = TestServer::setup(Store::Embedded);
    let server = setup
        .var("SERVER_URL", "https://example.com/cli-auth")
        .var("TRUSTED_PROXIES", "127.0.0.1")
        .start();
    let client = Ipv4Addr::new(127, 0, 0, 9).into();
    for (name, proxy) in Proxy::handbook(server.address.port()) {
        // haproxy sends no client to an instance before its first health check.
        eventually(name, || proxy.get("/cli-auth/health").status == 200);
        let home = proxy.get("/cli-auth/");
        assert_eq!(
            home.header("location"),
            Some("/cli-auth/device/verify"),
            "{name}"
        );
        let metadata = proxy.get(METADATA);
        assert_eq!(
            metadata.json()["issuer"],
            "https://example.com/cli-auth",
            "{name}"
        );
        // The address that the client forwards itself is ignored.
        for target in ["/cli-auth/nothing", METADATA] {
            let mut socket = connect_from(client, proxy.address).expect("the proxy listens");
            let headers = [("X-Forwarded-For", "203.0.113.9")];
            let request = http::request("GET", target, &headers, b"");
            socket.write_all(&request).expect("the proxy reads it");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).expect("it answers");
        }
    }
    let log = server.log();
    assert_eq!(log.matches("client=127.0.0.9").count(), 6, "{log}");
}
