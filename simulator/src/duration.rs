//! Durations as people write them: `60s`, `15m`, `1h 30m`, `-90s`, or a bare number of seconds in JSON.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serializer, de};

/// Reads a duration that may be negative.
pub(crate) fn parse_signed(text: &str) -> Result<SignedDuration, String> {
    text.parse().map_err(|_| format!("'{text}' is not a duration; write 60s, 15m or 1h 30m"))
}

/// Reads a duration that may not be negative.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    parse_signed(text).and_then(unsigned)
}

fn unsigned(signed: SignedDuration) -> Result<Duration, String> {
    Duration::try_from(signed).map_err(|_| format!("{signed:#} is negative, and can't be here"))
}

/// Writes a duration the way it is read.
pub(crate) fn friendly(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| "for ever".to_owned(), |signed| format!("{signed:#}"))
}

/// What stands for a duration in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Seconds(f64),
}

impl Written {
    fn signed(self) -> Result<SignedDuration, String> {
        match self {
            Self::Text(text) => parse_signed(&text),
            Self::Seconds(seconds) => SignedDuration::try_from_secs_f64(seconds)
                .map_err(|_| format!("{seconds} seconds are more than can be counted")),
        }
    }
}

/// For `#[serde(with)]` on a [`Duration`].
pub(crate) mod plain {
    use super::{Deserialize, Deserializer, Duration, Serializer, Written, de, friendly, unsigned};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&friendly(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Written::deserialize(from)?.signed().and_then(unsigned).map_err(de::Error::custom)
    }
}

/// A duration in JSON, for fields that are optional or nullable.
#[derive(Clone, Copy)]
pub(crate) struct Plain(pub(crate) Duration);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        plain::deserialize(from).map(Self)
    }
}

/// A duration in JSON that may be negative.
#[derive(Clone, Copy)]
pub(crate) struct Signed(pub(crate) SignedDuration);

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Written::deserialize(from)?.signed().map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_signed("-90s"), Ok(SignedDuration::from_secs(-90)));
        assert!(parse("-90s").is_err());
        assert!(parse("soon").unwrap_err().contains("60s"), "the message shows a form that works");
    }

    #[test]
    fn a_bare_number_in_json_counts_seconds() {
        let Plain(duration) = serde_json::from_str("0.25").unwrap();
        assert_eq!(duration, Duration::from_millis(250));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let duration = Duration::from_millis(3_599_250);
        assert_eq!(parse(&friendly(duration)), Ok(duration));
    }
}
