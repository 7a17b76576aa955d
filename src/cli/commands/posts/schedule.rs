//! When a post is published: `-s`, `--tz`, and what is done about dates that have passed.

use std::time::Duration;

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::command::{Flag, Options, value};
use crate::cli::context::Context;
use crate::cli::dates::{self, Zone};
use crate::cli::error::CliError;
use crate::cli::json::Json;
use crate::shared::text::printable_cut;
use crate::shared::utc;

pub(super) static DATE: Flag = value("date", "DATE|next", "when to publish: ISO 8601, UTC unless it names a zone; next: the first channel's next free slot").short('s');

pub(super) static TZ: Flag = value(
    "tz",
    "ZONE",
    "the zone of dates that name none, like Europe/Berlin",
);

pub(super) enum When {
    Now,
    NextFreeSlot,
    /// A date for the API.
    At(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    Refused,
    /// The post is a draft, or published at once.
    Accepted,
}

impl When {
    /// Reads `-s`, if it is given.
    pub(super) fn read(
        context: &Context,
        options: &Options,
        past: Past,
    ) -> Result<Option<When>, CliError> {
        let zone = zone(context, options)?;
        let Some(text) = options.text(&DATE)? else {
            return Ok(None);
        };
        if text == "next" {
            return Ok(Some(When::NextFreeSlot));
        }
        let date = dates::read(DATE.long, text, zone.as_ref())?;
        if past == Past::Refused && date.time + PAST_MAX < context.clock.date() {
            let message = format!(
                "--date {text} has passed: it is {} now",
                utc::iso8601(context.clock.date())
            );
            return Err(CliError::usage(message).hint(
                "-t now publishes at once; a time that names no zone is in UTC, or in the one that --tz names",
            ));
        }
        Ok(Some(When::At(date.text)))
    }

    /// The date for the API. A free slot is one of `channel`'s.
    pub(super) fn date(
        self,
        context: &mut Context,
        api: &Api,
        channel: &str,
    ) -> Result<String, CliError> {
        match self {
            When::Now => Ok(utc::iso8601(context.clock.date())),
            When::At(text) => Ok(text),
            When::NextFreeSlot => {
                let answer = api.json(context, &Call::get(&["find-slot", channel])?)?;
                let slot = next_slot(&answer).ok_or_else(|| {
                    let answer = printable_cut(answer.as_str(), 200);
                    CliError::failed(format!("Postiz named no free slot: {answer}"))
                })?;
                context.output.say(&format!("the next free slot is {slot}"));
                Ok(slot)
            }
        }
    }
}

/// The date, in UTC, of an answer like `{"date":"2030-01-15T09:00:00"}`.
fn next_slot(answer: &Json) -> Option<String> {
    let date = dates::read(DATE.long, answer.value()["date"].as_str()?, None).ok()?;
    Some(utc::iso8601(date.time))
}

pub(super) fn zone(context: &Context, options: &Options) -> Result<Option<Zone>, CliError> {
    let name = options.text(&TZ)?;
    name.map(|name| Zone::load(name, &context.vars)).transpose()
}

/// A date that passed so recently counts as now: it passed while the user typed.
const PAST_MAX: Duration = Duration::from_secs(5 * 60);
