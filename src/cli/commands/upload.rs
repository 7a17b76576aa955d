//! `upload`: sends files as a stream from the disk, so that memory does not grow with their size.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::json;
use ureq::http::Method;

use crate::cli::api::{self, Api};
use crate::cli::api_error;
use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, Options, Positional, one, switch, value};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::cli::http::Answer;
use crate::cli::json::Json;
use crate::cli::progress::{Progress, bytes};
use crate::cli::unanswered;
use crate::shared::hash::hex;
use crate::shared::random;

pub(crate) static UPLOAD: Command = Command {
    name: "upload",
    about: "upload files, to use them in posts",
    positionals: &[Positional {
        many: true,
        ..one("file", "a file's path, a folder's with -r, or an https URL; - is stdin")
    }],
    flags: &[&RECURSIVE, &NAME],
    notes: "One file gives its record, several give an array. Files are sent one after another, straight from the disk; when
one fails, those before it are printed.",
    examples: &[
        "postiz upload photo.png | jq -r .path",
        "postiz upload -r photos | jq -r '.[].path'",
        "postiz upload - --name photo.png < photo.png",
    ],
    run: upload,
};

static RECURSIVE: Flag =
    switch("recursive", "upload the pictures and videos in a folder").short('r');

static NAME: Flag = value(
    "name",
    "NAME",
    "the file's name, when it comes from stdin (-)",
);

fn upload(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let name = options.text(&NAME)?;
    let paths: Vec<&OsStr> = options.paths().collect();
    check_names(&paths, name)?;
    // All files are opened before the first is sent: a wrong name among ten must not leave nine uploaded.
    let mut sources = Vec::new();
    let mut is_list = paths.len() > 1;
    for path in &paths {
        if Path::new(path).is_dir() {
            is_list = true;
            let recursive = options.has(&RECURSIVE);
            sources.extend(sources_in(context, Path::new(path), recursive)?);
        } else {
            sources.push(Source::open(context, path, name)?);
        }
    }
    let api = Api::connect(context)?;
    let all = sources.len();
    let (mut records, mut failure) = (Vec::new(), None);
    for source in sources {
        match source.upload(context, &api) {
            Ok(record) => records.push(record),
            Err(error) => {
                failure = Some(with_count(error, records.len(), all));
                break;
            }
        }
    }
    // The records of the uploaded files are printed even when the next file failed.
    let printed = match &records[..] {
        [] => Ok(()),
        [record] if !is_list => context.output.json(record),
        records => context.output.json(&Json::array(records)),
    };
    match failure {
        Some(failure) => Err(failure),
        None => api.printed(context, &upload_call(), printed),
    }
}

