//! `auth:login --direct`: signs in at Postiz itself, with a callback to a port of this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdout, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Cli, Done, Home, Reply, Server, each, postiz, until};
use crate::fake_postiz::http::form_field;
use crate::fake_postiz::{FakePostiz, Fault, Registration, Response};
use crate::support::Browser;
use crate::support::browser::{Page, target_of};
use crate::support::http::{self, Connection};

/// The command, for the Postiz `fake`. The test opens the page.
fn direct(home: &Home, fake: &FakePostiz) -> Cli {
    Cli::at(home.clone())
        .args(["auth:login", "--direct", "--json", "--no-browser"])
        .var("POSTIZ_API_URL", format!("{}/api", fake.url()))
}

/// A login that has shown the consent page's address and waits.
struct Waiting {
    child: Child,
    url: String,
    stdout: BufReader<ChildStdout>,
}

/// The result of the login.
struct Ended {
    event: Value,
    code: Option<i32>,
    stderr: String,
}

impl Waiting {
    fn begin(cli: &Cli) -> Waiting {
        let mut child = cli.spawn();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        assert_eq!(event["event"], "open", "{line}");
        let url = event["url"].as_str().unwrap().to_owned();
        Waiting { child, url, stdout }
    }

    fn query(&self, name: &str) -> String {
        form_field(self.url.split_once('?').unwrap().1, name).unwrap()
    }

    fn state(&self) -> String {
        self.query("state")
    }

    /// Where it waits for the callback.
    fn address(&self) -> SocketAddr {
        let uri = self.query("redirect_uri");
        let rest = uri.strip_prefix("http://").unwrap();
        rest.strip_suffix("/callback").unwrap().parse().unwrap()
    }

    /// `person` signs in to Postiz and presses a button: the redirect to the callback.
    fn decide(&self, browser: &mut Browser, person: &str, action: &str) -> Page {
        let page = browser.open(&self.url);
        let page = browser.follow(&page);
        let page = browser.submit(&page, &[("person", person)]);
        let page = browser.settle(page);
        browser.press(&page, "action", action)
    }

    /// Allows the login: the last page.
    fn allow(&self, person: &str) -> Page {
        let mut browser = Browser::new();
        let page = self.decide(&mut browser, person, "approve");
        browser.follow(&page)
    }

