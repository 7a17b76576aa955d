//! `posts:create` and its siblings.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Number, Value, json};
use ureq::http::Method;

use crate::cli::api::Call;
use crate::cli::command::{Command, Flag, Options, Takes, flag, repeatable, utf8};
use crate::cli::commands::api::read_text;
use crate::cli::commands::{POST_ID, answer_of};
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;
use crate::shared::random;
use crate::shared::utc;

pub(crate) static CREATE: Command = Command {
    name: "posts:create",
    about: "schedule, publish or draft a post",
    positionals: &[],
    flags: &[&CONTENT, &MEDIA, &INTEGRATIONS, &DATE, &TYPE, &DELAY, &SETTINGS, &SHORT_LINK, &POST_FILE],
    notes: "\
Each -m belongs to the -c before it. When all -m stand after the last of several -c, they pair up in order, and
-m \"\" skips a part. A part may have no text (-c \"\") only if it has media.",
    examples: &[
        "postiz posts:create -c \"Hello\" -s 2030-01-15T10:00:00Z -i \"$CHANNEL\"",
        "postiz posts:create -c \"First\" -m https://example.com/a.png -c \"- then this\" -d 5 -s 2030-01-15T10:00:00Z -i \"$CHANNEL\" | jq -r '.[0].postId'",
        "postiz posts:create --json post.json",
    ],
    run: create,
};

pub(crate) static CONTENT: Flag = repeatable(flag(
    "content",
    Some('c'),
    Takes::Value("TEXT"),
    "the text of the post; repeat it for a thread",
));

pub(crate) static MEDIA: Flag = repeatable(flag(
    "media",
    Some('m'),
    Takes::Value("URLS"),
    "comma-separated media of the -c before it; may be repeated",
));

pub(crate) static INTEGRATIONS: Flag = repeatable(flag(
    "integrations",
    Some('i'),
    Takes::Value("IDS"),
    "comma-separated channel IDs; may be repeated",
));

pub(crate) static DATE: Flag = flag(
    "date",
    Some('s'),
    Takes::Value("DATE"),
    "when to publish: ISO 8601, UTC unless it names a zone",
);

pub(crate) static TYPE: Flag = flag(
    "type",
    Some('t'),
    Takes::OneOf(&["schedule", "draft", "now"]),
    "what to do with it (default: schedule)",
);

pub(crate) static DELAY: Flag = flag(
    "delay",
    Some('d'),
    Takes::Value("MINUTES"),
    "minutes between the parts of a thread (default: 0)",
);

pub(crate) static SETTINGS: Flag = flag(
    "settings",
    None,
    Takes::Value("JSON"),
    "the platform's settings, a JSON object",
);

pub(crate) static SHORT_LINK: Flag = flag(
    "shortLink",
    None,
    Takes::YesNo,
    "shorten links (default); --no-shortLink keeps them",
);

pub(crate) static POST_FILE: Flag = flag(
    "json",
    Some('j'),
    Takes::Path,
    "send this JSON file as it is (- is stdin); excludes the rest",
);

pub(crate) fn create(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::new(Method::POST, &["posts"])?;
    let body = match options.raw(&POST_FILE) {
        None => serde_json::to_string(&NewPost::read(options)?)
            .map_err(|error| CliError::failed(error.to_string()))?,
        Some(path) => {
            if let Some((other, _)) = options
                .given()
                .find(|(flag, _)| !std::ptr::eq(*flag, &POST_FILE))
            {
                let message = format!(
                    "--json sends the file as it is, so --{} has no place beside it",
                    other.long
                );
                return Err(CliError::usage(message));
            }
            let text = read_text(context, path)?;
            let json = Json::parse(&text).map_err(|wrong| {
                CliError::failed(format!("{} does not hold JSON: {wrong}", path.display()))
            })?;
            json.as_str().to_owned()
        }
    };
    answer_of(context, &call.body(body))
}

pub(crate) static LIST: Command = Command {
    name: "posts:list",
    about: "list posts",
    positionals: &[],
    flags: &[&START_DATE, &END_DATE, &CUSTOMER],
    notes: "",
    examples: &[
        "postiz posts:list --startDate 2030-01-01T00:00:00Z --endDate 2030-01-31T23:59:59Z | jq -r '.posts[].id'",
    ],
    run: list,
};

