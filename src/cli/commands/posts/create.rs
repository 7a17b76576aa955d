//! `posts:create`: builds a post from flags, or sends a file unchanged.

use serde_json::{Value, json};

use crate::cli::api::Api;
use crate::cli::command::{Command, Flag, Options, Takes, flag, value};
use crate::cli::commands::common::{IGNORED, say_ignored};
use crate::cli::commands::posts::body::{Body, ChannelPost, PartBody, send};
use crate::cli::commands::posts::channels::{INTEGRATIONS, SETTINGS, Wanted, check_lengths};
use crate::cli::commands::posts::flags::{DRY_RUN, SHORT_LINK};
use crate::cli::commands::posts::media::Files;
use crate::cli::commands::posts::parts::{self, CONTENT, CONTENT_FILE, DELAY, HTML, MEDIA};
use crate::cli::commands::posts::schedule::{DATE, Past, TZ, When};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::input::read_json;
use crate::cli::json::Json;

pub(crate) static CREATE: Command = Command {
    name: "posts:create",
    about: "schedule, publish or draft a post",
    positionals: &[],
    flags: &[
        &CONTENT,
        &CONTENT_FILE,
        &MEDIA,
        &INTEGRATIONS,
        &DATE,
        &TZ,
        &TYPE,
        &DELAY,
        &SETTINGS,
        &SHORT_LINK,
        &HTML,
        &DRY_RUN,
        &POST_FILE,
        &PROVIDER,
    ],
    notes: "\
Each -m belongs to the -c before it. When all -m stand after the last of several -c, they pair up in order, and
-m \"\" skips a part. A part may have no text (-c \"\") only if it has media.

A text with a < arrives as it was typed, unless it has a tag that Postiz knows (p br strong u a ul li h1 h2 h3 span).
Settings of one channel (--settings x:JSON) come on top of those for all. Where the clocks go back, --tz takes the
first of two equal times. A text that is too long for a channel, an unknown channel, a file that is not there and a
date that has passed are errors before anything is sent.

The whole shape of a --json file, which is sent as it is; an entry of posts for each channel, one of value for each
part of a thread:

  {\"type\": \"schedule\", \"date\": \"2030-01-15T10:00:00Z\", \"shortLink\": true, \"tags\": [],
   \"posts\": [{\"integration\": {\"id\": \"CHANNEL\"},
              \"value\": [{\"content\": \"Hello\", \"image\": [{\"id\": \"a1\", \"path\": \"https://…/a.png\"}], \"delay\": 0}],
              \"settings\": {\"who_can_reply_post\": \"everyone\"}}]}",
    examples: &[
        "postiz posts:create -c \"Hello\" -s 2030-01-15T10:00:00Z -i \"$CHANNEL\"",
        "postiz posts:create -c \"First\" -m photo.png -c \"- then this\" -d 5 -s 2030-01-15T09:00 --tz Europe/Berlin -i x,linkedin --settings 'x:{\"who_can_reply_post\":\"everyone\"}' --dry-run",
        "postiz posts:create -c \"When there is room\" -s next -i \"$CHANNEL\"",
        "postiz posts:create --json post.json",
    ],
    run: create,
};

static TYPE: Flag = flag(
    "type",
    Takes::OneOf(&["schedule", "draft", "now"]),
    "what to do with it (default: schedule); now needs no -s",
)
.short('t');

static POST_FILE: Flag = flag(
    "json",
    Takes::Path,
    "send this JSON file as it is (- is stdin); excludes all but --dry-run",
)
.short('j');

static PROVIDER: Flag = value("provider", "NAME", IGNORED).short('p');

fn create(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    if options.has(&POST_FILE) {
        let body = whole_file(context, options)?;
        let api = Api::connect(context)?;
        return send(context, options, &api, body);
    }
    say_ignored(context, options, &[&PROVIDER]);
    let kind = options.text(&TYPE)?.unwrap_or("schedule");
    let delay = parts::delay(context, options)?;
    let parts = parts::read(context, options)?;
    if parts.is_empty() {
        return Err(options.wrong_usage("posts:create needs --content or --json"));
    }
    let wanted = Wanted::read(options)?;
    let when = when(context, options, kind)?;
    let files = Files::open(context, &parts)?;

    let api = Api::connect(context)?;
    let channels = wanted.find(context, &api)?;
    check_lengths(context, &api, &channels, &parts, kind == "draft")?;
    let date = when.date(context, &api, &channels[0].id)?;
    let uploaded = files.upload(context, options, &api)?;
    let value = PartBody::all(&parts, &uploaded, &delay);
    let channel_post = |channel: super::channels::Channel| ChannelPost {
        integration: json!({ "id": channel.id }),
        group: None,
        value: value.clone(),
        settings: channel.settings,
    };
    let body = Body {
        r#type: kind,
        creation_method: "CLI",
        date,
        short_link: options.yes_no(&SHORT_LINK).unwrap_or(true),
        inter: Value::Null,
        tags: Vec::new(),
        posts: channels.into_iter().map(channel_post).collect(),
    };
    send(context, options, &api, body.json()?)
}

fn when(context: &Context, options: &Options, kind: &str) -> Result<When, CliError> {
    let past = match kind {
        "schedule" => Past::Refused,
        _ => Past::Accepted,
    };
    match When::read(context, options, past)? {
        None | Some(When::NextFreeSlot) if kind == "now" => Ok(When::Now),
        None => Err(options.wrong_usage("posts:create needs --date")),
        Some(when) => Ok(when),
    }
}

/// The content of the `--json` file; an error for a shape that Postiz refuses.
fn whole_file(context: &mut Context, options: &Options) -> Result<Json, CliError> {
    let is_excluded = |flag: &Flag| flag != &POST_FILE && flag != &DRY_RUN;
    if let Some((other, _)) = options.given_own().find(|(flag, _)| is_excluded(flag)) {
        let message = format!("--json sends the file as it is, so {other} has no place beside it");
        return Err(CliError::usage(message));
    }
    let path = options.raw(&POST_FILE).unwrap_or_default();
    let json = read_json(context, path)?;
    match wrong_shape(json.as_str()) {
        None => Ok(json),
        Some(wrong) => {
            let message = format!("{} {wrong}", path.to_string_lossy());
            Err(CliError::usage(message).hint(RIGHT_SHAPE))
        }
    }
}

/// What is wrong with a shape that documents show and that Postiz refuses without a reason: it has `integrations`,
/// `provider` or `post` instead of one entry of `posts` for each channel.
fn wrong_shape(json: &str) -> Option<String> {
    let json: Value = serde_json::from_str(json).ok()?;
    let wrong_key = |object: &Value| WRONG_KEYS.into_iter().find(|key| object.get(key).is_some());
    if let Some(key) = wrong_key(&json) {
        return Some(format!(
            "has `{key}` at its top, which Postiz does not take"
        ));
    }
    let posts = json["posts"].as_array()?;
    posts.iter().find_map(|post| {
        let key = wrong_key(post).filter(|_| post["integration"]["id"].is_null())?;
        Some(format!(
            "has `{key}` in an entry of `posts`, which wants `integration` and `value`"
        ))
    })
}

const WRONG_KEYS: [&str; 3] = ["integrations", "provider", "post"];

const RIGHT_SHAPE: &str = r#"{"type":"schedule","date":"2030-01-15T10:00:00Z","shortLink":true,"tags":[],"posts":[{"integration":{"id":"CHANNEL"},"value":[{"content":"Hello","image":[],"delay":0}],"settings":{}}]}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_shapes_of_documents_are_recognised() {
        for wrong in [
            r#"{"integrations":["x"],"posts":[]}"#,
            r#"{"provider":"x"}"#,
            r#"{"post":[{"content":"a"}]}"#,
            r#"{"posts":[{"provider":"x","post":[]}]}"#,
            r#"{"posts":[{"integrations":["x"],"value":[]}]}"#,
        ] {
            assert!(wrong_shape(wrong).is_some(), "{wrong}");
        }
        for other in [
            "[1]",
            "null",
            r#"{"posts":1}"#,
            r#"{"posts":[1]}"#,
            r#"{"posts":[{"integration":{"id":"a"},"provider":"x"}]}"#,
            RIGHT_SHAPE,
        ] {
            assert_eq!(wrong_shape(other), None, "{other}");
        }
    }
}
