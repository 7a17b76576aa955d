//! `integrations:list`, `:groups`, `:settings`, `:trigger`: the connected channels.

use ureq::http::Method;

use crate::cli::api::Call;
use crate::cli::command::{Command, Flag, Options, Takes, flag, one};
use crate::cli::commands::{INTEGRATION_ID, answer_of};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;

pub(crate) static LIST: Command = Command {
    name: "integrations:list",
    about: "list the connected channels",
    positionals: &[],
    flags: &[&GROUP],
    notes: "",
    examples: &["postiz integrations:list | jq -r '.[] | \"\\(.id) \\(.name)\"'"],
    run: list,
};

pub(crate) static GROUP: Flag = flag(
    "group",
    None,
    Takes::Value("ID"),
    "only channels of this group (customer)",
);

pub(crate) fn list(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let mut call = Call::get(&["integrations"])?;
    if let Some(group) = options.text(&GROUP)? {
        call = call.query("group", group);
    }
    answer_of(context, &call)
}

pub(crate) static GROUPS: Command = Command {
    name: "integrations:groups",
    about: "list the groups (customers) that channels belong to",
    positionals: &[],
    flags: &[],
    notes: "",
    examples: &["postiz integrations:groups | jq -r '.[].id'"],
    run: groups,
};

pub(crate) fn groups(context: &mut Context, _: &Options) -> Result<Exit, CliError> {
    answer_of(context, &Call::get(&["groups"])?)
}

pub(crate) static SETTINGS: Command = Command {
    name: "integrations:settings",
    about: "show a channel's rules, settings and tools",
    positionals: &[INTEGRATION_ID],
    flags: &[],
    notes: "",
    examples: &["postiz integrations:settings \"$CHANNEL\" | jq .output.maxLength"],
    run: settings,
};

pub(crate) fn settings(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    answer_of(
        context,
        &Call::get(&["integration-settings", options.positional(0)?])?,
    )
}

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

pub(crate) static TRIGGER_DATA: Flag = flag(
    "data",
    Some('d'),
    Takes::Value("JSON"),
    "what the method wants to know (default: {})",
);

pub(crate) fn trigger(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::new(
        Method::POST,
        &["integration-trigger", options.positional(0)?],
    )?;
    let method = options.positional(1)?;
    if method.is_empty() {
        return Err(CliError::usage("the method is empty"));
    }
    let data = options.text(&TRIGGER_DATA)?.unwrap_or("{}");
    let data = Json::parse(data)
        .map_err(|wrong| CliError::usage(format!("--data is not JSON: {wrong}")))?;
    let method = serde_json::Value::from(method);
    answer_of(
        context,
        &call.body(format!(
            r#"{{"methodName":{method},"data":{}}}"#,
            data.as_str()
        )),
    )
}
