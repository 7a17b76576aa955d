//! The commands that change one thing about a post by one request: `posts:delete`, `:status`, `:settings`, and `:missing`
//! and `:connect` for a published post whose ID Postiz does not know.

use serde_json::{Value, json};
use ureq::http::Method;

use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, Options, Positional, Takes, flag, value};
use crate::cli::commands::common::{POST_ID, answer_of, print_get};
use crate::cli::commands::posts::flags::{NEW_SETTINGS, object};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};

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

const OPTIONAL_POST_ID: Positional = Positional {
    optional: true,
    ..POST_ID
};

static WHOLE_GROUP: Flag = value(
    "group",
    "ID",
    "instead of an ID: delete the posts with this `group`",
);

fn delete(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = match (options.positionals.is_empty(), options.text(&WHOLE_GROUP)?) {
        (false, None) => Call::new(Method::DELETE, &["posts", options.positional(0)?])?,
        (true, Some(group)) => Call::new(Method::DELETE, &["posts", "group", group])?,
        _ => return Err(options.wrong_usage("posts:delete needs either <id> or --group")),
    };
    answer_of(context, &call)
}

pub(crate) static STATUS: Command = Command {
    name: "posts:status",
    about: "turn a post into a draft, or schedule it",
    positionals: &[POST_ID],
    flags: &[&NEW_STATUS],
    notes: "",
    examples: &["postiz posts:status \"$POST\" --status draft"],
    run: |context, options| {
        let status = options.required(&NEW_STATUS)?;
        put(context, options, "status", json!({ "status": status }))
    },
};

static NEW_STATUS: Flag = flag(
    "status",
    Takes::OneOf(&["draft", "schedule"]),
    "the new status (required)",
)
.short('s');

pub(crate) static SETTINGS: Command = Command {
    name: "posts:settings",
    about: "change the platform's settings of a post",
    positionals: &[POST_ID],
    flags: &[&NEW_SETTINGS],
    notes: "--settings is required; Postiz merges it into what the post has.",
    examples: &[
        "postiz posts:settings \"$POST\" --settings '{\"who_can_reply_post\":\"everyone\"}'",
    ],
    run: |context, options| {
        let settings = object(&NEW_SETTINGS, options.required(&NEW_SETTINGS)?)?;
        let body = json!({ "settings": settings });
        put(context, options, "settings", body)
    },
};

pub(crate) static MISSING: Command = Command {
    name: "posts:missing",
    about: "list what may be this post on its platform, where its ID there is missing",
    positionals: &[POST_ID],
    flags: &[],
    notes: "",
    examples: &["postiz posts:missing \"$LOST\" | jq -r '.[].id'"],
    run: |context, options| print_get(context, &["posts", options.positional(0)?, "missing"]),
};

pub(crate) static CONNECT: Command = Command {
    name: "posts:connect",
    about: "tell Postiz which published post this one is",
    positionals: &[POST_ID],
    flags: &[&RELEASE_ID],
    notes: "",
    examples: &["postiz posts:connect \"$LOST\" --release-id 7321456789012345678"],
    run: |context, options| {
        let id = options.required(&RELEASE_ID)?;
        put(context, options, "release-id", json!({ "releaseId": id }))
    },
};

static RELEASE_ID: Flag = value(
    "release-id",
    "ID",
    "the ID of the published post on its platform (required)",
);

fn put(
    context: &mut Context,
    options: &Options,
    what: &str,
    body: Value,
) -> Result<Exit, CliError> {
    let call = Call::new(Method::PUT, &["posts", options.positional(0)?, what])?;
    answer_of(context, &call.body(body.to_string()))
}
