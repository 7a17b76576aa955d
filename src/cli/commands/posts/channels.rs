//! The channels of a post: finds them by ID, name or platform, and checks the post's length against their limits.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::{Flag, Options, utf8, value};
use crate::cli::commands::posts::flags::object;
use crate::cli::commands::posts::parts::{Part, split_list};
use crate::cli::commands::posts::text::characters;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

pub(super) static INTEGRATIONS: Flag = value(
    "integrations",
    "CHANNELS",
    "comma-separated channels: an ID, a name, or a platform that only one has; may be repeated",
)
.short('i')
.repeatable();

pub(super) static SETTINGS: Flag = value(
    "settings",
    "[CHANNEL:]JSON",
    "the platform's settings, for all channels or for one (x:{…}); may be repeated",
)
.repeatable();

pub(super) struct Channel {
    pub(super) id: String,
    /// Its name in messages.
    pub(super) shown: String,
    pub(super) settings: Option<Map<String, Value>>,
}

/// The values of `-i` and `--settings`, before Postiz is asked for its channels.
pub(super) struct Wanted<'a> {
    channels: Vec<&'a str>,
    /// Each for one channel, or for all (`None`).
    settings: Vec<(Option<&'a str>, Map<String, Value>)>,
}

impl<'a> Wanted<'a> {
    pub(super) fn read(options: &'a Options) -> Result<Wanted<'a>, CliError> {
        options.required(&INTEGRATIONS)?;
        let mut channels = Vec::new();
        let mut settings: Vec<(Option<&str>, _)> = Vec::new();
        for (flag, value) in options.given() {
            if flag == &INTEGRATIONS {
                channels.extend(split_list(flag, utf8(flag, value)?)?);
            } else if flag == &SETTINGS {
                let (channel, json) = split_settings(utf8(flag, value)?);
                if settings.iter().any(|(earlier, _)| *earlier == channel) {
                    let whose = channel.unwrap_or("all channels");
                    let message = format!("--settings for {whose} is given twice");
                    return Err(CliError::usage(message));
                }
                settings.push((channel, object(&SETTINGS, json)?));
            }
        }
        Ok(Wanted { channels, settings })
    }

    /// Finds the channels. Asks Postiz for its list unless all are given by their IDs.
    pub(super) fn find(&self, context: &mut Context, api: &Api) -> Result<Vec<Channel>, CliError> {
        let named = self.settings.iter().filter_map(|(channel, _)| *channel);
        let all_are_ids = self.channels.iter().all(|channel| is_id(channel))
            && named.clone().all(|name| self.channels.contains(&name));
        let known = match all_are_ids {
            true => self.channels.iter().map(|id| Known::by_id(id)).collect(),
            false => list(context, api)?,
        };
        let mut found: Vec<&Known> = Vec::new();
        for wanted in &self.channels {
            let channel = the_one(wanted, &known)?;
            if found.iter().any(|other| other.id == channel.id) {
                let message = format!("{} is named twice", channel.shown());
                return Err(CliError::usage(message));
            }
            found.push(channel);
        }
        for name in named {
            if !found.iter().any(|channel| channel.is_called(name)) {
                let message = format!(
                    "--settings is for `{name}`, which is none of the channels of this post"
                );
                return Err(CliError::usage(message).hint(candidates(&found)));
            }
        }
        let channels = found.into_iter().map(|channel| self.with_settings(channel));
        Ok(channels.collect())
    }

    /// Settings for this channel override those for all.
    fn with_settings(&self, channel: &Known) -> Channel {
        let is_for = |name: &Option<&str>| name.is_none_or(|name| channel.is_called(name));
        let mut mine: Vec<_> = self
            .settings
            .iter()
            .filter(|(name, _)| is_for(name))
            .collect();
        mine.sort_by_key(|(name, _)| name.is_some());
        let merged = mine.iter().flat_map(|(_, settings)| settings.clone());
        Channel {
            id: channel.id.clone(),
            shown: channel.shown(),
            settings: (!mine.is_empty()).then(|| merged.collect()),
        }
    }
}

/// `x:{"a":1}` is for one channel, `{"a":1}` for all.
fn split_settings(text: &str) -> (Option<&str>, &str) {
    let (before, json) = text.split_at(text.find('{').unwrap_or(0));
    match before.trim().strip_suffix(':') {
        Some(channel) => (Some(channel.trim()), json),
        None => (None, text),
    }
}

/// A channel as Postiz lists it.
#[derive(Default, Deserialize)]
struct Known {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    identifier: String,
}

impl Known {
    fn by_id(id: &str) -> Known {
        Known {
            id: id.to_owned(),
            ..Known::default()
        }
    }

    fn is_called(&self, word: &str) -> bool {
        let word_lower = word.to_lowercase();
        let names = [&self.name, &self.identifier];
        self.id == word || names.iter().any(|name| name.to_lowercase() == word_lower)
    }

