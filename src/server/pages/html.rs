//! Text becomes HTML here and nowhere else: whatever is no literal of ours gets escaped, because the types allow nothing else.

use crate::shared::text::printable_cut;

/// A piece of HTML, safe to put between tags or into a quoted attribute.
#[derive(Clone, Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Text from anywhere, as text: escaped, without control characters and marks that reorder it, and no longer than a page can bear.
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

    /// Markup of our own, as it stands.
    pub(super) fn markup(literal: &'static str) -> Html {
        Html(literal.to_owned())
    }

    /// Markup of our own, with each `{name}` replaced by the slot of that name. What a slot holds is not looked at again,
    /// so braces in it mean nothing.
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

    /// The finished page.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// A user agent may be kilobytes long, and a page is to stay under 6 kB; what tells one program from another stands at the front.
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
    fn slots_are_filled_once() {
        let slots = [("a", Html::text("{b}")), ("b", Html::markup("<br>"))];
        assert_eq!(Html::fill("{a}-{b}.", &slots).into_string(), "{b}-<br>.");
    }
}
