//! `upload`: files go from the disk to Postiz as a stream, so that memory does not grow with their size.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::cli::api::Api;
use crate::cli::api_error;
use crate::cli::command::{Command, Flag, Options, Takes, flag, many};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;
use crate::cli::progress::{Progress, bytes};
use crate::shared::hash::hex;
use crate::shared::random;

pub(crate) static UPLOAD: Command = Command {
    name: "upload",
    about: "upload files, to use them in posts",
    positionals: &[many("file", "a file's path; - is stdin")],
    flags: &[&NAME],
    notes: "One file gives its record, several give an array. Files are sent one after another, straight from the disk.",
    examples: &[
        "postiz upload photo.png | jq -r .path",
        "postiz upload - --name photo.png < photo.png",
    ],
    run: upload,
};

pub(crate) static NAME: Flag = flag(
    "name",
    None,
    Takes::Value("NAME"),
    "the file's name, when it comes from stdin (-)",
);

pub(crate) fn upload(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let name = options.text(&NAME)?;
    let paths: Vec<&OsStr> = options.paths().collect();
    check_names(&paths, name)?;
    // All are opened before the first is sent: a wrong name among ten must not leave nine behind.
    let mut sources = Vec::new();
    for path in &paths {
        sources.push(Source::open(context, path, name)?);
    }
    let api = Api::connect(context)?;
    let mut records = Vec::new();
    for source in sources {
        let sent = send(context, &api, source);
        records.push(sent.map_err(|error| with_those_before(error, records.len(), paths.len()))?);
    }
    match &records[..] {
        [record] => context.output.json(record)?,
        records => context.output.json(&Json::array(records))?,
    }
    Ok(Exit::Done)
}

/// What went before is on the server, and its records are not printed.
fn with_those_before(mut error: CliError, done: usize, all: usize) -> CliError {
    if done > 0 {
        error.message = format!("{} (of {all} files, {done} went before)", error.message);
    }
    error
}

fn check_names(paths: &[&OsStr], name: Option<&str>) -> Result<(), CliError> {
    let from_stdin = paths.iter().filter(|path| **path == "-").count();
    let wrong = match (from_stdin, name) {
        (0, Some(_)) => "--name goes with - (stdin); a file has its own name",
        (1, None) => "what comes from stdin needs a --name",
        (2.., _) => "stdin (-) can be uploaded only once",
        _ => return Ok(()),
    };
    Err(CliError::usage(wrong).hint("example: postiz upload - --name photo.png < photo.png"))
}

/// Something to upload, opened, and known not to be empty.
pub(crate) struct Source {
    /// How messages call it.
    shown: String,
    file_name: String,
    reader: Box<dyn Read>,
    /// Its first bytes.
    first: Vec<u8>,
    /// All bytes together, where that can be known before they are read.
    length: Option<u64>,
}

