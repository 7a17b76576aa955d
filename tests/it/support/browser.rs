//! A simple browser over HTTP: it keeps cookies, follows redirects one at a time, submits forms, and sends `Origin` and the
//! `Sec-Fetch-*` headers as browsers do.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::http::{self, Answer};
use crate::fake_postiz::http::form_field;

/// One person's browser.
#[derive(Clone, Default)]
pub struct Browser {
    cookies: Vec<Cookie>,
    routes: HashMap<String, SocketAddr>,
    stripped: String,
}

#[derive(Clone, Debug)]
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// The page that the browser shows.
#[derive(Clone, Debug)]
pub struct Page {
    /// The address bar.
    pub url: String,
    /// The server's answer.
    pub answer: Answer,
    /// Did the redirects that led here pass another origin? Then `Sec-Fetch-Site` is `cross-site`.
    crossed: bool,
}

/// A form of a page.
#[derive(Clone, Debug, Default)]
pub struct Form {
    method: String,
    action: String,
    /// Names and values of its inputs.
    pub fields: Vec<(String, String)>,
    /// Names and values of its buttons; an empty name for a button without one.
    pub buttons: Vec<(String, String)>,
}

impl Browser {
    /// A new browser, without cookies.
    pub fn new() -> Browser {
        Browser::default()
    }

    /// Sends requests for `authority` (`auth.example`) to `address`, as a proxy in front of several servers does.
    pub fn route(&mut self, authority: &str, address: SocketAddr) {
        self.routes.insert(authority.to_owned(), address);
    }

    /// Removes this prefix from the paths of routed requests, as some proxies do.
    pub fn strip(&mut self, prefix: &str) {
        prefix.clone_into(&mut self.stripped);
    }

    /// Opens a URL that the person typed, or clicked in a terminal. Redirects are not followed.
    pub fn open(&mut self, url: &str) -> Page {
        self.fetch("GET", url, &[("Sec-Fetch-Site", "none")], "", false)
    }

    /// Follows one redirect.
    pub fn follow(&mut self, page: &Page) -> Page {
        let next = page.location();
        let crossed = page.crossed || origin(&next) != origin(&page.url);
        let site = if crossed { "cross-site" } else { "same-origin" };
        self.fetch("GET", &next, &[("Sec-Fetch-Site", site)], "", crossed)
    }

    /// Follows all redirects.
    pub fn settle(&mut self, mut page: Page) -> Page {
        for _ in 0..10 {
            if page.answer.header("location").is_none() {
                return page;
            }
            page = self.follow(&page);
        }
        panic!("too many redirects, now at {}", page.url);
    }

    /// Fills `fields` into the page's form and presses its first button. Redirects are not followed.
    pub fn submit(&mut self, page: &Page, fields: &[(&str, &str)]) -> Page {
        let form = page.form();
        let first = form.buttons.first().cloned().unwrap_or_default();
        self.send_form(page, &form, fields, &first)
    }

    /// Presses the button of this name and value. Redirects are not followed.
    pub fn press(&mut self, page: &Page, name: &str, value: &str) -> Page {
        let form = page.form();
        let button = (name.to_owned(), value.to_owned());
        assert!(
            form.buttons.contains(&button),
            "no button {name}={value}: {form:?}"
        );
        self.send_form(page, &form, &[], &button)
    }

    /// The value of the `Cookie` header for `url`.
    pub fn cookies_for(&self, url: &str) -> String {
        let (host, path) = (host_of(url), target_of(url));
        let fits = |c: &&Cookie| c.host == host && path.starts_with(&c.path);
        let pairs = self.cookies.iter().filter(fits);
        let pairs: Vec<String> = pairs.map(|c| format!("{}={}", c.name, c.value)).collect();
        pairs.join("; ")
    }

    /// The bytes of a request for `url`, for tests that send it themselves.
    pub fn get_bytes(&self, url: &str) -> Vec<u8> {
        let cookies = self.cookies_for(url);
        let headers = [("Host", authority_of(url)), ("Cookie", cookies.as_str())];
        http::request("GET", target_of(url), &headers, b"")
    }

    /// The values of all cookies, for the search in logs.
    pub fn cookie_values(&self) -> Vec<String> {
        self.cookies.iter().map(|c| c.value.clone()).collect()
    }

