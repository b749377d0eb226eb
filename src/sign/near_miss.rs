//! Why a sign is wrong, where that can be told: the mistakes that integrations make.
//!
//! Each is a message that is *almost* the one that was judged, or a key that is almost the right one. A match is told
//! in words and never makes a sign right. Telling gives nothing away: who can bring about a match knows the key, or has
//! something that was signed with it.

use jiff::Timestamp;

use super::{
    callback::SignedFields,
    key::{Sign, SignKeys},
    rules,
};

/// The longest message that is tried again and again. Genuine ones have about a hundred bytes; a long one is no mistake
/// but somebody who wants us to work.
const LONGEST_MESSAGE: usize = 8 * 1024;

const LINE_BREAK: &str = "without the line break at its end";
const ZONE: &str = "with the time's zone spelled the other way, Z or +00:00: values must be passed on as they were \
                    received, not read and written again";

/// For a callback.
pub(super) fn of_callback(
    keys: &SignKeys,
    now: Timestamp,
    fields: &SignedFields<'_>,
    sign: &Sign,
) -> Option<String> {
    let [status, amount, tracking_id, time] = fields.message();
    let changed = [
        (
            "without the line break at the end of tracking_id",
            without_line_break(tracking_id).map(|it| [status, amount, it, time].concat()),
        ),
        (
            "with tracking_id as it is escaped in the source: a sign covers the characters that escapes stand for",
            Some(fields.tracking_id.written.as_bytes())
                .filter(|written| *written != tracking_id)
                .map(|it| [status, amount, it, time].concat()),
        ),
        (
            "with the status as a plain integer: pass the body on as it was received, not read and written again",
            plain_status(fields.status).map(|it| [it.as_bytes(), amount, tracking_id, time].concat()),
        ),
        (
            "with all decimals of the currency in the amount: pass the body on as it was received, not read and \
             written again",
            padded_amount(fields).map(|it| [status, it.as_bytes(), tracking_id, time].concat()),
        ),
        (ZONE, other_zone(fields.time).map(|it| [status, amount, tracking_id, it.as_bytes()].concat())),
    ];
    told(keys, now, sign, &fields.message(), changed)
}

/// For an answer of v2's `/token/`.
pub(super) fn of_token_response(
    keys: &SignKeys,
    now: Timestamp,
    time: &str,
    refresh_token: &str,
    sign: &Sign,
) -> Option<String> {
    let (time, refresh_token, other_zone) = (time.as_bytes(), refresh_token.as_bytes(), other_zone(time));
    let changed = [
        (
            "without the line break at the end of the refresh token",
            without_line_break(refresh_token).map(|it| [time, it].concat()),
        ),
        (ZONE, other_zone.map(|it| [it.as_bytes(), refresh_token].concat())),
    ];
    told(keys, now, sign, &[time, refresh_token], changed)
}

/// For a message.
pub(super) fn of_message(keys: &SignKeys, now: Timestamp, message: &[u8], sign: &Sign) -> Option<String> {
    let changed = [(LINE_BREAK, without_line_break(message).map(<[u8]>::to_vec))];
    told(keys, now, sign, &[message], changed)
}

/// Tries the message under the key that is almost right, then the changed messages under the keys in force.
fn told<const N: usize>(
    keys: &SignKeys,
    now: Timestamp,
    sign: &Sign,
    message: &[&[u8]],
    changed: [(&str, Option<Vec<u8>>); N],
) -> Option<String> {
    if message.iter().map(|part| part.len()).sum::<usize>() > LONGEST_MESSAGE {
        return None;
    }
    if keys.near_miss().is_some_and(|key| key.verifies(message, sign)) {
        return Some(
            "it matches the v2 key of these credentials, where v3 signs with the callback secret: is upstream.api right?"
                .to_owned(),
        );
    }
    let previous = keys.previous(now).map(|(key, ..)| key);
    let in_force = [keys.current(), previous];
    let right = |message: &[u8]| in_force.iter().flatten().any(|key| key.verifies(&[message], sign));
    changed
        .into_iter()
        .find(|(_, message)| message.as_deref().is_some_and(right))
        .map(|(how, _)| format!("it matches {how}"))
}

fn without_line_break(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_suffix(b"\n")?;
    Some(text.strip_suffix(b"\r").unwrap_or(text))
}

/// What a reader that knows only floating point numbers made 2.0 or 2e0 of.
fn plain_status(written: &str) -> Option<String> {
    let value: f64 = written.parse().ok()?;
    let is_another_spelling = rules::status(written).is_none() && value.fract() == 0.0 && value.abs() < 1e9;
    // Adding zero makes 0 of -0.
    is_another_spelling.then(|| format!("{:.0}", value + 0.0))
}

/// What a reader that knows amounts only by their value took the zeros from.
fn padded_amount(fields: &SignedFields<'_>) -> Option<String> {
    let exp = fields.exp.and_then(|exp| usize::try_from(exp).ok()).filter(|exp| *exp <= 64)?;
    let decimals = rules::decimals(fields.amount)?;
    let missing = exp.checked_sub(decimals).filter(|missing| *missing > 0)?;
    let point = if decimals == 0 { "." } else { "" };
    Some(format!("{}{point}{}", fields.amount, "0".repeat(missing)))
}

fn other_zone(time: &str) -> Option<String> {
    if let Some(local) = time.strip_suffix('Z') {
        return Some(format!("{local}+00:00"));
    }
    time.strip_suffix("+00:00").map(|local| format!("{local}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_status_is_made_only_of_other_spellings_of_an_integer() {
        for (written, expected) in [("2.0", "2"), ("2e0", "2"), ("-2.0", "-2"), ("-0", "0"), ("-0.0", "0")] {
            assert_eq!(plain_status(written).as_deref(), Some(expected), "{written}");
        }
        for written in ["2", "-2", "2.5", "1e400", "1e12"] {
            assert_eq!(plain_status(written), None, "{written}");
        }
    }
}
