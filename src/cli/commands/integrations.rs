//! `integrations:list`, `:groups`, `:settings`, `:trigger`, `:connect`, `:slot`: the connected channels.

use serde_json::Value;
use serde_json::value::RawValue;
use ureq::http::Method;

use crate::cli::api::Api;
use crate::cli::browser::may_open;
use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, Options, one, value};
use crate::cli::commands::common::{INTEGRATION_ID, answer_of, print_get};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;
use crate::cli::login::NO_BROWSER;

pub(crate) static LIST: Command = Command {
    name: "integrations:list",
    about: "list the connected channels",
    positionals: &[],
    flags: &[&NAME, &PLATFORM, &GROUP],
    notes: "",
    examples: &[
        "postiz integrations:list | jq -r '.[] | \"\\(.id) \\(.name)\"'",
        "postiz integrations:list --platform youtube --name ada | jq -r '.[0].id'",
    ],
    run: list,
};

static NAME: Flag = value("name", "TEXT", "only channels with this in their name");
static PLATFORM: Flag = value(
    "platform",
    "NAME",
    "only channels of this platform (their identifier: x, linkedin, …)",
);
pub(crate) static GROUP: Flag = value("group", "ID", "only channels of this group (customer)");

fn list(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::get(&["integrations"])?.query("group", options.text(&GROUP)?);
    let (name, platform) = (options.text(&NAME)?, options.text(&PLATFORM)?);
    if name.is_none() && platform.is_none() {
        return answer_of(context, &call);
    }
    let channels = Api::connect(context)?.json(context, &call)?;
    let (found, others) = partition(&channels, name, platform)?;
    if found.is_empty() {
        let others = others.join(", ");
        context
            .output
            .say(&format!("no such channel among: {others}"));
    }
    context.output.json(&Json::array(&found))?;
    Ok(Exit::Done)
}

/// The channels with this name and platform, and the names of the others.
fn partition(
    channels: &Json,
    name: Option<&str>,
    platform: Option<&str>,
) -> Result<(Vec<Json>, Vec<String>), CliError> {
    let (name, platform) = (name.map(str::to_lowercase), platform.map(str::to_lowercase));
    let channels: Vec<&RawValue> = serde_json::from_str(channels.as_str())
        .map_err(|_| CliError::failed("what Postiz answered is no list of channels"))?;
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for channel in channels {
        let fields: Value = serde_json::from_str(channel.get()).unwrap_or_default();
        let field = |key: &str| fields[key].as_str().unwrap_or_default().to_lowercase();
        let is_wanted = name
            .as_ref()
            .is_none_or(|name| field("name").contains(name))
            && platform
                .as_ref()
                .is_none_or(|platform| field("identifier") == *platform);
        match (is_wanted, fields["name"].as_str()) {
            (true, _) => found.extend(Json::parse(channel.get())),
            (false, Some(name)) => others.push(format!("{name} ({})", field("identifier"))),
            (false, None) => {}
        }
    }
    Ok((found, others))
}

pub(crate) static GROUPS: Command = Command {
    name: "integrations:groups",
    about: "list the groups (customers) that channels belong to",
    positionals: &[],
    flags: &[],
    notes: "",
    examples: &["postiz integrations:groups | jq -r '.[].id'"],
    run: |context, _| print_get(context, &["groups"]),
};

pub(crate) static SETTINGS: Command = Command {
    name: "integrations:settings",
    about: "show a channel's rules, settings and tools",
    positionals: &[INTEGRATION_ID],
    flags: &[],
    notes: "",
    examples: &["postiz integrations:settings \"$CHANNEL\" | jq .output.maxLength"],
    run: |context, options| print_get(context, &["integration-settings", options.positional(0)?]),
};

pub(crate) static TRIGGER: Command = Command {
    name: "integrations:trigger",
    about: "run one of a channel's tools",
    positionals: &[INTEGRATION_ID, one("method", "the tool's methodName")],
    flags: &[&TRIGGER_DATA],
    notes: "",
    examples: &[
        "postiz integrations:trigger \"$CHANNEL\" channels -d '{\"limit\":\"10\"}' | jq .output",
    ],
    run: trigger,
};

static TRIGGER_DATA: Flag = value(
    "data",
    "JSON",
    "what the method wants to know (default: {})",
)
.short('d');

fn trigger(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let (id, method) = (options.positional(0)?, options.positional(1)?);
    let call = Call::new(Method::POST, &["integration-trigger", id])?;
    if method.is_empty() {
        return Err(CliError::usage("the method is empty"));
    }
    let data = options.text(&TRIGGER_DATA)?.unwrap_or("{}");
    let data = Json::parse(data)
        .map_err(|wrong| CliError::usage(format!("--data is not JSON: {wrong}")))?;
    let (method, data) = (Value::from(method), data.as_str());
    let body = format!(r#"{{"methodName":{method},"data":{data}}}"#);
    answer_of(context, &call.body(body))
}

pub(crate) static CONNECT: Command = Command {
    name: "integrations:connect",
    about: "get the page that connects a channel, and open it on a terminal",
    positionals: &[one("provider", "the platform: x, linkedin, youtube, …")],
    flags: &[&REFRESH, &NO_BROWSER],
    notes: "The channel is connected once somebody has agreed on that page.",
    examples: &["postiz integrations:connect linkedin | jq -r .url"],
    run: connect,
};

static REFRESH: Flag = value(
    "refresh",
    "ID",
    "reconnect this channel instead of adding one",
);

fn connect(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::get(&["social", options.positional(0)?])?;
    let call = call.query("refresh", options.text(&REFRESH)?);
    let answer = Api::connect(context)?.json(context, &call)?;
    context.output.json(&answer)?;
    let fields = answer.value();
    let Some(url) = fields["url"].as_str() else {
        return Ok(Exit::Done);
    };
    let has_terminal = context.output.screen().stderr_is_terminal;
    let wanted = has_terminal && !options.has(&NO_BROWSER);
    if may_open(wanted, &context.vars, has_terminal).is_ok() && (context.open_browser)(url) {
        context.output.say("Your browser should open the page now.");
    } else if has_terminal {
        context.output.say("Open the page in a browser.");
    }
    Ok(Exit::Done)
}

pub(crate) static SLOT: Command = Command {
    name: "integrations:slot",
    about: "show a channel's next free time slot",
    positionals: &[INTEGRATION_ID],
    flags: &[],
    notes: "The date is UTC. `postiz posts:create -s next` posts at it.",
    examples: &["postiz integrations:slot \"$CHANNEL\" | jq -r .date"],
    run: |context, options| print_get(context, &["find-slot", options.positional(0)?]),
};
