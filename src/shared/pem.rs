//! Reads PEM files, with what editors add to them.

use std::path::Path;

use rustls::pki_types::pem::Error;

/// The text of the file at `path`, without what [`bare`] drops.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let text = std::fs::read(path).map_err(Error::Io)?;
    Ok(bare(&text).to_vec())
}

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

    #[test]
    fn mark_and_blanks_before_the_first_line_are_dropped() {
        let pem = b"-----BEGIN CERTIFICATE-----\r\n";
        for before in ["", "\u{feff}", "\u{feff}\r\n ", "\n\n"] {
            let text = [before.as_bytes(), pem].concat();
            assert_eq!(bare(&text), pem.trim_ascii(), "{before:?}");
        }
    }
}