    fn end(mut self) -> Ended {
        let (mut rest, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).unwrap();
        let mut errors = self.child.stderr.take().unwrap();
        errors.read_to_string(&mut stderr).unwrap();
        let event = serde_json::from_str(&rest).unwrap_or_else(|error| panic!("{error}: {rest}"));
        let code = self.child.wait().unwrap().code();
        Ended {
            event,
            code,
            stderr,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A test that fails leaves no process.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ended {
    #[track_caller]
    fn done(self) -> Value {
        let what = (&self.event["event"], self.code);
        assert_eq!(
            what,
            (&json!("done"), Some(0)),
            "{}\n{}",
            self.event,
            self.stderr
        );
        self.event
    }

    #[track_caller]
    fn failed(self, word: &str) -> String {
        let what = (&self.event["error"], self.code);
        assert_eq!(
            what,
            (&json!(word), Some(1)),
            "{}\n{}",
            self.event,
            self.stderr
        );
        self.stderr
    }
}

/// Signs in from a machine of this name: the token.
fn sign_in(home: &Home, fake: &FakePostiz, machine: &str) -> String {
    let waiting = Waiting::begin(&direct(home, fake).arg(format!("--machine={machine}")));
    waiting.allow("ada");
    waiting.end().done();
    token(home)
}

fn token(home: &Home) -> String {
    let done = Cli::at(home.clone()).arg("auth:token").run().code(0);
    done.stdout.trim().to_owned()
}

fn stored_client(home: &Home) -> Value {
    serde_json::from_str(&home.read(".postiz/credentials.json.client")).unwrap()
}

#[test]
fn direct_login_works_from_start_to_end() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let waiting = Waiting::begin(&direct(&home, &fake));
    let page = waiting.allow("ada");
    assert_eq!(page.status(), 200);
    assert!(
        page.html().contains("<h1>You are signed in</h1>"),
        "{}",
        page.html()
    );
    assert_eq!(page.answer.header("cache-control"), Some("no-store"));
    let event = waiting.end().done();
    assert_eq!(event["api_url"], format!("{}/api", fake.url()));
    assert_eq!(event["organization_id"], "org-ada");
    assert!(fake.accepts(&token(&home)));
    let list = Cli::at(home.clone()).arg("integrations:list").run();
    assert!(list.code(0).json().is_array());
    let host_name = Command::new("uname").arg("-n").output().unwrap().stdout;
    let host_name = String::from_utf8(host_name).unwrap();
    let machine = host_name.trim().split('.').next().unwrap();
    let name: String = format!("Postiz CLI on {machine}");
    assert_eq!(fake.approved_apps("ada"), [name]);
    assert_eq!(
        home.credentials_folder(),
        ["credentials.json", "credentials.json.client"]
    );
    for file in home.credentials_folder() {
        let metadata = std::fs::metadata(home.file(&format!(".postiz/{file}"))).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

/// Neither ends the other, nor a login by an auth server with an OAuth app.
#[test]
fn direct_logins_of_two_machines_both_stay_valid() {
    let fake = FakePostiz::start();
    let by_app = fake.token_for("ada");
    let tokens = ["ada-laptop", "ada-desktop"].map(|name| sign_in(&Home::new(), &fake, name));
    assert!(fake.accepts(&by_app) && tokens.iter().all(|token| fake.accepts(token)));
    let names = [
        "Postiz CLI",
        "Postiz CLI on ada-desktop",
        "Postiz CLI on ada-laptop",
    ];
    assert_eq!(fake.approved_apps("ada"), names);
}

#[test]
fn machine_flag_names_the_client() {
    let fake = FakePostiz::start();
    for (machine, name) in [
        ("ada's büro\u{202e}", "Postiz CLI on ada's büro"),
        ("", "Postiz CLI"),
        (
            &"x".repeat(200),
            &format!("Postiz CLI on {}", "x".repeat(63)),
        ),
    ] {
        sign_in(&Home::new(), &fake, machine);
        assert!(
            fake.approved_apps("ada").contains(&name.to_owned()),
            "{machine}"
        );
    }
}

#[test]
fn client_and_port_are_reused() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    sign_in(&home, &fake, "m");
    let first = stored_client(&home);
    let token = sign_in(&home, &fake, "m");
    assert!(fake.accepts(&token));
    assert_eq!(stored_client(&home), first);
    assert_eq!(
        fake.registered_clients(),
        [first["clientId"].as_str().unwrap()]
    );
    // A logout keeps the client, which is no secret and which the next login uses.
    Cli::at(home.clone()).arg("auth:logout").run().code(0);
    sign_in(&home, &fake, "m");
    assert_eq!(fake.registered_clients().len(), 1);
}

/// After the change in each row the saved client cannot be used.
#[test]
fn client_is_registered_anew_when_it_cannot_be_used() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    sign_in(&home, &fake, "m");
    let id = |home: &Home| stored_client(home)["clientId"].as_str().unwrap().to_owned();
    let mut last = id(&home);
    let mut expect_new = |what: &str| {
        let now = id(&home);
        assert_ne!(std::mem::replace(&mut last, now.clone()), now, "{what}");
    };

    let port = stored_client(&home)["port"].as_u64().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    sign_in(&home, &fake, "m");
    expect_new("another program has its port");
    drop(taken);

    fake.forget_client(&id(&home));
    sign_in(&home, &fake, "m");
    expect_new("Postiz has forgotten it");

    sign_in(&home, &fake, "another-name");
    expect_new("the machine has another name");

    let waiting =
        Waiting::begin(&direct(&home, &fake).args(["--new-client", "--machine=another-name"]));
    waiting.allow("ada");
    waiting.end().done();
    expect_new("--new-client");

    for broken in ["", "[]", r#"{"port":0}"#, "\u{0}"] {
        home.write(".postiz/credentials.json.client", broken);
        sign_in(&home, &fake, "another-name");
        expect_new(broken);
    }

    let other = FakePostiz::start();
    sign_in(&home, &other, "another-name");
    assert_eq!(other.registered_clients(), [id(&home)]);
}

#[test]
fn denial_ends_the_login() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let waiting = Waiting::begin(&direct(&home, &fake));
    let mut browser = Browser::new();
    let page = waiting.decide(&mut browser, "ada", "deny");
    let page = browser.follow(&page);
    assert!(page.html().contains("<h1>You refused this login</h1>"));
    let stderr = waiting.end().failed("access_denied");
    assert!(stderr.contains("error: the login was refused in the browser"));
    assert!(!home.credentials().exists());
}

/// What another program of this machine, or a web page in its browser, may send.
fn strange_requests(state: &str) -> Vec<Vec<u8>> {
    let callback = format!("/callback?code=stolen&state={state}");
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    vec![
        get("/callback?code=stolen&state=wrong"),
        get("/callback?error=access_denied&state=wrong"),
        get("/callback?code=stolen"),
        get("/callback"),
        get("/"),
        get("/favicon.ico"),
        get(&callback.replace("/callback", "/other")),
        get(&format!("{callback}&state={state}")),
        format!("HEAD {callback} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
        format!("POST {callback} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nx=1").into_bytes(),
        format!("OPTIONS {callback} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        Vec::new(),
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1024 * 1024)).into_bytes(),
        format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000)).into_bytes(),
    ]
}

