//! What a fault does to the body of a right answer.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use crate::api::Answer;
use crate::fault::{BadCharacters, BadLifetime, FaultKind};
use crate::settings::Forms;
use crate::sign;
use crate::wire;

const TEN_YEARS: u32 = 3653 * 24 * 3600;

/// Spoils a token answer the way `kind` says. Answers that carry no token, and other kinds, leave it as it is.
pub(super) fn spoil(kind: &FaultKind, answer: &mut Answer, forms: Forms, now: Timestamp) {
    if answer.status != StatusCode::OK {
        return;
    }
    match kind {
        FaultKind::WrongSign => {
            if let Some(Value::String(sign)) = answer.body.pointer_mut("/meta/sign") {
                *sign = sign::wrong(sign);
            }
        }
        FaultKind::MissingToken => {
            if let Some(attributes) = attributes(&mut answer.body).and_then(Value::as_object_mut) {
                attributes.remove("access");
            }
        }
        FaultKind::BadTokenChars { characters } => {
            let access = attributes(&mut answer.body).and_then(|attributes| attributes.get_mut("access"));
            if let Some(Value::String(token)) = access {
                let middle = token.len() / 2;
                token.insert_str(
                    middle,
                    match characters {
                        BadCharacters::Newline => "\r\nX-Smuggled: yes\r\n",
                        BadCharacters::NonAscii => "é",
                    },
                );
            }
        }
        FaultKind::ImpossibleLifetime { lifetime } => {
            if let Some(attributes) = attributes(&mut answer.body) {
                misdate(attributes, *lifetime, forms, now);
            }
        }
        _ => {}
    }
}

/// The attributes, in either of the published shapes.
fn attributes(body: &mut Value) -> Option<&mut Value> {
    let at = if body.get("data").is_some() { "/data/attributes" } else { "/attributes" };
    body.pointer_mut(at)
}

fn misdate(attributes: &mut Value, lifetime: BadLifetime, forms: Forms, now: Timestamp) {
    let seconds = match lifetime {
        BadLifetime::Past => -3600,
        BadLifetime::Zero => 0,
        BadLifetime::Negative => -1,
        BadLifetime::TenYears => i64::from(TEN_YEARS),
    };
    if let Some(expires_in) = attributes.get_mut("expires_in") {
        *expires_in = seconds.into();
    }
    if let Some(expired_at) = attributes.get_mut("access_expired_at") {
        let by = Duration::from_secs(seconds.unsigned_abs());
        let at = if seconds < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        *expired_at = wire::time(at.unwrap_or(now), forms.fraction, forms.expiry_offset).into();
    }
}
