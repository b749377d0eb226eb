//! How calls must be spaced so that no window can hold too many, whatever its alignment.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, FakeRelativeClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::{BadLimit, LATEST_ARRIVAL, MOST_REQUESTS, PastCall, Purpose};
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

    /// A limit of 3 (one must be held in reserve) to [`MOST_REQUESTS`] calls, and a window from one second to a day.
    pub fn new(requests: u32, window: Duration) -> Result<Self, BadLimit> {
        if requests < 3 {
            return Err(BadLimit::TooFewRequests);
        }
        if requests > MOST_REQUESTS {
            return Err(BadLimit::TooManyRequests);
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

    /// The time from which calls can still be on their way into one window of the upstream's.
    pub(super) const fn span(self) -> Duration {
        self.window.saturating_add(LATEST_ARRIVAL)
    }

    /// Takes out of `past` (oldest first) what no judgement needs any more: what is both older than the span and beyond
    /// the last `requests` calls.
    ///
    /// The replay of what is kept begins with a full bucket, so that in the long run a little more than the rate gets
    /// through. And yet no span can hold too many: a call is refused unless
    /// each of the calls before it, the k-th counted backwards, is at least `k + 1 - burst` intervals old; for k =
    /// `requests` that is more than the span. So whenever a call is allowed, all calls of the span were looked at. For the
    /// same reason the oldest may go where strange histories grow longer than any record.
    pub(super) fn forget_old(self, past: &mut Vec<PastCall>, now: BootInstant) {
        let old = past.partition_point(|call| call.at < now - self.span());
        let beyond = |count: u32| past.len().saturating_sub(count as usize);
        let forgotten = old.min(beyond(self.requests)).max(beyond(MOST_REQUESTS));
        past.drain(..forgotten);
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
        let arriving_late = div_ceil(limit.span(), limit.requests - burst + 1);
        Self { burst, interval: one_in_reserve.max(arriving_late + Duration::from_nanos(1)) }
    }

    /// Replays `past` (oldest first), and says how long after `now` the next call may be made: zero for at once.
    pub(super) fn wait(self, past: &[PastCall], now: BootInstant, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Schedule => Replay::of(self, past, now).wait(now),
            Purpose::Callers => self.wait_for_two(past, now),
        }
    }

    /// How long after `now` another call could be made right after the next one. Without a burst none ever can: then, how
    /// long until the next one could have been made an interval ago.
    fn wait_for_two(self, past: &[PastCall], now: BootInstant) -> Duration {
        if self.burst == 1 {
            let earlier = now - self.interval;
            return Replay::of(self, past, earlier).wait(earlier);
        }
        let mut replay = Replay::of(self, past, now);
        let first = replay.wait(now);
        if first.is_zero() { replay.wait(now) } else { first + self.interval }
    }

    /// As `wait`, but never less than an interval after the call before (two, for callers), for when the past is not known
    /// for sure.
    pub(super) fn wait_without_burst(
        self,
        past: &[PastCall],
        now: BootInstant,
        purpose: Purpose,
    ) -> Duration {
        let distance = match purpose {
            Purpose::Schedule => self.interval,
            Purpose::Callers => self.interval * 2,
        };
        let apart = past.last().map_or(now, |last| last.at + distance);
        self.wait(past, now, purpose).max(apart.saturating_since(now))
    }

    /// A past after which nothing is left at `now`, and the next call is an interval away.
    ///
    /// It stands for any past that kept the pace, whatever that was: what was called before and what may be called after
    /// are together no more than if the past were known. So it takes the place of what is known, instead of adding to it.
    pub(super) fn all_spent(self, now: BootInstant) -> Vec<PastCall> {
        vec![PastCall::assumed(now); self.burst as usize]
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
    use super::{Purpose::*, *};

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
        assert_eq!(pace.wait(&calls(&[0.0, 0.0, 0.0]), at(0.0), Schedule), Duration::ZERO);
        assert_eq!(pace.wait(&calls(&[0.0, 0.0, 0.0, 0.0]), at(1.0), Schedule), Duration::from_secs(5));
        assert_eq!(pace.available(&calls(&[0.0, 0.0, 0.0, 0.0]), at(12.0)), 2);
    }

    #[test]
    fn calls_beyond_the_pace_are_counted_too() {
        let pace = Pace::within(CallLimit::B2BINPAY);
        assert_eq!(pace.wait(&calls(&[0.0; 8]), at(1.0), Schedule), Duration::from_secs(29));
        assert_eq!(pace.available(&calls(&[0.0; 8]), at(1.0)), 0);
    }

    #[test]
    fn without_burst_the_last_call_must_be_an_interval_ago() {
        let pace = Pace::within(CallLimit::B2BINPAY);
        let wait = |past: &[f64], now| pace.wait_without_burst(&calls(past), at(now), Schedule).as_secs();
        assert_eq!(wait(&[], 0.0), 0);
        assert_eq!(wait(&[0.0], 2.0), 4);
        assert_eq!(wait(&[0.0], 6.0), 0);
        assert_eq!(wait(&[0.0; 8], 6.0), 24, "calls beyond the pace count here, too");
    }

    #[test]
    fn callers_leave_one_for_the_schedule() {
        let pace = Pace::within(CallLimit::B2BINPAY);
        let wait = |past: &[f64], now| pace.wait(&calls(past), at(now), Callers).as_secs();
        assert_eq!(wait(&[], 0.0), 0);
        assert_eq!(wait(&[0.0; 2], 0.0), 0, "two are left");
        assert_eq!(wait(&[0.0; 3], 0.0), 6, "one is left");
        assert_eq!(wait(&[0.0; 3], 6.0), 0);
        assert_eq!(wait(&[0.0; 4], 1.0), 11);
        assert_eq!(wait(&[0.0; 8], 1.0), 35);
        let wait = |past: &[f64], now| pace.wait_without_burst(&calls(past), at(now), Callers).as_secs();
        assert_eq!(wait(&[0.0], 2.0), 10);
        assert_eq!(wait(&[0.0], 12.0), 0);
    }

    #[test]
    fn callers_leave_one_for_the_schedule_where_there_is_no_burst_too() {
        let pace = Pace::within(CallLimit::new(3, Duration::from_secs(60)).unwrap());
        assert_eq!(pace, Pace { burst: 1, interval: Duration::from_secs(60) });
        let wait = |past: &[f64], now| pace.wait(&calls(past), at(now), Callers).as_secs();
        assert_eq!(wait(&[], 0.0), 0);
        assert_eq!(wait(&[0.0], 0.0), 120);
        assert_eq!(wait(&[0.0], 70.0), 50);
        assert_eq!(wait(&[0.0], 120.0), 0);
    }

    #[test]
    fn after_all_is_spent_the_next_call_is_an_interval_away() {
        for requests in [3, 15, 100, 1000] {
            let pace = Pace::within(CallLimit::new(requests, Duration::from_secs(60)).unwrap());
            assert_eq!(pace.wait(&pace.all_spent(at(0.0)), at(0.0), Schedule), pace.interval);
        }
    }

    #[test]
    fn only_what_is_both_old_and_beyond_the_limit_is_forgotten() {
        let limit = CallLimit::new(3, Duration::from_secs(60)).unwrap();
        let left = |past: &[f64]| {
            let mut past = calls(past);
            limit.forget_old(&mut past, at(0.0));
            past.len()
        };
        assert_eq!(left(&[-300.0, -200.0, -100.0]), 3, "three are always kept");
        assert_eq!(left(&[-300.0, -200.0, -100.0, -71.4]), 3);
        assert_eq!(left(&[-71.4; 9]), 9, "all of them are in the span");
        assert_eq!(left(&[-72.0; 9]), 3);
        assert_eq!(left(&[0.0; 1200]), 1000, "there is an end to it");
    }
}
