//! The small notations that values are written in: durations, sizes, file modes.
//!
//! No error here repeats the text it is about: it may be a secret in the wrong place.

use std::{fmt::Write, time::Duration};

/// Text that is no duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a duration is a whole number with its unit (d, h, m, s or ms), or several from the largest unit to the smallest, such as \"250ms\", \"10s\" or \"1h30m\""
)]
pub struct NotADuration;

/// The units of a duration, from the largest on, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration such as `250ms`, `10s`, `5m`, `1h30m` or `2d`.
///
/// It is narrower than most notations on purpose. A number alone could mean anything; fractions, spaces, months and
/// units in any order are more ways to write what these can say.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(NotADuration);
    }
    while !rest.is_empty() {
        let (digits, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (word, after) = split_where(after, |c| c.is_ascii_digit());
        // The units are taken in order and none twice, because the search goes on where it stopped.
        let (_, unit) = units.find(|(name, _)| *name == word).ok_or(NotADuration)?;
        let count: u64 = digits.parse().map_err(|_| NotADuration)?;
        total = count.checked_mul(*unit).and_then(|part| total.checked_add(part)).ok_or(NotADuration)?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration as [`parse_duration`] reads it. What is finer than a millisecond is left out.
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, unit) in UNITS {
        if left >= unit {
            // Writing to a String can't fail.
            let _ = write!(text, "{}{name}", left / unit);
            left %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Text that is no size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a size is a number of bytes such as 16384, or text with a unit (KiB or MiB) such as \"16KiB\"")]
pub(super) struct NotASize;

/// Reads a size such as `512`, `16KiB` or `1MiB`, in bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, NotASize> {
    let (digits, unit) = split_where(text, |c| !c.is_ascii_digit());
    let unit = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return Err(NotASize),
    };
    digits.parse().ok().and_then(|count: u64| count.checked_mul(unit)).ok_or(NotASize)
}

/// Writes a size as [`parse_size`] reads it.
pub(super) fn show_size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// Reads a file mode such as `0666` or `660`.
pub(super) fn parse_mode(text: &str) -> Option<u32> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o777)
}

/// Splits before the first character for which `at` holds.
fn split_where(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("3s", 3_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(show_duration(duration), text);
        }
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(show_duration(Duration::ZERO), "0s");
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)), "more than a larger unit holds");
    }

    #[test]
    fn what_could_mean_two_things_is_no_duration() {
        for text in [
            "",
            "10",
            "s",
            "10 s",
            " 10s",
            "10s ",
            "-1s",
            "+1s",
            "1.5s",
            "1,5s",
            "30m1h",
            "1s1s",
            "1S",
            "1sec",
            "1w",
            "1mo",
            "1y",
            "1us",
            "PT1S",
            "1h30",
            "1_000ms",
            "99999999999999999999s",
            "18446744073709551615d",
            "١s",
            "1ß",
            "ß",
            "1ﬆ",
        ] {
            assert_eq!(parse_duration(text), Err(NotADuration), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("16KiB", 16 << 10), ("320KiB", 320 << 10), ("1MiB", 1 << 20)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
        }
        for text in [
            "",
            "KiB",
            "16 KiB",
            "16kb",
            "16K",
            "-1",
            "1.5MiB",
            "1GiB",
            "99999999999999999999",
            "17592186044416MiB",
        ] {
            assert_eq!(parse_size(text), Err(NotASize), "{text:?}");
        }
    }

    #[test]
    fn a_mode_is_three_or_four_octal_digits() {
        assert_eq!(parse_mode("0666"), Some(0o666));
        assert_eq!(parse_mode("660"), Some(0o660));
        for text in ["", "66", "00666", "0888", "+666", "1777", "4755", "rw-", "0o66"] {
            assert_eq!(parse_mode(text), None, "{text:?}");
        }
    }
}
