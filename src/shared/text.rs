//! Makes text from elsewhere safe for a terminal or a log line.

/// `text` without control characters (C1 and the marks that reorder text included), so that it can neither move a terminal's
/// cursor nor fake a second log line. Newlines and tabs become blanks.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c => c,
        })
        .filter(|c| !is_unprintable(*c))
        .collect()
}

/// The first `max` characters of [`printable`] `text`, and `…` where it was longer.
pub fn printable_cut(text: &str, max: usize) -> String {
    let text = printable(text);
    match text.char_indices().nth(max) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Is `c` a control character, or a mark that reorders the text around it?
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_removes_control_characters() {
        assert_eq!(
            printable("a\u{1b}[31mb\u{9b}c\r\nd\u{202e}e"),
            "a[31mbc  de"
        );
    }

    #[test]
    fn printable_cut_cuts_between_characters() {
        assert_eq!(printable_cut("äöü", 2), "äö…");
        assert_eq!(printable_cut("äö", 2), "äö");
    }
}
