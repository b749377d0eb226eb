//! The keeper: the one task that owns the access token and asks the upstream for the next.
//!
//! It gives promise 2 (no dead token is handed out) and promise 3 (nobody waits while the token in hand will do): it
//! publishes a [`TokenSnapshot`] that everybody reads without asking it, renews the token long before it ends, and takes
//! in only those calls that the snapshot can't satisfy ([`TokenKeeper::obtain`]).
//!
//! What it decides is a pure function of its state, an event and the time (`Core`): no clock, no socket, no
//! random source of its own. [`run`] is the task around it, which does only what the core says. Upstream calls run beside
//! it, one at a time, so that it wakes when it should.
//!
//! What it asks can be replaced while it runs ([`TokenKeeper::prove`]): a login proves the new credentials first, and on
//! any failure all stays as it was. The token of that login is held back until it is adopted ([`Proved::adopt`]).
//!
//! Promise 2 is not given for tokens that live less than ten seconds: they end before the budget allows a second try.

mod attempt;
mod core;
mod replacing;
mod snapshot;
mod task;
mod timing;
mod waiting;

pub use replacing::{NotReplaced, Proved, Replaced, Replacement};
pub use snapshot::{HeldToken, KeeperState, LastCall, SnapshotReader, TokenSnapshot};
pub use task::{KeeperSetup, TokenKeeper, run};
pub use timing::{TokenSettings, TooLong};
pub use waiting::{Refusal, RefusalReason, Want};
