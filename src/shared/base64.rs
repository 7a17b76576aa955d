//! Base64 (RFC 4648). A crate for it would be one more to update.

/// `bytes` in the standard alphabet, with padding (RFC 4648 §4).
pub fn base64(bytes: &[u8]) -> String {
    let mut text = encode(bytes, b"+/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// `bytes` in the alphabet for URLs, without padding (RFC 4648 §5).
pub fn base64url(bytes: &[u8]) -> String {
    encode(bytes, b"-_")
}

fn encode(bytes: &[u8], last_two: &[u8; 2]) -> String {
    const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| usize::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..=chunk.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            let digit = DIGITS.get(index).unwrap_or_else(|| &last_two[index - 62]);
            text.push(char::from(*digit));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 §10, and bytes that need the last two digits.
    #[test]
    fn base64_has_padding_and_base64url_has_none() {
        for (bytes, standard, url) in [
            ("", "", ""),
            ("f", "Zg==", "Zg"),
            ("fo", "Zm8=", "Zm8"),
            ("foo", "Zm9v", "Zm9v"),
            ("foob", "Zm9vYg==", "Zm9vYg"),
            ("foobar", "Zm9vYmFy", "Zm9vYmFy"),
            ("\u{ff}?", "w78/", "w78_"),
            ("\u{3e0}>", "z6A+", "z6A-"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), standard);
            assert_eq!(base64url(bytes.as_bytes()), url);
        }
    }
}
