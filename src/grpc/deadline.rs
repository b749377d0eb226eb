//! The deadline of a call, from its `grpc-timeout`.

use std::time::Duration;

use tonic::{Status, metadata::MetadataMap};

use super::errors::bad_field;
use crate::clock::BootInstant;

/// When the call ends; `None` if it did not say.
///
/// The header is 1 to 8 digits and a unit: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
pub(super) fn deadline(metadata: &MetadataMap, now: BootInstant) -> Result<Option<BootInstant>, Status> {
    let Some(value) = metadata.get("grpc-timeout") else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(parse);
    match timeout {
        Some(timeout) => Ok(Some(now + timeout)),
        None => Err(bad_field("grpc-timeout", "must be 1 to 8 digits and one of the units H M S m u n")),
    }
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(amount * 3600),
        'M' => Duration::from_secs(amount * 60),
        'S' => Duration::from_secs(amount),
        'm' => Duration::from_millis(amount),
        'u' => Duration::from_micros(amount),
        'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(parse("1S"), Some(Duration::from_secs(1)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1 S", "100000000S", "1é"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
