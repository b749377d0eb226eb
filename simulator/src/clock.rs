//! Where the simulator's time comes from: the machine, or a test's hand.
//!
//! Two readings, because they answer two questions. The *wall* time dates tokens and callbacks. The *elapsed* time,
//! which never steps, measures the limit's window and the gaps between recorded calls.
//! Delays of faults and of redeliveries are real waits and do not follow a manual clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The clock of one simulator. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { origin: Instant },
    Manual(ManualClock),
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this module is the one that asks the machine")]
    pub fn system() -> Self {
        Self(Source::System { origin: Instant::now() })
    }

    /// The wall time, before the simulated server's own offset is added.
    #[expect(clippy::disallowed_methods, reason = "this module is the one that asks the machine")]
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => Timestamp::now(),
            Source::Manual(manual) => manual.read().wall,
        }
    }

    /// The time since the clock was made. It never goes back, whatever the wall time does.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { origin } => origin.elapsed(),
            Source::Manual(manual) => manual.read().elapsed,
        }
    }
}

impl From<ManualClock> for Clock {
    fn from(manual: ManualClock) -> Self {
        Self(Source::Manual(manual))
    }
}

/// A clock that stands still until it is moved, so that a test can let hours pass at once. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Timestamp,
    elapsed: Duration,
}

impl ManualClock {
    /// A clock that stands at `wall`.
    pub fn new(wall: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Reading { wall, elapsed: Duration::ZERO })))
    }

    /// Lets `by` pass. At the end of representable time the wall stands still.
    pub fn advance(&self, by: Duration) {
        let mut reading = self.lock();
        reading.elapsed = reading.elapsed.saturating_add(by);
        reading.wall = reading.wall.checked_add(by).unwrap_or(Timestamp::MAX);
    }

    /// Steps the wall time to `wall`, as an administrator or a time server would. No time passes.
    pub fn step_wall_to(&self, wall: Timestamp) {
        self.lock().wall = wall;
    }

    fn read(&self) -> Reading {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_its_clones_move_with_it() {
        let manual = ManualClock::new(Timestamp::UNIX_EPOCH);
        let clock = Clock::from(manual.clone());
        manual.advance(Duration::from_secs(90));
        assert_eq!(clock.wall(), Timestamp::from_second(90).unwrap());
        assert_eq!(clock.elapsed(), Duration::from_secs(90));
    }

    #[test]
    fn a_step_of_the_wall_lets_no_time_pass() {
        let manual = ManualClock::new(Timestamp::UNIX_EPOCH);
        manual.step_wall_to(Timestamp::from_second(3600).unwrap());
        assert_eq!(Clock::from(manual).elapsed(), Duration::ZERO);
    }
}
