//! Encrypts tokens and PKCE verifiers at rest, so that a stolen database or backup does not reveal them. (The secret that an
//! embedded store keeps beside its file does not protect if both are stolen.)

use serde::{Deserialize, Serialize};

use ring::aead::{Aad, NONCE_LEN, Nonce};

use crate::server::codes::DeviceCodeHash;
use crate::server::keys::Keys;
use crate::shared::hash::{hex, unhex};
use crate::shared::random;
use crate::shared::secret::Secret;

/// An encrypted token as it is stored: `s1:`, then nonce, ciphertext and tag in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedToken(String);

impl SealedToken {
    const PREFIX: &str = "s1:";

    /// From the store.
    pub fn from_store(text: String) -> SealedToken {
        SealedToken(text)
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether stored text is sealed. (The original Node.js auth server stored tokens in clear.)
    pub fn is_sealed(text: &str) -> bool {
        text.starts_with(Self::PREFIX)
    }
}

impl Keys {
    /// Encrypts `token` for `login` with AES-256-GCM. It cannot be decrypted for another login.
    pub fn seal(&self, login: &DeviceCodeHash, token: &Secret<String>) -> SealedToken {
        let nonce: [u8; NONCE_LEN] = random::bytes();
        let mut sealed = token.expose().as_bytes().to_vec();
        self.at_rest
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

    /// Decrypts a token; `None` if it was sealed with another secret or for another login, or was changed.
    pub fn open(&self, login: &DeviceCodeHash, sealed: &SealedToken) -> Option<Secret<String>> {
        let bytes = unhex(sealed.0.strip_prefix(SealedToken::PREFIX)?)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let token = self
            .at_rest
            .open_in_place(nonce, Aad::from(login.as_str()), &mut sealed)
            .ok()?;
        String::from_utf8(token.to_vec()).ok().map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::codes::DeviceCode;

    fn seal(secret: &str) -> Keys {
        Keys::new(&Secret::new(secret.to_owned()))
    }

    #[test]
    fn seal_opens_only_with_its_login_and_secret() {
        let (login, other) = (DeviceCode::generate().hash(), DeviceCode::generate().hash());
        let token = Secret::new("pos_secret".to_owned());
        let sealed = seal("a").seal(&login, &token);
        assert!(SealedToken::is_sealed(sealed.as_str()) && !sealed.as_str().contains("pos_secret"));
        assert_eq!(seal("a").open(&login, &sealed), Some(token));
        assert_eq!(seal("a").open(&other, &sealed), None);
        assert_eq!(seal("b").open(&login, &sealed), None);
    }

    #[test]
    fn damaged_seal_does_not_open() {
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
