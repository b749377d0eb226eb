//! Telling what may happen ten thousand times a second once a second for each origin, method and reason, with how many it was.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{Event, Record};
use crate::{
    caller::{CallerName, CertifiedName, Peer},
    clock::BootInstant,
    policy::Permission,
};

/// How long one line stands for all of its sort.
const WINDOW: Duration = Duration::from_secs(1);

/// How many sorts of callers have a line of their own in a second, and of everybody else. Those beyond share one for each
/// reason: who can come under any number of names must not fill the memory, or the disk.
const MOST_OF_CALLERS: usize = 1024;
const MOST_OF_OTHERS: usize = 256;

/// What one line stands for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Sort {
    pub(super) event: Event,
    pub(super) origin: Origin,
    pub(super) method: Option<Permission>,
    pub(super) reason: &'static str,
}

/// Who something comes from, as far as lines are counted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Origin {
    Caller(CallerName),
    User(u32),
    Certificate(CertifiedName),
    Address(IpAddr),
    /// All for whom there is no room.
    Others,
}

impl Origin {
    /// The caller, where the policy names one; otherwise what can be told of the peer and is not easily another's.
    pub(super) fn of(caller: Option<&CallerName>, peer: &Peer) -> Self {
        match (caller, peer) {
            (Some(caller), _) => Self::Caller(caller.clone()),
            (None, Peer::Unix { uid, .. }) => Self::User(*uid),
            (None, Peer::Tls { name: Ok(name), .. }) => Self::Certificate(name.clone()),
            (None, Peer::Tls { name: Err(_), address }) => Self::Address(address.ip()),
        }
    }
}

/// What happened of a sort since its last line.
struct Window {
    since: BootInstant,
    /// The first that was kept back, and how many were.
    kept: Option<(Record, u64)>,
}

/// Lets one record of each sort through in each second, and counts the rest. What callers do and what others do are kept
/// apart, so that no flood of strangers takes a caller's line.
#[derive(Default)]
pub(super) struct Bounded {
    of_callers: Windows,
    of_others: Windows,
}

type Windows = Mutex<HashMap<Sort, Window>>;

impl Bounded {
    /// The record to be written, if one is due. It stands for those that were kept back before it, too.
    pub(super) fn take(
        &self,
        mut sort: Sort,
        now: BootInstant,
        record: impl FnOnce() -> Record,
    ) -> Option<Record> {
        let (windows, most) = match sort.origin {
            Origin::Caller(_) => (&self.of_callers, MOST_OF_CALLERS),
            _ => (&self.of_others, MOST_OF_OTHERS),
        };
        // A panic of somebody who held it left nothing half done.
        let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= most && !windows.contains_key(&sort) {
            sort = Sort { origin: Origin::Others, method: None, ..sort };
        }
        let Some(window) = windows.get_mut(&sort) else {
            windows.insert(sort, Window { since: now, kept: None });
            return Some(record());
        };
        if now.saturating_since(window.since) < WINDOW {
            match &mut window.kept {
                Some((_, count)) => *count += 1,
                None => window.kept = Some((record(), 1)),
            }
            return None;
        }
        window.since = now;
        let before = window.kept.take().map_or(0, |(_, count)| count);
        Some(record().count(before + 1))
    }

    /// What was kept back and whose second is over; or all of it, with `early`. Forgets sorts that are quiet.
    pub(super) fn due(&self, now: BootInstant, early: bool) -> Vec<Record> {
        let mut due = Vec::new();
        for windows in [&self.of_callers, &self.of_others] {
            windows.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, window| {
                if !early && now.saturating_since(window.since) < WINDOW {
                    return true;
                }
                window.since = now;
                let Some((record, count)) = window.kept.take() else { return false };
                due.push(record.count(count));
                true
            });
        }
        due
    }
}
