//! The protocol's times, and ours.

use std::time::Duration;

use jiff::Timestamp;

/// The moment that the protocol means. `None` for one that is absent or none.
pub fn time(at: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
}

/// The span that the protocol means. `None` for one that is absent, negative or none.
pub fn span(of: Option<prost_types::Duration>) -> Option<Duration> {
    of.and_then(|span| Duration::try_from(span).ok())
}

pub(super) use super::super::convert::duration;
