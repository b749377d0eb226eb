//! The judgement: from keys and a subject to a finding.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    callback::{self, Callback, Kind, SignedFields},
    key::{Sign, SignKeys},
    near_miss,
    rules::{self, BrokenRule, Genuine},
    time::{NotATime, parse_time},
    violation::Violation,
};
use crate::credentials::ApiVersion;

/// The fields of a callback that its sign covers, in the order in which it does.
pub const SIGNED_FIELDS: [&str; 4] = ["status", "amount", "tracking_id", "time"];

/// How far the signer's clock may be ahead of ours.
const CLOCKS_MAY_DIFFER_BY: SignedDuration = SignedDuration::from_secs(60);

/// What is to be judged. No `Debug`: a refresh token is a secret.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// The body of a callback as it was received.
    Callback(&'a [u8]),
    /// The signed part of an answer of v2's `/token/`.
    TokenResponse {
        /// `meta.time`, as written.
        time: &'a str,
        /// `data.attributes.refresh`, as written.
        refresh_token: &'a str,
        /// `meta.sign`
        sign: &'a str,
    },
    /// Anything.
    Message {
        /// What was signed.
        message: &'a [u8],
        /// The sign in hex digits.
        sign: &'a str,
    },
}

/// A judgement about a sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// B2BINPAY signed it, and it keeps the rules.
    Valid,
    /// The sign is wrong or missing, or a rule is broken.
    Invalid,
    /// A callback of the sort that B2BINPAY doesn't sign.
    Unsigned,
    /// B2BINPAY signed it, but too long ago, or in the future.
    Stale,
}

impl Verdict {
    /// `VALID`, `INVALID`, `UNSIGNED` or `STALE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Invalid => "INVALID",
            Self::Unsigned => "UNSIGNED",
            Self::Stale => "STALE",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose key it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    /// That of the credentials in force.
    Current,
    /// That of the credentials before them.
    Previous,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The judgement.
    pub verdict: Verdict,
    /// Why, for a person. Never holds a sign.
    pub reason: String,
    /// The key that the sign is right under. Only with [`Verdict::Valid`] and [`Verdict::Stale`].
    pub generation: Option<Generation>,
    /// What the callback says. Only for callbacks, and never with [`Verdict::Invalid`].
    pub callback: Option<CallbackFacts>,
}

/// What a callback says, as it is written there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallbackFacts {
    /// `data.type`
    pub kind: Kind,
    /// `data.id`
    pub id: String,
    /// The transfer's status. `None` where there is no transfer.
    pub status: Option<i64>,
    /// The transfer's amount. Empty where there is no transfer.
    pub amount: String,
    /// `data.attributes.tracking_id`
    pub tracking_id: String,
    /// `meta.time`
    pub time: String,
    /// The names of those fields that the sign covers: [`SIGNED_FIELDS`], or none.
    pub authenticated_fields: &'static [&'static str],
}

/// Why there is no finding.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    /// Nobody can say what the callback means.
    #[error("the callback can't be read: {}", listed(.0))]
    Malformed(Vec<Violation>),
    /// The credentials are v3's, and the secret that callbacks are signed with is not among them.
    #[error(
        "no callback secret is configured, and v3 signs with nothing else: make one in the account's settings and \
         name its file in credentials.callback_secret_file"
    )]
    NoCallbackSecret,
    /// A token answer of v3.
    #[error("API v3 does not sign its token answers: there is no sign to verify")]
    NotSignedByThisApi,
}

fn listed(violations: &[Violation]) -> String {
    let sentences =
        violations.iter().map(|violation| format!("{} {}", violation.field, violation.description));
    sentences.collect::<Vec<_>>().join("; ")
}

/// Judges `subject` at the time `now`.
///
/// `max_age` is how old a time that is signed may be; what has none (a message) is of any age.
pub fn verify(
    keys: &SignKeys,
    subject: Subject<'_>,
    max_age: Option<Duration>,
    now: Timestamp,
) -> Result<Finding, VerifyError> {
    let judge = Judge { keys, max_age, now };
    match subject {
        Subject::Callback(body) => judge.callback(&callback::read(body).map_err(VerifyError::Malformed)?),
        Subject::TokenResponse { time, refresh_token, sign } => {
            judge.token_response(time, refresh_token, sign)
        }
        Subject::Message { message, sign } => judge.message(message, sign),
    }
}

/// A sign that is right: what follows from it.
struct Signer {
    generation: Generation,
    reason: String,
}

struct Judge<'a> {
    keys: &'a SignKeys,
    max_age: Option<Duration>,
    now: Timestamp,
}

