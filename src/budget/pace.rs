//! How calls must be spaced so that no window can hold too many, whatever its alignment.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, FakeRelativeClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::{BadLimit, LATEST_ARRIVAL, PastCall};
use crate::clock::BootInstant;

/// The upstream's own limit: at most `requests` calls in any `window`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallLimit {
    requests: u32,
    window: Duration,
}

impl CallLimit {
    /// B2BINPAY's limit: 15 calls in any 60 s.
    pub const B2BINPAY: Self = Self { requests: 15, window: Duration::from_secs(60) };

    /// A limit of at least 3 calls (one must be held in reserve) and a window from one second to a day.
    pub fn new(requests: u32, window: Duration) -> Result<Self, BadLimit> {
        if requests < 3 {
            return Err(BadLimit::TooFewRequests);
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(&window) {
            return Err(BadLimit::WindowOutOfRange);
        }
        Ok(Self { requests, window })
    }

    /// How many calls the upstream accepts …
    pub const fn requests(self) -> u32 {
        self.requests
    }

    /// … in any span of this length.
    pub const fn window(self) -> Duration {
        self.window
    }
}

/// A burst and a steady rate that together keep a [`CallLimit`] in every window.
///
/// A limiter that lets `burst` calls through at once and then one each `interval` makes at most
/// `burst + ⌊window ÷ interval⌋` calls in any window. That must be one less than the limit: a call that was given up
/// here (timed out, or its process killed) may still be on its way, and counts at the upstream when it arrives there.
/// For 15 in 60 s: a burst of 4 and one each 6 s, 4 + 10 = 14. (`Quota::per_minute(15)` would allow 30.)
///
/// Calls also arrive later than they are written down, each by another delay, so that calls which were spaced here can
/// arrive closer together. A window of arrivals holds calls from a span of `window + LATEST_ARRIVAL`; that must hold
/// no more than the limit itself. (15 in 60 s keep it as they are; it matters for short windows.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    burst: u32,
    interval: Duration,
}

impl Pace {
    pub(super) fn within(limit: CallLimit) -> Self {
        let usable = limit.requests - 1;
        let burst = (usable * 2 / 7).max(1);
        let one_in_reserve = div_ceil(limit.window, usable - burst);
        let arriving_late = div_ceil(limit.window + LATEST_ARRIVAL, limit.requests - burst + 1);
        Self { burst, interval: one_in_reserve.max(arriving_late + Duration::from_nanos(1)) }
    }

    /// The same rate without the burst, for when the past is not known for sure.
    pub(super) const fn without_burst(self) -> Self {
        Self { burst: 1, ..self }
    }

    pub(super) const fn burst(self) -> u32 {
        self.burst
    }

    /// Replays `past` (oldest first), and says how long after `now` the next call may be made: zero for at once.
    pub(super) fn wait(self, past: &[PastCall], now: BootInstant) -> Duration {
        Replay::of(self, past, now).wait(now)
    }

    /// How many calls could be made at `now`, one right after the other.
    pub(super) fn available(self, past: &[PastCall], now: BootInstant) -> u32 {
        let mut replay = Replay::of(self, past, now);
        let mut available = 0;
        while available < self.burst && replay.wait(now).is_zero() {
            available += 1;
        }
        available
    }
}

/// Rounds up to the nanosecond: a hair longer is safe, a hair shorter is one call too many.
fn div_ceil(time: Duration, by: u32) -> Duration {
    let exact = time / by;
    if exact * by == time { exact } else { exact + Duration::from_nanos(1) }
}

/// A governor that was shown the past. It keeps no state between calls: the record does, since other processes write
/// to it too.
struct Replay {
    limiter: RateLimiter<NotKeyed, InMemoryState, FakeRelativeClock, NoOpMiddleware<governor::nanos::Nanos>>,
    clock: FakeRelativeClock,
    /// What the limiter's clock shows.
    at: BootInstant,
}

