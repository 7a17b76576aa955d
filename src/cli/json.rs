//! JSON that passes through unchanged: it is checked and never rebuilt, so that key order, big integers and `1.0` stay.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Error, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

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

    /// For an answer without a body.
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

    /// The value, to look at; null where it is nested too deeply.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// Two-space indented. With `for_terminal`, control characters that JSON allows inside a string are written as escapes,
    /// which mean the same.
    pub(crate) fn indented(&self, for_terminal: bool) -> String {
        let indented = serde_json::from_str(&self.0)
            .and_then(|raw| serde_json::to_string_pretty(&Indented(raw, DEPTH_MAX)))
            .unwrap_or_else(|_| self.0.clone());
        match for_terminal {
            true => without_unprintable(&indented),
            false => indented,
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        Json(value.to_string())
    }
}

/// Serializes objects and arrays anew, down to so many levels, and everything else as its own text.
struct Indented<'a>(&'a RawValue, usize);

/// Deeper levels stay as they came: each level takes room on the stack.
const DEPTH_MAX: usize = 128;

impl Serialize for Indented<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Indented(raw, depth) = *self;
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'[') if depth > 0 => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(S::Error::custom)?;
                serializer.collect_seq(items.into_iter().map(|item| Indented(item, depth - 1)))
            }
            Some(b'{') if depth > 0 => {
                let Entries(entries) = serde_json::from_str(text).map_err(S::Error::custom)?;
                serializer.collect_map(
                    entries
                        .into_iter()
                        .map(|(key, value)| (key, Indented(value, depth - 1))),
                )
            }
            _ => raw.serialize(serializer),
        }
    }
}

/// An object's members in their order, a repeated name included.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Entries<'de> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(entry) = map.next_entry()? {
            self.0.push(entry);
        }
        Ok(self)
    }
}

/// `json` with its control characters as escapes, which mean the same. Line ends stay.
pub(crate) fn without_unprintable(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c != '\n' && is_unprintable(c) {
            // One escape is enough: all unprintable characters are below U+FFFF.
            true => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indented(text: &str) -> String {
        Json::parse(text).unwrap().indented(false)
    }

    #[test]
    fn tokens_stay_unchanged() {
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
        // What JavaScript cuts in the middle of a pair.
        assert_eq!(indented(r#"["\ud83d"]"#), "[\n  \"\\ud83d\"\n]");
    }

    #[test]
    fn indentation_is_serde_jsons() {
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
    fn control_characters_are_escaped_for_a_terminal() {
        let json = Json::parse("\"a\u{9b}31m\u{202e}\u{7f}\"").unwrap();
        assert_eq!(json.indented(true), "\"a\\u009b31m\\u202e\\u007f\"");
        assert_eq!(json.indented(false), "\"a\u{9b}31m\u{202e}\u{7f}\"");
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        for bad in ["", "<h1>", "{", "{}x", "[1,]", "'a'", "NaN", "\"\n\""] {
            assert!(Json::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Json::parse("\u{feff}{} \n").unwrap().as_str(), "{}");
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(indented(&deep).contains(&deep[DEPTH_MAX..deep.len() - DEPTH_MAX]));
    }
}