#[test]
fn callback_ignores_other_requests() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let waiting = Waiting::begin(&direct(&home, &fake));
    let (address, state) = (waiting.address(), waiting.state());
    // These stay open until the end of the test: half of them send nothing, half a part of a request.
    let held: Vec<TcpStream> = (0..50)
        .map(|at| {
            let mut stream = TcpStream::connect(address).unwrap();
            if at % 2 == 1 {
                write!(
                    stream,
                    "GET /callback?code=stolen&state={state} HTTP/1.1\r\nX: "
                )
                .unwrap();
            }
            stream
        })
        .collect();
    for request in strange_requests(&state) {
        let mut stream = TcpStream::connect(address).unwrap();
        // The connection may be closed during a request that is too long.
        drop(stream.write_all(&request));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let answer = String::from_utf8_lossy(&answer);
        let start = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{start}: {answer}"
        );
    }
    assert!(fake.requests_to("/api/oauth/token").is_empty());
    let mut browser = Browser::new();
    let back = waiting.decide(&mut browser, "ada", "approve");
    let start = Instant::now();
    let page = browser.follow(&back);
    assert!(page.html().contains("You are signed in"));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    waiting.end().done();
    assert!(fake.accepts(&token(&home)));
    drop(held);
}

/// There are more connections than the limit, and the browser's still succeeds.
#[test]
fn callback_survives_a_flood_of_connections() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let waiting = Waiting::begin(&direct(&home, &fake));
    let held: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(waiting.address()).unwrap())
        .collect();
    assert!(waiting.allow("ada").html().contains("You are signed in"));
    waiting.end().done();
    drop(held);
}

