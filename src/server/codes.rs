//! The codes of a login. A code and its hash are different types, so that the compiler keeps codes out of the store, and hashes
//! from clients.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::shared::hash::{hex, sha256_hex};
use crate::shared::random;
use crate::shared::secret::Secret;

/// The code that the user types or compares (RFC 8628 §6.1), as it is shown: `WDJB-MJHT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserCode(String);

impl UserCode {
    /// From the store.
    pub fn from_store(text: String) -> UserCode {
        UserCode(text)
    }

    /// No vowels, so that no words appear, and only one of each look-alike pair (2/Z, 5/S, 8/B, 6/G, 0/O, 1/I).
    const ALPHABET: &[u8] = b"BCDFGHJKLMNPQRSTVWXYZ3479";
    const LENGTH: usize = 8;

    /// A new code. The store finds out whether it is taken.
    pub fn generate() -> UserCode {
        let letters =
            std::array::from_fn::<u8, { Self::LENGTH }, _>(|_| random::letter(Self::ALPHABET));
        UserCode::dashed(&letters.map(char::from).iter().collect::<String>())
    }

    /// Parses what a person typed or pasted: in any case, with spaces, any dashes, full-width letters, `code:` before it or a
    /// dot after it, or as a link (RFC 8628 §6.1). `None`: not a code.
    pub fn parse(typed: &str) -> Option<UserCode> {
        // Longer than any link.
        if typed.len() > 300 {
            return None;
        }
        let after_label = match code_in_link(typed) {
            Some(code) => code,
            None => typed.rsplit(':').next().unwrap_or(typed),
        };
        let letters: String = after_label
            .chars()
            .map(half_width)
            .filter(|c| c.is_alphanumeric())
            .collect();
        // Any letters and digits, since codes of the original Node.js auth server use a wider alphabet.
        let looks_right =
            letters.len() == Self::LENGTH && letters.bytes().all(|b| b.is_ascii_alphanumeric());
        looks_right.then(|| UserCode::dashed(&letters.to_ascii_uppercase()))
    }

    /// `WDJB-MJHT`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn dashed(letters: &str) -> UserCode {
        let (left, right) = letters.split_at(Self::LENGTH / 2);
        UserCode(format!("{left}-{right}"))
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The code in a link to the verify page. (The npm CLI's link has `code`.)
fn code_in_link(typed: &str) -> Option<&str> {
    let (_, query) = typed.split_once("/device/verify?")?;
    let query = query.split('#').next()?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(name, value)| matches!(name, "user_code" | "code").then_some(value))
}

/// The ASCII character for a full-width one, as Japanese and Chinese keyboards type it (`ＷＤＪＢ`).
fn half_width(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        c => c,
    }
}

/// A secret of 256 bits in hex for one login, of which only the hash is stored. `Kind` tells apart the device code, the `state` of
/// the OAuth redirect, and the key in the cookie.
#[derive(Clone, Debug)]
pub struct LoginSecret<Kind>(Secret<String>, Kind);

/// SHA-256 of a [`LoginSecret`], in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoginSecretHash<Kind: Default>(String, #[serde(skip)] Kind);

/// Marks the device code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceKind;

/// Marks the OAuth `state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateKind;

/// Marks the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BrowserKind;

/// The client's secret for one login (RFC 8628 §3.2).
pub type DeviceCode = LoginSecret<DeviceKind>;
/// The key of a login in the store.
pub type DeviceCodeHash = LoginSecretHash<DeviceKind>;
/// The `state` of the OAuth redirect (RFC 6749 §10.12).
pub type State = LoginSecret<StateKind>;
/// The hash of a [`State`], which is stored.
pub type StateHash = LoginSecretHash<StateKind>;
/// The value of the cookie, which binds a login to the browser that confirmed it.
pub type BrowserKey = LoginSecret<BrowserKind>;
/// The hash of a [`BrowserKey`], which is stored.
pub type BrowserKeyHash = LoginSecretHash<BrowserKind>;

