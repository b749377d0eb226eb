//! Telling what may happen ten thousand times a second once a second for each origin, with how many it was.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Record;
use crate::{
    caller::{CallerName, CertifiedName, Peer},
    clock::BootInstant,
};

/// How long one line stands for all of its origin.
const WINDOW: Duration = Duration::from_secs(1);

/// How many origins have a line of their own. Those beyond share one: who can come under any number of names must not fill
/// the memory, or the disk.
const MOST_ORIGINS: usize = 256;

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

/// What an origin did since its last line.
struct Window {
    since: BootInstant,
    /// The first that was kept back, and how many were.
    kept: Option<(Record, u64)>,
}

/// Lets one record of each origin through in each second, and counts the rest.
#[derive(Default)]
pub(super) struct Bounded(Mutex<HashMap<Origin, Window>>);

impl Bounded {
    /// The record to be written, if one is due. It stands for those that were kept back before it, too.
    pub(super) fn take(
        &self,
        origin: Origin,
        now: BootInstant,
        record: impl FnOnce() -> Record,
    ) -> Option<Record> {
        // A panic of somebody who held it left nothing half done.
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let crowded = windows.len() >= MOST_ORIGINS && !windows.contains_key(&origin);
        let origin = if crowded { Origin::Others } else { origin };
        let Some(window) = windows.get_mut(&origin) else {
            windows.insert(origin, Window { since: now, kept: None });
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

    /// What was kept back and whose second is over; or all of it, with `early`. Forgets origins that are quiet.
    pub(super) fn due(&self, now: BootInstant, early: bool) -> Vec<Record> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        windows.retain(|_, window| {
            if !early && now.saturating_since(window.since) < WINDOW {
                return true;
            }
            window.since = now;
            let Some((record, count)) = window.kept.take() else { return false };
            due.push(record.count(count));
            true
        });
        due
    }
}