/// While the code is exchanged and afterwards, no other callback is served.
#[test]
fn callback_is_accepted_once() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let waiting = Waiting::begin(&direct(&home, &fake));
    let (address, state) = (waiting.address(), waiting.state());
    let mut browser = Browser::new();
    let back = waiting.decide(&mut browser, "ada", "approve");
    let mut second = Connection::open(address);
    let target = target_of(back.answer.header("location").unwrap()).to_owned();
    browser.follow(&back);
    second.try_send(http::request("GET", &target, &[], b""));
    waiting.end().done();
    assert_eq!(fake.requests_to("/api/oauth/token").len(), 1);
    for request in strange_requests(&state) {
        assert!(Connection::try_open(address).is_err(), "{request:?}");
    }
    assert!(fake.accepts(&token(&home)));
}

#[test]
fn ctrl_c_ends_with_130_and_keeps_the_client_alone() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let mut waiting = Waiting::begin(&direct(&home, &fake));
    let address = waiting.address();
    let id = waiting.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(waiting.child.wait().unwrap().code(), Some(130));
    assert_eq!(home.credentials_folder(), ["credentials.json.client"]);
    assert!(TcpStream::connect(address).is_err());
    sign_in(&home, &fake, "m");
    assert!(home.credentials().exists());
}

/// Makes a stand-in refuse.
type Preparation = Box<dyn Fn(&FakePostiz) + Send>;