pub(crate) static START_DATE: Flag = flag(
    "startDate",
    None,
    Takes::Value("DATE"),
    "from this date (default: 30 days back)",
);

pub(crate) static END_DATE: Flag = flag(
    "endDate",
    None,
    Takes::Value("DATE"),
    "to this date (default: 30 days ahead)",
);

pub(crate) static CUSTOMER: Flag = flag(
    "customer",
    None,
    Takes::Value("ID"),
    "only posts of this customer (group)",
);

pub(crate) fn list(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let now = context.clock.date();
    let start = match date(options, &START_DATE)? {
        Some(date) => date.to_owned(),
        None => utc::iso8601(now - LIST_SPAN),
    };
    let end = match date(options, &END_DATE)? {
        Some(date) => date.to_owned(),
        None => utc::iso8601(now + LIST_SPAN),
    };
    let mut call = Call::get(&["posts"])?
        .query("startDate", &start)
        .query("endDate", &end);
    if let Some(customer) = options.text(&CUSTOMER)? {
        call = call.query("customer", customer);
    }
    answer_of(context, &call)
}

pub(crate) static DELETE: Command = Command {
    name: "posts:delete",
    about: "delete a post, with all of its group",
    positionals: &[POST_ID],
    flags: &[],
    notes: "Postiz answers {\"error\": true} when it has deleted the post; the exit code is what counts.",
    examples: &["postiz posts:delete \"$POST\""],
    run: delete,
};

pub(crate) fn delete(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    answer_of(
        context,
        &Call::new(Method::DELETE, &["posts", options.positional(0)?])?,
    )
}

pub(crate) static STATUS_COMMAND: Command = Command {
    name: "posts:status",
    about: "turn a post into a draft, or schedule it",
    positionals: &[POST_ID],
    flags: &[&STATUS],
    notes: "",
    examples: &["postiz posts:status \"$POST\" --status draft"],
    run: status,
};

pub(crate) static STATUS: Flag = flag(
    "status",
    Some('s'),
    Takes::OneOf(&["draft", "schedule"]),
    "the new status (required)",
);

pub(crate) fn status(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::new(Method::PUT, &["posts", options.positional(0)?, "status"])?;
    let body = json!({ "status": options.required(&STATUS)? });
    answer_of(context, &call.body(body.to_string()))
}

pub(crate) static SETTINGS_COMMAND: Command = Command {
    name: "posts:settings",
    about: "change the platform's settings of a post",
    positionals: &[POST_ID],
    flags: &[&SETTINGS],
    notes: "--settings is required; Postiz merges it into what the post has.",
    examples: &[
        "postiz posts:settings \"$POST\" --settings '{\"who_can_reply_post\":\"everyone\"}'",
    ],
    run: settings,
};

pub(crate) fn settings(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::new(Method::PUT, &["posts", options.positional(0)?, "settings"])?;
    let body = json!({ "settings": object(&SETTINGS, options.required(&SETTINGS)?)? });
    answer_of(context, &call.body(body.to_string()))
}

pub(crate) static MISSING: Command = Command {
    name: "posts:missing",
    about: "list content that may be a published post whose ID got lost",
    positionals: &[POST_ID],
    flags: &[],
    notes: "",
    examples: &["postiz posts:missing \"$POST\" | jq -r '.[].id'"],
    run: missing,
};

pub(crate) fn missing(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    answer_of(
        context,
        &Call::get(&["posts", options.positional(0)?, "missing"])?,
    )
}

pub(crate) static CONNECT: Command = Command {
    name: "posts:connect",
    about: "tell Postiz which published post this one is",
    positionals: &[POST_ID],
    flags: &[&RELEASE_ID],
    notes: "",
    examples: &["postiz posts:connect \"$POST\" --release-id 7321456789012345678"],
    run: connect,
};

pub(crate) static RELEASE_ID: Flag = flag(
    "release-id",
    None,
    Takes::Value("ID"),
    "the ID of the published post on its platform (required)",
);

