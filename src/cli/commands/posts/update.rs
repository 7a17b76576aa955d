//! `posts:update`: sends a whole post that replaces the old one. What Postiz shows of the old one is kept. What it does not
//! show, and would drop, the user must give again.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, Options, switch};
use crate::cli::commands::common::POST_ID;
use crate::cli::commands::posts::body::{Body, ChannelPost, PartBody, send};
use crate::cli::commands::posts::channels::{Channel, check_lengths};
use crate::cli::commands::posts::flags::{DRY_RUN, NEW_SETTINGS, SHORT_LINK, object};
use crate::cli::commands::posts::media::Files;
use crate::cli::commands::posts::parts::{self, CONTENT, CONTENT_FILE, DELAY, HTML, MEDIA, Part};
use crate::cli::commands::posts::schedule::{DATE, Past, TZ, When};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::shared::utc;

pub(crate) static UPDATE: Command = Command {
    name: "posts:update",
    about: "change the text, media, date or settings of a post that is not published yet",
    positionals: &[POST_ID],
    flags: &[
        &CONTENT,
        &CONTENT_FILE,
        &MEDIA,
        &TEXT_ONLY,
        &DATE,
        &TZ,
        &DELAY,
        &NEW_SETTINGS,
        &SHORT_LINK,
        &HTML,
        &DRY_RUN,
    ],
    notes: "\
What is not given stays: text, date, settings, tags. But Postiz shows neither the media of a post nor the further parts
of a thread, and drops what it is not sent: say all parts again with -c and -m, or say with --text-only that there are
no media (and, without a -c, no further parts).",
    examples: &[
        "postiz posts:update \"$POST\" -s 2030-01-16T09:00 --tz Europe/Berlin --text-only",
        "postiz posts:update \"$POST\" -c \"Better words\" -m https://example.com/a.png",
    ],
    run: update,
};

static TEXT_ONLY: Flag = switch(
    "text-only",
    "the post has no media and, without -c, no further parts",
);

fn update(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let id = options.positional(0)?;
    let delay = parts::delay(context, options)?;
    let mut parts = parts::read(context, options)?;
    check_is_whole(options, &parts)?;
    let settings = options.text(&NEW_SETTINGS)?;
    let settings = settings
        .map(|text| object(&NEW_SETTINGS, text))
        .transpose()?;
    // Checks the date's form early; whether it may have passed depends on the old post, which is found below.
    When::read(context, options, Past::Accepted)?;
    let files = Files::open(context, &parts)?;

    let api = Api::connect(context)?;
    let old = OldPost::find(context, &api, id)?;
    let is_draft = old.is("DRAFT");
    let past = match is_draft {
        true => Past::Accepted,
        false => Past::Refused,
    };
    let when = When::read(context, options, past)?.unwrap_or(When::At(old.text("publishDate")?));
    let channel = Channel {
        id: old.channel()?,
        shown: old.channel()?,
        settings: Some(old.settings_with(settings)?),
    };
    let has_new_text = !parts.is_empty();
    if has_new_text {
        let channels = std::slice::from_ref(&channel);
        check_lengths(context, &api, channels, &parts, is_draft)?;
    } else {
        parts.push(Part {
            content: old.text("content")?,
            media: Vec::new(),
        });
    }
    let date = when.date(context, &api, &channel.id)?;
    let uploaded = files.upload(context, options, &api)?;
    let mut value = PartBody::all(&parts, &uploaded, &delay);
    value[0].id = Some(id.to_owned());
    let body = Body {
        r#type: "update",
        creation_method: "CLI",
        date,
        // In a text that is kept, links are short already, or are meant to be long.
        short_link: options.yes_no(&SHORT_LINK).unwrap_or(has_new_text),
        inter: old.0["intervalInDays"].clone(),
        tags: old.tags()?,
        posts: vec![ChannelPost {
            integration: json!({ "id": channel.id }),
            group: Some(old.text("group")?),
            value,
            settings: channel.settings,
        }],
    };
    send(context, options, &api, body.json()?)
}

