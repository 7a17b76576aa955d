//! The posts' commands. `posts:create` is create.rs, `posts:update` is update.rs; what both need: the parts (parts.rs, their
//! text.rs and media.rs), the channels, the schedule, and the body that goes to Postiz.

mod create;
mod update;

mod body;
mod channels;
mod media;
mod parts;
mod schedule;
mod text;

use std::time::Duration;

use serde_json::{Map, Value, json};
use ureq::http::Method;

use crate::cli::api::{Api, Call};
use crate::cli::command::{Command, Flag, Options, Positional, Takes, flag, optional};
use crate::cli::commands::{POST_ID, answer_of};
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;
use crate::shared::utc;
use schedule::TZ;

pub(crate) use create::CREATE;
pub(crate) use update::UPDATE;

pub(crate) static LIST: Command = Command {
    name: "posts:list",
    about: "list posts",
    positionals: &[],
    flags: &[
        &START_DATE,
        &END_DATE,
        &TZ,
        &CUSTOMER,
        &STATE,
        &GROUP,
        &PAGE,
        &LIMIT,
        &SEARCH,
    ],
    notes: "A date without a time is a whole day.",
    examples: &[
        "postiz posts:list --startDate 2030-01-01 --endDate 2030-01-31 | jq -r '.posts[].id'",
        "postiz posts:list --customer \"$GROUP\" --state draft | jq '[.posts[].group] | unique'",
    ],
    run: list,
};

static START_DATE: Flag = flag(
    "startDate",
    None,
    Takes::Value("DATE"),
    "from this date (default: 30 days back)",
);

static END_DATE: Flag = flag(
    "endDate",
    None,
    Takes::Value("DATE"),
    "to this date (default: 30 days ahead)",
);

static CUSTOMER: Flag = flag(
    "customer",
    None,
    Takes::Value("ID"),
    "only posts of this customer (group)",
);

static STATE: Flag = flag(
    "state",
    None,
    Takes::OneOf(&["queue", "draft", "published", "error"]),
    "only posts in this state",
);

static GROUP: Flag = flag(
    "group",
    None,
    Takes::Value("ID"),
    "only posts with this `group`, as the list shows it",
);

static PAGE: Flag = flag("page", Some('p'), Takes::Value("N"), IGNORED);
static LIMIT: Flag = flag("limit", Some('l'), Takes::Value("N"), IGNORED);
static SEARCH: Flag = flag("search", Some('s'), Takes::Value("TEXT"), IGNORED);

fn list(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    say_ignored(context, options, &[&PAGE, &LIMIT, &SEARCH]);
    let now = context.clock.date();
    let zone = schedule::zone(context, options)?;
    let start = match options.text(&START_DATE)? {
        Some(text) => dates::read(START_DATE.long, text, zone.as_ref())?.text,
        None => utc::iso8601(now - LIST_SPAN),
    };
    let end = match options.text(&END_DATE)? {
        Some(text) => dates::read_end(END_DATE.long, text, zone.as_ref())?.text,
        None => utc::iso8601(now + LIST_SPAN),
    };
    let mut call = Call::get(&["posts"])?
        .query("startDate", &start)
        .query("endDate", &end);
    if let Some(customer) = options.text(&CUSTOMER)? {
        call = call.query("customer", customer);
    }
    let state = options.text(&STATE)?.map(str::to_ascii_uppercase);
    let group = options.text(&GROUP)?;
    let mut answer = Api::connect(context)?.json(context, &call)?;
    // Postiz itself filters by date and customer alone.
    if state.is_some() || group.is_some() {
        let is_wanted = |post: &Value| {
            state.as_ref().is_none_or(|state| post["state"] == **state)
                && group.is_none_or(|group| post["group"] == group)
        };
        answer = filtered(&answer, is_wanted)?;
    }
    context.output.json(&answer)?;
    Ok(Exit::Done)
}

fn filtered(answer: &Json, is_wanted: impl Fn(&Value) -> bool) -> Result<Json, CliError> {
    let mut answer: Value = serde_json::from_str(answer.as_str()).unwrap_or_default();
    let posts = answer["posts"].as_array_mut();
    let posts = posts.ok_or_else(|| CliError::failed("the answer is no list of posts"))?;
    posts.retain(is_wanted);
    Ok(answer.into())
}