impl Judge<'_> {
    fn callback(&self, callback: &Callback<'_>) -> Result<Finding, VerifyError> {
        match (&callback.transfer, callback.sign.as_deref()) {
            (None, None | Some("")) => Ok(unsigned(callback)),
            (None, Some(_)) => Ok(invalid("there is a sign but no transfer that it could cover")),
            (Some(_), None) => Ok(invalid("there is a transfer but no sign: B2BINPAY signs every transfer")),
            (Some(_), Some(sign)) => {
                let Some(fields) = callback.signed_fields() else {
                    return Err(VerifyError::Malformed(callback.missing.clone()));
                };
                let signer = self.signer(
                    &fields.message(),
                    sign,
                    |_| true,
                    |sign| near_miss::of_callback(self.keys, self.now, &fields, sign),
                )?;
                Ok(signer.map_or_else(invalid, |signer| self.signed_callback(callback, &fields, signer)))
            }
        }
    }

    fn signed_callback(&self, callback: &Callback<'_>, fields: &SignedFields<'_>, signer: Signer) -> Finding {
        let Genuine { status, time } = match rules::judge(fields) {
            Ok(genuine) => genuine,
            Err(broken) => {
                let broken = broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                return invalid(format!("{RIGHT_BUT} {broken}"));
            }
        };
        let facts = CallbackFacts {
            status: Some(status),
            amount: fields.amount.to_owned(),
            authenticated_fields: &SIGNED_FIELDS,
            ..unsigned_facts(callback)
        };
        let mut finding = self.judge_age(time, signer);
        if !rules::DOCUMENTED_STATUSES.contains(&status) {
            finding.reason = format!("{}; status {status} is none that the API documents", finding.reason);
        }
        Finding { callback: Some(facts), ..finding }
    }

    fn token_response(&self, time: &str, refresh_token: &str, sign: &str) -> Result<Finding, VerifyError> {
        if self.keys.api() == ApiVersion::V3 {
            return Err(VerifyError::NotSignedByThisApi);
        }
        let parts = [time.as_bytes(), refresh_token.as_bytes()];
        let signer = self.signer(
            &parts,
            sign,
            |api| api == ApiVersion::V2,
            |sign| near_miss::of_token_response(self.keys, self.now, time, refresh_token, sign),
        )?;
        Ok(match (signer, parse_time(time)) {
            (Err(reason), _) => invalid(reason),
            // Without separators characters could be moved from the token to the time and back.
            (Ok(_), Err(NotATime)) => invalid(format!("{RIGHT_BUT} {}", BrokenRule::Time)),
            (Ok(signer), Ok(time)) => self.judge_age(time, signer),
        })
    }

    fn message(&self, message: &[u8], sign: &str) -> Result<Finding, VerifyError> {
        let signer = self.signer(
            &[message],
            sign,
            |_| true,
            |sign| near_miss::of_message(self.keys, self.now, message, sign),
        )?;
        Ok(match signer {
            Err(reason) => invalid(reason),
            Ok(Signer { generation, reason }) => {
                Finding { verdict: Verdict::Valid, reason, generation: Some(generation), callback: None }
            }
        })
    }

    /// Finds the key that `sign` is right under, the current one first; the inner error says why it is right under
    /// none. `signs_such` are the APIs whose keys count for the subject.
    fn signer(
        &self,
        parts: &[&[u8]],
        sign: &str,
        signs_such: impl Fn(ApiVersion) -> bool,
        near_miss: impl FnOnce(&Sign) -> Option<String>,
    ) -> Result<Result<Signer, String>, VerifyError> {
        let sign = match Sign::parse(sign) {
            Ok(sign) => sign,
            Err(not_a_sign) => return Ok(Err(not_a_sign.to_string())),
        };
        if self.keys.current().is_some_and(|key| key.verifies(parts, &sign)) {
            let reason = "the sign is right under the current key".to_owned();
            return Ok(Ok(Signer { generation: Generation::Current, reason }));
        }
        if let Some((key, api, until)) = self.keys.previous(self.now)
            && signs_such(api)
            && key.verifies(parts, &sign)
        {
            let reason = format!("the sign is right under the previous key, which counts until {until}");
            return Ok(Ok(Signer { generation: Generation::Previous, reason }));
        }
        if self.keys.current().is_none() {
            return Err(VerifyError::NoCallbackSecret);
        }
        let hint = near_miss(&sign).unwrap_or_default();
        Ok(Err(if hint.is_empty() { WRONG.to_owned() } else { format!("{WRONG}; {hint}") }))
    }

    /// Judges a time that is signed.
    fn judge_age(&self, time: Timestamp, Signer { generation, reason }: Signer) -> Finding {
        let (verdict, reason) = match self.stale(time) {
            None => (Verdict::Valid, reason),
            Some(stale) => (Verdict::Stale, format!("{reason}, but {stale}")),
        };
        Finding { verdict, reason, generation: Some(generation), callback: None }
    }

    fn stale(&self, time: Timestamp) -> Option<String> {
        let max_age = SignedDuration::try_from(self.max_age?).unwrap_or(SignedDuration::MAX);
        let age = self.now.duration_since(time);
        let shown = |duration: SignedDuration| format!("{:#}", SignedDuration::from_secs(duration.as_secs()));
        if age > max_age {
            Some(format!("meta.time is {} ago, more than max_age, {}", shown(age), shown(max_age)))
        } else if age < -CLOCKS_MAY_DIFFER_BY {
            Some(format!("meta.time is {} in the future: is this host's clock right?", shown(age.abs())))
        } else {
            None
        }
    }
}

const WRONG: &str = "the sign is wrong";
const RIGHT_BUT: &str = "the sign is right, but";

fn invalid(reason: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Invalid, reason: reason.into(), generation: None, callback: None }
}

fn unsigned(callback: &Callback<'_>) -> Finding {
    Finding {
        verdict: Verdict::Unsigned,
        reason: "there is no transfer and no sign, so anybody could have sent it: confirm it by asking the API for the \
                 deposit or payout"
            .to_owned(),
        generation: None,
        callback: Some(unsigned_facts(callback)),
    }
}

fn unsigned_facts(callback: &Callback<'_>) -> CallbackFacts {
    CallbackFacts {
        kind: callback.kind,
        id: callback.id.clone().into_owned(),
        status: None,
        amount: String::new(),
        tracking_id: callback.tracking_id.as_ref().map(|text| text.decoded.to_string()).unwrap_or_default(),
        time: callback.time.as_deref().unwrap_or_default().to_owned(),
        authenticated_fields: &[],
    }
}
