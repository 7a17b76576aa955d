//! Assertions that hold for every answer of a kind: JSON, OAuth error, page, 503.

use super::http::Answer;

/// A JSON answer (the contract's preamble).
#[track_caller]
pub fn json(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.headers_named("content-type"), ["application/json"]);
    assert_eq!(answer.headers_named("cache-control"), ["no-store"]);
    assert_eq!(answer.headers_named("pragma"), ["no-cache"]);
    assert_eq!(answer.headers_named("referrer-policy"), ["no-referrer"]);
    every(answer);
    assert!(answer.json().is_object(), "{}", answer.text());
}

/// An OAuth error: the fields of RFC 6749 §5.2, and only characters that it allows.
#[track_caller]
pub fn error(answer: &Answer, status: u16, word: &str) {
    json(answer, status);
    let body = answer.json();
    assert_eq!(body["error"], word, "{body}");
    let description = body["error_description"].as_str();
    let description = description.unwrap_or_else(|| panic!("no description: {body}"));
    let allowed = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    assert!(
        !description.is_empty() && description.bytes().all(allowed),
        "{body}"
    );
    let names: Vec<&String> = body
        .as_object()
        .into_iter()
        .flatten()
        .map(|(n, _)| n)
        .collect();
    assert_eq!(names, ["error", "error_description"]);
}

/// The tag that makes a page reload itself after 2 s.
pub const RELOAD: &str = "<meta http-equiv=\"refresh\" content=\"2\">";

/// A page (the contract's preamble). Its `Referrer-Policy` has a test of its own in `contract/verify.rs`.
#[track_caller]
pub fn page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(
        answer.headers_named("content-type"),
        ["text/html; charset=utf-8"]
    );
    assert_eq!(answer.headers_named("cache-control"), ["no-store"]);
    let html = answer.text();
    every(answer);
    // One page reloads itself.
    let other = html.replace(RELOAD, "");
    assert!(
        !other.contains("http-equiv") && !html.contains("<script"),
        "{html}"
    );
}

/// 503 with Retry-After. The body is plain text, which the npm CLI treats as a temporary error.
#[track_caller]
pub fn unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let content_type = answer.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("text/plain"), "{content_type}");
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_err());
    retry_after(answer);
    every(answer);
}

/// `Retry-After`: whole seconds, at least one.
#[track_caller]
pub fn retry_after(answer: &Answer) {
    let value = answer.header("retry-after").unwrap_or_default();
    assert!(
        value.parse::<u32>().is_ok_and(|s| s >= 1),
        "Retry-After: {value:?}"
    );
}

#[track_caller]
fn every(answer: &Answer) {
    assert_eq!(answer.headers_named("x-content-type-options"), ["nosniff"]);
    let length = answer.body.len().to_string();
    assert_eq!(answer.headers_named("content-length"), [length.as_str()]);
}
