//! Writes times as text: ISO 8601, UTC, milliseconds.

use std::time::{SystemTime, UNIX_EPOCH};

use tz::UtcDateTime;

/// `time` as `2026-11-24T23:48:28.123Z`. Times before 1970 count as 1970.
pub fn iso8601(time: SystemTime) -> String {
    let seconds = unix_seconds(time).cast_signed();
    let date = UtcDateTime::from_timespec(seconds, 0).unwrap_or(UtcDateTime::MAX);
    let (year, month, day) = (date.year(), date.month(), date.month_day());
    let (hour, minute, second) = (date.hour(), date.minute(), date.second());
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since_1970.subsec_millis()
    )
}

/// Whole seconds since 1970; 0 for times before.
pub fn unix_seconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH);
    since_1970.unwrap_or_default().as_secs()
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
