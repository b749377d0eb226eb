//! When it has to be asked again who may do what.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Names a state of what is decided: equal while nothing changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ruling(u64);

/// Counts the changes, and wakes those who wait for one.
#[derive(Default)]
pub(super) struct Rulings {
    count: AtomicU64,
    wake: watch::Sender<()>,
}

impl Rulings {
    /// What was decided is in force by now, or this comes too early.
    pub(super) fn changed(&self) {
        // Released: who sees the count sees what it counts.
        self.count.fetch_add(1, Ordering::Release);
        self.wake.send_replace(());
    }

    pub(super) fn latest(&self) -> Ruling {
        Ruling(self.count.load(Ordering::Acquire))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.wake.subscribe()
    }
}
