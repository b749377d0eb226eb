//! The limit of calls made without an access token: so many in any window, counted per client address.
//!
//! The server keeps the times of the calls it let in. A call it throttled is not among them, so knocking on does not
//! make the wait longer. A call leaves the window exactly one window after it came in.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::settings::Limit;

/// The times of the calls let in, by client address.
#[derive(Default)]
pub(crate) struct SlidingLog {
    accepted: HashMap<IpAddr, VecDeque<Duration>>,
}

impl SlidingLog {
    /// Lets a call in and remembers it, or says how long until one would be let in.
    pub(crate) fn admit(&mut self, client: IpAddr, now: Duration, limit: Limit) -> Result<(), Duration> {
        let times = self.accepted.entry(client).or_default();
        while times.front().is_some_and(|&first| now.saturating_sub(first) >= limit.window) {
            times.pop_front();
        }
        // With more calls inside than allowed (the limit was lowered meanwhile), more than one must leave first.
        let must_leave = (times.len() + 1).saturating_sub(limit.calls);
        if must_leave == 0 {
            times.push_back(now);
            return Ok(());
        }
        let last_to_leave = times.get(must_leave - 1).copied().unwrap_or(now);
        Err(limit.window.saturating_sub(now.saturating_sub(last_to_leave)))
    }

    /// Forgets every call, as if a window had passed.
    pub(crate) fn clear(&mut self) {
        self.accepted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LIMIT: Limit = Limit { calls: 2, window: Duration::from_secs(60) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_call_leaves_the_window_exactly_one_window_after_it_came() {
        let mut log = SlidingLog::default();
        assert_eq!(log.admit(HOME, at(0), LIMIT), Ok(()));
        assert_eq!(log.admit(HOME, at(10), LIMIT), Ok(()));
        assert_eq!(log.admit(HOME, at(59), LIMIT), Err(at(1)));
        assert_eq!(log.admit(HOME, at(60), LIMIT), Ok(()));
        assert_eq!(log.admit(HOME, at(60), LIMIT), Err(at(10)));
    }

    #[test]
    fn a_throttled_call_is_not_remembered() {
        let mut log = SlidingLog::default();
        for second in [0, 0, 20, 40, 59] {
            let _ = log.admit(HOME, at(second), LIMIT);
        }
        assert_eq!(log.admit(HOME, at(60), LIMIT), Ok(()));
        assert_eq!(log.admit(HOME, at(60), LIMIT), Ok(()));
    }

    #[test]
    fn each_address_has_a_window_of_its_own() {
        let mut log = SlidingLog::default();
        let other: IpAddr = "127.0.0.2".parse().unwrap();
        for client in [HOME, HOME, other, other] {
            assert_eq!(log.admit(client, at(0), LIMIT), Ok(()));
        }
    }

    #[test]
    fn a_limit_lowered_meanwhile_waits_until_enough_calls_have_left() {
        let mut log = SlidingLog::default();
        for second in [0, 1] {
            assert_eq!(log.admit(HOME, at(second), LIMIT), Ok(()));
        }
        let lower = Limit { calls: 1, ..LIMIT };
        assert_eq!(log.admit(HOME, at(2), lower), Err(at(59)));
    }
}