/// Each kind of failure has its word, message and hint.
#[test]
fn registration_failure_is_explained() {
    const THREE: &str = "three ways work";
    let cases: Vec<(Preparation, &str, &str, &str)> = vec![
        (
            Box::new(|fake| fake.set_registration(Registration::TooOld)),
            "too_old",
            "is too old to sign in to directly: that came after v2.23.0",
            THREE,
        ),
        (
            Box::new(|fake| {
                let domains = vec!["chat.example".to_owned()];
                fake.set_registration(Registration::VerifiedDomainsAlone(domains));
            }),
            "registration_refused",
            "DCR_VERIFIED_DOMAINS",
            THREE,
        ),
        (
            Box::new(|fake| {
                answer_registration(
                    fake,
                    400,
                    r#"{"statusCode":400,"message":["a","b"],"error":"Bad Request"}"#,
                )
            }),
            "registration_refused",
            "refused to register this machine: a; b (Bad Request)",
            THREE,
        ),
        (
            Box::new(|fake| answer_registration(fake, 502, "<h1>Bad gateway</h1>")),
            "unavailable",
            "is in trouble (HTTP 502)",
            "try again in a minute",
        ),
        (
            Box::new(|fake| answer_registration(fake, 404, "<h1>Not found</h1>")),
            "not_postiz",
            "does not look like Postiz' API: it answered HTTP 404",
            "https://host/api",
        ),
        (
            Box::new(|fake| {
                fake.misbehave(
                    "/api/oauth/register",
                    Fault::Answer(Response::redirect(307, "/auth")),
                )
            }),
            "not_postiz",
            "HTTP 307",
            "https://host/api",
        ),
        (
            Box::new(|fake| answer_registration(fake, 201, r#"{"client_id":"a\nb"}"#)),
            "not_postiz",
            "HTTP 201",
            "https://host/api",
        ),
    ];
    each(cases, |(prepare, word, message, hint)| {
        let (fake, home) = (FakePostiz::start(), Home::new());
        prepare(&fake);
        let done = direct(&home, &fake).run().code(1);
        assert_eq!(done.events()[0]["error"], word, "{}", done.stderr);
        done.stderr_has(message).stderr_has(hint);
        assert!(home.credentials_folder().is_empty(), "{word}");
    });
    let done =
        postiz("auth:login --direct --no-browser").var("POSTIZ_API_URL", "http://127.0.0.1:1/api");
    done.run()
        .code(1)
        .stderr_has("cannot reach Postiz at http://127.0.0.1:1/api");
}

fn answer_registration(fake: &FakePostiz, status: u16, body: &str) {
    let content_type = if body.starts_with('<') {
        "text/html"
    } else {
        "application/json"
    };
    let answer = Response::new(status, content_type, body);
    fake.misbehave("/api/oauth/register", Fault::Answer(answer));
}

/// The browser's page says that it failed, and the terminal why.
#[test]
fn exchange_failure_is_explained() {
    let answer =
        |status: u16, body: &str| Fault::Answer(Response::new(status, "application/json", body));
    let cases = [
        (
            None,
            "invalid_grant",
            "Postiz refused the code that it gave: Code has expired (invalid_grant)",
        ),
        (
            Some(answer(401, r#"{"error":"invalid_client"}"#)),
            "invalid_client",
            "--new-client",
        ),
        (
            Some(answer(500, "{}")),
            "unavailable",
            "is in trouble (HTTP 500)",
        ),
        (
            Some(answer(201, "{}")),
            "no_token",
            "no usable access token",
        ),
        (
            Some(answer(201, r#"{"access_token":"a\nb"}"#)),
            "no_token",
            "no usable access token",
        ),
        (
            Some(answer(201, r#"{"access_token":"psh_1"}"#)),
            "self_hosted_relay",
            "works for MCP alone",
        ),
    ];
    each(cases, |(fault, word, message)| {
        let (fake, home) = (FakePostiz::start(), Home::new());
        let waiting = Waiting::begin(&direct(&home, &fake));
        let mut browser = Browser::new();
        let back = waiting.decide(&mut browser, "ada", "approve");
        match fault {
            None => fake.expire_codes(),
            Some(fault) => fake.misbehave("/api/oauth/token", fault),
        }
        let page = browser.follow(&back);
        assert!(page.html().contains("<h1>That did not work</h1>"), "{word}");
        let stderr = waiting.end().failed(word);
        assert!(stderr.contains(message), "{stderr}");
        assert!(!home.credentials().exists(), "{word}");
    });
}

/// The cloud's consent page offers a self-hosted instance. Its code is not exchanged.
#[test]
fn relayed_login_is_refused() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    fake.offer_relay();
    let waiting = Waiting::begin(&direct(&home, &fake));
    let mut browser = Browser::new();
    let page = waiting.decide(&mut browser, "ada", "self-hosted");
    browser.follow(&page);
    let stderr = waiting.end().failed("self_hosted_relay");
    assert!(stderr.contains("POSTIZ_API_URL"), "{stderr}");
    assert!(fake.requests_to("/api/oauth/token").is_empty());
    assert!(!home.credentials().exists());
}

/// The callback leads to this machine. Nothing is registered before the check.
#[test]
fn direct_login_needs_a_browser_on_this_machine() {
    let fake = FakePostiz::start();
    let ssh = ("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22");
    for (arguments, vars, why) in [
        ("", vec![ssh, ("DISPLAY", ":0")], "this is an SSH session"),
        (
            "",
            vec![ssh, ("BROWSER", "/bin/true")],
            "this is an SSH session",
        ),
        (
            "--no-browser",
            vec![("SSH_TTY", "/dev/pts/0")],
            "this is an SSH session",
        ),
        ("", vec![], "there is no display"),
        ("", vec![("BROWSER", "w3m")], "runs no scripts"),
    ] {
        let mut cli = postiz("auth:login --direct")
            .args(arguments.split_whitespace())
            .var("POSTIZ_API_URL", fake.url());
        for (name, value) in vars {
            cli = cli.var(name, value);
        }
        let done = cli.run().code(1);
        let done = done
            .stderr_has("cannot sign in to Postiz directly: ")
            .stderr_has(why);
        done.stderr_has("--auth-server URL")
            .stderr_has("POSTIZ_API_KEY");
    }
    assert!(fake.requests().is_empty());
}

/// Only the consent page's address goes to the browser.
#[test]
fn code_and_verifier_are_never_shown() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let log = home.file("opened");
    let browser = home.script(
        "browser",
        &format!("echo \"$@\" >> {}; env >> {0}", log.display()),
    );
    let cli = Cli::at(home.clone())
        .args(["auth:login", "--direct", "--json"])
        .var("POSTIZ_API_URL", format!("{}/api", fake.url()))
        .var("PATH", "/usr/bin:/bin")
        .var("BROWSER", browser);
    let waiting = Waiting::begin(&cli);
    until("the browser opens", || {
        log.exists() && home.read("opened").contains("PATH=")
    });
    let id = waiting.child.id();
    let command_line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap();
    assert!(
        home.read("opened")
            .starts_with(&format!("{}\n", waiting.url))
    );
    waiting.allow("ada");
    let ended = waiting.end();
    let exchange = fake.requests_to("/api/oauth/token").remove(0).json();
    let code = exchange["code"].as_str().unwrap().to_owned();
    let verifier = exchange["code_verifier"].as_str().unwrap().to_owned();
    assert!(verifier.len() >= 43);
    let (stderr, event) = (ended.stderr.clone(), ended.done().to_string());
    let files = home.credentials_folder();
    let kept: String = files
        .iter()
        .map(|file| home.read(&format!(".postiz/{file}")))
        .collect();
    let token = token(&home);
    for shown in [&stderr, &event, &command_line, &home.read("opened"), &kept] {
        assert!(
            !shown.contains(&code) && !shown.contains(&verifier),
            "{shown}"
        );
    }
    assert!(!stderr.contains(&token) && !event.contains(&token));
}

#[test]
fn address_is_alone_on_its_line() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let cli = Cli::at(home.clone())
        .args(["auth:login", "--direct", "--no-browser"])
        .var("POSTIZ_API_URL", fake.url());
    let mut child = cli.spawn();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let url = loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "no address");
        if line.starts_with("http") {
            break line.trim_end().to_owned();
        }
    };
    let mut browser = Browser::new();
    let page = browser.open(&url);
    let page = browser.follow(&page);
    let page = browser.submit(&page, &[("person", "ada")]);
    let page = browser.settle(page);
    let page = browser.press(&page, "action", "approve");
    browser.follow(&page);
    let done = Done::from(child.wait_with_output().unwrap())
        .code(0)
        .stdout("");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("Signed in. The credentials are in"),
        "{rest}{}",
        done.stderr
    );
    assert!(rest.contains("Organization: Ada Works"), "{rest}");
    assert!(!rest.contains("earlier login"), "{rest}");
}

/// The cloud's pages are on another host than its API.
#[test]
fn frontend_is_derived_from_the_api_or_named() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let waiting = Waiting::begin(&direct(&home, &fake));
    assert!(
        waiting
            .url
            .starts_with(&format!("{}/oauth/authorize?", fake.url()))
    );
    drop(waiting);
    let named = direct(&home, &fake).var("POSTIZ_FRONTEND_URL", "https://pages.example/x/");
    let waiting = Waiting::begin(&named);
    assert!(
        waiting
            .url
            .starts_with("https://pages.example/x/oauth/authorize?client_id=pcd_")
    );
    let bad = direct(&home, &fake).var("POSTIZ_FRONTEND_URL", "nonsense");
    bad.run()
        .code(2)
        .stderr_has("POSTIZ_FRONTEND_URL `nonsense`");
}

/// Nobody can allow the login without the address.
#[test]
fn direct_login_fails_when_nobody_reads_the_address() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = direct(&home, &fake).command().stdout(writer).spawn();
    let done = Done::from(child.unwrap().wait_with_output().unwrap());
    done.code(1)
        .stderr_has("nobody reads what to open on stdout");
    assert!(!home.credentials().exists());
}

