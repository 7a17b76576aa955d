//! Proof Key for Code Exchange (RFC 7636): an authorization code is of use only to whoever asked for it.

use ring::digest;

use crate::shared::hash::hex;
use crate::shared::random;
use crate::shared::secret::Secret;

/// A fresh `code_verifier` (RFC 7636 §4.1): 256 random bits in hex.
pub fn verifier() -> Secret<String> {
    Secret::new(hex(&random::bytes::<32>()))
}

/// The `code_challenge` of a verifier by the method `S256` (RFC 7636 §4.2).
pub fn challenge(verifier: &Secret<String>) -> String {
    let digest = digest::digest(&digest::SHA256, verifier.expose().as_bytes());
    base64url(digest.as_ref())
}

/// Base64 for URLs, without padding (RFC 4648 §5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..=chunk.len() {
            let index = bits >> (18 - 6 * letter) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_is_the_one_of_the_rfc() {
        // RFC 7636, Appendix B.
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        let challenge = challenge(&verifier);
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn base64url_needs_no_padding() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("\u{ff}?", "w78_"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn verifiers_differ_and_are_of_the_length_that_the_rfc_allows() {
        let (one, other) = (verifier(), verifier());
        assert_ne!(one, other);
        assert!((43..=128).contains(&one.expose().len()));
    }
}