fn with_count(mut error: CliError, done: usize, all: usize) -> CliError {
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

/// Something to upload that exists and is not empty.
pub(crate) struct Source {
    /// Its name in messages.
    shown: String,
    file_name: String,
    content: Content,
}

enum Content {
    /// A file, opened when it is sent: a folder may hold more files than a process may have open.
    File { path: PathBuf, length: u64 },
    /// Bytes that can be read only once: a pipe, stdin, a file of /proc.
    Stream(Opened),
    /// Postiz fetches it from the address that is its name.
    Url,
}

struct Opened {
    reader: Box<dyn Read>,
    /// The number of bytes, if it is known before they are read.
    length: Option<u64>,
}

impl Source {
    pub(crate) fn open(
        context: &mut Context,
        path: &OsStr,
        name: Option<&str>,
    ) -> Result<Source, CliError> {
        let shown = path.to_string_lossy().into_owned();
        let own_name = Path::new(path)
            .file_name()
            .unwrap_or(path)
            .to_string_lossy();
        let content = Content::open(context, path, &shown)?;
        Ok(Source {
            file_name: name.map_or(own_name.into_owned(), str::to_owned),
            shown,
            content,
        })
    }

    /// Uploads it: its record.
    pub(crate) fn upload(self, context: &mut Context, api: &Api) -> Result<Json, CliError> {
        let (shown, file_name) = (&self.shown, &self.file_name);
        match self.content {
            Content::Url => {
                let call = Call::new(Method::POST, &["upload-from-url"])?.slow();
                let call = call.body(json!({ "url": shown }).to_string());
                let record = api.json(context, &call);
                record.map_err(|error| error.about(&format!("{shown} is not uploaded")))
            }
            Content::Stream(opened) => {
                let answer = send(context, api, shown, file_name, opened)?;
                record_in(context, api, shown, answer)
            }
            Content::File { path, length } => {
                let mut tries = 0;
                loop {
                    let file = File::open(&path).map_err(|error| cannot_read(shown, &error))?;
                    let opened = Opened {
                        reader: Box::new(file),
                        length: Some(length),
                    };
                    let answer = send(context, api, shown, file_name, opened)?;
                    tries += 1;
                    if !api.waits_after(context, &upload_call(), &answer, tries)? {
                        return record_in(context, api, shown, answer);
                    }
                }
            }
        }
    }
}

impl Content {
    fn open(context: &mut Context, path: &OsStr, shown: &str) -> Result<Content, CliError> {
        if let Some(url) = path.to_str().filter(|text| text.contains("://")) {
            if !url.starts_with("https://") {
                let message =
                    format!("Postiz fetches files from https:// addresses alone, not from {url}");
                return Err(CliError::usage(message));
            }
            return Ok(Content::Url);
        }
        if path == "-" {
            let stdin = std::mem::replace(&mut context.stdin, Box::new(io::empty()));
            return Content::stream(stdin, shown);
        }
        let cannot = |error: io::Error| cannot_read(shown, &error);
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        // Files of /proc have a length of 0 and are not empty.
        if metadata.is_file() && metadata.len() > 0 {
            let (path, length) = (PathBuf::from(path), metadata.len());
            return Ok(Content::File { path, length });
        }
        Content::stream(Box::new(file), shown)
    }

    fn stream(mut reader: Box<dyn Read>, shown: &str) -> Result<Content, CliError> {
        let mut first = Vec::new();
        let read = reader
            .by_ref()
            .take(FIRST_BYTES as u64)
            .read_to_end(&mut first);
        read.map_err(|error| cannot_read(shown, &error))?;
        if first.is_empty() {
            return Err(CliError::failed(format!("{shown} is empty")));
        }
        let has_ended = first.len() < FIRST_BYTES;
        Ok(Content::Stream(Opened {
            length: has_ended.then_some(first.len() as u64),
            reader: Box::new(io::Cursor::new(first).chain(reader)),
        }))
    }
}

fn cannot_read(shown: &str, error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::IsADirectory => CliError::failed(format!("{shown} is a folder")),
        _ => CliError::failed(format!("cannot read {shown}: {error}")),
    }
}

/// The files below a folder that Postiz accepts, in the order of their names.
fn sources_in(
    context: &mut Context,
    folder: &Path,
    recursive: bool,
) -> Result<Vec<Source>, CliError> {
    let shown = folder.display().to_string();
    if !recursive {
        let error = CliError::failed(format!("{shown} is a folder"));
        return Err(error.hint("add -r to upload the pictures and videos in it, or name the files"));
    }
    let mut paths = Vec::new();
    let walked = walk(folder, &mut paths);
    walked.map_err(|error| cannot_read(&shown, &error))?;
    let all = paths.len();
    paths.retain(|path| {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
    });
    if paths.is_empty() {
        let hint = format!("Postiz takes {}", EXTENSIONS.join(", "));
        return Err(CliError::failed(format!("{shown} holds nothing to upload")).hint(hint));
    }
    if paths.len() < all {
        let words = format!(
            "{} files in {shown} are left out: Postiz does not take them",
            all - paths.len()
        );
        context.output.say(&words);
    }
    paths
        .iter()
        .map(|path| Source::open(context, path.as_os_str(), None))
        .collect()
}

