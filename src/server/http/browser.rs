//! A browser's headers: the cookie that binds a login to the browser, and the site that sent the request.

use crate::server::codes::BrowserKey;
use crate::server::http::request::Request;
use crate::server::login::LIFETIME;
use crate::shared::base_url::BaseUrl;
use crate::shared::hash::sha256_hex;

/// The cookie that binds a login to a browser.
pub(super) struct CookieNames {
    name: String,
    /// Its name in version 0.1.
    old_name: &'static str,
    secure: &'static str,
}

impl CookieNames {
    /// With https, the prefix `__Host-` keeps plain-http pages and sibling domains from setting the cookie (RFC 6265bis
    /// §4.1.3). It requires `Path=/`, so a hash of SERVER_URL's path in the name keeps two servers on one host apart.
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

    /// The key in the browser's cookie. Two cookies of the name count as none, since one may be a sibling domain's.
    pub(super) fn browser_key(&self, request: &Request) -> Option<BrowserKey> {
        single_cookie(request, &self.name)
    }

    pub(super) fn old_browser_key(&self, request: &Request) -> Option<BrowserKey> {
        single_cookie(request, self.old_name)
    }

    /// The value of `Set-Cookie` for this key.
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

/// Which page a form was sent from.
pub(super) enum FormOrigin {
    ThisServer,
    /// This server's, opened under another name than SERVER_URL's (an IP address, an alias).
    OtherName,
    OtherSite,
}

/// Which page this form was sent from.
pub(super) fn form_origin(server_url: &BaseUrl, request: &Request) -> FormOrigin {
    if !is_cross_site(server_url, request) {
        return FormOrigin::ThisServer;
    }
    let origin = request.header("origin").unwrap_or_default();
    let host = origin.split_once("://").map(|(_, host)| host);
    let same_origin = match request.header("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => host.is_some() && host == request.header("host"),
    };
    match same_origin && origin != "null" {
        true => FormOrigin::OtherName,
        false => FormOrigin::OtherSite,
    }
}

/// Whether another site's page sent the request: an `Origin` other than SERVER_URL's (`null` too), or a `Sec-Fetch-Site` other
/// than `same-origin` and `none` (Fetch Metadata §2.4). Programs send neither header.
pub(super) fn is_cross_site(server_url: &BaseUrl, request: &Request) -> bool {
    let own_origin = |origin: &str| origin.eq_ignore_ascii_case(&server_url.origin());
    let own_site = |site| matches!(site, "same-origin" | "none");
    !request.header("origin").is_none_or(own_origin)
        || !request.header("sec-fetch-site").is_none_or(own_site)
}
