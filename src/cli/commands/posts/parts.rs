//! The parts of a post, from `-c`, `--content-file`, `-m` and `-d`: finds out which media belong to which text.

use std::ffi::OsStr;

use serde_json::Number;

use crate::cli::command::{Flag, Options, Takes, flag, utf8, value};
use crate::cli::commands::posts::text;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::input::read_text;

pub(super) static CONTENT: Flag = value(
    "content",
    "TEXT",
    "the text of the post; repeat it for a thread or comments",
)
.short('c')
.repeatable();

pub(super) static CONTENT_FILE: Flag = flag(
    "content-file",
    Takes::Path,
    "a -c whose text is in this file (- is stdin)",
)
.repeatable();

pub(super) static MEDIA: Flag = value(
    "media",
    "FILES|URLS",
    "comma-separated media of the -c before it; files are uploaded first",
)
.short('m')
.repeatable();

pub(super) static HTML: Flag = flag(
    "html",
    Takes::YesNo,
    "the text is HTML; --no-html: it is not (default: a tag like <p> tells)",
);

pub(super) static DELAY: Flag = value(
    "delay",
    "MINUTES",
    "minutes between the parts of a thread (default: 0)",
)
.short('d');

/// One part of a thread, or the only one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The text as it is sent.
    pub(super) content: String,
    /// Local files and web addresses.
    pub(super) media: Vec<String>,
}

/// Reads the parts; none when no text is given. Of all files it opens only those of --content-file.
pub(super) fn read(context: &mut Context, options: &Options) -> Result<Vec<Part>, CliError> {
    let mut parts = Vec::new();
    for (typed, media) in pair(context, options)? {
        let media = split_media(&typed, &media)?;
        let content = for_postiz(context, options, &typed);
        parts.push(Part { content, media });
    }
    Ok(parts)
}

/// Each text with its `-m`.
type Paired<'a> = Vec<(String, Vec<&'a str>)>;

/// Each `-m` belongs to the `-c` before it. When all `-m` come after the last of several `-c`, the first belongs to the first
/// `-c` and so on, as always in the npm CLI.
fn pair<'a>(context: &mut Context, options: &'a Options) -> Result<Paired<'a>, CliError> {
    let mut parts: Paired = Vec::new();
    let mut all_media: Vec<&str> = Vec::new();
    let mut ahead = Vec::new();
    let mut media_follow_all = true;
    for (flag, value) in options.given() {
        if flag == &MEDIA {
            let media = utf8(flag, value)?;
            all_media.push(media);
            let before = parts.last_mut();
            before.map_or(&mut ahead, |part| &mut part.1).push(media);
        } else if let Some(content) = content(context, flag, value)? {
            media_follow_all &= all_media.is_empty();
            parts.push((content, Vec::new()));
        }
    }
    if parts.len() > 1 && media_follow_all {
        pair_by_count(&mut parts, &all_media)?;
    } else if parts.len() > 1 && !ahead.is_empty() {
        return Err(CliError::usage("the first -m stands before any -c").hint(AFTER_ITS_CONTENT));
    } else if let Some((_, first)) = parts.first_mut() {
        first.splice(0..0, ahead);
        if all_media.contains(&"") {
            return Err(CliError::usage("-m is empty")
                .hint("did the upload before it fail? Its path is what belongs here"));
        }
    }
    Ok(parts)
}

/// The text in the value of `flag`; `None` when it is not a flag for text.
fn content(context: &mut Context, flag: &Flag, value: &OsStr) -> Result<Option<String>, CliError> {
    if flag == &CONTENT {
        return Ok(Some(utf8(flag, value)?.to_owned()));
    }
    if flag != &CONTENT_FILE {
        return Ok(None);
    }
    let text = read_text(context, value)?.replace("\r\n", "\n");
    // The newline that ends a file is not a part of the text.
    let text = text.trim_start_matches('\u{feff}').trim_end_matches('\n');
    if text.trim().is_empty() {
        let message = format!("{} holds no text", value.to_string_lossy());
        return Err(CliError::usage(message));
    }
    Ok(Some(text.to_owned()))
}

fn pair_by_count<'a>(parts: &mut Paired<'a>, all_media: &[&'a str]) -> Result<(), CliError> {
    if all_media.len() > parts.len() {
        let (media, contents) = (all_media.len(), parts.len());
        let message = format!("{media} -m cannot pair up with {contents} -c");
        return Err(CliError::usage(message).hint(AFTER_ITS_CONTENT));
    }
    for (index, (_, of_part)) in parts.iter_mut().enumerate() {
        let media = all_media.get(index).copied();
        // An empty `-m` skips a part.
        *of_part = media
            .filter(|media| !media.is_empty())
            .into_iter()
            .collect();
    }
    Ok(())
}

fn split_media(content: &str, lists: &[&str]) -> Result<Vec<String>, CliError> {
    let mut media = Vec::new();
    for list in lists {
        media.extend(split_list(&MEDIA, list)?.into_iter().map(str::to_owned));
    }
    if content.trim().is_empty() && media.is_empty() {
        return Err(CliError::usage("a part has neither text nor media")
            .hint("leave the empty -c out, or give it a -m"));
    }
    Ok(media)
}

/// The items of a comma-separated list. An empty item is an error: usually it is a script's variable that was never set.
pub(super) fn split_list<'a>(flag: &Flag, list: &'a str) -> Result<Vec<&'a str>, CliError> {
    let parts: Vec<&str> = list.split(',').map(str::trim).collect();
    if parts.contains(&"") {
        let message = format!("{flag} `{list}` has an empty part");
        return Err(CliError::usage(message));
    }
    Ok(parts)
}

fn for_postiz(context: &mut Context, options: &Options, typed: &str) -> String {
    let is_html = options.yes_no(&HTML);
    if let (None, Some(tag)) = (is_html, text::known_tag(typed)) {
        let words =
            format!("the text holds {tag}, so it is sent as HTML; --no-html sends it as typed");
        context.output.warn_once(&words);
    }
    text::for_postiz(typed, is_html).into_owned()
}

/// The value of `-d`.
pub(super) fn delay(context: &mut Context, options: &Options) -> Result<Number, CliError> {
    let text = options.text(&DELAY)?.unwrap_or("0");
    let number = text.parse::<u32>().map(Number::from).ok();
    let number = number.or_else(|| Number::from_f64(text.parse().ok()?));
    let minutes = number.as_ref().and_then(Number::as_f64).unwrap_or(-1.0);
    let Some(number) = number.filter(|_| minutes >= 0.0) else {
        let message = format!("--delay must be a number of minutes, not `{text}`");
        return Err(CliError::usage(message));
    };
    if minutes > DAY_MINUTES {
        let hours = minutes / 60.0;
        let words = format!("--delay is in minutes: {text} are {hours:.1} hours between two parts");
        context.output.warn(&words);
    }
    Ok(number)
}

const AFTER_ITS_CONTENT: &str = "put each -m after the -c it belongs to";

const DAY_MINUTES: f64 = 24.0 * 60.0;