impl<Kind: Copy + Default> LoginSecret<Kind> {
    /// A new one.
    pub fn generate() -> Self {
        Self::new(hex(&random::bytes::<32>()))
    }

    fn new(text: String) -> Self {
        LoginSecret(Secret::new(text), Kind::default())
    }

    /// Parses what a browser sent. An empty one is `None`, so that an empty state cannot match an empty cookie.
    pub fn parse(text: &str) -> Option<Self> {
        let ours = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        ours.then(|| Self::new(text.to_owned()))
    }

    /// The value itself, for the answer, the URL or the cookie.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Its hash, which is stored.
    pub fn hash(&self) -> LoginSecretHash<Kind> {
        LoginSecretHash(sha256_hex(self.expose().as_bytes()), self.1)
    }
}

impl DeviceCode {
    /// A code that a client sent. It may be any text: the hash of a code that was not issued is in no store.
    pub fn from_client(text: &str) -> DeviceCode {
        DeviceCode::new(text.to_owned())
    }
}

impl State {
    /// From a MAC of 32 bytes in hex, which `Keys` computes.
    pub(crate) fn from_mac(mac: String) -> State {
        State::new(mac)
    }
}

impl<Kind: Default> LoginSecretHash<Kind> {
    /// From the store.
    pub fn from_store(text: String) -> Self {
        LoginSecretHash(text, Kind::default())
    }

    /// 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeviceCodeHash {
    /// The login's id in the log: long enough to tell logins apart, too short to find the hash.
    pub fn login_id(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_code_parses_in_many_spellings() {
        for typed in [
            "WDJB-MJHT",
            "wdjbmjht",
            "WDJB MJHT",
            "WDJB–MJHT",
            " wdjb\u{a0}mjht ",
            "WDJB—MJHT",
            "WDJB\u{2011}MJHT",
            "ＷＤＪＢ－ＭＪＨＴ",
            "code: WDJB-MJHT.",
            "W D J B M J H T",
            "WDJB\tMJHT\r\n",
            "WDJB\u{2212}MJHT",
            "https://auth.example/cli/device/verify?user_code=WDJB-MJHT",
            "https://auth.example/device/verify?user_code=wdjb-mjht&mac=0123456789abcdef#x",
            " http://localhost:3111/device/verify?code=WDJBMJHT ",
        ] {
            assert_eq!(
                UserCode::parse(typed).map(|c| c.0).as_deref(),
                Some("WDJB-MJHT"),
                "{typed:?}"
            );
        }
    }

    #[test]
    fn user_code_rejects_other_texts() {
        for typed in [
            "",
            "-",
            "WDJB",
            "WDJB-MJHTX",
            "WDJB-MJHÜ",
            "<script>",
            &"W".repeat(7000),
            "WDJB\0MJH",
        ] {
            assert_eq!(UserCode::parse(typed), None, "{typed:?}");
        }
    }

    #[test]
    fn generated_user_codes_parse() {
        for _ in 0..1_000 {
            let code = UserCode::generate();
            assert_eq!(UserCode::parse(code.as_str()), Some(code.clone()));
            assert!(
                code.as_str()
                    .bytes()
                    .all(|b| b == b'-' || UserCode::ALPHABET.contains(&b)),
                "{code}"
            );
        }
    }

    #[test]
    fn malformed_state_is_rejected() {
        for text in ["", "0", &"g".repeat(64), &"A".repeat(64), &"a".repeat(63)] {
            assert!(State::parse(text).is_none(), "{text:?}");
        }
        assert!(State::parse(BrowserKey::generate().expose()).is_some());
    }

    #[test]
    fn secrets_do_not_print() {
        let code = DeviceCode::generate();
        assert!(!format!("{code:?}{:?}", BrowserKey::generate()).contains(code.expose()));
        assert_eq!(code.expose().len(), 64);
        assert_ne!(code.hash().as_str(), code.expose());
    }
}
