//! Parses dates for the API: ISO 8601, in a time zone of the system where they name none. shared/utc.rs writes them.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tz::datetime::FoundDateTimeKind;
use tz::{DateTime, TimeZone, UtcDateTime};

use crate::cli::context::Vars;
use crate::cli::error::CliError;
use crate::shared::utc;

/// A date for the API.
#[derive(Debug)]
pub(crate) struct Date {
    /// For the API: as it was typed, unless a zone had to be added.
    pub(crate) text: String,
    pub(crate) time: SystemTime,
}

/// Parses the value of the flag `--name`: `2030-01-15`, `2030-01-15T10:00`, `…T10:00:00.5+02:00`. A date that names no zone
/// is in `zone`, else in UTC.
pub(crate) fn read(name: &str, text: &str, zone: Option<&Zone>) -> Result<Date, CliError> {
    let written = Written::parse(text).ok_or_else(|| {
        CliError::usage(format!(
            "--{name} must be a date like 2030-01-15T10:00:00Z, not `{text}`"
        ))
    })?;
    let as_typed = |unix_time| Date {
        text: text.to_owned(),
        time: at(unix_time, written.local.nanoseconds()),
    };
    match (written.offset_s, zone) {
        (Some(offset_s), _) => Ok(as_typed(written.local.unix_time() - i64::from(offset_s))),
        (None, None) => Ok(as_typed(written.local.unix_time())),
        (None, Some(zone)) => {
            let unix_time = zone.unix_time(&written.local).ok_or_else(|| {
                let message = format!("--{name} {text} does not exist in {}", zone.name);
                CliError::usage(message)
                    .hint("the clocks go forward then: name a time before or after")
            })?;
            let time = at(unix_time, written.local.nanoseconds());
            let text = utc::iso8601(time);
            Ok(Date { text, time })
        }
    }
}

/// As [`read`], for the end of a span: a date without a time means the end of that day.
pub(crate) fn read_end(name: &str, text: &str, zone: Option<&Zone>) -> Result<Date, CliError> {
    let is_bare = Written::parse(text).is_some() && text.len() == "2030-01-15".len();
    if !is_bare {
        return read(name, text, zone);
    }
    let utc = if zone.is_none() { "Z" } else { "" };
    read(name, &format!("{text}T23:59:59.999{utc}"), zone)
}

/// A time zone of the system.
pub(crate) struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// Reads `name` (`Europe/Berlin`) from the system's zoneinfo, or from the folder that TZDIR names.
    pub(crate) fn load(name: &str, vars: &Vars) -> Result<Zone, CliError> {
        let zone = |rules| Zone {
            name: name.to_owned(),
            rules,
        };
        if name.eq_ignore_ascii_case("UTC") {
            return Ok(zone(TimeZone::utc()));
        }
        let usual = || ZONEINFO.iter().map(PathBuf::from).collect();
        let folders: Vec<PathBuf> = vars
            .raw("TZDIR")
            .map_or_else(usual, |folder| vec![folder.into()]);
        let Some(folder) = folders.iter().find(|folder| folder.is_dir()) else {
            let looked_at: Vec<_> = folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            let message = format!(
                "this system has no time zones: no {}",
                looked_at.join(", no ")
            );
            return Err(CliError::failed(message)
                .hint("install tzdata, or write the offset: 2030-01-15T09:00:00+01:00"));
        };
        let unknown = || {
            let message = format!("there is no time zone `{name}` in {}", folder.display());
            CliError::usage(message).hint("zones have names like Europe/Berlin")
        };
        if !name.split('/').all(is_zone_name) {
            return Err(unknown());
        }
        let mut bytes = Vec::new();
        let file = File::open(folder.join(name)).map_err(|_| unknown())?;
        let read = file.take(ZONE_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|_| unknown())?;
        TimeZone::from_tz_data(&bytes)
            .map(zone)
            .map_err(|_| unknown())
    }

    /// The Unix time at which this zone's clocks show `local`: the first of two where they go back, `None` where they skip it.
    fn unix_time(&self, local: &UtcDateTime) -> Option<i64> {
        let found = DateTime::find(
            local.year(),
            local.month(),
            local.month_day(),
            local.hour(),
            local.minute(),
            local.second(),
            0,
            self.rules.as_ref(),
        );
        match found.ok()?.into_inner().first()? {
            FoundDateTimeKind::Normal(date) => Some(date.unix_time()),
            FoundDateTimeKind::Skipped { .. } => None,
        }
    }
}

