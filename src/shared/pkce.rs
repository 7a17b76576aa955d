//! Proof Key for Code Exchange (RFC 7636): only the client that asked for an authorization code can use it.

use ring::digest;

use crate::shared::base64::base64url;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_is_that_of_the_rfc() {
        // RFC 7636, Appendix B.
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        let challenge = challenge(&verifier);
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn verifiers_differ_and_have_an_allowed_length() {
        let (one, other) = (verifier(), verifier());
        assert_ne!(one, other);
        assert!((43..=128).contains(&one.expose().len()));
    }
}