pub(crate) fn connect(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::new(
        Method::PUT,
        &["posts", options.positional(0)?, "release-id"],
    )?;
    let body = json!({ "releaseId": options.required(&RELEASE_ID)? });
    answer_of(context, &call.body(body.to_string()))
}

/// The body of `POST /posts`, fields in the order in which the npm CLI sends them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewPost<'a> {
    r#type: &'a str,
    creation_method: &'static str,
    date: &'a str,
    short_link: bool,
    tags: [(); 0],
    posts: Vec<ChannelPost<'a>>,
}

/// What goes to one channel. All get the same parts.
#[derive(Serialize)]
struct ChannelPost<'a> {
    integration: Channel<'a>,
    value: Vec<Part<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Map<String, Value>>,
}

#[derive(Serialize)]
struct Channel<'a> {
    id: &'a str,
}

/// One post of a thread.
#[derive(Clone, Serialize)]
struct Part<'a> {
    content: &'a str,
    image: Vec<Image<'a>>,
    delay: Number,
}

#[derive(Clone, Serialize)]
struct Image<'a> {
    id: String,
    path: &'a str,
}

impl<'a> NewPost<'a> {
    /// Reads the flags; nothing is sent before they all make sense.
    fn read(options: &'a Options) -> Result<NewPost<'a>, CliError> {
        let delay = delay(options)?;
        let parts = parts(options)?;
        let value: Vec<Part> = parts
            .into_iter()
            .map(|(content, media)| Part {
                content,
                image: media.into_iter().map(Image::new).collect(),
                delay: delay.clone(),
            })
            .collect();
        let settings = options
            .text(&SETTINGS)?
            .map(|text| object(&SETTINGS, text))
            .transpose()?;
        let channel_post = |id| ChannelPost {
            integration: Channel { id },
            value: value.clone(),
            settings: settings.clone(),
        };
        let channels = channels(options)?;
        options.required(&DATE)?;
        Ok(NewPost {
            r#type: options.text(&TYPE)?.unwrap_or("schedule"),
            creation_method: "CLI",
            date: date(options, &DATE)?.unwrap_or_default(),
            short_link: options.yes_no(&SHORT_LINK, true),
            tags: [],
            posts: channels.into_iter().map(channel_post).collect(),
        })
    }
}

impl<'a> Image<'a> {
    fn new(path: &'a str) -> Image<'a> {
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let id = (0..7)
            .map(|_| char::from(random::letter(letters)))
            .collect();
        Image { id, path }
    }
}

/// Each part's text and media.
type Parts<'a> = Vec<(&'a str, Vec<&'a str>)>;

/// The parts of the thread: each `-m` belongs to the `-c` before it. When all `-m` stand after the last of several `-c`,
/// they pair up by their count, which is how the npm CLI always reads them.
fn parts(options: &Options) -> Result<Parts<'_>, CliError> {
    let mut parts: Parts = Vec::new();
    let mut all_media: Vec<&str> = Vec::new();
    let mut last_content = 0;
    let mut first_media = usize::MAX;
    let mut ahead = Vec::new();
    for (place, (flag, value)) in options.given().enumerate() {
        if std::ptr::eq(flag, &CONTENT) {
            parts.push((utf8(flag, value)?, Vec::new()));
            last_content = place;
        } else if std::ptr::eq(flag, &MEDIA) {
            let media = utf8(flag, value)?;
            all_media.push(media);
            first_media = first_media.min(place);
            match parts.last_mut() {
                Some((_, of_part)) => of_part.push(media),
                None => ahead.push(media),
            }
        }
    }
    if parts.is_empty() {
        return Err(CliError::usage("posts:create needs --content or --json")
            .hint("`postiz posts:create --help` says how it is used"));
    }
    if parts.len() > 1 && first_media != usize::MAX && first_media > last_content {
        pair_by_count(&mut parts, &all_media)?;
    } else if parts.len() > 1 && !ahead.is_empty() {
        return Err(CliError::usage("the first -m stands before any -c")
            .hint("put each -m after the -c it belongs to"));
    } else {
        ahead.append(&mut parts[0].1);
        parts[0].1 = ahead;
        if all_media.contains(&"") {
            return Err(empty_media());
        }
    }
    parts
        .into_iter()
        .map(|(content, lists)| split_media(content, &lists))
        .collect()
}

fn pair_by_count<'a>(parts: &mut Parts<'a>, all_media: &[&'a str]) -> Result<(), CliError> {
    if all_media.len() > parts.len() {
        let message = format!(
            "{} -m cannot pair up with {} -c",
            all_media.len(),
            parts.len()
        );
        return Err(CliError::usage(message).hint("put each -m after the -c it belongs to"));
    }
    for (_, lists) in parts.iter_mut() {
        lists.clear();
    }
    for ((_, lists), media) in parts.iter_mut().zip(all_media) {
        // An empty one skips its part.
        if !media.is_empty() {
            lists.push(media);
        }
    }
    Ok(())
}

fn split_media<'a>(
    content: &'a str,
    lists: &[&'a str],
) -> Result<(&'a str, Vec<&'a str>), CliError> {
    let mut media = Vec::new();
    for list in lists {
        media.extend(split_list(&MEDIA, list)?);
    }
    if content.trim().is_empty() && media.is_empty() {
        return Err(CliError::usage("a part has neither text nor media")
            .hint("leave the empty -c out, or give it a -m"));
    }
    Ok((content, media))
}

fn channels(options: &Options) -> Result<Vec<&str>, CliError> {
    options.required(&INTEGRATIONS)?;
    let mut channels = Vec::new();
    for (flag, value) in options.given() {
        if std::ptr::eq(flag, &INTEGRATIONS) {
            channels.extend(split_list(flag, utf8(flag, value)?)?);
        }
    }
    Ok(channels)
}

/// The parts of a comma-separated list. An empty part is a script's variable that was never filled.
fn split_list<'a>(flag: &Flag, list: &'a str) -> Result<Vec<&'a str>, CliError> {
    let parts: Vec<&str> = list.split(',').map(str::trim).collect();
    if parts.contains(&"") {
        return Err(CliError::usage(format!(
            "--{} `{list}` has an empty part",
            flag.long
        )));
    }
    Ok(parts)
}

