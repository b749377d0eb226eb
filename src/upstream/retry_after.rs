//! `Retry-After`, in both of its forms.

use std::time::Duration;

use http::{
    HeaderMap,
    header::{DATE, HeaderName, RETRY_AFTER},
};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

/// More seconds than anybody waits, and few enough to add to any clock.
const FOREVER: u64 = 100 * 365 * 24 * 3600;

/// How long the answer asks us to wait from now; `None` if it does not say, or says it in no form we know.
///
/// A date is read against the answer's own `Date`, for its clock need not agree with ours, which is `now`.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER)?;
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // The only way for digits not to be a number is to be too many.
        return Some(Duration::from_secs(text.parse().unwrap_or(FOREVER).min(FOREVER)));
    }
    let until = http_date(text)?;
    let now = self::text(headers, DATE).and_then(http_date).unwrap_or(now);
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A date in the one form that servers may still write, `Sun, 06 Nov 1994 08:49:37 GMT`. The mail format that the parser
/// is made for allows more (comments, zones), which HTTP does not.
fn http_date(text: &str) -> Option<Timestamp> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    let plain = text.len() == 29 && text.ends_with(" GMT");
    plain.then(|| PARSER.parse_timestamp(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "1994-11-06T08:49:00Z";

    fn wait(headers: &[(HeaderName, &'static str)]) -> Option<Duration> {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect::<HeaderMap>();
        retry_after(&headers, NOW.parse().unwrap())
    }

    #[test]
    fn seconds_are_seconds() {
        assert_eq!(wait(&[(RETRY_AFTER, "37")]), Some(Duration::from_secs(37)));
        assert_eq!(wait(&[(RETRY_AFTER, "0")]), Some(Duration::ZERO));
        assert_eq!(wait(&[(RETRY_AFTER, " 7 ")]), Some(Duration::from_secs(7)));
    }

    #[test]
    fn more_seconds_than_fit_are_for_ever_and_still_fit_a_clock() {
        let forever = Some(Duration::from_secs(FOREVER));
        assert_eq!(wait(&[(RETRY_AFTER, "99999999999999999999999999")]), forever);
        assert_eq!(wait(&[(RETRY_AFTER, "18446744073709551615")]), forever);
    }

    #[test]
    fn a_date_is_read_by_our_clock_where_the_answer_has_none() {
        assert_eq!(wait(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37 GMT")]), Some(Duration::from_secs(37)));
    }

    #[test]
    fn a_date_is_read_by_the_answers_own_clock_where_it_has_one() {
        assert_eq!(
            wait(&[(DATE, "Sun, 06 Nov 2022 08:49:30 GMT"), (RETRY_AFTER, "Sun, 06 Nov 2022 08:49:37 GMT"),]),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn a_date_that_has_passed_is_now() {
        assert_eq!(wait(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_neither_says_nothing() {
        assert_eq!(wait(&[]), None);
        for text in ["", "-1", "+5", "1.5", "soon", "5 s", "Sun, 06 Nov 1994 08:49:37 +0100", "0x10"] {
            assert_eq!(wait(&[(RETRY_AFTER, text)]), None, "{text:?}");
        }
    }
}
