//! The Content-Security-Policy of all pages: it allows their inline style and icon, and nothing else.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};

/// The style sheet, exactly as it is between `<style>` and `</style>`, since the policy has a hash of it.
pub(super) const STYLE: &str = include_str!("../../shared/style.css");

/// The policy. It has no `form-action`: Chromium applies that to every redirect after a form, and Postiz may redirect to a
/// single sign-on at an unknown host. It is not needed, since no text from outside can become markup (html.rs).
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = base64(digest(&SHA256, STYLE.as_bytes()).as_ref());
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    )
});

/// Standard base64 with padding (RFC 4648 §4).
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
    fn base64_encodes_the_vectors_of_the_rfc() {
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
