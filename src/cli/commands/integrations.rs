//! `integrations:list`, `:groups`, `:settings`, `:trigger`: the connected channels.

use ureq::http::Method;

use crate::cli::api::Call;
use crate::cli::args::Options;
use crate::cli::commands::answer_of;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;
use crate::cli::table::{GROUP, TRIGGER_DATA};

pub(crate) fn list(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let mut call = Call::get(&["integrations"])?;
    if let Some(group) = options.text(&GROUP)? {
        call = call.query("group", group);
    }
    answer_of(context, &call)
}

pub(crate) fn groups(context: &mut Context, _: &Options) -> Result<Exit, CliError> {
    answer_of(context, &Call::get(&["groups"])?)
}

pub(crate) fn settings(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    answer_of(
        context,
        &Call::get(&["integration-settings", options.positional(0)?])?,
    )
}

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
