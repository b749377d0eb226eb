//! The one form in which the API writes times.

use jiff::{Timestamp, civil, tz::Offset};

/// Text that is no time in the API's form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a time such as 2022-07-15T16:53:30.326479Z: the fraction is optional, the zone is Z or ±hh:mm")]
pub struct NotATime;

/// Reads `YYYY-MM-DDThh:mm:ss`, up to nine digits of a fraction or none, then `Z` or `±hh:mm`.
///
/// Much narrower than ISO 8601, RFC 3339 or jiff's own reader, which take spaces, lower case, commas, leap seconds and
/// names of zones in brackets: the API never writes those, and a signed text that somebody could read in two ways is no
/// proof of either.
pub fn parse_time(text: &str) -> Result<Timestamp, NotATime> {
    read(text.as_bytes()).ok_or(NotATime)
}

fn read(text: &[u8]) -> Option<Timestamp> {
    let (date_and_time, rest) = text.split_at_checked("YYYY-MM-DDThh:mm:ss".len())?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2] =
        date_and_time
    else {
        return None;
    };
    let (nanosecond, zone) = fraction(rest)?;
    let local = civil::DateTime::new(
        two(*y1, *y2)? * 100 + two(*y3, *y4)?,
        i8::try_from(two(*m1, *m2)?).ok()?,
        i8::try_from(two(*d1, *d2)?).ok()?,
        i8::try_from(two(*h1, *h2)?).ok()?,
        i8::try_from(two(*n1, *n2)?).ok()?,
        i8::try_from(two(*s1, *s2)?).ok()?,
        nanosecond,
    );
    offset(zone)?.to_timestamp(local.ok()?).ok()
}

/// The nanoseconds that `text` begins with, if it begins with a point, and what comes after them.
fn fraction(text: &[u8]) -> Option<(i32, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else { return Some((0, text)) };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    let (fraction, rest) = text.split_at_checked(digits)?;
    let padded = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    Some((padded.fold(0, |sum, byte| sum * 10 + i32::from(byte - b'0')), rest))
}

fn offset(zone: &[u8]) -> Option<Offset> {
    let (sign, [h1, h2, b':', m1, m2]) = (match zone {
        b"Z" => return Some(Offset::UTC),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    }) else {
        return None;
    };
    let (hours, minutes) = (i32::from(two(*h1, *h2)?), i32::from(two(*m1, *m2)?));
    if hours > 23 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

fn two(tens: u8, ones: u8) -> Option<i16> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i16::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_the_api_are_read_as_the_same_instant() {
        let expected: Timestamp = "2020-08-24T10:50:12.192479Z".parse().unwrap();
        for text in [
            "2020-08-24T10:50:12.192479Z",
            "2020-08-24T13:50:12.192479+03:00",
            "2020-08-24T05:20:12.192479-05:30",
            "2020-08-24T10:50:12.192479000+00:00",
        ] {
            assert_eq!(parse_time(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_time("2020-08-24T10:50:12Z"), Ok("2020-08-24T10:50:12Z".parse().unwrap()));
        assert_eq!(parse_time("2020-08-24T10:50:12.5Z"), Ok("2020-08-24T10:50:12.5Z".parse().unwrap()));
        assert_eq!(parse_time("2020-02-29T00:00:00Z"), Ok("2020-02-29T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn nothing_else_is_a_time() {
        for text in [
            "",
            "Z",
            "2020-08-24",
            "2020-08-24T10:50:12",
            "2020-08-24t10:50:12Z",
            "2020-08-24T10:50:12z",
            "2020-08-24 10:50:12Z",
            " 2020-08-24T10:50:12Z",
            "2020-08-24T10:50:12Z ",
            "2020-08-24T10:50:12Z\n",
            "2020-08-24T10:50Z",
            "20200824T105012Z",
            "2020-08-24T10:50:12.Z",
            "2020-08-24T10:50:12,5Z",
            "2020-08-24T10:50:12.1234567890Z",
            "2020-08-24T10:50:12+03",
            "2020-08-24T10:50:12+0300",
            "2020-08-24T10:50:12+03:00:00",
            "2020-08-24T10:50:12+24:00",
            "2020-08-24T10:50:12+03:60",
            "2020-08-24T10:50:12−03:00",
            "2020-08-24T10:50:12Z[UTC]",
            "2020-08-24T10:50:12+03:00[Europe/Moscow]",
            "2020-08-24T10:50:60Z",
            "2020-08-24T24:00:00Z",
            "2020-08-32T10:50:12Z",
            "2020-13-24T10:50:12Z",
            "2021-02-29T10:50:12Z",
            "+02020-08-24T10:50:12Z",
            "-002020-08-24T10:50:12Z",
            "9999-12-31T23:59:59-23:59",
            "２０２０-08-24T10:50:12Z",
            "1598266212",
        ] {
            assert_eq!(parse_time(text), Err(NotATime), "{text:?}");
        }
    }
}
