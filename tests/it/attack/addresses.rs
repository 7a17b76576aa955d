//! Who a client is: what a proxy says of it counts only from a proxy, on the confirm page, in the log and in the budgets.

use std::io::{Read, Write};

use serde_json::json;

use crate::attack::server_with;
use crate::fake_postiz::FakePostiz;
use crate::support::{Login, TestServer, eventually_some, expect};

/// Starts a login with these headers; the address that the confirm page shows, which is the one that the log names.
#[track_caller]
fn shown_address(server: &TestServer, headers: &[(&str, &str)]) -> String {
    let logged = || -> Vec<String> {
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("login started"));
        lines.map(str::to_owned).collect()
    };
    let before = logged().len();
    let answer = server.send("POST", "/device/code", headers, b"");
    expect::json(&answer, 200);
    let start = answer.json();
    let target = format!(
        "/device/verify?user_code={}",
        start["user_code"].as_str().expect("a code")
    );
    let page = server.get(&target);
    expect::page(&page, 200);
    let html = page.text();
    let line = eventually_some("it is logged", || logged().get(before).cloned());
    let (_, client) = line.split_once("client=").expect("the line names it");
    let client = client.split(' ').next().expect("one word");
    assert!(html.contains(client), "{client} is not on the page: {html}");
    client.to_owned()
}

#[test]
fn a_stranger_speaks_for_nobody() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[("TRUSTED_PROXIES", "none")]);
    for spoofed in ["198.51.100.1", "127.0.0.1, 198.51.100.1", "::1", "garbage"] {
        assert_eq!(
            shown_address(&server, &[("X-Forwarded-For", spoofed)]),
            "127.0.0.1"
        );
    }
}

#[test]
fn a_proxy_is_believed_as_far_as_it_can_know() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")]);
    for (forwarded_for, client) in [
        ("198.51.100.1", "198.51.100.1"),
        // What the client itself wrote stands left of what the proxy appended.
        ("6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.9, 198.51.100.1", "198.51.100.1"),
        ("198.51.100.1, 10.0.0.9", "198.51.100.1"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("198.51.100.1, <script>", "127.0.0.1"),
        ("198.51.100.1, unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        let shown = shown_address(&server, &[("X-Forwarded-For", forwarded_for)]);
        assert_eq!(shown, client, "{forwarded_for:?}");
    }
    // Two headers are one list.
    let headers = [
        ("X-Forwarded-For", "6.6.6.6, 198.51.100.1"),
        ("x-forwarded-for", "10.0.0.9"),
    ];
    assert_eq!(shown_address(&server, &headers), "198.51.100.1");
    // What the front itself writes cannot be written by anybody else, and other headers of proxies mean nothing here.
    let headers = [
        ("X-Front", "secret 1 203.0.113.9"),
        ("X-Real-IP", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
    ];
    assert_eq!(shown_address(&server, &headers), "127.0.0.1");
}

/// A stranger who forwards a new address each time still has one budget.
#[test]
fn spoofed_addresses_have_no_budgets() {
    let postiz = FakePostiz::start();
    let variables = [
        ("TRUSTED_PROXIES", "none"),
        ("LIMIT_LOGINS_PER_MINUTE", "3"),
    ];
    let server = server_with(&postiz, &variables);
    let statuses = (0..5).map(|i| {
        let address = format!("198.51.100.{i}");
        let headers = [("X-Forwarded-For", address.as_str())];
        server.send("POST", "/device/code", &headers, b"").status
    });
    assert_eq!(statuses.collect::<Vec<_>>(), [200, 200, 200, 429, 429]);
    assert_eq!(server.post_json("/device/code", &json!({})).status, 429);
}

/// Another program on this machine finds the private socket between the front and what is behind it, and speaks to it: it
/// vouches for nobody without the front's secret.
#[cfg(target_os = "linux")]
#[test]
fn the_private_socket_is_the_fronts_alone() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[]);
    let names = abstract_sockets_of(server.child.id());
    let speak = |name: &String, head: &str| {
        let address = SocketAddr::from_abstract_name(name).expect("it is a name");
        let mut socket = UnixStream::connect_addr(&address).expect("it listens");
        let request = format!("POST /device/code HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("it is sent");
        socket
    };
    for name in &names {
        for vouch in ["", "X-Front: \r\n", "X-Front: secret 1 203.0.113.9\r\n"] {
            let head = format!("{vouch}Content-Length: 0\r\nConnection: close");
            let mut answer = String::new();
            let mut socket = speak(name, &head);
            socket.read_to_string(&mut answer).expect("an end");
            assert_eq!(answer, "", "{vouch:?}");
        }
    }
    assert!(!server.log().contains("login started"), "{}", server.log());
    // Those that never send the body they announced, however long, hold up nobody.
    let _unfinished: Vec<UnixStream> = names
        .iter()
        .flat_map(|name| {
            ["5000", "1000000000000", "18446744073709551615"]
                .map(|length| speak(name, &format!("Content-Length: {length}")))
        })
        .collect();
    for _ in 0..20 {
        let answer = Login::start(&server).poll(&server);
        expect::error(&answer, 400, "authorization_pending");
    }
}

/// The names of the abstract sockets that a process listens on: those of the system whose numbers it has open.
#[cfg(target_os = "linux")]
fn abstract_sockets_of(process: u32) -> Vec<String> {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let open: Vec<String> = open
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter_map(|target| {
            target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("Linux tells of its sockets");
    let names = sockets.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(6);
        let (number, name) = (fields.next()?, fields.next()?);
        let name = name.strip_prefix('@')?;
        open.iter()
            .any(|open| open == number)
            .then(|| name.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    assert!(!names.is_empty(), "no such socket among {open:?}");
    names
}
