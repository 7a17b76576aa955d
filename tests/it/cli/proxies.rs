//! Proxies that the environment names: which one is used, how, and the messages when it fails.

use super::harness::{Cli, Reply, Server, postiz};

/// A proxy that refuses, which shows that it was used.
fn refusing_proxy(status: u16) -> Server {
    Server::new(move |_, _| Reply::html(status, "<p>no</p>"))
}

/// A proxy that answers every request itself.
fn answering_proxy() -> Server {
    Server::always(200, "[]")
}

/// A request to the API at `url`, which is reachable only through a proxy.
fn list(url: &str) -> Cli {
    postiz("integrations:list")
        .var("POSTIZ_API_KEY", "key-0123456789abcdef")
        .var("POSTIZ_API_URL", url)
}

/// The proxy's URL with a user name and a password in it.
fn with_user(proxy: &Server, user: &str) -> String {
    proxy.url().replace("http://", &format!("http://{user}@"))
}

#[test]
fn http_is_forwarded_in_absolute_form() {
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        let proxy = answering_proxy();
        let cli = list("http://postiz.test:8080/api").var(name, proxy.url());
        cli.run().code(0).stdout("[]\n").stderr("");
        let asked = proxy.only();
        assert_eq!(
            asked.line(),
            "GET http://postiz.test:8080/api/public/v1/integrations"
        );
        assert_eq!(asked.header("host"), Some("postiz.test:8080"));
        assert_eq!(asked.header("authorization"), Some("key-0123456789abcdef"));
        assert_eq!(asked.header("proxy-authorization"), None);
    }
}

#[test]
fn http_is_forwarded_with_its_body() {
    let proxy = answering_proxy();
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(300_000));
    let cli = postiz("api POST /public/v1/x --data @-").var("POSTIZ_API_KEY", "k");
    let cli = cli
        .var("POSTIZ_API_URL", "http://postiz.test")
        .var("http_proxy", with_user(&proxy, "me:word"))
        .stdin(body.clone());
    cli.run().code(0).stdout("[]");
    let asked = proxy.only();
    assert_eq!(asked.line(), "POST http://postiz.test/public/v1/x");
    assert_eq!(
        asked.header("proxy-authorization"),
        Some("Basic bWU6d29yZA==")
    );
    assert_eq!(asked.text(), body);
}

#[test]
fn upload_is_forwarded_as_a_stream() {
    let proxy = Server::always(201, "{\"id\":\"1\",\"path\":\"http://postiz.test/1.png\"}");
    let cli = postiz("upload a.png").var("POSTIZ_API_KEY", "k");
    let png = [&b"\x89PNG\r\n\x1a\n"[..], &[7; 300_000]].concat();
    cli.home.write("a.png", &png);
    let cli = cli.var("POSTIZ_API_URL", "http://postiz.test");
    cli.var("http_proxy", proxy.url()).run().code(0);
    let asked = proxy.only();
    assert_eq!(asked.line(), "POST http://postiz.test/public/v1/upload");
    assert!(asked.body.windows(1_000).any(|bytes| bytes == [7; 1_000]));
    assert!(asked.body.len() > png.len());
}

#[test]
fn https_asks_for_a_tunnel() {
    for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        let proxy = refusing_proxy(403);
        let cli = list("https://postiz.test/api").var(name, proxy.url());
        cli.run().code(1).stdout("");
        let asked = proxy.only();
        assert_eq!(asked.line(), "CONNECT postiz.test:443");
        assert_eq!(asked.header("host"), Some("postiz.test:443"));
        let program = asked.header("user-agent").unwrap_or_default();
        assert!(program.starts_with("postiz-rust/"), "{program}");
        assert_eq!(asked.header("authorization"), None);
    }
}

#[test]
fn proxy_of_another_scheme_is_not_used() {
    let (proxy, api) = (refusing_proxy(403), Server::always(200, "[]"));
    for name in ["https_proxy", "HTTPS_PROXY"] {
        let cli = postiz("integrations:list").key_for(&api);
        cli.var(name, proxy.url()).run().code(0).stderr("");
    }
    let cli = postiz("integrations:list")
        .key_for(&api)
        .var("all_proxy", proxy.url());
    cli.var("NO_PROXY", "other.test, 127.0.0.0/8")
        .run()
        .code(0)
        .stderr("");
    assert_eq!((proxy.asked().len(), api.asked().len()), (0, 3));
}

/// Clash tells its users to set the variables so.
#[test]
fn proxy_is_used_although_all_proxy_names_socks() {
    for (url, line) in [
        (
            "http://postiz.test",
            "GET http://postiz.test/public/v1/integrations",
        ),
        ("https://postiz.test", "CONNECT postiz.test:443"),
    ] {
        let proxy = refusing_proxy(403);
        let socks = proxy.url().replace("http://", "socks5://");
        let cli = list(url)
            .var("http_proxy", proxy.url())
            .var("https_proxy", proxy.url())
            .var("all_proxy", socks);
        let done = cli.run().code(1).stderr_has("refused");
        assert!(!done.stderr.contains("SOCKS"), "{}", done.stderr);
        assert_eq!(proxy.lines(), [line]);
    }
}