/// Is `part` one part of a zone's name? `..` is not, since it would lead out of the folder.
fn is_zone_name(part: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
    !part.is_empty() && part.bytes().all(is_allowed)
}

/// A date as it is written.
struct Written {
    /// Date and time of day, whatever the zone.
    local: UtcDateTime,
    /// Seconds east of Greenwich; `None` when no zone is named.
    offset_s: Option<i32>,
}

impl Written {
    fn parse(text: &str) -> Option<Written> {
        let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
        let mut fields = date.split('-');
        let year = number(fields.next()?, 4)?;
        let (month, day) = (number(fields.next()?, 2)?, number(fields.next()?, 2)?);
        let (clock, zone) = match time.find(['Z', 'z', '+', '-']) {
            Some(index) => time.split_at(index),
            None => (time, ""),
        };
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let mut clock = clock.split(':');
        let (hour, minute) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?);
        let second = clock.next().map_or(Some(0), |second| number(second, 2))?;
        if fields.next().is_some() || clock.next().is_some() || second > 59 {
            return None;
        }
        let fraction = nanoseconds(fraction)?;
        let local = UtcDateTime::new(year, month, day, hour, minute, second, fraction);
        Some(Written {
            local: local.ok()?,
            offset_s: offset_s(zone)?,
        })
    }
}

/// `Z`, `+02:00`, `-0230`, `+02`, or nothing.
fn offset_s(zone: &str) -> Option<Option<i32>> {
    if matches!(zone, "" | "Z" | "z") {
        return Some((!zone.is_empty()).then_some(0));
    }
    let digits = zone[1..].replacen(':', "", 1);
    let hours: i32 = number(digits.get(..2)?, 2)?;
    let minutes = match digits.get(2..)? {
        "" => 0,
        minutes => number(minutes, 2)?,
    };
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    (hours < 24 && minutes < 60).then_some(Some(sign * (hours * 3_600 + minutes * 60)))
}

/// The digits after the point. Digits beyond the ninth are ignored.
fn nanoseconds(fraction: &str) -> Option<u32> {
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("{fraction:0<9}")[..9].parse().ok())?
}

/// `text` as a number of exactly `digits` digits.
fn number<T: FromStr>(text: &str, digits: usize) -> Option<T> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn at(unix_time: i64, nanoseconds: u32) -> SystemTime {
    let distance = Duration::from_secs(unix_time.unsigned_abs());
    let whole = if unix_time < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    };
    whole + Duration::from_nanos(nanoseconds.into())
}

/// Folders of time zones on various systems (tzset(3); the last is NixOS').
const ZONEINFO: [&str; 4] = [
    "/usr/share/zoneinfo",
    "/usr/lib/zoneinfo",
    "/usr/share/lib/zoneinfo",
    "/etc/zoneinfo",
];

