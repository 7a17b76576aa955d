//! The Content-Security-Policy of all pages: they may use their own style and icon, and nothing else from anywhere.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};

/// The style sheet, as it stands between `<style>` and `</style>`: the hash below is over these very bytes.
pub(super) const STYLE: &str = include_str!("../../shared/style.css");

/// No `form-action`: Chromium applies it to every redirect that follows a form, and Postiz may well stand behind a
/// sign-on at a third host that we cannot name. Nothing needs it while no foreign text can become markup (html.rs).
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = base64(digest(&SHA256, STYLE.as_bytes()).as_ref());
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    )
});

/// Standard base64 with padding (RFC 4648 §4), in which the policy wants its hash.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| {
            bits << 8 | u32::from(*group.get(i).unwrap_or(&0))
        });
        for i in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]);
            text.push(if i > group.len() { '=' } else { digit });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        let known = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (bytes, text) in known {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
