//! The server's keys, derived from one root secret by HKDF-SHA256 (RFC 5869) with a label for each use. Instances with the same
//! secret have the same keys. A new secret breaks only the logins in progress.

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::{hkdf, hmac};

use crate::server::codes::{BrowserKey, DeviceCodeHash, State, UserCode};
use crate::shared::hash::{hex, unhex};
use crate::shared::secret::Secret;

/// Minimum length of the root secret. With a copy of the store, a shorter one could be guessed.
pub(crate) const SECRET_BYTES_MIN: usize = 16;

/// All keys of a server.
pub struct Keys {
    /// Encrypts tokens and PKCE verifiers at rest.
    pub(crate) at_rest: LessSafeKey,
    state: hmac::Key,
    form: hmac::Key,
    link: hmac::Key,
}

impl Keys {
    /// The keys for this root secret: SERVER_SECRET, else the OAuth app's secret, else the one beside the embedded store.
    pub fn new(secret: &Secret<String>) -> Keys {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"postiz-auth-server");
        let root = salt.extract(secret.expose().as_bytes());
        let mac = |label: &str| {
            let label = [label.as_bytes()];
            let derived = root.expand(&label, hmac::HMAC_SHA256);
            hmac::Key::from(derived.expect("32 bytes are within HKDF's limit"))
        };
        let at_rest = root.expand(&[b"access token at rest, 1"], &AES_256_GCM);
        let at_rest = UnboundKey::from(at_rest.expect("32 bytes are within HKDF's limit"));
        Keys {
            at_rest: LessSafeKey::new(at_rest),
            state: mac("oauth state, 1"),
            form: mac("form token, 1"),
            link: mac("verification link, 1"),
        }
    }

    /// The OAuth `state` of a login in a browser (RFC 6749 §10.12): the same after a second click, a reload or in another tab,
    /// but different in another browser.
    pub fn state(&self, login: &DeviceCodeHash, browser: &BrowserKey) -> State {
        let parts = format!("{} {}", login.as_str(), browser.expose());
        State::from_mac(hex(hmac::sign(&self.state, parts.as_bytes()).as_ref()))
    }

    /// The token in this browser's forms, against cross-site request forgery (RFC 6749 §10.12).
    pub fn form_token(&self, browser: &BrowserKey) -> String {
        hex(hmac::sign(&self.form, browser.expose().as_bytes()).as_ref())
    }

    /// Whether `token` is this browser's form token.
    pub fn is_form_token(&self, browser: &BrowserKey, token: &str) -> bool {
        unhex(token)
            .is_some_and(|tag| hmac::verify(&self.form, browser.expose().as_bytes(), &tag).is_ok())
    }

    /// The MAC in the link to the verify page, of 64 bits. With it the code does not count as a guess.
    pub fn link_mac(&self, user_code: &UserCode) -> String {
        let mac = hmac::sign(&self.link, user_code.as_str().as_bytes());
        hex(&mac.as_ref()[..LINK_MAC_BYTES])
    }

    /// Whether `mac` is the one of this code. Both are hashed again, so that the time of the comparison reveals nothing.
    pub fn is_link_mac(&self, user_code: &UserCode, mac: &str) -> bool {
        let blind = |text: &str| hmac::sign(&self.form, text.as_bytes());
        blind(&self.link_mac(user_code)).as_ref() == blind(mac).as_ref()
    }
}

const LINK_MAC_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::codes::DeviceCode;

    fn keys(secret: &str) -> Keys {
        Keys::new(&Secret::new(secret.to_owned()))
    }

    #[test]
    fn state_depends_on_login_browser_and_secret() {
        let (login, other_login) = (DeviceCode::generate().hash(), DeviceCode::generate().hash());
        let (browser, other_browser) = (BrowserKey::generate(), BrowserKey::generate());
        let state = |secret, login, browser| keys(secret).state(login, browser).expose().to_owned();
        let first = state("a", &login, &browser);
        assert_eq!(first, state("a", &login, &browser));
        assert_ne!(first, state("b", &login, &browser));
        assert_ne!(first, state("a", &other_login, &browser));
        assert_ne!(first, state("a", &login, &other_browser));
        assert!(State::parse(&first).is_some());
    }

    #[test]
    fn form_token_depends_on_browser_and_secret() {
        let (browser, other) = (BrowserKey::generate(), BrowserKey::generate());
        let token = keys("a").form_token(&browser);
        assert!(keys("a").is_form_token(&browser, &token));
        assert!(!keys("a").is_form_token(&other, &token));
        assert!(!keys("b").is_form_token(&browser, &token));
        for bad in ["", "0", "zz", &token[2..], &format!("{token}00")] {
            assert!(!keys("a").is_form_token(&browser, bad), "{bad}");
        }
    }

    #[test]
    fn link_mac_depends_on_code_and_secret() {
        let (code, other) = (UserCode::generate(), UserCode::generate());
        let mac = keys("a").link_mac(&code);
        assert_eq!(mac.len(), 16);
        assert!(keys("a").is_link_mac(&code, &mac));
        assert!(!keys("a").is_link_mac(&other, &mac));
        assert!(!keys("b").is_link_mac(&code, &mac));
        assert!(!keys("a").is_link_mac(&code, "") && !keys("a").is_link_mac(&code, &mac[1..]));
    }
}
