//! What a browser's headers say: the cookie that binds it to a login, and which site's page sent the request.

use crate::server::codes::BrowserKey;
use crate::server::http::request::Request;
use crate::server::login::LIFETIME;
use crate::shared::base_url::BaseUrl;
use crate::shared::hash::sha256_hex;

/// The cookie that binds a browser.
pub(super) struct CookieNames {
    name: String,
    /// What it was called before.
    old_name: &'static str,
    secure: &'static str,
}

impl CookieNames {
    /// With https, a prefix that keeps plain-http pages and sibling domains from setting it (RFC 6265bis §4.1.3). The path is
    /// in the name, so that two servers on a host do not meet; it cannot be the cookie's, by that prefix' rules.
    pub(super) fn of(server_url: &BaseUrl) -> CookieNames {
        let path = &sha256_hex(server_url.path().as_bytes())[..8];
        let (prefix, old_name, secure) = match server_url.is_https() {
            true => ("__Host-", "__Secure-postiz_login", "; Secure"),
            false => ("", "postiz_login", ""),
        };
        CookieNames {
            name: format!("{prefix}postiz_login_{path}"),
            old_name,
            secure,
        }
    }

    /// The key in the browser's cookie. Two cookies of the name count as none: a sibling domain has set one of them.
    pub(super) fn browser_key(&self, request: &Request) -> Option<BrowserKey> {
        single_cookie(request, &self.name)
    }

    /// The key in the cookie of the version before `__Host-` cookies.
    pub(super) fn old_browser_key(&self, request: &Request) -> Option<BrowserKey> {
        single_cookie(request, self.old_name)
    }

    /// The `Set-Cookie` that gives a browser its key.
    pub(super) fn set(&self, browser: &BrowserKey) -> String {
        let (name, key, secure) = (&self.name, browser.expose(), self.secure);
        let seconds = LIFETIME.as_secs();
        format!("{name}={key}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}{secure}")
    }
}

fn single_cookie(request: &Request, name: &str) -> Option<BrowserKey> {
    let mut cookies = request.cookies(name);
    let first = cookies.next().filter(|_| cookies.next().is_none());
    first.and_then(BrowserKey::parse)
}

/// Whose page sent a form.
pub(super) enum PageOf {
    ThisServer,
    /// This server's, which the browser knows by another name (an IP address, an alias).
    OtherName,
    OtherSite,
}

/// Whose page sent this form?
pub(super) fn page_of(server_url: &BaseUrl, request: &Request) -> PageOf {
    if !is_cross_site(server_url, request) {
        return PageOf::ThisServer;
    }
    let origin = request.header("origin").unwrap_or_default();
    let host = origin.split_once("://").map(|(_, host)| host);
    let same_origin = match request.header("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => host.is_some() && host == request.header("host"),
    };
    match same_origin && origin != "null" {
        true => PageOf::OtherName,
        false => PageOf::OtherSite,
    }
}

/// Did a page of another site send this? An `Origin` that is there must be SERVER_URL's (`null` is not), and `Sec-Fetch-Site`
/// must say that nobody or this very site sent it (Fetch Metadata §2.4). Programs send neither.
pub(super) fn is_cross_site(server_url: &BaseUrl, request: &Request) -> bool {
    let own_origin = |origin: &str| origin.eq_ignore_ascii_case(&server_url.origin());
    let own_site = |site| matches!(site, "same-origin" | "none");
    !request.header("origin").is_none_or(own_origin)
        || !request.header("sec-fetch-site").is_none_or(own_site)
}