/// Largest file that is read. The largest zone has 4 KiB.
const ZONE_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zone {
        Zone {
            name: "Europe/Berlin".to_owned(),
            rules: TimeZone::from_posix_tz("CET-1CEST,M3.5.0,M10.5.0/3").unwrap(),
        }
    }

    #[test]
    fn dates_are_parsed_and_other_text_is_refused() {
        for (good, utc) in [
            ("2030-01-15", "2030-01-15T00:00:00.000Z"),
            ("2028-02-29", "2028-02-29T00:00:00.000Z"),
            ("2030-01-15T10:00", "2030-01-15T10:00:00.000Z"),
            ("2030-01-15T10:00:00", "2030-01-15T10:00:00.000Z"),
            ("2030-01-15T10:00:59Z", "2030-01-15T10:00:59.000Z"),
            ("2030-01-15t10:00:00z", "2030-01-15T10:00:00.000Z"),
            ("2030-01-15 10:00", "2030-01-15T10:00:00.000Z"),
            (
                "2030-01-15T10:00:00.12345678901234567Z",
                "2030-01-15T10:00:00.123Z",
            ),
            ("2030-01-15T10:00:00.5+02:00", "2030-01-15T08:00:00.500Z"),
            ("2030-01-15T23:00:00-0230", "2030-01-16T01:30:00.000Z"),
            ("2030-01-01T00:30+02", "2029-12-31T22:30:00.000Z"),
        ] {
            let date = read("date", good, None).unwrap();
            assert_eq!(
                (date.text.as_str(), utc::iso8601(date.time).as_str()),
                (good, utc)
            );
        }
        for bad in [
            "",
            "tomorrow",
            "2030",
            "2030-1-15",
            "2030-01-15-01",
            "2030-13-01",
            "2030-02-29",
            "2030-00-10",
            "2030-01-00",
            "15.01.2030",
            "2030-01-15T",
            "2030-01-15T24:00",
            "2030-01-15T10",
            "2030-01-15T10:60",
            "2030-01-15T10:00:60",
            "2030-01-15T10:00:00:00",
            "2030-01-15T10:00:00.Z",
            "2030-01-15T10:00:00+",
            "2030-01-15T10:00+é",
            "2030-01-15T10:00:00Zjunk",
            "2030-01-15T10:00+25:00",
            "+2030-01-15",
            "٢٠٣٠-01-15",
        ] {
            assert!(read("date", bad, None).is_err(), "{bad}");
            assert!(read_end("date", bad, Some(&berlin())).is_err(), "{bad}");
        }
    }

    #[test]
    fn zone_applies_to_dates_that_name_none() {
        for (typed, sent) in [
            ("2030-01-15T09:00", "2030-01-15T08:00:00.000Z"),
            ("2030-07-15T09:00:00.250", "2030-07-15T07:00:00.250Z"),
            ("2030-01-15", "2030-01-14T23:00:00.000Z"),
            // The last minute before the clocks go forward, and the first after it.
            ("2030-03-31T01:59", "2030-03-31T00:59:00.000Z"),
            ("2030-03-31T03:00", "2030-03-31T01:00:00.000Z"),
            // The clocks go back: of two 02:30 the first counts.
            ("2030-10-27T02:30", "2030-10-27T00:30:00.000Z"),
            ("2030-10-27T03:00", "2030-10-27T02:00:00.000Z"),
            ("2030-01-15T09:00Z", "2030-01-15T09:00Z"),
            ("2030-03-31T02:30+02:00", "2030-03-31T02:30+02:00"),
        ] {
            assert_eq!(
                read("date", typed, Some(&berlin())).unwrap().text,
                sent,
                "{typed}"
            );
        }
        for gap in [
            "2030-03-31T02:00",
            "2030-03-31T02:30",
            "2030-03-31T02:59:59.999",
        ] {
            let error = read("date", gap, Some(&berlin())).unwrap_err();
            let expected = format!("--date {gap} does not exist in Europe/Berlin");
            assert_eq!(error.message, expected);
        }
    }

    #[test]
    fn end_of_a_span_includes_its_day() {
        for (typed, zone, sent) in [
            ("2030-01-31", None, "2030-01-31T23:59:59.999Z"),
            ("2030-01-31", Some(&berlin()), "2030-01-31T22:59:59.999Z"),
            ("2030-01-31T10:00", None, "2030-01-31T10:00"),
            ("2030-01-31T00:00Z", Some(&berlin()), "2030-01-31T00:00Z"),
        ] {
            assert_eq!(read_end("endDate", typed, zone).unwrap().text, sent);
        }
    }
}
