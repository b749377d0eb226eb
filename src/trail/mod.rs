//! Where the audit log goes: a file of its own, or the journal, which is stderr between the lines of the log.
//!
//! Who is watched waits for neither: lines pass through a bounded queue to a thread. What a full disk, a dead one or a
//! reader that stands still costs is counted, told in the log when it begins and when it is over, and told in the audit
//! log itself as `audit_lost`, where the lines are missing.

mod file;
mod journal;
#[cfg(test)]
mod tests;

pub use file::{AuditFile, CannotAudit};
pub use journal::Journal;
