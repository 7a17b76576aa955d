//! Reads PEM files, with what editors add to them.

use std::path::Path;

use rustls::pki_types::pem::Error;

use crate::shared::small_file;

/// The text of the file at `path`, without what [`bare`] drops.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let text = small_file::read(path).map_err(Error::Io)?;
    Ok(bare(&text).to_vec())
}

/// The error's text. It shows no line of the file: where line ends are lost, the first line holds the key.
pub fn explain(error: &Error) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::MissingSectionEnd { end_marker } if is_label(end_marker) => {
            let label = String::from_utf8_lossy(end_marker);
            format!("is cut off: \"-----END {label}-----\" is missing")
        }
        Error::MissingSectionEnd { .. } | Error::IllegalSectionStart { .. } => {
            "has more than the BEGIN mark on its first line: were its line ends lost?".to_owned()
        }
        Error::Base64Decode(_) => "is damaged: between BEGIN and END is no base64".to_owned(),
        Error::SectionTooLarge => "is too large".to_owned(),
        Error::NoItemsFound => "holds nothing in PEM form that can be used".to_owned(),
        other => other.to_string(),
    }
}

/// Whether this can be the name of a section (`RSA PRIVATE KEY`).
fn is_label(text: &[u8]) -> bool {
    let is_of_a_name = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b' ' | b'0'..=b'9');
    text.len() <= LABEL_BYTES_MAX && text.iter().all(is_of_a_name)
}

/// Longest name of a section that a message shows.
const LABEL_BYTES_MAX: usize = 40;

/// `text` without a byte order mark and blanks at its ends. With these, rustls would skip the first item, and take the second
/// certificate of a chain for the first.
pub fn bare(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(text)
        .trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    /// Nothing of a key is in the message, neither as text nor as numbers.
    #[test]
    fn broken_files_are_explained_without_their_contents() {
        let key = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
        let [begin, end] = ["BEGIN", "END"].map(|mark| format!("-----{mark} PRIVATE KEY-----"));
        for (text, expected) in [
            (
                format!("{begin}\n{key}\n"),
                "is cut off: \"-----END PRIVATE KEY-----\" is missing",
            ),
            (format!("{begin} {key} {end}"), "were its line ends lost?"),
            (format!("{begin} {key}"), "were its line ends lost?"),
            (format!("{begin}\n{key}!\n{end}"), "is damaged"),
        ] {
            let error = PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap_err();
            let told = explain(&error);
            assert!(told.contains(expected), "{told}");
            assert!(!told.contains("MIGH") && !told.contains("77"), "{told}");
        }
    }

    #[test]
    fn mark_and_blanks_before_the_first_line_are_dropped() {
        let pem = b"-----BEGIN CERTIFICATE-----\r\n";
        for before in ["", "\u{feff}", "\u{feff}\r\n ", "\n\n"] {
            let text = [before.as_bytes(), pem].concat();
            assert_eq!(bare(&text), pem.trim_ascii(), "{before:?}");
        }
    }
}