fn empty_media() -> CliError {
    CliError::usage("-m is empty")
        .hint("did the upload before it fail? Its path is what belongs here")
}

fn delay(options: &Options) -> Result<Number, CliError> {
    let text = options.text(&DELAY)?.unwrap_or("0");
    let wrong = || CliError::usage(format!("--delay must be a number of minutes, not `{text}`"));
    if let Ok(minutes) = text.parse::<u32>() {
        return Ok(minutes.into());
    }
    let minutes: f64 = text.parse().map_err(|_| wrong())?;
    Number::from_f64(minutes)
        .filter(|_| minutes >= 0.0)
        .ok_or_else(wrong)
}

fn date<'a>(options: &'a Options, flag: &'static Flag) -> Result<Option<&'a str>, CliError> {
    match options.text(flag)? {
        Some(text) if !dates::is_iso_8601(text) => {
            let message = format!(
                "--{} must be a date like 2030-01-15T10:00:00Z, not `{text}`",
                flag.long
            );
            Err(CliError::usage(message))
        }
        other => Ok(other),
    }
}

fn object(flag: &Flag, text: &str) -> Result<Map<String, Value>, CliError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(CliError::usage(format!(
            "--{} must be a JSON object, like {{\"key\":\"value\"}}",
            flag.long
        ))),
        Err(error) => Err(CliError::usage(format!(
            "--{} is not JSON: {error}",
            flag.long
        ))),
    }
}