    fn send_form(
        &mut self,
        page: &Page,
        form: &Form,
        fields: &[(&str, &str)],
        button: &(String, String),
    ) -> Page {
        let mut values = form.fields.clone();
        for (name, value) in fields {
            values.retain(|(n, _)| n != name);
            values.push(((*name).to_owned(), (*value).to_owned()));
        }
        if !button.0.is_empty() {
            values.push(button.clone());
        }
        let body = encode_form(&values);
        let url = absolute(&page.url, &form.action);
        assert_eq!(form.method, "post", "all forms here change something");
        let page_origin = origin(&page.url);
        let same = page_origin == origin(&url);
        let site = if same { "same-origin" } else { "cross-site" };
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Origin", page_origin.as_str()),
            ("Sec-Fetch-Site", site),
        ];
        self.fetch("POST", &url, &headers, &body, !same)
    }

    fn fetch(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
        crossed: bool,
    ) -> Page {
        let authority = authority_of(url).to_owned();
        let cookies = self.cookies_for(url);
        let mut headers = headers.to_vec();
        headers.push(("Host", &authority));
        headers.push(("User-Agent", "Mozilla/5.0 (a person)"));
        headers.push(("Accept", "text/html"));
        headers.push(("Sec-Fetch-Dest", "document"));
        if !cookies.is_empty() {
            headers.push(("Cookie", &cookies));
        }
        let mut target = target_of(url);
        if self.routes.contains_key(&authority) {
            target = target.strip_prefix(&self.stripped).unwrap_or(target);
        }
        let bytes = http::request(method, target, &headers, body.as_bytes());
        let answer = http::exchange(self.resolve(&authority), bytes);
        for cookie in answer.headers_named("set-cookie") {
            self.keep(url, cookie);
        }
        Page {
            url: url.to_owned(),
            answer,
            crossed,
        }
    }

    /// Resolves by `routes`, else by the system, IPv4 first: the tests' servers listen there.
    fn resolve(&self, authority: &str) -> SocketAddr {
        if let Some(address) = self.routes.get(authority) {
            return *address;
        }
        let addresses = authority.to_socket_addrs();
        let addresses: Vec<SocketAddr> = addresses
            .unwrap_or_else(|e| panic!("no address for {authority}: {e}"))
            .collect();
        let v4 = addresses.iter().find(|a| a.is_ipv4());
        *v4.unwrap_or(&addresses[0])
    }

    fn keep(&mut self, url: &str, set_cookie: &str) {
        let mut parts = set_cookie.split(';').map(str::trim);
        let (name, value) = parts
            .next()
            .and_then(|p| p.split_once('='))
            .unwrap_or_else(|| panic!("no cookie: {set_cookie}"));
        let attributes: Vec<&str> = parts.collect();
        let path = attributes.iter().find_map(|a| a.strip_prefix("Path="));
        let host = host_of(url).to_owned();
        self.cookies.retain(|c| c.host != host || c.name != name);
        if attributes.contains(&"Max-Age=0") {
            return;
        }
        self.cookies.push(Cookie {
            host,
            path: path.unwrap_or("/").to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
}

impl Page {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.answer.status
    }

    /// Where the answer sends the browser, absolute.
    #[track_caller]
    pub fn location(&self) -> String {
        let location = self.answer.header("location");
        let location = location.unwrap_or_else(|| panic!("no redirect: {self:?}"));
        absolute(&self.url, location)
    }

    /// The markup.
    pub fn html(&self) -> String {
        self.answer.text()
    }

    /// The page's one form.
    #[track_caller]
    pub fn form(&self) -> Form {
        let html = self.html();
        let mut forms: Vec<Form> = Vec::new();
        for tag in html.split('<').skip(1) {
            let (name, attributes) = attributes_of(tag);
            let value = |n: &str| attributes.get(n).cloned().unwrap_or_default();
            match (name.as_str(), forms.last_mut()) {
                ("form", _) => forms.push(Form {
                    method: value("method").to_ascii_lowercase(),
                    action: value("action"),
                    ..Form::default()
                }),
                ("input", Some(form)) => form.fields.push((value("name"), value("value"))),
                ("button", Some(form)) => form.buttons.push((value("name"), value("value"))),
                _ => {}
            }
        }
        assert_eq!(forms.len(), 1, "forms on {}: {html}", self.url);
        forms.remove(0)
    }
}

/// `a=1&b=2`, encoded.
pub fn encode_form(values: &[(String, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = values
        .iter()
        .map(|(n, v)| format!("{}={}", encode(n), encode(v)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Name and attributes of a tag, given what follows its `<`.
fn attributes_of(tag: &str) -> (String, HashMap<String, String>) {
    let end = tag.find([' ', '\n', '>', '/']).unwrap_or(tag.len());
    let (name, mut rest) = tag.split_at(end);
    let mut attributes = HashMap::new();
    loop {
        rest = rest.trim_start();
        let end = rest.find(['=', ' ', '\n', '>']).unwrap_or(rest.len());
        let (attribute, after) = rest.split_at(end);
        if attribute.is_empty() {
            return (name.to_ascii_lowercase(), attributes);
        }
        let value = match after.strip_prefix('=') {
            None => {
                rest = after;
                ""
            }
            Some(quoted) if quoted.starts_with('"') => {
                let (value, after) = quoted[1..].split_once('"').unwrap_or((quoted, ""));
                rest = after;
                value
            }
            Some(bare) => {
                let (value, after) =
                    bare.split_at(bare.find([' ', '\n', '>']).unwrap_or(bare.len()));
                rest = after;
                value
            }
        };
        attributes.insert(attribute.to_ascii_lowercase(), unescape(value));
    }
}

fn unescape(text: &str) -> String {
    let known = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ];
    known
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// `http://host:port` of a URL.
pub fn origin(url: &str) -> String {
    let scheme = url.split("://").next().unwrap_or_default();
    format!("{scheme}://{}", authority_of(url))
}

/// Path and query of a URL.
pub fn target_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |start| &rest[start..])
}

/// A field of a URL's query, decoded.
#[track_caller]
pub fn field_of(url: &str, name: &str) -> String {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    form_field(query, name).unwrap_or_else(|| panic!("no {name} in {url}"))
}

fn authority_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn host_of(url: &str) -> &str {
    let authority = authority_of(url);
    authority.split(':').next().unwrap_or_default()
}

fn absolute(base: &str, url: &str) -> String {
    match url {
        "" => base.to_owned(),
        _ if url.starts_with('/') => format!("{}{url}", origin(base)),
        _ if url.starts_with("http://") || url.starts_with("https://") => url.to_owned(),
        _ => panic!("a relative address, {url}, on {base}"),
    }
}
