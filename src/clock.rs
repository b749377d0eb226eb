//! The two clocks, and the only place that reads them.
//!
//! Everything that *decides* (a token's end, a budget's window, a backoff) is measured on `CLOCK_BOOTTIME`, which runs
//! on while the machine is suspended and which nobody can set. The wall clock is for showing, and for judging
//! records that come from before a reboot.
//!
//! `std::time::Instant` and tokio's timers run on `CLOCK_MONOTONIC`, which stands still in suspend; [`sleep_until`]
//! makes up for that by sleeping in short steps.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use jiff::Timestamp;

/// The longest that [`sleep_until`] sleeps without looking at the clock, and so the longest by which it oversleeps
/// after a suspend.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// A point on `CLOCK_BOOTTIME`: the time since the machine booted, suspend included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// The point this long after boot.
    pub const fn since_boot(time: Duration) -> Self {
        Self(time)
    }

    /// How long after boot this is.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    /// Stops at the end of time instead of overflowing.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for BootInstant {
    type Output = Self;

    /// Stops at boot instead of underflowing.
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}

impl fmt::Debug for BootInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot+{:?}", self.0)
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For deciding.
    pub boot: BootInstant,
    /// For showing.
    pub wall: Timestamp,
}

impl Now {
    /// What the wall clock showed, or will show, at `instant`, if nobody sets it in between.
    pub fn wall_at(&self, instant: BootInstant) -> Timestamp {
        let shifted = if instant >= self.boot {
            self.wall.checked_add(instant.saturating_since(self.boot))
        } else {
            self.wall.checked_sub(self.boot.saturating_since(instant))
        };
        shifted.unwrap_or(Timestamp::MAX)
    }
}

/// Something that tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The time by both clocks.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> Now {
        // The call fails only for a clock that the kernel does not know; every Linux since 2.6.39 knows this one.
        let boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .unwrap_or_default();
        Now { boot: BootInstant(boot), wall: Timestamp::now() }
    }
}

/// Returns when `clock` has reached `instant`, or up to a second later where the machine was suspended meanwhile.
pub async fn sleep_until(clock: &dyn Clock, instant: BootInstant) {
    loop {
        let left = instant.saturating_since(clock.now().boot);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_STEP)).await;
    }
}
