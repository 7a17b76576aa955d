//! `posts:list`.

use std::time::Duration;

use serde_json::Value;

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, Options, Takes, flag, value};
use crate::cli::commands::common::{IGNORED, say_ignored};
use crate::cli::commands::posts::schedule::{self, TZ};
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;
use crate::shared::utc;

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

static START_DATE: Flag = value(
    "startDate",
    "DATE",
    "from this date (default: 30 days back)",
);

static END_DATE: Flag = value("endDate", "DATE", "to this date (default: 30 days ahead)");

static CUSTOMER: Flag = value("customer", "ID", "only posts of this customer (group)");

static STATE: Flag = flag(
    "state",
    Takes::OneOf(&["queue", "draft", "published", "error"]),
    "only posts in this state",
);

static GROUP: Flag = value(
    "group",
    "ID",
    "only posts with this `group`, as the list shows it",
);

static PAGE: Flag = value("page", "N", IGNORED).short('p');
static LIMIT: Flag = value("limit", "N", IGNORED).short('l');
static SEARCH: Flag = value("search", "TEXT", IGNORED).short('s');

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
    let call = Call::get(&["posts"])?
        .query("startDate", start.as_str())
        .query("endDate", end.as_str())
        .query("customer", options.text(&CUSTOMER)?);
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
    let mut answer = answer.value();
    let posts = answer["posts"].as_array_mut();
    let posts = posts.ok_or_else(|| CliError::failed("the answer is no list of posts"))?;
    posts.retain(is_wanted);
    Ok(answer.into())
}

/// How far `posts:list` looks back and ahead.
const LIST_SPAN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
