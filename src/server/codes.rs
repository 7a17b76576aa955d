//! The codes of one login, each a type of its own: what the client holds, and the hash of it that is stored.
//!
//! A raw code never reaches the store and a hash never reaches a client; the compiler sees to it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::shared::hash::{hex, sha256_hex};
use crate::shared::random;
use crate::shared::secret::Secret;

/// The CLI's own secret of one login (RFC 8628 §3.2): 256 random bits in hex. Only its hash is stored.
#[derive(Clone, Debug)]
pub struct DeviceCode(Secret<String>);

impl DeviceCode {
    /// A fresh one.
    pub fn generate() -> DeviceCode {
        DeviceCode(Secret::new(hex(&random::bytes::<32>())))
    }

    /// What a client sent. Any text will do: the hash of what we never gave out names no request.
    pub fn from_client(text: &str) -> DeviceCode {
        DeviceCode(Secret::new(text.to_owned()))
    }

    /// The code itself, for the one answer that hands it out.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What the store knows the login by.
    pub fn hash(&self) -> DeviceCodeHash {
        DeviceCodeHash(sha256_hex(self.expose().as_bytes()))
    }
}

/// SHA-256 of a [`DeviceCode`], in hex: the key of a login in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceCodeHash(String);

impl DeviceCodeHash {
    /// A hash that the store gave back.
    pub fn from_store(text: String) -> DeviceCodeHash {
        DeviceCodeHash(text)
    }

    /// 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What logs call this login: too short to be found again by, too random to be confused.
    pub fn login_id(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

/// The code that a person types or compares (RFC 8628 §6.1), as it is shown: `WDJB-MJHT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserCode(String);

impl UserCode {
    /// A code that the store gave back.
    pub fn from_store(text: String) -> UserCode {
        UserCode(text)
    }

    /// No vowels, so no words, and no look-alikes (2/Z, 5/S, 8/B, 6/G, 0/O, 1/I): 25^8 is 37 bits.
    const ALPHABET: &[u8] = b"BCDFGHJKLMNPQRSTVWXYZ3479";
    const LENGTH: usize = 8;

    /// A fresh one; whether it is taken is the store's to say.
    pub fn generate() -> UserCode {
        let letters =
            std::array::from_fn::<u8, { Self::LENGTH }, _>(|_| random::letter(Self::ALPHABET));
        UserCode::dashed(&letters.map(char::from).iter().collect::<String>())
    }

    /// What a person typed or pasted, forgiving case, blanks, dashes of any kind, full-width letters, a leading
    /// `code:` and a final dot (RFC 8628 §6.1). `None` when no code can be meant.
    pub fn parse(typed: &str) -> Option<UserCode> {
        // Longer than any honest paste: not worth looking at.
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
        // Any letters and digits: codes that the reference server gave out before an upgrade use a wider alphabet.
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

/// The code in a link to the verify page, where somebody pasted the whole of it. (`code` is what the npm CLI's link says.)
fn code_in_link(typed: &str) -> Option<&str> {
    let (_, query) = typed.split_once("/device/verify?")?;
    let query = query.split('#').next()?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(name, value)| matches!(name, "user_code" | "code").then_some(value))
}

/// Japanese and Chinese keyboards type `ＷＤＪＢ`.
fn half_width(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        c => c,
    }
}

/// A 256-bit secret in hex that a browser brings back, and the hash of it that is stored: the `state` of the OAuth
/// redirect and the key in the browser's cookie. `Kind` keeps the two apart.
#[derive(Clone, Debug)]
pub struct BrowserSecret<Kind>(Secret<String>, Kind);

/// SHA-256 of a [`BrowserSecret`], in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BrowserSecretHash<Kind: Default>(String, #[serde(skip)] Kind);

/// Marks the OAuth `state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateKind;

/// Marks the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BrowserKind;

/// The `state` of one trip to Postiz (RFC 6749 §10.12). It is never the device code.
pub type State = BrowserSecret<StateKind>;
impl State {
    /// The state that `mac`, 32 bytes in hex, stands for; `Keys` derives it.
    pub(crate) fn from_mac(mac: String) -> State {
        BrowserSecret(Secret::new(mac), StateKind)
    }
}

/// What is stored of a [`State`].
pub type StateHash = BrowserSecretHash<StateKind>;
/// The value of the cookie that ties the callback to the browser that entered the code.
pub type BrowserKey = BrowserSecret<BrowserKind>;
/// What is stored of a [`BrowserKey`].
pub type BrowserKeyHash = BrowserSecretHash<BrowserKind>;

impl BrowserKey {
    /// A fresh one.
    pub fn generate() -> BrowserKey {
        BrowserSecret(Secret::new(hex(&random::bytes::<32>())), BrowserKind)
    }
}

impl<Kind: Copy + Default> BrowserSecret<Kind> {
    /// What a browser sent, if it looks like one of ours. An empty state must not equal a missing cookie, so neither exists.
    pub fn parse(text: &str) -> Option<Self> {
        let ours = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        ours.then(|| BrowserSecret(Secret::new(text.to_owned()), Kind::default()))
    }

    /// The value itself, for the URL or the cookie.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What is stored of it.
    pub fn hash(&self) -> BrowserSecretHash<Kind> {
        BrowserSecretHash(sha256_hex(self.expose().as_bytes()), self.1)
    }
}

impl<Kind: Default> BrowserSecretHash<Kind> {
    /// A hash that the store gave back.
    pub fn from_store(text: String) -> Self {
        BrowserSecretHash(text, Kind::default())
    }

    /// 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_codes_forgive_how_they_are_typed() {
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
    fn what_is_no_code_is_none() {
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
    fn generated_codes_are_of_the_alphabet_and_parse_back() {
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
    fn an_empty_state_is_no_state() {
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