/// How far `posts:list` looks back and ahead.
const LIST_SPAN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Asked, parse};

    fn body(arguments: &[&str]) -> Result<Value, String> {
        let all = ["posts:create", "-s", "2030-01-15T10:00:00Z", "-i", "i1"]
            .iter()
            .chain(arguments);
        let Ok(Asked::Run(options)) = parse(all.map(Into::into).collect()) else {
            panic!("{arguments:?} is not understood");
        };
        let post = NewPost::read(&options).map_err(|error| error.message)?;
        Ok(serde_json::to_value(&post).unwrap())
    }

    /// `A:a,b B:` for two parts, the first with two media.
    fn parts_of(arguments: &[&str]) -> Result<String, String> {
        let body = body(arguments)?;
        let parts = body["posts"][0]["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| {
                let images = part["image"].as_array().unwrap().iter();
                let paths: Vec<&str> = images
                    .map(|image| image["path"].as_str().unwrap())
                    .collect();
                format!("{}:{}", part["content"].as_str().unwrap(), paths.join(","))
            });
        Ok(parts.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn media_belong_to_the_part_before_them() {
        for (arguments, expected) in [
            (&["-c", "A", "-m", "a", "-c", "B"][..], "A:a B:"),
            (&["-c", "A", "-m", "a", "-m", "b"], "A:a,b"),
            (&["-c", "A", "-m", " a , b "], "A:a,b"),
            (&["-m", "a", "-c", "A"], "A:a"),
            (
                &["-c", "A", "-m", "a", "-c", "B", "-m", "b", "-m", "c"],
                "A:a B:b,c",
            ),
            // All at the end: by count.
            (&["-c", "A", "-c", "B", "-m", "a", "-m", "b"], "A:a B:b"),
            (&["-c", "A", "-c", "B", "-m", "a"], "A:a B:"),
            (&["-c", "A", "-c", "B", "-m", "", "-m", "b"], "A: B:b"),
            (&["-c", "", "-m", "a"], ":a"),
        ] {
            assert_eq!(
                parts_of(arguments).as_deref(),
                Ok(expected),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn parts_that_make_no_sense_are_refused() {
        for (arguments, wrong) in [
            (&["-c", "A", "-m", ""][..], "-m is empty"),
            (
                &["-c", "A", "-m", "a,,b"],
                "--media `a,,b` has an empty part",
            ),
            (&["-c", "A", "-m", "a,"], "--media `a,` has an empty part"),
            (&["-c", ""], "a part has neither text nor media"),
            (&["-c", "A", "-c", ""], "a part has neither text nor media"),
            (
                &["-m", "a", "-c", "A", "-c", "B"],
                "the first -m stands before any -c",
            ),
            (
                &["-c", "A", "-c", "B", "-m", "a", "-m", "b", "-m", "c"],
                "3 -m cannot pair up with 2 -c",
            ),
            (&["-m", "a"], "posts:create needs --content or --json"),
            (
                &["-c", "A", "-d", "-1"],
                "--delay must be a number of minutes, not `-1`",
            ),
            (
                &["-c", "A", "-d", "abc"],
                "--delay must be a number of minutes, not `abc`",
            ),
            (
                &["-c", "A", "--settings", "[1]"],
                "--settings must be a JSON object, like {\"key\":\"value\"}",
            ),
            (
                &["-c", "A", "-i", ","],
                "--integrations `,` has an empty part",
            ),
        ] {
            assert_eq!(
                parts_of(arguments).err().as_deref(),
                Some(wrong),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn the_body_is_the_npm_one() {
        let body = body(&[
            "-c",
            "- item",
            "-i",
            "i2, i3",
            "-d5",
            "-t",
            "draft",
            "--no-shortLink",
            "--settings",
            r#"{"b":1.0,"a":12345678901234567890}"#,
        ])
        .unwrap();
        let part = r#"[{"content":"- item","image":[],"delay":5}]"#;
        let settings = r#"{"b":1.0,"a":12345678901234567890}"#;
        let posts: Vec<String> = ["i1", "i2", "i3"]
            .iter()
            .map(|id| {
                format!(r#"{{"integration":{{"id":"{id}"}},"value":{part},"settings":{settings}}}"#)
            })
            .collect();
        let expected = format!(
            r#"{{"type":"draft","creationMethod":"CLI","date":"2030-01-15T10:00:00Z","shortLink":false,"tags":[],"posts":[{}]}}"#,
            posts.join(",")
        );
        assert_eq!(body.to_string(), expected);
    }
}
