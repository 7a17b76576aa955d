//! `clipping:create`, `:status`, `:list`: short clips that Postiz cuts from a long video.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Method;

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::{Command, Flag, Options, Takes, flag, one, switch, utf8, value};
use crate::cli::commands::common::{PAGE, answer_of, page};
use crate::cli::context::{Context, sleep};
use crate::cli::error::{CliError, Exit};

pub(crate) static CREATE: Command = Command {
    name: "clipping:create",
    about: "have short clips cut from a long video",
    positionals: &[one("url", "the video's URL")],
    flags: &[&CHANNELS, &CLIPS, &FIT],
    notes: "Prints the job's id. It takes minutes: `postiz clipping:status <id> --wait` waits for it.",
    examples: &["postiz clipping:create https://example.com/talk.mp4 -n 3 --fit crop | jq -r .id"],
    run: |context, options| {
        let body = new_clipping(options)?.to_string();
        answer_of(context, &Call::new(Method::POST, &["clipping"])?.body(body))
    },
};

static CHANNELS: Flag = value(
    "integrations",
    "IDS",
    "comma-separated channel IDs that the clips are meant for; may be repeated",
)
.short('i')
.repeatable();
static CLIPS: Flag = value("clips", "1-10", "how many clips to cut").short('n');
static FIT: Flag = flag(
    "fit",
    Takes::OneOf(&["blur", "crop"]),
    "how a wide picture becomes a tall one",
)
.short('f');
static WAIT: Flag = switch("wait", "ask again until the clips are completed or failed");

fn new_clipping(options: &Options) -> Result<Value, CliError> {
    let url = options.positional(0)?;
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        let message = format!("`{url}` is not the video's URL, which begins with https://");
        return Err(CliError::usage(message));
    }
    let mut body = json!({ "url": url });
    let channels = channels(options)?;
    if !channels.is_empty() {
        body["integrations"] = json!(channels);
    }
    if let Some(clips) = options.text(&CLIPS)? {
        let number: u8 = clips.parse().unwrap_or_default();
        if !(1..=10).contains(&number) {
            let message = format!("--clips must be a number from 1 to 10, not `{clips}`");
            return Err(CliError::usage(message));
        }
        body["clips"] = json!(number);
    }
    if let Some(fit) = options.text(&FIT)? {
        body["fit"] = json!(fit);
    }
    Ok(body)
}

/// The channels of all `-i`.
fn channels(options: &Options) -> Result<Vec<&str>, CliError> {
    let mut channels = Vec::new();
    for (flag, value) in options.given() {
        if flag == &CHANNELS {
            channels.extend(utf8(flag, value)?.split(',').map(str::trim));
        }
    }
    if channels.contains(&"") {
        return Err(CliError::usage("--integrations has an empty part"));
    }
    Ok(channels)
}

pub(crate) static LIST: Command = Command {
    name: "clipping:list",
    about: "list the clipping jobs",
    positionals: &[],
    flags: &[&PAGE],
    notes: "",
    examples: &["postiz clipping:list | jq .pages"],
    run: |context, options| {
        let call = Call::get(&["clipping"])?.query("page", page(options, &PAGE, 1)?);
        answer_of(context, &call)
    },
};

pub(crate) static STATUS: Command = Command {
    name: "clipping:status",
    about: "show a clipping job and its clips",
    positionals: &[one("id", "the job's ID")],
    flags: &[&WAIT],
    notes: "\
Its status is analysing, transcribing, picking, rendering, completed or failed. --wait asks again after 2 s, then less
often, up to every 30 s, and ends with exit code 1 when the job failed.",
    examples: &[
        "CLIP=$(postiz clipping:create https://example.com/talk.mp4 | jq -r .id); postiz clipping:status \"$CLIP\" | jq -r .status",
    ],
    run: status,
};

fn status(context: &mut Context, options: &Options) -> Result<Exit, CliError> {
    let call = Call::get(&["clipping", options.positional(0)?])?;
    if !options.has(&WAIT) {
        return answer_of(context, &call);
    }
    wait(context, &call)
}

/// Asks until the job has ended. stdout gets its last state; each new state is said on stderr.
fn wait(context: &mut Context, call: &Call) -> Result<Exit, CliError> {
    let api = Api::connect(context)?;
    let start = context.clock.now();
    let mut pause = PAUSE_FIRST;
    let mut said = String::new();
    loop {
        let answer = api.json(context, call)?;
        let job = answer.value();
        let state = job["status"].as_str().unwrap_or("unknown").to_owned();
        match state.as_str() {
            "completed" => {
                context.output.json(&answer)?;
                return Ok(Exit::Done);
            }
            "failed" => {
                context.output.json(&answer)?;
                let why = job["error"].as_str().unwrap_or("Postiz does not say why");
                return Err(CliError::failed(format!("the clipping failed: {why}")));
            }
            _ => {}
        }
        if context.clock.now() - start + pause > WAIT_MAX {
            let hours = WAIT_MAX.as_secs() / 3_600;
            let message = format!("the clipping is still {state} after {hours} hours");
            return Err(CliError::failed(message).hint("Postiz goes on with it: ask again later"));
        }
        if state != said {
            context.output.say(&format!("{state} …"));
            said = state;
        }
        sleep(context.clock.as_ref(), pause)?;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The pause before the second request; each pause is twice the one before.
const PAUSE_FIRST: Duration = Duration::from_secs(2);

/// Longest pause: a job takes minutes.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Longest wait: a job that takes longer is stuck.
const WAIT_MAX: Duration = Duration::from_secs(2 * 3_600);
