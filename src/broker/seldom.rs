//! Telling something that may happen ten thousand times a second no more than once a second.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::BootInstant;

/// Lets one through each second, and counts the rest.
#[derive(Default)]
pub(super) struct Seldom {
    /// The second after boot in which the last was told, plus one. Zero: none was.
    last: AtomicU64,
    unsaid: AtomicU64,
}

impl Seldom {
    /// How many were kept back since the last that was told, if this one may be told.
    pub(super) fn may_tell(&self, now: BootInstant) -> Option<u64> {
        let second = now.as_duration().as_secs() + 1;
        if self.last.swap(second, Ordering::Relaxed) == second {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.unsaid.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_a_second_is_told_and_the_others_are_counted() {
        let seldom = Seldom::default();
        let at = |ms| BootInstant::since_boot(Duration::from_millis(ms));
        assert_eq!(seldom.may_tell(at(0)), Some(0));
        assert_eq!([seldom.may_tell(at(10)), seldom.may_tell(at(999))], [None, None]);
        assert_eq!(seldom.may_tell(at(1000)), Some(2));
    }
}
