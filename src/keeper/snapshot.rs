//! What everybody but the keeper sees of the token: read without a lock, judged by the reader's own clock.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    clock::{BootInstant, Now},
    issuer::IssueError,
    token::{AccessToken, TokenId},
};

/// Where the broker stands with the upstream. The words are those of status, health, metrics and logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeeperState {
    /// No first token yet.
    Starting,
    /// All is well.
    Fresh,
    /// Refreshing fails, or the record of call times can't be kept; the token in hand is good.
    Degraded,
    /// No token that could be handed out.
    Expired,
    /// The upstream refuses the credentials. A token in hand is still handed out.
    CredentialsRejected,
    /// The upstream refuses this host's address. A token in hand is still handed out.
    UpstreamForbidden,
    /// Everyone is locked out: there is no token, and none is asked for.
    LockedDown,
}

impl KeeperState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Fresh => "FRESH",
            Self::Degraded => "DEGRADED",
            Self::Expired => "EXPIRED",
            Self::CredentialsRejected => "CREDENTIALS_REJECTED",
            Self::UpstreamForbidden => "UPSTREAM_FORBIDDEN",
            Self::LockedDown => "LOCKED_DOWN",
        }
    }
}

impl fmt::Display for KeeperState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token with all that readers need to hand it out.
#[derive(Debug)]
pub struct HeldToken {
    /// The token.
    pub access: AccessToken,
    /// When it was asked for.
    pub issued_at: BootInstant,
    /// When it ends.
    pub expires_at: BootInstant,
    /// The validity under which it is handed to nobody.
    pub floor: Duration,
    /// When its renewal is due.
    pub renew_at: BootInstant,
    /// How many tokens, up to and with this one, took the place of one that callers had rejected.
    pub replacements: u64,
    /// The generation of the credentials that it was given for: 1 from the start, one more with each replacement.
    pub generation: u64,
}

impl HeldToken {
    /// What it is called in public.
    pub fn id(&self) -> TokenId {
        self.access.id()
    }

    /// The lifetime that the upstream granted.
    pub fn lifetime(&self) -> Duration {
        self.expires_at.saturating_since(self.issued_at)
    }

    /// How long it is still valid.
    pub fn valid_for(&self, now: BootInstant) -> Duration {
        self.expires_at.saturating_since(now)
    }

    /// The last instant at which it may be handed out.
    pub fn handed_out_until(&self) -> BootInstant {
        self.expires_at - self.floor
    }

    /// Whether it may be handed to a caller who needs this much validity.
    pub fn satisfies(&self, min_validity: Duration, now: BootInstant) -> bool {
        self.valid_for(now) >= min_validity.max(self.floor)
    }

    /// Whether anybody may have it.
    pub fn is_good(&self, now: BootInstant) -> bool {
        self.satisfies(Duration::ZERO, now)
    }
}

/// How the last call to the upstream ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastCall {
    /// Its error; `None` if it gave a token.
    pub error: Option<IssueError>,
    /// When it ended.
    pub at: Now,
    /// How long it took.
    pub took: Duration,
}

/// What the keeper knows, as of its last turn.
#[derive(Clone, Debug)]
pub struct TokenSnapshot {
    /// The token in hand. It may have ended since: ask it.
    pub token: Option<Arc<HeldToken>>,
    /// The state at the last turn; [`Self::state`] tells today's.
    pub(super) state: KeeperState,
    /// Since when.
    pub(super) since: Now,
    /// What is wrong, for a person. Empty if nothing is.
    pub(super) reason: String,
    /// The lifetime that was last granted.
    pub last_lifetime: Option<Duration>,
    /// The generation of the credentials in force: 1 from the start, one more with each replacement.
    pub generation: u64,
    /// How the last call to the upstream ended.
    pub last_call: Option<LastCall>,
}

impl TokenSnapshot {
    /// The token, if it may be handed out now to a caller who needs this much validity.
    pub fn token_for(&self, min_validity: Duration, now: BootInstant) -> Option<&Arc<HeldToken>> {
        self.token.as_ref().filter(|token| token.satisfies(min_validity, now))
    }

    /// Whether anybody can be handed a token now.
    pub fn is_ready(&self, now: BootInstant) -> bool {
        self.token_for(Duration::ZERO, now).is_some()
    }

    /// The state now, since when, and why. Right even if the keeper is late: a token ends by itself.
    pub fn state(&self, now: Now) -> (KeeperState, Timestamp, String) {
        let lapsed = self.token.as_ref().filter(|token| !token.is_good(now.boot));
        match (self.state, lapsed) {
            (KeeperState::Fresh | KeeperState::Degraded, Some(token)) => {
                let reason = if self.reason.is_empty() {
                    "the token ended before its renewal".to_owned()
                } else {
                    self.reason.clone()
                };
                (KeeperState::Expired, now.wall_at(token.handed_out_until()), reason)
            }
            (state, _) => (state, self.since.wall, self.reason.clone()),
        }
    }
}

/// The place where the keeper puts its snapshot.
#[derive(Debug)]
struct Place {
    current: ArcSwap<TokenSnapshot>,
    /// Counts the changes, and wakes those who wait for one.
    changes: watch::Sender<u64>,
}

/// The keeper's end of the place.
#[derive(Debug)]
pub(super) struct SnapshotWriter(Arc<Place>);

/// Everybody else's end.
#[derive(Clone, Debug)]
pub struct SnapshotReader(Arc<Place>);

pub(super) fn place(first: TokenSnapshot) -> (SnapshotWriter, SnapshotReader) {
    let place = Arc::new(Place { current: ArcSwap::from_pointee(first), changes: watch::Sender::new(0) });
    (SnapshotWriter(Arc::clone(&place)), SnapshotReader(place))
}

impl SnapshotWriter {
    pub(super) fn publish(&self, snapshot: TokenSnapshot) {
        self.0.current.store(Arc::new(snapshot));
        self.0.changes.send_modify(|count| *count += 1);
    }
}

impl SnapshotReader {
    /// The snapshot, without a lock.
    pub fn current(&self) -> arc_swap::Guard<Arc<TokenSnapshot>> {
        self.0.current.load()
    }

    /// Wakes at each change from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}
