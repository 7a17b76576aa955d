//! The body of `POST /posts`, and the request that sends it.

use serde::Serialize;
use serde_json::{Map, Number, Value};
use ureq::http::Method;

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::Options;
use crate::cli::commands::posts::flags::DRY_RUN;
use crate::cli::commands::posts::media::{Image, Uploaded};
use crate::cli::commands::posts::parts::Part;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;

/// The whole body, with its fields in the npm CLI's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body<'a> {
    pub(super) r#type: &'a str,
    pub(super) creation_method: &'static str,
    pub(super) date: String,
    pub(super) short_link: bool,
    /// The interval of a post that repeats, in days.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) inter: Value,
    pub(super) tags: Vec<Value>,
    pub(super) posts: Vec<ChannelPost>,
}

/// The post for one channel.
#[derive(Serialize)]
pub(super) struct ChannelPost {
    /// `{"id": …}`.
    pub(super) integration: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    pub(super) value: Vec<PartBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) settings: Option<Map<String, Value>>,
}

/// One post of a thread.
#[derive(Clone, Serialize)]
pub(super) struct PartBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    content: String,
    image: Vec<Image>,
    delay: Number,
}

impl PartBody {
    /// The bodies of all `parts`, with `delay` between them.
    pub(super) fn all(parts: &[Part], uploaded: &Uploaded, delay: &Number) -> Vec<PartBody> {
        let body = |part: &Part| PartBody {
            id: None,
            content: part.content.clone(),
            image: uploaded.images(part),
            delay: delay.clone(),
        };
        parts.iter().map(body).collect()
    }
}

/// Sends `body` and prints the answer, or prints `body` for --dry-run.
pub(super) fn send(
    context: &mut Context,
    options: &Options,
    api: &Api,
    body: Json,
) -> Result<Exit, CliError> {
    if options.has(&DRY_RUN) {
        context.output.json(&body)?;
        context.output.say("dry run: nothing was sent");
        return Ok(Exit::Done);
    }
    let call = Call::new(Method::POST, &["posts"])?.body(body.as_str());
    api.print(context, &call)
}

impl Body<'_> {
    pub(super) fn json(&self) -> Result<Json, CliError> {
        let value = serde_json::to_value(self);
        value
            .map(Json::from)
            .map_err(|error| CliError::failed(error.to_string()))
    }
}
