//! Reads texts that the user names: files, and stdin. Either may be a pipe; neither may be endless.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::json::Json;
use crate::shared::hash::sha256_hex;

/// The text of the file at `path`, or of stdin for `-`.
pub(crate) fn read_text(context: &mut Context, path: impl AsRef<Path>) -> Result<String, CliError> {
    let path = path.as_ref();
    let name = name_of(path);
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => read_capped(&mut context.stdin, &mut bytes),
        false => File::open(path).and_then(|file| read_capped(file, &mut bytes)),
    };
    read.map_err(|error| CliError::failed(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(CliError::failed(format!("{name} is larger than 64 MiB")));
    }
    let identity = &mut context.common.identity;
    identity.extend(sha256_hex(&bytes).into_bytes());
    String::from_utf8(bytes).map_err(|_| CliError::failed(format!("{name} is not valid UTF-8")))
}

/// The JSON in the file at `path`, or on stdin for `-`.
pub(crate) fn read_json(context: &mut Context, path: impl AsRef<Path>) -> Result<Json, CliError> {
    let text = read_text(context, &path)?;
    Json::parse(&text).map_err(|wrong| {
        let name = name_of(path.as_ref());
        CliError::failed(format!("{name} does not hold JSON: {wrong}"))
    })
}

fn name_of(path: &Path) -> String {
    match path.as_os_str() == "-" {
        true => "stdin".to_owned(),
        false => path.display().to_string(),
    }
}

fn read_capped(reader: impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    reader.take(TEXT_BYTES_MAX + 1).read_to_end(bytes)
}

const TEXT_BYTES_MAX: u64 = 64 * 1024 * 1024;
