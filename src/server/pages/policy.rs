//! The Content-Security-Policy of all pages: it allows their inline style and icon, and nothing else.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};

use crate::shared::base64::base64;

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
