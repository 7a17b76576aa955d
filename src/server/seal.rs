//! Tokens at rest: encrypted, so that a stolen database or backup holds none that can be used.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;

use crate::server::codes::DeviceCodeHash;
use crate::shared::hash::hex;
use crate::shared::random;
use crate::shared::secret::Secret;

/// Encrypts with AES-256-GCM under a key that HKDF-SHA256 (RFC 5869) draws from the OAuth app's secret.
/// Rotating that secret costs only the logins in flight.
pub struct Seal {
    key: LessSafeKey,
}

/// An encrypted token as it is stored: `s1:`, then nonce, ciphertext and tag in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedToken(String);

impl SealedToken {
    const PREFIX: &str = "s1:";

    /// What the store gave back.
    pub fn from_store(text: String) -> SealedToken {
        SealedToken(text)
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does stored text look sealed? (The reference server stored tokens in clear.)
    pub fn is_sealed(text: &str) -> bool {
        text.starts_with(Self::PREFIX)
    }
}

impl Seal {
    /// The seal of a server that holds `client_secret`.
    pub fn new(client_secret: &Secret<String>) -> Seal {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"postiz-auth-server");
        let drawn = salt.extract(client_secret.expose().as_bytes());
        let okm = drawn
            .expand(&[b"access token at rest, 1"], &AES_256_GCM)
            .expect("32 bytes are within HKDF's limit");
        Seal {
            key: LessSafeKey::new(UnboundKey::from(okm)),
        }
    }

    /// Encrypts `token` for the row of `login`: it opens in no other row.
    pub fn seal(&self, login: &DeviceCodeHash, token: &Secret<String>) -> SealedToken {
        let nonce: [u8; NONCE_LEN] = random::bytes();
        let mut sealed = token.expose().as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(login.as_str()),
                &mut sealed,
            )
            .expect("a token is far shorter than AES-GCM's limit");
        SealedToken(format!(
            "{}{}{}",
            SealedToken::PREFIX,
            hex(&nonce),
            hex(&sealed)
        ))
    }

    /// The token, or `None` when it was sealed under another secret, for another row, or was tampered with.
    pub fn open(&self, login: &DeviceCodeHash, sealed: &SealedToken) -> Option<Secret<String>> {
        let bytes = unhex(sealed.0.strip_prefix(SealedToken::PREFIX)?)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let token = self
            .key
            .open_in_place(nonce, Aad::from(login.as_str()), &mut sealed)
            .ok()?;
        String::from_utf8(token.to_vec()).ok().map(Secret::new)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        .map(|pair| {
            let (high, low) = (
                char::from(pair[0]).to_digit(16)?,
                char::from(pair[1]).to_digit(16)?,
            );
            u8::try_from(high * 16 + low).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::codes::DeviceCode;

    fn seal(secret: &str) -> Seal {
        Seal::new(&Secret::new(secret.to_owned()))
    }

    #[test]
    fn opens_only_in_its_own_row_under_its_own_secret() {
        let (login, other) = (DeviceCode::generate().hash(), DeviceCode::generate().hash());
        let token = Secret::new("pos_secret".to_owned());
        let sealed = seal("a").seal(&login, &token);
        assert!(SealedToken::is_sealed(sealed.as_str()) && !sealed.as_str().contains("pos_secret"));
        assert_eq!(seal("a").open(&login, &sealed), Some(token));
        assert_eq!(seal("a").open(&other, &sealed), None);
        assert_eq!(seal("b").open(&login, &sealed), None);
    }

    #[test]
    fn damage_is_noticed() {
        let login = DeviceCode::generate().hash();
        let sealed = seal("a").seal(&login, &Secret::new("pos_secret".to_owned()));
        for damaged in [
            "",
            "s1:",
            "s1:00",
            "s1:zz",
            &sealed.0[..sealed.0.len() - 2],
            &format!("{}00", sealed.0),
        ] {
            assert_eq!(
                seal("a").open(&login, &SealedToken(damaged.to_owned())),
                None,
                "{damaged}"
            );
        }
    }
}
