//! Whether B2BINPAY signed it.
//!
//! [`verify`] judges the three things that B2BINPAY's keys sign: callbacks, v2's token answers, and any message. It
//! promises that nothing is [`Verdict::Valid`] unless the sign is right under a key in force *and* the content keeps
//! the rules that every genuine one keeps; the sign alone does not say enough, since the message that it covers has no
//! separators and leaves out most of a callback (see [`NOT_COVERED`]).
//!
//! What it is not: a maker of signs. No function here returns the right sign of anything, so no answer, reason or
//! explanation can carry one. Signs are compared in constant time by the HMAC library; everything else that is compared
//! is known to whoever sent it.
//!
//! A callback is judged in this order, and the first step that fails decides:
//!
//! 1. it can be read: otherwise [`VerifyError::Malformed`], with everything that is wrong with it at once;
//! 2. there is a transfer: otherwise [`Verdict::Unsigned`], or [`Verdict::Invalid`] where there is a sign all the same;
//! 3. the sign is 64 hex digits and right under the current key, or the previous one: otherwise [`Verdict::Invalid`];
//! 4. what it says keeps the rules (`rules`): otherwise [`Verdict::Invalid`];
//! 5. it is young enough, where that was asked: otherwise [`Verdict::Stale`].
//!
//! The files, from the bottom: `key` (keys and signs), `time` (the API's form of a time), `json` (reading a document
//! without trusting it), `violation` (what can't be read), `wire` (which members of a callback are read),
//! `callback` (from those to a callback, or violations), `rules` (what shapes genuine values have), `near_miss` (why a sign could be wrong), `verify` and
//! `explain`.

mod callback;
mod explain;
mod json;
mod key;
mod near_miss;
mod rules;
mod time;
mod verify;
mod violation;
mod wire;

#[cfg(test)]
mod tests;

pub use callback::{Kind, MAX_CALLBACK};
pub(crate) use explain::printable;
pub use explain::{ExplainedField, ExplainedSign, Explanation, NOT_COVERED, explain};
pub use key::{NotASign, Sign, SignKey, SignKeys};
pub use time::{NotATime, parse_time};
pub use verify::{CallbackFacts, Finding, Generation, SIGNED_FIELDS, Subject, Verdict, VerifyError, verify};
pub use violation::{MAX_VIOLATIONS, Violation};
