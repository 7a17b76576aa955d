//! Writes times as text: ISO 8601, UTC, milliseconds.

use std::time::{SystemTime, UNIX_EPOCH};

/// `time` as `2026-11-24T23:48:28.123Z`. Times before 1970 count as 1970.
pub fn iso8601(time: SystemTime) -> String {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_1970.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since_1970.subsec_millis()
    )
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. Here a year begins in March, so that the leap day
/// is its last one. A cycle of 400 years always has 146,097 days.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const CYCLE: u64 = 146_097;
    let since_march_0000 = days + 719_468;
    let (cycle, day_of_cycle) = (since_march_0000 / CYCLE, since_march_0000 % CYCLE);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524
        - day_of_cycle / 146_096)
        / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn iso8601_of_known_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_792_969_919_200, "2026-10-25T23:11:59.200Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_564_108_123, "2026-11-24T23:48:28.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso8601(UNIX_EPOCH + Duration::from_millis(ms)), text);
        }
    }
}