impl Source {
    pub(crate) fn open(
        context: &mut Context,
        path: &OsStr,
        name: Option<&str>,
    ) -> Result<Source, CliError> {
        let shown = path.to_string_lossy().into_owned();
        let cannot = |error: io::Error| CliError::failed(format!("cannot read {shown}: {error}"));
        let (mut reader, length): (Box<dyn Read>, _) = if path == "-" {
            (
                std::mem::replace(&mut context.stdin, Box::new(io::empty())),
                None,
            )
        } else {
            let file = File::open(path).map_err(cannot)?;
            let metadata = file.metadata().map_err(cannot)?;
            if metadata.is_dir() {
                return Err(
                    CliError::failed(format!("{shown} is a folder")).hint("name the files in it")
                );
            }
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        let mut first = Vec::new();
        reader
            .by_ref()
            .take(FIRST_BYTES as u64)
            .read_to_end(&mut first)
            .map_err(cannot)?;
        if first.is_empty() {
            return Err(CliError::failed(format!("{shown} is empty")));
        }
        // Pipes, and files of /proc, which say 0 and are not empty, have no length before their end is seen.
        let ended = first.len() < FIRST_BYTES;
        let seen = ended.then_some(first.len() as u64);
        let own_name = Path::new(path)
            .file_name()
            .unwrap_or(path)
            .to_string_lossy();
        Ok(Source {
            file_name: name.map_or(own_name.into_owned(), str::to_owned),
            shown,
            reader,
            first,
            length: length.filter(|length| *length > 0).or(seen),
        })
    }
}

pub(crate) fn send(context: &mut Context, api: &Api, source: Source) -> Result<Json, CliError> {
    let boundary = format!("----postiz{}", hex(&random::bytes::<16>()));
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\nContent-Type: {}\r\n\r\n",
        escaped(&source.file_name),
        content_type(&source.file_name)
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let around = (head.len() + tail.len()) as u64;
    let total = source.length.map(|length| length + around);
    let shown = source.shown.clone();
    let Context { clock, output, .. } = context;
    let progress = Progress::new(output, clock.as_ref(), &shown, source.length);
    let mut body = FileBody {
        reader: io::Cursor::new(source.first).chain(source.reader),
        length: source.length,
        progress,
        problem: None,
    };
    let mut whole = head.as_bytes().chain(&mut body).chain(tail.as_bytes());
    let sent = api.upload(
        &format!("multipart/form-data; boundary={boundary}"),
        &mut whole,
        total,
    );
    let problem = body.problem.take();
    let sent_bytes = body.progress.sent();
    context.output.clear_line();
    if let Some(problem) = problem {
        return Err(CliError::failed(format!("{shown} {problem}"))
            .word("file_changed")
            .hint("upload it again once it is complete"));
    }
    let answer = sent.map_err(|error| {
        error.about(&format!("{shown} is not uploaded ({} sent)", bytes(sent_bytes))).hint(
            "upload it again; if it fails at the same place, Postiz or a proxy in front of it may refuse files of this size",
        )
    })?;
    if !answer.is_success() {
        let now = context.clock.date();
        let error = api_error::of(&answer, &api.signed_in, &context.vars, now);
        return Err(error.about(&format!("{shown} is not uploaded")));
    }
    api_error::json_of(&answer, &api.signed_in)
}

/// A file's bytes on their way, counted, with the file growing or shrinking noticed.
struct FileBody<'a> {
    reader: io::Chain<io::Cursor<Vec<u8>>, Box<dyn Read>>,
    length: Option<u64>,
    progress: Progress<'a>,
    /// What is wrong with the file, to be put after its name.
    problem: Option<String>,
}

impl FileBody<'_> {
    fn fail(&mut self, problem: String) -> io::Error {
        self.problem = Some(problem.clone());
        io::Error::other(problem)
    }
}

impl Read for FileBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        let count = read.map_err(|error| self.fail(format!("cannot be read: {error}")))?;
        let sent = self.progress.sent() + count as u64;
        // The length has been announced; a body of another length would be cut off, or never end.
        match self.length {
            Some(length) if sent > length => {
                return Err(self.fail("grew while it was sent".to_owned()));
            }
            Some(length) if count == 0 && !buffer.is_empty() && sent < length => {
                return Err(self.fail("shrank while it was sent".to_owned()));
            }
            _ => self.progress.add(count as u64),
        }
        Ok(count)
    }
}

/// A file's name as browsers put it into a form (WHATWG HTML, multipart/form-data; RFC 7578 §4.2).
fn escaped(name: &str) -> String {
    name.replace('\r', "%0D")
        .replace('\n', "%0A")
        .replace('"', "%22")
}

fn content_type(name: &str) -> &'static str {
    let extension = name
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    match extension.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "bmp" => "image/bmp",
        "ico" => "image/x-icon",
        "avif" => "image/avif",
        "tiff" => "image/tiff",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        "avi" => "video/x-msvideo",
        "mkv" => "video/x-matroska",
        "webm" => "video/webm",
        "flv" => "video/x-flv",
        "wmv" => "video/x-ms-wmv",
        "m4v" => "video/x-m4v",
        "mpeg" | "mpg" => "video/mpeg",
        "3gp" => "video/3gpp",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "ogg" => "audio/ogg",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "m4a" => "audio/mp4",
        "pdf" => "application/pdf",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        _ => "application/octet-stream",
    }
}

/// Read before any request: to know that a source is not empty, and how long it is when it is short.
const FIRST_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_browsers_do() {
        assert_eq!(
            escaped("a \"b\"\r\n%22\\ü.png"),
            "a %22b%22%0D%0A%22\\ü.png"
        );
    }

    #[test]
    fn types_go_by_extension() {
        for (name, expected) in [
            ("a.PNG", "image/png"),
            ("a.tar.jpeg", "image/jpeg"),
            ("mp4", "video/mp4"),
            (".png", "image/png"),
            ("a.heic", "application/octet-stream"),
            ("noext", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }
}
