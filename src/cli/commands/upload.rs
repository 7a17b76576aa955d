//! `upload`: files go from the disk to Postiz as a stream, so that memory does not grow with their size.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use crate::cli::api::Api;
use crate::cli::args::Options;
use crate::cli::context::{Clock, Context};
use crate::cli::error::{CliError, Exit};
use crate::cli::json::Json;
use crate::cli::output::Output;
use crate::cli::table::NAME;
use crate::shared::hash::hex;
use crate::shared::random;

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
        records.push(send(context, &api, source)?);
    }
    match &records[..] {
        [record] => context.output.json(record)?,
        records => context.output.json(&Json::array(records))?,
    }
    Ok(Exit::Done)
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
struct Source {
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
    fn open(context: &mut Context, path: &OsStr, name: Option<&str>) -> Result<Source, CliError> {
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

fn send(context: &mut Context, api: &Api, source: Source) -> Result<Json, CliError> {
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
    let mut body = FileBody::new(source, Progress::new(output, clock.as_ref(), &shown));
    let mut whole = head.as_bytes().chain(&mut body).chain(tail.as_bytes());
    let sent = api.upload(
        &format!("multipart/form-data; boundary={boundary}"),
        &mut whole,
        total,
    );
    let problem = body.problem.take();
    let progress = body.progress.sent;
    context.output.clear_line();
    if let Some(problem) = problem {
        return Err(CliError::failed(format!("{shown} {problem}"))
            .word("file_changed")
            .hint("upload it again once it is complete"));
    }
    let answer = sent.map_err(|no_answer| {
        let mut error = api.unreachable(no_answer);
        error.message = format!("{shown} is not uploaded ({} sent): {}", bytes(progress), error.message);
        error.hint("upload it again; if it fails at the same place, Postiz or a proxy in front of it may refuse files of this size")
    })?;
    if !answer.is_success() {
        let mut error = api.refusal(&answer, context);
        error.message = format!("{shown} is not uploaded: {}", error.message);
        return Err(if answer.status == 413 {
            error.hint("the file is larger than Postiz, or a proxy in front of it, takes")
        } else {
            error
        });
    }
    api.json_of(&answer)
}

/// A file's bytes on their way, counted, with the file growing or shrinking noticed.
struct FileBody<'a> {
    first: io::Cursor<Vec<u8>>,
    rest: Box<dyn Read>,
    length: Option<u64>,
    progress: Progress<'a>,
    /// What is wrong with the file, to be put after its name.
    problem: Option<String>,
}

impl<'a> FileBody<'a> {
    fn new(source: Source, progress: Progress<'a>) -> FileBody<'a> {
        FileBody {
            first: io::Cursor::new(source.first),
            rest: source.reader,
            length: source.length,
            progress: Progress {
                length: source.length,
                ..progress
            },
            problem: None,
        }
    }

    fn fail(&mut self, problem: String) -> io::Error {
        self.problem = Some(problem.clone());
        io::Error::other(problem)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.first.read(buffer)? {
            0 => self.rest.read(buffer),
            count => Ok(count),
        }
    }
}

impl Read for FileBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self
            .read_some(buffer)
            .map_err(|error| self.fail(format!("cannot be read: {error}")))?;
        let sent = self.progress.sent + count as u64;
        // The length has been announced; a body of another length would be cut off, or never end.
        match self.length {
            Some(length) if sent > length => {
                return Err(self.fail("grew while it was sent".to_owned()));
            }
            Some(length) if count == 0 && sent < length => {
                return Err(self.fail("shrank while it was sent".to_owned()));
            }
            _ => self.progress.add(count as u64),
        }
        Ok(count)
    }
}

/// How far an upload is, shown about five times a second where there is a terminal.
struct Progress<'a> {
    output: &'a mut Output,
    clock: &'a dyn Clock,
    shown: &'a str,
    length: Option<u64>,
    sent: u64,
    started: Duration,
    shown_last: Duration,
}

impl<'a> Progress<'a> {
    fn new(output: &'a mut Output, clock: &'a dyn Clock, shown: &'a str) -> Progress<'a> {
        Progress {
            output,
            clock,
            shown,
            length: None,
            sent: 0,
            started: clock.now(),
            shown_last: Duration::ZERO,
        }
    }

    fn add(&mut self, count: u64) {
        self.sent += count;
        let now = self.clock.now();
        if self.output.can_change_lines() && now >= self.shown_last + PROGRESS_EVERY {
            self.shown_last = now;
            let line = progress_line(self.sent, self.length, now - self.started);
            self.output
                .line_in_place(&format!("{line}  {}", self.shown));
        }
    }
}

/// `[█████     ]  50 %  1.0 GB of 2.0 GB  85.2 MB/s  0:12 left`
fn progress_line(sent: u64, length: Option<u64>, elapsed: Duration) -> String {
    let rate = sent as f64 / elapsed.as_secs_f64().max(0.001);
    let speed = format!("{}/s", bytes(rate as u64));
    let Some(length) = length else {
        return format!("{} sent  {speed}", bytes(sent));
    };
    let part = sent as f64 / length as f64;
    let bar: String = (0..10)
        .map(|place| {
            if part * 10.0 >= f64::from(place + 1) {
                '█'
            } else {
                ' '
            }
        })
        .collect();
    let left = ((length - sent) as f64 / rate.max(1.0)) as u64;
    format!(
        "[{bar}] {:3.0} %  {} of {}  {speed}  {}:{:02} left",
        part * 100.0,
        bytes(sent),
        bytes(length),
        left / 60,
        left % 60
    )
}

/// `1.5 MB`.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if value < 999.95 {
            let digits = usize::from(unit != "bytes");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
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

const PROGRESS_EVERY: Duration = Duration::from_millis(200);

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

    #[test]
    fn progress_is_one_short_line() {
        let line = progress_line(1_000_000_000, Some(2_000_000_000), Duration::from_secs(10));
        assert_eq!(
            line,
            "[█████     ]  50 %  1.0 GB of 2.0 GB  100.0 MB/s  0:10 left"
        );
        assert_eq!(
            progress_line(999, None, Duration::from_secs(1)),
            "999 bytes sent  999 bytes/s"
        );
        assert_eq!(bytes(999_999), "1.0 MB");
    }
}