/// A login that cannot be saved fails before the page is shown, and before a client is registered.
#[test]
fn direct_login_checks_the_file_first() {
    let (fake, home) = (FakePostiz::start(), Home::new());
    home.write("file", "");
    let cli = direct(&home, &fake).var(
        "POSTIZ_CREDENTIALS_FILE",
        home.file("file/credentials.json"),
    );
    cli.run().code(1).stderr_has("cannot write");
    assert!(fake.requests().is_empty());
}

/// A user who names a self-hosted Postiz never reaches the cloud. A request to it would go to the proxy.
#[test]
fn way_to_sign_in_follows_flags_and_variables() {
    let refuse = || Server::always(400, r#"{"error":"e","error_description":"none today"}"#);
    let rows: [(&str, &[&str], &[&str]); 9] = [
        ("", &[], &["CONNECT cli-auth.postiz.com:443"]),
        ("--start", &[], &["CONNECT cli-auth.postiz.com:443"]),
        ("", &["cloud"], &["CONNECT cli-auth.postiz.com:443"]),
        ("--direct", &[], &["CONNECT api.postiz.com:443"]),
        ("", &["api"], &["POST /oauth/register"]),
        ("--direct", &["api", "auth"], &["POST /oauth/register"]),
        ("", &["api", "auth"], &["POST /device/code"]),
        ("", &["auth"], &["POST /device/code"]),
        ("--auth-server {auth}", &["api"], &["POST /device/code"]),
    ];
    each(rows, |(arguments, vars, expected)| {
        let (proxy, server) = (refuse(), refuse());
        let arguments = arguments.replace("{auth}", &server.url());
        let mut cli = postiz("auth:login --no-browser")
            .args(arguments.split_whitespace())
            .var("HTTPS_PROXY", proxy.url());
        for var in vars {
            cli = match *var {
                "api" => cli.var("POSTIZ_API_URL", server.url()),
                "auth" => cli.var("POSTIZ_AUTH_SERVER", server.url()),
                _ => cli.var("POSTIZ_API_URL", "https://API.postiz.com/"),
            };
        }
        let done = cli.run().code(1);
        let lines = [proxy.lines(), server.lines()].concat();
        assert_eq!(lines, expected, "{arguments} {vars:?}");
        // This is true of the one auth server that is known to have an OAuth app.
        let is_default = expected[0].contains("cli-auth.postiz.com");
        let is_said = done.stderr.contains("ends an earlier login");
        assert_eq!(is_said, is_default, "{}", done.stderr);
    });
}

/// A code for another device needs an auth server.
#[test]
fn login_on_another_device_is_never_replaced_by_a_direct_one() {
    let server = Server::always(500, "{}");
    for flag in ["--start", "--qr"] {
        let cli = postiz("auth:login")
            .arg(flag)
            .var("POSTIZ_API_URL", server.url());
        let done = cli.var("HTTPS_PROXY", server.url()).run().code(1);
        done.stderr_has(&format!("{flag} needs an auth server"))
            .stderr_has("three ways work");
    }
    assert!(server.asked().is_empty());
}

#[test]
fn flags_that_contradict_direct_are_refused() {
    for arguments in [
        "--direct --auth-server https://a",
        "--direct --qr",
        "--direct --start",
        "--direct --finish",
        "--new-client --auth-server https://a",
        "--finish --machine m",
    ] {
        let cli = postiz("auth:login").args(arguments.split_whitespace());
        cli.run().code(2);
    }
}

/// An empty name sends none.
#[test]
fn device_flow_sends_the_machine_name() {
    for (machine, body) in [
        (Some("ada-laptop"), json!({"machine": "ada-laptop"})),
        (Some(" a\tb \u{1b}"), json!({"machine": "a b"})),
        (Some(""), Value::Null),
    ] {
        let server = Server::new(|_, _| Reply::json(400, r#"{"error":"e"}"#));
        let mut cli = postiz("auth:login --no-browser").var("POSTIZ_AUTH_SERVER", server.url());
        if let Some(machine) = machine {
            cli = cli.args(["--machine", machine]);
        }
        cli.run().code(1);
        let sent: Value = serde_json::from_slice(&server.only().body).unwrap_or_default();
        assert_eq!(sent, body, "{machine:?}");
    }
}