/// Checks that the user gives everything that Postiz does not show and would drop.
fn check_is_whole(options: &Options, parts: &[Part]) -> Result<(), CliError> {
    let (has_media, text_only) = (options.has(&MEDIA), options.has(&TEXT_ONLY));
    let changes = [&CONTENT, &CONTENT_FILE, &MEDIA, &DATE, &NEW_SETTINGS];
    if !changes.iter().any(|flag| options.has(flag)) {
        return Err(CliError::usage("posts:update needs something to change"));
    }
    if has_media && text_only {
        return Err(CliError::usage(
            "--text-only says that there are no media, and -m names some",
        ));
    }
    let missing = match (parts.is_empty(), has_media || text_only) {
        (false, true) => return Ok(()),
        (true, true) if text_only => return Ok(()),
        (true, true) => "the parts' texts (-c)",
        (false, false) => "the media (-m, or --text-only where there are none)",
        (true, false) => {
            "the parts (-c) and their media (-m), or --text-only for one part without media"
        }
    };
    let message = format!("Postiz would drop what it does not show of this post: {missing}");
    Err(CliError::usage(message).hint("`postiz posts:list` shows the text of the first part"))
}

/// The post to update, as Postiz lists it.
struct OldPost(Value);

impl OldPost {
    /// Finds the post among those of about now, then among all: Postiz has no request for a single post.
    fn find(context: &mut Context, api: &Api, id: &str) -> Result<OldPost, CliError> {
        let now = context.clock.date();
        for span in [SPAN, SPAN_MAX] {
            let call = Call::get(&["posts"])?
                .query("startDate", utc::iso8601(now - span).as_str())
                .query("endDate", utc::iso8601(now + span).as_str());
            let mut answer = api.json(context, &call)?.value();
            let posts = answer["posts"].as_array_mut().map(std::mem::take);
            let found = posts.into_iter().flatten().find(|post| post["id"] == id);
            match found.map(OldPost) {
                Some(post) if post.is("PUBLISHED") => {
                    let message =
                        format!("post {id} is published: Postiz cannot change it any more");
                    return Err(CliError::failed(message));
                }
                Some(post) => return Ok(post),
                None => {}
            }
        }
        let message = format!("there is no post `{id}`");
        Err(CliError::failed(message)
            .hint("`postiz posts:list` shows the first post of each thread"))
    }

    fn is(&self, state: &str) -> bool {
        self.0["state"] == state
    }

    fn text(&self, field: &str) -> Result<String, CliError> {
        let text = self.0[field].as_str().map(str::to_owned);
        text.ok_or_else(|| hidden(field))
    }

    fn channel(&self) -> Result<String, CliError> {
        let id = self.0["integration"]["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| hidden("channel"))
    }

    /// The old settings, overridden by `new`. An older Postiz does not list them.
    fn settings_with(
        &self,
        new: Option<Map<String, Value>>,
    ) -> Result<Map<String, Value>, CliError> {
        let old = match &self.0["settings"] {
            Value::String(text) => serde_json::from_str(text).ok(),
            Value::Object(settings) => Some(settings.clone()),
            _ => None,
        };
        match (old, new) {
            (Some(old), new) => Ok(old.into_iter().chain(new.unwrap_or_default()).collect()),
            (None, Some(new)) => Ok(new),
            (None, None) => Err(hidden("settings")
                .hint("say all of them with --settings ({} where there are none)")),
        }
    }

    fn tags(&self) -> Result<Vec<Value>, CliError> {
        let Some(tags) = self.0["tags"].as_array() else {
            return Ok(Vec::new());
        };
        let tag = |tag: &Value| match tag["tag"]["name"].as_str() {
            Some(name) => Ok(json!({"value": name, "label": name})),
            None => Err(hidden("tags")),
        };
        tags.iter().map(tag).collect()
    }
}

fn hidden(field: &str) -> CliError {
    CliError::failed(format!(
        "Postiz does not show the {field} of this post, and would drop it"
    ))
}

/// The span of the first request: most posts that are changed are due soon.
const SPAN: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// The span of the second request: 20 years.
const SPAN_MAX: Duration = Duration::from_secs(20 * 366 * 24 * 60 * 60);
