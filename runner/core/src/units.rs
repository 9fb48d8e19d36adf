//! Sizes and durations as people write and read them.

use std::time::Duration;

use bytesize::ByteSize;

/// Reads a size such as `2GiB`, `512 MiB` or `1000000`, in bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        _ => Err(format!("{text:?} is not a size; write for example \"2GiB\" or \"512MiB\"")),
    }
}

/// Reads a duration such as `90s`, `45min` or `2h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write for example \"90s\", \"45min\" or \"2h\"");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    match Duration::try_from(parsed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(wrong()),
    }
}

/// Reads an age such as `14d` or `36h`.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<u64>().ok());
    match days.and_then(|days| days.checked_mul(24 * 3600)) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => parse_duration(text)
            .map_err(|_| format!("{text:?} is not an age; write for example \"14d\" or \"36h\"")),
    }
}

/// A size for people: `312.4 MiB`.
pub fn show_size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// A duration for people, to the precision that matters: `0.42s`, `12.3s`, `3m 05s`, `1h 02m`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.2}s", duration.as_secs_f64()),
        10..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1000"), Ok(1000));
        for bad in ["", "much", "-1", "0", "2 fish"] {
            assert!(parse_size(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("45min"), Ok(Duration::from_secs(2700)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "soon", "-5s", "0s", "7"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ages() {
        assert_eq!(parse_age("14d"), Ok(Duration::from_secs(14 * 24 * 3600)));
        assert_eq!(parse_age("36h"), Ok(Duration::from_secs(36 * 3600)));
        for bad in ["", "d", "0d", "-1d", "14", "1.5 fortnights"] {
            assert!(parse_age(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn shown_for_people() {
        assert_eq!(show_duration(Duration::from_millis(420)), "0.42s");
        assert_eq!(show_duration(Duration::from_millis(12_340)), "12.3s");
        assert_eq!(show_duration(Duration::from_secs(185)), "3m 05s");
        assert_eq!(show_duration(Duration::from_secs(3_720)), "1h 02m");
        assert_eq!(show_size(312 * 1024 * 1024), "312.0 MiB");
    }
}
