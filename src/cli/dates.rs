//! Dates as the API wants them: ISO 8601, checked. They are written by shared/utc.rs.

/// Is `text` a date, or a date with a time and perhaps a zone: `2030-01-15`, `2030-01-15T10:00`, `…T10:00:00.5+02:00`?
pub(crate) fn is_iso_8601(text: &str) -> bool {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    is_date(date) && time.is_none_or(is_time)
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else {
        return false;
    };
    match (number(year, 4), number(month, 2), number(day, 2)) {
        (Some(year), Some(month @ 1..=12), Some(day)) => day >= 1 && day <= days_in(year, month),
        _ => false,
    }
}

fn is_time(text: &str) -> bool {
    let (clock, zone) = match text.find(['Z', 'z', '+', '-']) {
        Some(place) => text.split_at(place),
        None => (text, ""),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let parts: Vec<Option<u64>> = clock.split(':').map(|part| number(part, 2)).collect();
    let is_clock = match parts[..] {
        [Some(hour), Some(minute)] => hour < 24 && minute < 60,
        [Some(hour), Some(minute), Some(second)] => hour < 24 && minute < 60 && second < 60,
        _ => false,
    };
    is_clock && number(fraction, fraction.len()).is_some() && is_zone(zone)
}

fn is_zone(text: &str) -> bool {
    if matches!(text, "" | "Z" | "z") {
        return true;
    }
    let digits = text[1..].replacen(':', "", 1);
    let hours = digits.get(..2).and_then(|hours| number(hours, 2));
    let minutes = match digits.get(2..) {
        Some("") => Some(0),
        Some(minutes) => number(minutes, 2),
        None => None,
    };
    matches!((hours, minutes), (Some(0..=23), Some(0..=59)))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `text` as a number of exactly `digits` digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let is_number =
        text.len() == digits && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // The fraction of a second may have more digits than a number can hold; only its form matters.
    is_number.then(|| text.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_dates_from_other_text() {
        for good in [
            "2030-01-15",
            "2028-02-29",
            "2030-01-15T10:00",
            "2030-01-15T10:00:00",
            "2030-01-15T10:00:00Z",
            "2030-01-15t10:00:00z",
            "2030-01-15 10:00",
            "2030-01-15T10:00:00.123456789012345678901234Z",
            "2030-01-15T10:00:00+02:00",
            "2030-01-15T10:00:00-0230",
            "2030-01-15T10:00+02",
        ] {
            assert!(is_iso_8601(good), "{good}");
        }
        for bad in [
            "",
            "tomorrow",
            "2030",
            "2030-1-15",
            "2030-13-01",
            "2030-02-29",
            "2030-00-10",
            "2030-01-00",
            "15.01.2030",
            "2030-01-15T",
            "2030-01-15T24:00",
            "2030-01-15T10",
            "2030-01-15T10:60",
            "2030-01-15T10:00:00.Z",
            "2030-01-15T10:00:00+",
            "2030-01-15T10:00+é",
            "2030-01-15T10:00:00Zjunk",
            "2030-01-15T10:00+25:00",
            "+2030-01-15",
            "٢٠٣٠-01-15",
        ] {
            assert!(!is_iso_8601(bad), "{bad}");
        }
    }
}