/// Finds all files below a folder, except hidden ones. Links to folders are not followed, since they may lead in a circle.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries: io::Result<Vec<DirEntry>> = fs::read_dir(folder)?.collect();
    let mut entries = entries?;
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(&path, found)?;
        } else if path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

fn upload_call() -> Call {
    Call::verbatim(Method::POST, "/public/v1/upload", None)
}

fn send(
    context: &mut Context,
    api: &Api,
    shown: &str,
    file_name: &str,
    opened: Opened,
) -> Result<Answer, CliError> {
    let boundary = format!("----postiz{}", hex(&random::bytes::<16>()));
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\nContent-Type: {}\r\n\r\n",
        escaped(file_name),
        content_type(file_name)
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let around = (head.len() + tail.len()) as u64;
    let Context { clock, output, .. } = context;
    let mut body = FileBody {
        reader: opened.reader,
        length: opened.length,
        progress: Progress::new(output, clock.as_ref(), shown, opened.length),
        problem: None,
    };
    let mut whole = head.as_bytes().chain(&mut body).chain(tail.as_bytes());
    let form = format!("multipart/form-data; boundary={boundary}");
    let total = opened.length.map(|length| length + around);
    let sent = api.upload(&form, &mut whole, total);
    let problem = body.problem.take();
    let sent_bytes = body.progress.sent();
    context.output.clear_line();
    if let Some(problem) = problem {
        return Err(CliError::failed(format!("{shown} {problem}"))
            .word("file_changed")
            .hint("upload it again once it is complete"));
    }
    sent.map_err(|no_answer| {
        if no_answer.may_be_done {
            return outcome_unknown(shown, &no_answer.why);
        }
        let part = format!("{shown} is not uploaded ({} sent)", bytes(sent_bytes));
        let error = api_error::unreachable(no_answer, &api.signed_in).about(&part);
        match sent_bytes {
            0 => error,
            _ => error.hint(
                "upload it again; if it fails at the same place, Postiz or a proxy in front of it may refuse files of this size",
            ),
        }
    })
}

fn outcome_unknown(shown: &str, why: &str) -> CliError {
    unanswered::outcome_unknown(&upload_call(), why).about(shown)
}

/// The file's record, if the answer is a success.
fn record_in(context: &Context, api: &Api, shown: &str, answer: Answer) -> Result<Json, CliError> {
    let call = upload_call();
    if answer.is_success() {
        return api_error::json_of(&answer, &call, &api.signed_in);
    }
    let error = api.refused(context, &call, &answer);
    if api::leaves_outcome_unknown(&call, &Ok(answer)) {
        return Err(outcome_unknown(shown, &error.message));
    }
    Err(error.about(&format!("{shown} is not uploaded")))
}

/// Reads a file's bytes for the request, counts them, and fails when the file grows or shrinks.
struct FileBody<'a> {
    reader: Box<dyn Read>,
    length: Option<u64>,
    progress: Progress<'a>,
    /// What is wrong with the file, in words that go after its name.
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
            _ if count == 0 => self.progress.all_sent(),
            _ => self.progress.add(count as u64),
        }
        Ok(count)
    }
}

/// A file's name as browsers write it into a form (WHATWG HTML, multipart/form-data; RFC 7578 §4.2).
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

/// The extensions of the files that Postiz accepts.
const EXTENSIONS: [&str; 9] = [
    "png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "tiff", "mp4",
];

/// How much of a stream is read before any request: it tells that the stream is not empty, and how long a short one is.
const FIRST_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_is_escaped_as_browsers_do() {
        assert_eq!(
            escaped("a \"b\"\r\n%22\\ü.png"),
            "a %22b%22%0D%0A%22\\ü.png"
        );
    }

    #[test]
    fn content_type_follows_the_extension() {
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