#[test]
fn socks_proxy_is_skipped_and_reported_once() {
    let (proxy, api) = (answering_proxy(), Server::always(200, "[]"));
    let socks = "socks5://me:word@127.0.0.1:1";
    let cli = list("http://postiz.test").var("http_proxy", socks);
    let done = cli
        .var("ALL_PROXY", proxy.url())
        .run()
        .code(0)
        .hides("word");
    let warning = "warning: http_proxy is not the URL of an HTTP proxy (SOCKS is not supported), so ALL_PROXY is used instead\n";
    assert_eq!(done.stderr, warning);
    assert_eq!(proxy.asked().len(), 1);

    let cli = postiz("integrations:list")
        .key_for(&api)
        .var("ALL_PROXY", socks);
    let done = cli.run().code(0).stdout("[]\n").hides("word");
    assert_eq!(
        done.stderr.matches("ALL_PROXY").count(),
        1,
        "{}",
        done.stderr
    );
    done.stderr_has("so no proxy is used");
}

#[test]
fn credentials_of_the_proxy_are_sent_and_not_shown() {
    // me:p@ss wörd
    let (user, expected) = ("me:p%40ss%20w%C3%B6rd", "Basic bWU6cEBzcyB3w7ZyZA==");
    for (url, variable) in [
        ("http://postiz.test", "http_proxy"),
        ("https://postiz.test", "https_proxy"),
    ] {
        let proxy = refusing_proxy(407);
        let cli = list(url).var(variable, with_user(&proxy, user));
        let done = cli
            .run()
            .code(1)
            .hides("p%40ss")
            .hides("p@ss")
            .hides("bWU6");
        done.stderr_has(&format!(
            "the proxy {} does not take the user name and password (407",
            proxy.url()
        ));
        assert_eq!(proxy.only().header("proxy-authorization"), Some(expected));
    }
}

#[test]
fn proxy_refusal_is_reported_and_not_retried() {
    for (url, status, part) in [
        (
            "http://postiz.test",
            403,
            "or a server behind it, refused (403 Forbidden)",
        ),
        (
            "http://postiz.test",
            407,
            "wants a user name and password (407 Proxy Authentication Required)",
        ),
        (
            "https://postiz.test",
            403,
            "refused to connect to postiz.test:443 (403 Forbidden)",
        ),
        (
            "https://postiz.test",
            407,
            "wants a user name and password (407 Proxy Authentication Required)",
        ),
    ] {
        let proxy = refusing_proxy(status);
        let done = list(url)
            .var("all_proxy", proxy.url())
            .run()
            .code(1)
            .stdout("");
        done.stderr_has(&format!("the proxy {}", proxy.url()))
            .stderr_has(part)
            .stderr_has("NO_PROXY");
        assert_eq!(proxy.asked().len(), 1, "{url} {status}");
    }
    // An answer in JSON is the server's.
    let proxy = Server::always(403, "{\"msg\":\"not yours\"}");
    let done = list("http://postiz.test")
        .var("all_proxy", proxy.url())
        .run()
        .code(1);
    done.stderr_has("not yours");
}

#[test]
fn proxy_that_cannot_reach_the_server_is_retried() {
    let proxy = refusing_proxy(502);
    let done = list("https://postiz.test")
        .var("all_proxy", proxy.url())
        .run()
        .code(1);
    done.stderr_has("refused to connect to postiz.test:443 (502 Bad Gateway)");
    assert_eq!(proxy.asked().len(), 3);
}

#[test]
fn missing_proxy_is_named() {
    for url in ["http://postiz.test", "https://postiz.test"] {
        let cli = postiz("api POST /x")
            .var("POSTIZ_API_KEY", "k")
            .var("POSTIZ_API_URL", url);
        let done = cli
            .var("all_proxy", "http://me:word@127.0.0.1:1")
            .run()
            .code(1);
        done.hides("word")
            .stderr_has("the proxy http://127.0.0.1:1 failed: connection refused")
            .stderr_has("requests go through a proxy");
    }
    // A server that is no proxy.
    let proxy = Server::new(|_, _| Reply::Raw(b"SSH-2.0-x\r\n\r\n".to_vec()));
    let cli = postiz("api POST /x").var("POSTIZ_API_KEY", "k");
    let cli = cli
        .var("POSTIZ_API_URL", "https://postiz.test")
        .var("all_proxy", proxy.url());
    cli.run().code(1).stderr_has("its answer is not HTTP");
}

#[test]
fn variable_without_a_proxy_url_is_an_error() {
    let api = Server::always(200, "[]");
    for value in [
        "http://[bad:word",
        "ftp://me:word@127.0.0.1:1",
        "http://me:word@",
    ] {
        let cli = postiz("integrations:list")
            .key_for(&api)
            .var("ALL_PROXY", value);
        let done = cli.run().code(1).stdout("").hides("word");
        done.stderr_has("error: ALL_PROXY: the value ")
            .stderr_has("unset it");
    }
    let login = postiz("auth:login --no-browser --auth-server http://127.0.0.1:1");
    let done = login.var("http_proxy", "http://").run().code(1);
    done.stderr_has("error: http_proxy: the value ");
    assert!(api.asked().is_empty());
}
