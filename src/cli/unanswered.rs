//! Requests that were sent and not answered: whether they were done is not known. They are remembered for a day beside the
//! credentials, as a hash and a time, so that a script that repeats what failed does not post twice.

use std::time::{Duration, UNIX_EPOCH};

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

/// What may have happened when a request's answer was lost, and which command shows whether it did.
pub(crate) fn outcome_unknown(call: &Call, why: &str) -> CliError {
    let (what, look) = may_have_been(&call.method, &call.path);
    let again = if is_upload(call) {
        "uploading it again leaves a second copy at most"
    } else if is_idempotent(&call.method) {
        "it may be repeated without harm"
    } else {
        "do not repeat it before you have looked"
    };
    CliError::unknown(format!("{what}: {why}")).hint(format!("{look}; {again}"))
}

fn is_upload(call: &Call) -> bool {
    call.path.starts_with("/public/v1/upload")
}

fn may_have_been(method: &Method, path: &str) -> (String, &'static str) {
    let path = path.split('?').next().unwrap_or_default();
    let below = path.strip_prefix("/public/v1/").unwrap_or_default();
    let kind = below.split('/').next().unwrap_or_default();
    let (thing, look) = match kind {
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
    (format!("{thing} may {done}"), look)
}

/// One request, as it is remembered.
pub(crate) struct Remembered {
    hash: String,
    file: JsonFile,
}

impl Remembered {
    /// What `call` is known by; `None` where repeating it does no harm, or where there is no folder to remember it in.
    pub(crate) fn of(context: &Context, call: &Call, signed_in: &SignedIn) -> Option<Remembered> {
        if is_idempotent(&call.method) || is_upload(call) {
            return None;
        }
        let credentials = credentials::locate(context).ok()?;
        // Beside `/dev/null` and its like nothing is written.
        let is_usual = std::fs::metadata(credentials.path()).map_or(true, |found| found.is_file());
        if !is_usual {
            return None;
        }
        // Not by its body: IDs of media and the present time differ each time that the same thing is asked for.
        let asked = &context.common.asked;
        let parts = [
            signed_in.api_url.as_str().as_bytes(),
            signed_in.secret.expose().as_bytes(),
            call.method.as_str().as_bytes(),
            call.path.as_bytes(),
            asked.as_slice(),
        ];
        let hashes: String = parts.iter().map(|part| sha256_hex(part)).collect();
        Some(Remembered {
            hash: sha256_hex(hashes.as_bytes()),
            file: credentials.beside(".unanswered"),
        })
    }

    /// An error when the same request was sent within a day and not answered.
    pub(crate) fn refuse_repeat(&self, context: &Context, call: &Call) -> Result<(), CliError> {
        let now = seconds(context);
        let Some(at) = self.load(now).get(&self.hash).and_then(Value::as_u64) else {
            return Ok(());
        };
        let minutes = now.saturating_sub(at) / 60;
        let why = format!(
            "the same was sent {minutes} min ago and not answered, so nothing was sent now"
        );
        let (what, look) = may_have_been(&call.method, &call.path);
        let hint = format!("{look}; if not, repeat the command with --again");
        Err(CliError::unknown(format!("{what}: {why}")).hint(hint))
    }

    /// A file that cannot be written is no second failure: the first one is what counts.
    pub(crate) fn keep(&self, context: &Context) {
        let now = seconds(context);
        let mut all = self.load(now);
        all.insert(self.hash.clone(), now.into());
        let _ = self.file.save(all);
    }

    /// Forgets it: the user has looked.
    pub(crate) fn forget(&self, context: &Context) {
        let mut all = self.load(seconds(context));
        if all.remove(&self.hash).is_some() {
            // As above.
            let _ = self.file.save(all);
        }
    }

    /// All of the last day.
    fn load(&self, now: u64) -> Map<String, Value> {
        let mut all = self.file.load().ok().flatten().unwrap_or_default();
        all.retain(|_, at| {
            at.as_u64()
                .is_some_and(|at| now.saturating_sub(at) < KEPT_S)
        });
        all
    }
}

fn seconds(context: &Context) -> u64 {
    let since = context.clock.date().duration_since(UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
}

/// A day: by then, who looks for the post has found it.
const KEPT_S: u64 = 24 * 60 * 60;
