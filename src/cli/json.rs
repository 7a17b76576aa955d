//! JSON that passes through unchanged: checked, but never rebuilt, so that key order, big integers and `1.0` stay as they came.

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::shared::text::is_unprintable;

/// The text of one valid JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Json(String);

impl Json {
    /// Checks `text`; the error says where it stops being JSON.
    pub(crate) fn parse(text: &str) -> Result<Json, String> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let checked: Result<IgnoredAny, _> = serde_json::from_str(text);
        match checked {
            Ok(_) => Ok(Json(text.to_owned())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What an answer without a body amounts to.
    pub(crate) fn null() -> Json {
        Json("null".to_owned())
    }

    /// Several values as one array.
    pub(crate) fn array(items: &[Json]) -> Json {
        let texts: Vec<&str> = items.iter().map(Json::as_str).collect();
        Json(format!("[{}]", texts.join(",")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Two-space indented. With `for_terminal`, control characters that JSON allows inside a string are written as escapes,
    /// which mean the same.
    pub(crate) fn indented(&self, for_terminal: bool) -> String {
        let mut writer = Indenter::new(self.0.len());
        for c in self.0.chars() {
            writer.take(c, for_terminal);
        }
        writer.text
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        Json(value.to_string())
    }
}

/// Lays JSON text out anew without touching a token. It trusts the text to be valid.
struct Indenter {
    text: String,
    depth: usize,
    in_string: bool,
    after_backslash: bool,
    /// A bracket was opened and nothing followed yet: `[]` and `{}` stay on one line.
    just_opened: bool,
}

impl Indenter {
    fn new(size: usize) -> Indenter {
        Indenter {
            text: String::with_capacity(size + size / 4),
            depth: 0,
            in_string: false,
            after_backslash: false,
            just_opened: false,
        }
    }

    fn take(&mut self, c: char, for_terminal: bool) {
        if self.in_string {
            return self.take_in_string(c, for_terminal);
        }
        match c {
            ' ' | '\n' | '\r' | '\t' => {}
            ']' | '}' => {
                self.depth = self.depth.saturating_sub(1);
                if !self.just_opened {
                    self.new_line();
                }
                self.just_opened = false;
                self.text.push(c);
            }
            ',' => {
                self.text.push(c);
                self.new_line();
            }
            ':' => self.text.push_str(": "),
            _ => self.begin_value(c),
        }
    }

    fn begin_value(&mut self, c: char) {
        if self.just_opened {
            self.new_line();
        }
        self.just_opened = matches!(c, '[' | '{');
        self.depth += usize::from(self.just_opened);
        self.in_string = c == '"';
        self.text.push(c);
    }

    fn take_in_string(&mut self, c: char, for_terminal: bool) {
        if for_terminal && is_unprintable(c) {
            self.text.push_str(&escape(c));
        } else {
            self.text.push(c);
        }
        self.in_string = self.after_backslash || c != '"';
        self.after_backslash = !self.after_backslash && c == '\\';
    }

    fn new_line(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n("  ", self.depth));
    }
}

/// JSON on one line, its control characters written as escapes.
pub(crate) fn without_unprintable(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        match is_unprintable(c) {
            true => text.push_str(&escape(c)),
            false => text.push(c),
        }
    }
    text
}

/// All unprintable characters lie below U+FFFF, so that one escape holds each.
fn escape(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indented(text: &str) -> String {
        Json::parse(text).unwrap().indented(false)
    }

    #[test]
    fn tokens_stay_as_they_came() {
        let text =
            r#" {"z":12345678901234567890,"a":[1.0,-0,1e400,{}],"b":"\u00e9\/\"{,:}\\","z":[ ]} "#;
        let expected = r#"{
  "z": 12345678901234567890,
  "a": [
    1.0,
    -0,
    1e400,
    {}
  ],
  "b": "\u00e9\/\"{,:}\\",
  "z": []
}"#;
        assert_eq!(indented(text), expected);
    }

    #[test]
    fn looks_like_serde_json() {
        let text = r#"[{"a":{"b":[[],[1,2],{}]},"c":null},true,"x\\",[[[0]]]]"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            indented(text),
            serde_json::to_string_pretty(&value).unwrap()
        );
        for scalar in ["null", "1", "\"a b\"", "[]", "{}"] {
            assert_eq!(indented(scalar), scalar);
        }
    }

    #[test]
    fn a_terminal_sees_no_control_characters() {
        let json = Json::parse("\"a\u{9b}31m\u{202e}\u{7f}\"").unwrap();
        assert_eq!(json.indented(true), "\"a\\u009b31m\\u202e\\u007f\"");
        assert_eq!(json.indented(false), "\"a\u{9b}31m\u{202e}\u{7f}\"");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for bad in ["", "<h1>", "{", "{}x", "[1,]", "'a'", "NaN", "\"\n\""] {
            assert!(Json::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Json::parse("\u{feff}{} \n").unwrap().as_str(), "{}");
        // Depth costs no stack.
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(Json::parse(&deep).is_ok());
    }
}
