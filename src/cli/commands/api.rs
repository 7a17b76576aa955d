//! `api`: any request, for what has no command of its own.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ureq::http::Method;

use crate::cli::api::{Api, Call};
use crate::cli::command::{Command, Flag, Options, Takes, flag, one};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;
use crate::shared::hash::sha256_hex;

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
    let call = Call::verbatim(method, path, body).slow();
    let api = Api::connect(context)?;
    let answer = api.answer(context, &call)?;
    let printed = context.output.bytes(&answer.body);
    api.printed(context, &call, printed)
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

/// The text of a file, or of stdin for `-`. Either may be a pipe; neither may be endless.
pub(crate) fn read_text(context: &mut Context, path: impl AsRef<Path>) -> Result<String, CliError> {
    let path = path.as_ref();
    let is_stdin = path.as_os_str() == "-";
    let name = match is_stdin {
        true => "stdin".to_owned(),
        false => path.display().to_string(),
    };
    let mut bytes = Vec::new();
    let read = match is_stdin {
        true => read_capped(&mut context.stdin, &mut bytes),
        false => File::open(path).and_then(|file| read_capped(file, &mut bytes)),
    };
    read.map_err(|error| CliError::failed(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(CliError::failed(format!("{name} is larger than 64 MiB")));
    }
    context.common.asked.extend(sha256_hex(&bytes).into_bytes());
    String::from_utf8(bytes).map_err(|_| CliError::failed(format!("{name} is not valid UTF-8")))
}

fn read_capped(reader: impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    reader.take(TEXT_BYTES_MAX + 1).read_to_end(bytes)
}

/// Largest text that is read whole.
const TEXT_BYTES_MAX: u64 = 64 * 1024 * 1024;
