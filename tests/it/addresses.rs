//! Host names some of whose addresses are unreachable, in a network namespace of the test.

use std::process::{Command, Output};
use std::time::Instant;

use serde_json::json;

use crate::fake_postiz::http::HttpServer;
use crate::fake_postiz::{API_KEY, Request, Response};
use crate::support::{each, program, run};

/// Sets up the network: an interface without a peer, a firewall's rule, and a hosts file.
const NETWORK: &str = "
    ip link set lo up
    ip link add out type veth peer name peer
    ip link set peer up
    ip link set out up
    ip addr add 2001:db8::1/64 dev out nodad
    ip -6 neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev out nud permanent
    ip -6 neigh add 2001:db8::4 lladdr 02:00:00:00:00:02 dev out nud permanent
    # As a firewall that rejects with icmp6-adm-prohibited: connect() says EACCES.
    ip -6 rule add pref 10 to 2001:db8::3/128 ipproto tcp prohibit
    for at in '2001:db8::3 rejected' '127.0.0.1 rejected' '2001:db8::2 silent' '127.0.0.1 silent' \\
              '2001:db8::2 both-silent' '2001:db8::4 both-silent' '2001:db8::3 all-rejected'; do
        echo \"$at.test\"
    done >\"$HOSTS\"
    mount --bind \"$HOSTS\" /etc/hosts
";

/// Set when the test runs itself again in its network namespace.
const INSIDE: &str = "POSTIZ_TEST_INSIDE_NETWORK";

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "tests read their environment directly"
)]
fn unreachable_address_leaves_time_for_the_others() {
    if std::env::var_os(INSIDE).is_some() {
        inside();
        return;
    }
    let hosts = tempfile::NamedTempFile::new().expect("a temporary file");
    let network = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "sh", "-euc"]);
        command.arg(format!("{NETWORK}\n{then}")).arg("network");
        command.env("HOSTS", hosts.path());
        command
    };
    let possible = network("true").output();
    if !possible
        .as_ref()
        .is_ok_and(|output| output.status.success())
    {
        println!("SKIPPED: this machine allows no network namespace: {possible:?}");
        return;
    }
    let mut again = network("exec \"$@\"");
    again
        .arg(std::env::current_exe().expect("a test is a program"))
        .args(["--exact", "--nocapture"])
        .arg("addresses::unreachable_address_leaves_time_for_the_others")
        .env(INSIDE, "1");
    let output = again.output().expect("it started a moment ago");
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(
        text_of(&output).contains("1 passed"),
        "{}",
        text_of(&output)
    );
}

fn inside() {
    let server = HttpServer::start(0, |_: &Request| Response::json(200, &json!([])));
    let server = server.expect("a free port");
    let url = server.url();
    let ask = |host: &str, arguments: &str| {
        let mut command = Command::new(program("postiz"));
        command.args(arguments.split(' ')).env_clear();
        command.env("POSTIZ_API_KEY", API_KEY);
        command.env("POSTIZ_API_URL", url.replace("127.0.0.1", host));
        let start = Instant::now();
        (run(&mut command), start.elapsed())
    };
    // Host, arguments, exit code, words, and seconds.
    let rows = [
        ("rejected.test", "integrations:list", 0, "[]", 0..2),
        // Each of two addresses gets half of the time.
        ("silent.test", "integrations:list", 0, "[]", 4..8),
        (
            "both-silent.test",
            "api POST /x",
            1,
            "no connection within 10 s",
            9..13,
        ),
        (
            "all-rejected.test",
            "api POST /x",
            1,
            "Permission denied",
            0..60,
        ),
    ];
    each(rows, |(host, arguments, code, words, seconds)| {
        let (output, took) = ask(host, arguments);
        let said = text_of(&output);
        assert_eq!(output.status.code(), Some(code), "{host}: {said}");
        assert!(said.contains(words), "{host}: {said}");
        assert!(seconds.contains(&took.as_secs()), "{host}: {took:?}");
    });
}

fn text_of(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
