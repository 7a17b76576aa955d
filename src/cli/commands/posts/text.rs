//! The text of a part: converts it to what Postiz expects (HTML, where it contains a `<`), and counts its characters.

use std::borrow::Cow;

/// Converts `text` so that Postiz shows it as it was meant. A text without a `<` is unchanged: to Postiz it is plain text.
/// Unless the user says whether it is HTML, it is if it contains a tag that Postiz knows.
pub(super) fn for_postiz(text: &str, is_html: Option<bool>) -> Cow<'_, str> {
    let is_html = is_html.unwrap_or_else(|| known_tag(text).is_some());
    if is_html || !text.contains('<') {
        return text.into();
    }
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let lines = escaped.lines().map(|line| format!("<p>{line}</p>"));
    lines.collect::<String>().into()
}

/// The first tag in `text` that Postiz knows, such as `<p>`.
pub(super) fn known_tag(text: &str) -> Option<&str> {
    let starts = text.match_indices('<').map(|(index, _)| index);
    let mut tags = starts.filter_map(|start| {
        let length = text[start..].find('>')? + 1;
        Some(&text[start..start + length])
    });
    tags.find(|tag| {
        let inner = tag[1..tag.len() - 1].trim_start_matches('/');
        let name = inner.split([' ', '\t', '\n', '/']).next().unwrap_or(inner);
        TAGS.iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

/// The fewest characters that any platform counts in `content`: no tags, an entity and an emoji as one, and an address as at
/// most the 23 characters that X counts.
pub(super) fn characters(content: &str) -> usize {
    let plain = without_tags(content);
    let words = plain.split_inclusive(char::is_whitespace);
    let count = |word: &str| {
        let is_address = word.starts_with("https://") || word.starts_with("http://");
        match is_address {
            true => count_shown(word).min(ADDRESS_CHARACTERS_MAX),
            false => count_shown(word),
        }
    };
    words.map(count).sum()
}

fn without_tags(content: &str) -> Cow<'_, str> {
    if known_tag(content).is_none() {
        return content.into();
    }
    let mut plain = String::new();
    let mut rest = content;
    while let Some(start) = rest.find(['<', '&']) {
        plain.push_str(&rest[..start]);
        let is_entity = rest[start..].starts_with('&');
        let end = rest[start..].find(if is_entity { ';' } else { '>' });
        let last = end.filter(|end| !is_entity || *end < ENTITY_BYTES_MAX);
        // A tag counts nothing; an entity, or a character that begins neither, counts as one.
        if is_entity || last.is_none() {
            plain.push('&');
        }
        rest = &rest[start + last.unwrap_or(0) + 1..];
    }
    plain.push_str(rest);
    plain.into()
}

/// Counts without what only changes the character before it: accents, skin tones, and what follows a zero-width joiner.
fn count_shown(word: &str) -> usize {
    let mut before = ' ';
    let mut count = 0;
    for c in word.chars() {
        let changes = matches!(c, '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}');
        count += usize::from(!changes && before != '\u{200d}');
        before = c;
    }
    count
}

/// The tags that Postiz knows.
const TAGS: [&str; 11] = [
    "p", "br", "strong", "u", "a", "ul", "li", "h1", "h2", "h3", "span",
];

/// X counts any address as this many characters.
const ADDRESS_CHARACTERS_MAX: usize = 23;

/// Longest entity: `&thetasym;` is one of the longest that people write.
const ENTITY_BYTES_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_unless_it_is_html() {
        for (typed, sent) in [
            ("Hello", "Hello"),
            ("Q&A > all", "Q&A > all"),
            ("I <3 Q&A", "<p>I &lt;3 Q&amp;A</p>"),
            ("a<b c", "<p>a&lt;b c</p>"),
            ("a <b\r\n\n> c", "<p>a &lt;b</p><p></p><p>&gt; c</p>"),
            ("<pre>x</pre>", "<p>&lt;pre&gt;x&lt;/pre&gt;</p>"),
            ("<", "<p>&lt;</p>"),
            ("<p", "<p>&lt;p</p>"),
            // HTML is unchanged.
            ("<p>a</p>", "<p>a</p>"),
            ("I <3 <STRONG>you</STRONG>", "I <3 <STRONG>you</STRONG>"),
            ("a<br/>b", "a<br/>b"),
            ("a<a href='x'>b", "a<a href='x'>b"),
            ("end</p>", "end</p>"),
        ] {
            assert_eq!(for_postiz(typed, None), sent, "{typed}");
        }
        assert_eq!(for_postiz("<b>x</b>", Some(true)), "<b>x</b>");
        assert_eq!(for_postiz("<p>", Some(false)), "<p>&lt;p&gt;</p>");
    }

    #[test]
    fn characters_are_counted_as_a_reader_sees_them() {
        for (content, expected) in [
            ("", 0),
            ("Hello", 5),
            ("äöü", 3),
            ("e\u{301}", 1),
            ("👩‍🚀👍🏽❤️", 3),
            ("a & b; c", 8),
            ("a\nb", 3),
            ("<p>I &lt;3 Q&amp;A</p>", 8),
            ("<p>a & b</p><p>c", 6),
            ("<a href='https://example.com/a-long-address'>x</a>", 1),
            (
                "see https://example.com/a-long-address-of-a-page now",
                4 + 23 + 3,
            ),
            ("see http://x.de", 15),
        ] {
            assert_eq!(characters(content), expected, "{content}");
        }
    }
}