pub(crate) static DELETE: Command = Command {
    name: "posts:delete",
    about: "delete a post, with all of its group",
    positionals: &[OPTIONAL_POST_ID],
    flags: &[&WHOLE_GROUP],
    notes: "Postiz answers {\"error\": true} when it has deleted the post; the exit code is what counts.",
    examples: &[
        "postiz posts:delete \"$POST\"",
        "postiz posts:delete --group group-lost",
    ],
    run: delete,
};

const OPTIONAL_POST_ID: Positional = optional("id", "the post's ID");

static WHOLE_GROUP: Flag = flag(
    "group",
    None,
    Takes::Value("ID"),
    "instead of an ID: delete the posts with this `group`",
);

fn delete(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let id = options
        .paths()
        .next()
        .map(|_| options.positional(0))
        .transpose()?;
    let call = match (id, options.text(&WHOLE_GROUP)?) {
        (Some(id), None) => Call::new(Method::DELETE, &["posts", id])?,
        (None, Some(group)) => Call::new(Method::DELETE, &["posts", "group", group])?,
        _ => {
            return Err(CliError::usage("posts:delete needs either <id> or --group")
                .hint("`postiz posts:delete --help` says how it is used"));
        }
    };
    answer_of(context, &call)
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

static STATUS: Flag = flag(
    "status",
    Some('s'),
    Takes::OneOf(&["draft", "schedule"]),
    "the new status (required)",
);

fn status(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::new(Method::PUT, &["posts", options.positional(0)?, "status"])?;
    let body = json!({ "status": options.required(&STATUS)? });
    answer_of(context, &call.body(body.to_string()))
}

pub(crate) static SETTINGS_COMMAND: Command = Command {
    name: "posts:settings",
    about: "change the platform's settings of a post",
    positionals: &[POST_ID],
    flags: &[&NEW_SETTINGS],
    notes: "--settings is required; Postiz merges it into what the post has.",
    examples: &[
        "postiz posts:settings \"$POST\" --settings '{\"who_can_reply_post\":\"everyone\"}'",
    ],
    run: settings,
};

static NEW_SETTINGS: Flag = flag(
    "settings",
    None,
    Takes::Value("JSON"),
    "the platform's settings, a JSON object",
);

fn settings(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::new(Method::PUT, &["posts", options.positional(0)?, "settings"])?;
    let body = json!({ "settings": object(&NEW_SETTINGS, options.required(&NEW_SETTINGS)?)? });
    answer_of(context, &call.body(body.to_string()))
}

pub(crate) static MISSING: Command = Command {
    name: "posts:missing",
    about: "list content that may be a published post whose ID got lost",
    positionals: &[POST_ID],
    flags: &[],
    notes: "",
    examples: &["postiz posts:missing \"$LOST\" | jq -r '.[].id'"],
    run: missing,
};

fn missing(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
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
    examples: &["postiz posts:connect \"$LOST\" --release-id 7321456789012345678"],
    run: connect,
};

static RELEASE_ID: Flag = flag(
    "release-id",
    None,
    Takes::Value("ID"),
    "the ID of the published post on its platform (required)",
);

fn connect(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::new(
        Method::PUT,
        &["posts", options.positional(0)?, "release-id"],
    )?;
    let body = json!({ "releaseId": options.required(&RELEASE_ID)? });
    answer_of(context, &call.body(body.to_string()))
}

/// Says that flags of old documents, which the npm CLI passes over in silence, change nothing.
fn say_ignored(context: &mut Context, options: &Options, flags: &[&'static Flag]) {
    for flag in flags.iter().filter(|flag| options.has(flag)) {
        let words = format!("--{} changes nothing: Postiz has no such thing", flag.long);
        context.output.warn(&words);
    }
}

/// `text` as a JSON object.
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

const IGNORED: &str = "taken and ignored, as the npm CLI does";

/// How far `posts:list` looks back and ahead.
const LIST_SPAN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
