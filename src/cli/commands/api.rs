//! `api`: sends any request, for what has no command of its own.

use ureq::http::Method;

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, Options, one, value};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::input::read_json;
use crate::cli::json::Json;

pub(crate) static API: Command = Command {
    name: "api",
    about: "send any request to the Postiz API",
    positionals: &[
        one("method", "GET, POST, PUT, PATCH, DELETE or HEAD"),
        one("path", "the path under the API URL, with its query"),
    ],
    flags: &[&BODY],
    notes: "Prints the answer's body as it is.",
    examples: &[
        "postiz api GET /public/v1/is-connected",
        "postiz api PUT \"/public/v1/posts/$POST/status\" -d '{\"status\":\"draft\"}' | jq -r .state",
    ],
    run: send,
};

static BODY: Flag = value(
    "data",
    "JSON|@FILE|-",
    "the request's body: JSON, @FILE, or - for stdin",
)
.short('d');

fn send(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let method = method(options.positional(0)?)?;
    let path = options.positional(1)?;
    if path.contains("://") && !path.starts_with('/') {
        // No argument may send the token to another host.
        let message = format!("`{path}` is a whole URL; only the path under the API URL is wanted");
        return Err(CliError::usage(message).hint(EXAMPLE));
    }
    let body = match options.text(&BODY)? {
        Some(body) => Some(read_body(context, body)?),
        None => None,
    };
    let call = Call::verbatim(method, path, body).slow();
    let api = Api::connect(context)?;
    let answer = api.answer(context, &call)?;
    let printed = context.output.bytes(&answer.body);
    api.printed(context, &call, printed)
}

fn method(word: &str) -> Result<Method, CliError> {
    let word = word.to_ascii_uppercase();
    match word.as_str() {
        "GET" => Ok(Method::GET),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "DELETE" => Ok(Method::DELETE),
        "HEAD" => Ok(Method::HEAD),
        _ => {
            let message = format!("`{word}` is not one of GET, POST, PUT, PATCH, DELETE and HEAD");
            Err(CliError::usage(message).hint(EXAMPLE))
        }
    }
}

const EXAMPLE: &str = "example: postiz api GET /public/v1/integrations";

/// The request's body: `data` itself, the content of `@FILE`, or stdin for `-`.
fn read_body(context: &mut Context, data: &str) -> Result<String, CliError> {
    let json = match data.strip_prefix('@') {
        Some(path) => read_json(context, path)?,
        None if data == "-" => read_json(context, data)?,
        None => Json::parse(data)
            .map_err(|wrong| CliError::usage(format!("--data is not JSON: {wrong}")))?,
    };
    Ok(json.as_str().to_owned())
}
