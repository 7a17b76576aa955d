//! `api`: any request, for what has no command of its own.

use std::fs;
use std::io::Read;

use ureq::http::Method;

use crate::cli::api::{Api, Call};
use crate::cli::command::{Command, Flag, Options, Takes, flag, one};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
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
    run: any,
};

pub(crate) static BODY: Flag = flag(
    "data",
    Some('d'),
    Takes::Value("JSON|@FILE|-"),
    "the request's body: JSON, @FILE, or - for stdin",
);

pub(crate) fn any(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let method = method(options.positional(0)?)?;
    let path = options.positional(1)?;
    if path.contains("://") && !path.starts_with('/') {
        // The token must not go wherever an argument says.
        let message = format!("`{path}` is a whole URL; only the path under the API URL is wanted");
        return Err(
            CliError::usage(message).hint("example: postiz api GET /public/v1/integrations")
        );
    }
    let body = match options.text(&BODY)? {
        Some(body) => Some(read_body(context, body)?),
        None => None,
    };
    let call = Call::verbatim(method, path, body);
    let api = Api::connect(context)?;
    let answer = api.answer(context, &call)?;
    context.output.bytes(&answer.body)?;
    Ok(Exit::Done)
}

fn method(word: &str) -> Result<Method, CliError> {
    let word = word.to_ascii_uppercase();
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
    ];
    known
        .into_iter()
        .find(|method| method.as_str() == word)
        .ok_or_else(|| {
            let hint = "example: postiz api GET /public/v1/integrations";
            CliError::usage(format!(
                "`{word}` is not one of GET, POST, PUT, PATCH, DELETE and HEAD"
            ))
            .hint(hint)
        })
}

/// JSON as it is typed, in `@FILE`, or on stdin for `-`.
fn read_body(context: &mut Context, body: &str) -> Result<String, CliError> {
    if body != "-" && !body.starts_with('@') {
        let json = Json::parse(body)
            .map_err(|wrong| CliError::usage(format!("--data is not JSON: {wrong}")))?;
        return Ok(json.as_str().to_owned());
    }
    let text = read_text(context, body.strip_prefix('@').unwrap_or(body))?;
    let named = body.strip_prefix('@').unwrap_or("stdin");
    let json = Json::parse(&text)
        .map_err(|wrong| CliError::failed(format!("{named} does not hold JSON: {wrong}")))?;
    Ok(json.as_str().to_owned())
}

/// The text of a file, or of stdin for `-`.
pub(crate) fn read_text(
    context: &mut Context,
    path: impl AsRef<std::path::Path>,
) -> Result<String, CliError> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    let (name, read) = if path.as_os_str() == "-" {
        (
            "stdin".to_owned(),
            context.stdin.read_to_end(&mut bytes).map(drop),
        )
    } else {
        (
            path.display().to_string(),
            fs::read(path).map(|all| bytes = all),
        )
    };
    read.map_err(|error| CliError::failed(format!("cannot read {name}: {error}")))?;
    String::from_utf8(bytes).map_err(|_| CliError::failed(format!("{name} is not valid UTF-8")))
}