impl Replay {
    fn of(pace: Pace, past: &[PastCall], now: BootInstant) -> Self {
        let clock = FakeRelativeClock::default();
        // Both are at least one: `Pace::within` sees to it. The fallbacks are the tightest quota there is.
        let burst = NonZeroU32::new(pace.burst).unwrap_or(NonZeroU32::MIN);
        let quota =
            Quota::with_period(pace.interval).unwrap_or(Quota::per_hour(NonZeroU32::MIN)).allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        let start = past.iter().map(|call| call.at).min().unwrap_or(now).min(now);
        let mut replay = Self { limiter, clock, at: start };
        for call in past {
            replay.advance_to(call.at);
            // A call that the pace would not have allowed (the pace was another then, or the clock) was made all the
            // same. It counts as made when it would have been allowed, which is later: that errs on the safe side.
            while let Err(refused) = replay.limiter.check() {
                let wait = refused.wait_time_from(replay.clock.now());
                replay.advance_to(replay.at + wait.max(Duration::from_nanos(1)));
            }
        }
        replay.advance_to(now);
        replay
    }

    fn advance_to(&mut self, to: BootInstant) {
        self.clock.advance(to.saturating_since(self.at));
        self.at = self.at.max(to);
    }

    /// How long after `now` the next call may be made; takes it if that is at once.
    fn wait(&mut self, now: BootInstant) -> Duration {
        let ahead = self.at.saturating_since(now);
        match self.limiter.check() {
            Ok(()) => ahead,
            Err(refused) => ahead + refused.wait_time_from(self.clock.now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> BootInstant {
        BootInstant::since_boot(Duration::from_secs_f64(1000.0 + seconds))
    }

    fn calls(times: &[f64]) -> Vec<PastCall> {
        times.iter().map(|time| PastCall::made(at(*time))).collect()
    }

    #[test]
    fn fifteen_in_sixty_seconds_means_a_burst_of_four_and_one_each_six_seconds() {
        assert_eq!(Pace::within(CallLimit::B2BINPAY), Pace { burst: 4, interval: Duration::from_secs(6) });
    }

    #[test]
    fn whatever_the_limit_burst_and_rate_leave_one_in_reserve() {
        for requests in 3..200 {
            for window in [1, 7, 60, 61, 3600] {
                let window = Duration::from_secs(window);
                let pace = Pace::within(CallLimit::new(requests, window).unwrap());
                let most = u128::from(pace.burst) + window.as_nanos() / pace.interval.as_nanos();
                assert!(most < u128::from(requests), "{requests} in {window:?}: {most}");
                let span = window + LATEST_ARRIVAL;
                let arriving = u128::from(pace.burst) + span.as_nanos() / pace.interval.as_nanos();
                assert!(arriving <= u128::from(requests), "{requests} in {window:?}, late: {arriving}");
            }
        }
    }

    #[test]
    fn the_burst_is_free_and_then_one_each_interval() {
        let pace = Pace::within(CallLimit::B2BINPAY);
        assert_eq!(pace.available(&[], at(0.0)), 4);
        assert_eq!(pace.wait(&calls(&[0.0, 0.0, 0.0]), at(0.0)), Duration::ZERO);
        assert_eq!(pace.wait(&calls(&[0.0, 0.0, 0.0, 0.0]), at(1.0)), Duration::from_secs(5));
        assert_eq!(pace.available(&calls(&[0.0, 0.0, 0.0, 0.0]), at(12.0)), 2);
    }

    #[test]
    fn calls_beyond_the_pace_are_counted_too() {
        let pace = Pace::within(CallLimit::B2BINPAY);
        assert_eq!(pace.wait(&calls(&[0.0; 8]), at(1.0)), Duration::from_secs(29));
        assert_eq!(pace.available(&calls(&[0.0; 8]), at(1.0)), 0);
    }

    #[test]
    fn without_burst_the_last_call_must_be_an_interval_ago() {
        let pace = Pace::within(CallLimit::B2BINPAY).without_burst();
        assert_eq!(pace.wait(&calls(&[0.0]), at(2.0)), Duration::from_secs(4));
        assert_eq!(pace.available(&calls(&[0.0]), at(60.0)), 1);
    }
}
