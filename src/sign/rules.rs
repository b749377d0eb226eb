//! What shapes genuine values have.
//!
//! The message that is signed has no separators, so a digit can be moved from one field to its neighbour and the sign
//! stays right. These rules catch what can be caught of that. They are judged only after the sign: a body that nobody
//! signed is a forgery whatever shape it has.

use std::fmt;

use jiff::Timestamp;

use super::{
    callback::SignedFields,
    time::{NotATime, parse_time},
};

/// The statuses that the API documents, from canceled to confirmed.
pub(super) const DOCUMENTED_STATUSES: std::ops::RangeInclusive<i64> = -3..=2;

/// A rule that a value breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BrokenRule {
    Status,
    Amount,
    Decimals { found: usize, allowed: u32 },
    Time,
}

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("the transfer's status is not written as a plain integer"),
            Self::Amount => f.write_str(
                "the transfer's amount is not written as digits, or digits with a point between them",
            ),
            Self::Decimals { found, allowed } => {
                write!(f, "the transfer's amount has {found} decimals where its currency has {allowed}")
            }
            Self::Time => write!(f, "meta.time is {NotATime}"),
        }
    }
}

/// What signed fields say that keep every rule.
pub(super) struct Genuine {
    pub(super) status: i64,
    pub(super) time: Timestamp,
}

/// What the signed fields say, or every rule that they break.
pub(super) fn judge(fields: &SignedFields<'_>) -> Result<Genuine, Vec<BrokenRule>> {
    let status = status(fields.status).ok_or(BrokenRule::Status);
    let amount = amount(fields.amount, fields.exp);
    let time = parse_time(fields.time).map_err(|NotATime| BrokenRule::Time);
    match (status, amount, time) {
        (Ok(status), Ok(()), Ok(time)) => Ok(Genuine { status, time }),
        (status, amount, time) => {
            Err([status.err(), amount.err(), time.err()].into_iter().flatten().collect())
        }
    }
}

fn amount(amount: &str, exp: Option<u32>) -> Result<(), BrokenRule> {
    let found = decimals(amount).ok_or(BrokenRule::Amount)?;
    match exp {
        Some(allowed) if u32::try_from(found).map_or(true, |found| found > allowed) => {
            Err(BrokenRule::Decimals { found, allowed })
        }
        _ => Ok(()),
    }
}

/// Reads a status from a JSON number, which has no leading zeros and no plus. `None` for a fraction, an exponent, -0 and
/// what doesn't fit 64 bits: each is another way of writing an integer, or none.
pub(super) fn status(written: &str) -> Option<i64> {
    written.parse().ok().filter(|_| written != "-0")
}

/// The number of decimals of an amount, or `None` for what is not one.
pub(super) fn decimals(amount: &str) -> Option<usize> {
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match amount.split_once('.') {
        None => are_digits(amount).then_some(0),
        Some((whole, decimals)) => (are_digits(whole) && are_digits(decimals)).then_some(decimals.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_integer_in_its_only_spelling() {
        for (written, value) in [("0", 0), ("2", 2), ("-3", -3), ("9223372036854775807", i64::MAX)] {
            assert_eq!(status(written), Some(value));
        }
        for written in ["-0", "2.0", "2e0", "0.2e1", "9223372036854775808", "1e400"] {
            assert_eq!(status(written), None, "{written}");
        }
    }

    #[test]
    fn an_amount_is_digits_or_digits_point_digits() {
        for (amount, expected) in [("0", 0), ("12", 0), ("0.300000000000000000", 18), ("007.5", 1)] {
            assert_eq!(decimals(amount), Some(expected), "{amount}");
        }
        for amount in
            ["", ".", ".5", "5.", "1.2.3", "-1", "+1", "1e3", "1,5", " 1", "1 ", "1\n", "٣", "0x1", "1_0"]
        {
            assert_eq!(decimals(amount), None, "{amount:?}");
        }
    }
}