    fn shown(&self) -> String {
        match self.name.as_str() {
            "" => self.id.clone(),
            name => format!("{name} ({}, {})", self.identifier, self.id),
        }
    }
}

fn list(context: &mut Context, api: &Api) -> Result<Vec<Known>, CliError> {
    let answer = api.json(context, &Call::get(&["integrations"])?)?;
    serde_json::from_str(answer.as_str()).map_err(|error| {
        CliError::failed(format!("Postiz' list of channels cannot be read: {error}"))
            .hint("channels can be named by their IDs without it")
    })
}

/// The channel that `wanted` names; an ID wins over names and platforms.
fn the_one<'a>(wanted: &str, known: &'a [Known]) -> Result<&'a Known, CliError> {
    if let Some(by_id) = known.iter().find(|channel| channel.id == wanted) {
        return Ok(by_id);
    }
    let all: Vec<&Known> = known.iter().collect();
    let mut called = all.clone();
    called.retain(|channel| channel.is_called(wanted));
    match called[..] {
        [channel] => Ok(channel),
        [] => {
            let message = format!("there is no channel `{wanted}`");
            Err(CliError::usage(message).hint(candidates(&all)))
        }
        _ => {
            let count = called.len();
            let message = format!("`{wanted}` is the name or platform of {count} channels");
            Err(CliError::usage(message).hint(candidates(&called)))
        }
    }
}

fn candidates(channels: &[&Known]) -> String {
    let shown: Vec<String> = channels
        .iter()
        .take(CANDIDATES_MAX)
        .map(|channel| channel.shown())
        .collect();
    match (shown.len(), channels.len()) {
        (0, _) => "no channel is connected: `postiz integrations:list`".to_owned(),
        (some, all) if some < all => format!("{}, and {} more", shown.join(", "), all - some),
        _ => shown.join(", "),
    }
}

/// Is `text` an ID of Postiz: a cuid or a UUID? Anything else may be a name.
fn is_id(text: &str) -> bool {
    let is_cuid = text.len() == 25
        && text.starts_with('c')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_uuid = text.len() == 36
        && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_cuid || is_uuid
}

/// Refuses a text that is too long for a channel; only warns for a draft, which may still be shortened. Does not ask Postiz
/// about a text that is short enough for every platform.
pub(super) fn check_lengths(
    context: &mut Context,
    api: &Api,
    channels: &[Channel],
    parts: &[Part],
    is_draft: bool,
) -> Result<(), CliError> {
    let lengths = parts.iter().map(|part| characters(&part.content));
    let Some((longest, number)) = lengths.zip(1..).max_by_key(|(length, _)| *length) else {
        return Ok(());
    };
    if longest <= SHORT {
        return Ok(());
    }
    for channel in channels {
        let limit = longest_text(context, api, &channel.id)?;
        let Some(limit) = limit.filter(|limit| longest as u64 > *limit) else {
            continue;
        };
        let message = format!(
            "part {number} has {longest} characters, {} takes {limit}",
            channel.shown
        );
        if !is_draft {
            return Err(CliError::usage(message).hint(
                "shorten it, cut it into several -c, or send this channel a text of its own",
            ));
        }
        context.output.warn(&message);
    }
    Ok(())
}

/// The channel's `maxLength`; `None` where Postiz names none, and checks the text itself.
fn longest_text(context: &mut Context, api: &Api, id: &str) -> Result<Option<u64>, CliError> {
    match api.json(context, &Call::get(&["integration-settings", id])?) {
        Ok(answer) => {
            let answer = answer.value();
            Ok(answer["output"]["maxLength"]
                .as_u64()
                .filter(|limit| *limit > 0))
        }
        Err(error) if error.exit == Exit::Failed => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every platform accepts this many characters; X without premium has the lowest limit.
const SHORT: usize = 200;

const CANDIDATES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinguished_from_names() {
        for id in [
            "cm4ean69r0003w8w1cdomox9n",
            "d2b0e3a8-6f2d-4a0b-8f55-0e8c1b7a9d10",
        ] {
            assert!(is_id(id), "{id}");
        }
        for name in [
            "x",
            "linkedin-page",
            "c",
            "communicationdepartmentof",
            "Cm4ean69r0003w8w1cdomox9n",
            "d2b0e3a8-6f2d-4a0b-8f55-0e8c1b7a9d1-",
        ] {
            // A name of 25 letters looks like a cuid. It is sent to Postiz as an ID.
            assert_eq!(is_id(name), name == "communicationdepartmentof", "{name}");
        }
    }

    #[test]
    fn settings_may_name_their_channel() {
        for (typed, expected) in [
            (r#"{"a":1}"#, (None, r#"{"a":1}"#)),
            (r#" {"a":1}"#, (None, r#" {"a":1}"#)),
            (r#"x:{"a":1}"#, (Some("x"), r#"{"a":1}"#)),
            (
                r#"Ada: on X : {"a":"b:{"}"#,
                (Some("Ada: on X"), r#"{"a":"b:{"}"#),
            ),
            (r#"x{"a":1}"#, (None, r#"x{"a":1}"#)),
            ("[1]", (None, "[1]")),
        ] {
            assert_eq!(split_settings(typed), expected);
        }
    }
}
