//! Requests that were sent and got no answer, so that their outcome is not known. They are remembered for a day, as a hash
//! and a time in a file beside the credentials, so that a script that repeats a failed command does not post twice.

use serde_json::{Map, Value};
use ureq::http::Method;

use crate::cli::call::Call;
use crate::cli::context::Context;
use crate::cli::credentials;
use crate::cli::error::CliError;
use crate::cli::http::is_idempotent;
use crate::cli::json_file::JsonFile;
use crate::cli::signed_in::SignedIn;
use crate::shared::hash::sha256_hex;
use crate::shared::utc::unix_seconds;

/// The error for a request that got no answer: what may have happened, and which command shows whether it did.
pub(crate) fn outcome_unknown(call: &Call, why: &str) -> CliError {
    let (what, check) = possible_outcome(&call.method, &call.path);
    let again = if is_upload(call) {
        "uploading it again leaves a second copy at most"
    } else if is_idempotent(&call.method) {
        "it may be repeated without harm"
    } else {
        "do not repeat it before you have looked"
    };
    CliError::unknown(format!("{what}: {why}")).hint(format!("{check}; {again}"))
}

fn is_upload(call: &Call) -> bool {
    call.path.starts_with("/public/v1/upload")
}

/// What the request may have done, and how to check that.
fn possible_outcome(method: &Method, path: &str) -> (String, &'static str) {
    let path = path.split('?').next().unwrap_or_default();
    let below = path.strip_prefix("/public/v1/").unwrap_or_default();
    let kind = below.split('/').next().unwrap_or_default();
    let (thing, check) = match kind {
        "posts" => ("the post", "`postiz posts:list` shows whether it was"),
        "upload" | "upload-from-url" => ("the file", "`postiz media:list` shows whether it was"),
        "clipping" => (
            "the clips",
            "`postiz clipping:list` shows whether they were",
        ),
        "integrations" => (
            "the channel",
            "`postiz integrations:list` shows whether it was",
        ),
        "integration-trigger" => ("the tool", "look at the channel in Postiz"),
        _ => {
            return (
                format!("{method} {path} may have been done"),
                "look at it in Postiz",
            );
        }
    };
    let done = match (kind, method) {
        ("integration-trigger", _) => "have run",
        ("upload" | "upload-from-url", _) => "have been uploaded",
        (_, &Method::POST) => "have been created",
        (_, &Method::DELETE) => "have been deleted",
        _ => "have been changed",
    };
    (format!("{thing} may {done}"), check)
}

pub(crate) struct Remembered {
    hash: String,
    file: JsonFile,
}

impl Remembered {
    /// The entry for `call`; `None` where repeating it does no harm, or where there is no credentials file to keep it beside.
    pub(crate) fn of(context: &Context, call: &Call, signed_in: &SignedIn) -> Option<Remembered> {
        if is_idempotent(&call.method) || is_upload(call) {
            return None;
        }
        let credentials = credentials::locate(context).ok()?;
        // Nothing is written beside `/dev/null` and other devices.
        let is_usual = std::fs::metadata(credentials.path()).map_or(true, |found| found.is_file());
        if !is_usual {
            return None;
        }
        // The body does not count: it holds IDs of media and the current time, which differ between equal commands.
        let parts = [
            signed_in.api_url.as_str().as_bytes(),
            signed_in.secret.expose().as_bytes(),
            call.method.as_str().as_bytes(),
            call.path.as_bytes(),
            &context.common.identity,
        ];
        let hashes: String = parts.iter().map(|part| sha256_hex(part)).collect();
        Some(Remembered {
            hash: sha256_hex(hashes.as_bytes()),
            file: credentials.beside(".unanswered"),
        })
    }

    /// An error when the same request was sent within a day and got no answer.
    pub(crate) fn refuse_repeat(&self, context: &Context, call: &Call) -> Result<(), CliError> {
        let now = unix_seconds(context.clock.date());
        let Some(at) = self.load(now).get(&self.hash).and_then(Value::as_u64) else {
            return Ok(());
        };
        let minutes = now.saturating_sub(at) / 60;
        let why = format!(
            "the same was sent {minutes} min ago and not answered, so nothing was sent now"
        );
        let (what, check) = possible_outcome(&call.method, &call.path);
        let hint = format!("{check}; if not, repeat the command with --again");
        Err(CliError::unknown(format!("{what}: {why}")).hint(hint))
    }

    /// Remembers the request. A file that cannot be written is not reported: the command already fails.
    pub(crate) fn keep(&self, context: &Context) {
        let now = unix_seconds(context.clock.date());
        let mut all = self.load(now);
        all.insert(self.hash.clone(), now.into());
        let _ = self.file.save(&all);
    }

    /// Forgets the request: the user has checked.
    pub(crate) fn forget(&self, context: &Context) {
        let mut all = self.load(unix_seconds(context.clock.date()));
        if all.remove(&self.hash).is_some() {
            // As in `keep`, a failure is not reported.
            let _ = self.file.save(&all);
        }
    }

    /// All requests of the last day.
    fn load(&self, now: u64) -> Map<String, Value> {
        let mut all = self.file.load().ok().flatten().unwrap_or_default();
        all.retain(|_, at| {
            at.as_u64()
                .is_some_and(|at| now.saturating_sub(at) < KEPT_S)
        });
        all
    }
}

/// How long a request is remembered.
const KEPT_S: u64 = 24 * 60 * 60;
