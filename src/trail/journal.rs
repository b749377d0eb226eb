//! The audit log in the journal.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    audit::{AuditSink, Record, SinkState},
    clock::Clock,
    telemetry,
};

/// Writes to stderr, whatever the log's level and format.
pub struct Journal {
    clock: Arc<dyn Clock>,
    lost: AtomicU64,
    untold: AtomicU64,
}

impl Journal {
    /// One that tells of losses by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, lost: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }

    fn lose(&self, lines: u64) {
        self.untold.fetch_add(lines, Ordering::Relaxed);
    }
}

impl AuditSink for Journal {
    fn write(&self, record: Record) {
        let untold = self.untold.swap(0, Ordering::Relaxed);
        if untold > 0 && !telemetry::say(Record::lost(untold, self.clock.now().wall).line()) {
            self.lose(untold);
        }
        if !telemetry::say(record.line()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.lose(1);
        }
    }

    fn reopen(&self) {}

    /// The last thing that the process does is to flush its log.
    fn flush(&self) {}

    fn state(&self) -> SinkState {
        let stuck = self.untold.load(Ordering::Relaxed) > 0;
        let problem = if stuck { "whoever reads the log is too slow or stands still" } else { "" };
        SinkState {
            destination: "journal".to_owned(),
            lost: self.lost.load(Ordering::Relaxed),
            problem: problem.to_owned(),
        }
    }
}
