//! Escaped HTML. [`Html`] is made of literals and of escaped text, so no other text can become markup.

use crate::shared::text::printable_cut;

/// A piece of HTML, safe to put between tags or into a quoted attribute.
#[derive(Clone, Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Text from outside: escaped, cut, and without control characters and marks of text direction.
    pub(super) fn text(raw: &str) -> Html {
        let mut html = String::with_capacity(raw.len());
        for c in printable_cut(raw, TEXT_CHARS_MAX).chars() {
            match c {
                '&' => html.push_str("&amp;"),
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '"' => html.push_str("&#34;"),
                '\'' => html.push_str("&#39;"),
                c => html.push(c),
            }
        }
        Html(html)
    }

    /// Markup from a literal.
    pub(super) fn markup(literal: &'static str) -> Html {
        Html(literal.to_owned())
    }

    /// Markup from a literal, with each `{name}` replaced by the slot of that name. Braces in a slot's value are not replaced.
    pub(super) fn fill(template: &'static str, slots: &[(&str, Html)]) -> Html {
        let mut html = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            html.push_str(before);
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            let slot = slots.iter().find(|(slot, _)| *slot == name);
            debug_assert!(slot.is_some(), "no slot {{{name}}} for {template}");
            html.push_str(slot.map_or("", |(_, value)| &value.0));
            rest = after;
        }
        html.push_str(rest);
        Html(html)
    }

    /// All `pieces`, one after the other.
    pub(super) fn concat(pieces: impl IntoIterator<Item = Html>) -> Html {
        Html(pieces.into_iter().map(|piece| piece.0).collect())
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Most characters of a text from outside: a user agent may have kilobytes, and pages are to stay under 6 kB.
const TEXT_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let html = Html::text("<b title=\"x\" a='y'>&amp;</b>\u{1b}\u{202e}\r\n");
        let expected = "&lt;b title=&#34;x&#34; a=&#39;y&#39;&gt;&amp;amp;&lt;/b&gt;  ";
        assert_eq!(html.into_string(), expected);
    }

    #[test]
    fn slot_values_are_not_filled_again() {
        let slots = [("a", Html::text("{b}")), ("b", Html::markup("<br>"))];
        assert_eq!(Html::fill("{a}-{b}.", &slots).into_string(), "{b}-<br>.");
    }
}
