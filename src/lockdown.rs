//! Lockdown: everyone, or one caller, is handed no token any more until an operator says so.
//!
//! These are the words and the rules; who obeys them is `broker` (which refuses) and `keeper` (which forgets its tokens
//! while everyone is locked).

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;

use crate::caller::CallerName;

/// Whom a lock is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Every caller, those of the future included.
    Everyone,
    /// This caller alone.
    Caller(CallerName),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::Caller(name) => write!(f, "caller {name}"),
        }
    }
}

/// Why somebody locked: one line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockReason(String);

impl LockReason {
    /// The longest, in characters.
    pub const LONGEST: usize = 512;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the broker itself says, cut where it is longer than people may be.
    pub fn of_broker(text: &str) -> Self {
        Self(text.chars().filter(|c| !c.is_control()).take(Self::LONGEST).collect())
    }
}

impl fmt::Display for LockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is no reason. It isn't repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must say why, in 1 to {} characters on one line", LockReason::LONGEST)]
pub struct NotAReason;

impl FromStr for LockReason {
    type Err = NotAReason;

    fn from_str(text: &str) -> Result<Self, NotAReason> {
        let text = text.trim();
        let fits = (1..=Self::LONGEST).contains(&text.chars().count());
        if fits && !text.chars().any(char::is_control) { Ok(Self(text.to_owned())) } else { Err(NotAReason) }
    }
}

/// A lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lock {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: LockReason,
    /// Who locked: a caller's name, or what the broker calls itself.
    pub by: String,
}

impl Lock {
    /// What stands in the place of an operator where the broker locks by itself.
    pub const BROKER: &'static str = "the broker itself";
}

/// A lock, and on whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockedOut {
    /// On whom.
    pub scope: Scope,
    /// The lock.
    pub lock: Lock,
}

impl fmt::Display for LockedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, lock: Lock { since, reason, by } } = self;
        let whom = match scope {
            Scope::Everyone => String::new(),
            Scope::Caller(name) => format!(" --caller {name}"),
        };
        write!(
            f,
            "tokens are locked for {scope} since {since:.0}, by {by}: {reason}; ask an operator, who ends it with \
             `b2binpay-broker unlock{whom}`"
        )
    }
}

/// All locks that are in force.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Locks {
    everyone: Option<Lock>,
    callers: BTreeMap<CallerName, Lock>,
}

impl Locks {
    /// Those on everyone and on these callers.
    pub const fn new(everyone: Option<Lock>, callers: BTreeMap<CallerName, Lock>) -> Self {
        Self { everyone, callers }
    }

    /// The lock on everyone.
    pub const fn on_everyone(&self) -> Option<&Lock> {
        self.everyone.as_ref()
    }

    /// The locks on single callers.
    pub const fn on_callers(&self) -> &BTreeMap<CallerName, Lock> {
        &self.callers
    }

    /// The lock that keeps `caller` from tokens: the one on everyone first.
    pub fn on(&self, caller: &CallerName) -> Option<LockedOut> {
        let everyone = self.everyone.as_ref().map(|lock| (Scope::Everyone, lock));
        let alone = || self.callers.get(caller).map(|lock| (Scope::Caller(caller.clone()), lock));
        everyone.or_else(alone).map(|(scope, lock)| LockedOut { scope, lock: lock.clone() })
    }

    /// Whether `caller` is kept from tokens.
    pub fn bar(&self, caller: &CallerName) -> bool {
        self.everyone.is_some() || self.callers.contains_key(caller)
    }

    /// Whether nobody is locked.
    pub fn is_empty(&self) -> bool {
        self.everyone.is_none() && self.callers.is_empty()
    }

    /// The lock on exactly this scope.
    pub fn of_scope(&self, scope: &Scope) -> Option<&Lock> {
        match scope {
            Scope::Everyone => self.everyone.as_ref(),
            Scope::Caller(name) => self.callers.get(name),
        }
    }

    /// These and one more. A lock that is there already stays as it is.
    #[must_use]
    pub fn with(mut self, scope: &Scope, lock: Lock) -> Self {
        match scope {
            Scope::Everyone => {
                self.everyone.get_or_insert(lock);
            }
            Scope::Caller(name) => {
                self.callers.entry(name.clone()).or_insert(lock);
            }
        }
        self
    }

    /// These without the one on exactly this scope.
    #[must_use]
    pub fn without(mut self, scope: &Scope) -> Self {
        match scope {
            Scope::Everyone => self.everyone = None,
            Scope::Caller(name) => {
                self.callers.remove(name);
            }
        }
        self
    }

    /// All, with their scopes; the one on everyone first.
    pub fn all(&self) -> Vec<LockedOut> {
        let everyone = self.everyone.iter().map(|lock| (Scope::Everyone, lock));
        let callers = self.callers.iter().map(|(name, lock)| (Scope::Caller(name.clone()), lock));
        everyone.chain(callers).map(|(scope, lock)| LockedOut { scope, lock: lock.clone() }).collect()
    }
}

/// Locks could not be written down. Says what failed and on which file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotWritten(pub String);

/// Where locks outlive the process.
pub trait LockRecord: Send + Sync + 'static {
    /// Makes `locks` what the next process begins with; it is synced when this returns. Blocks, for as long as the disk
    /// does.
    fn write(&self, locks: &Locks) -> Result<(), NotWritten>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(reason: &str) -> Lock {
        Lock { since: Timestamp::UNIX_EPOCH, reason: reason.parse().unwrap(), by: "ops".into() }
    }

    #[test]
    fn a_reason_is_a_line_that_says_something() {
        assert_eq!("  stolen laptop ".parse::<LockReason>().unwrap().as_str(), "stolen laptop");
        assert!("ä".repeat(512).parse::<LockReason>().is_ok());
        for text in ["", "   ", "a\nb", "a\u{1b}[2Jb", &"ä".repeat(513)] {
            assert_eq!(text.parse::<LockReason>(), Err(NotAReason), "{text:?}");
        }
        assert_eq!(LockReason::of_broker("a\nb").as_str(), "ab");
    }

    #[test]
    fn who_is_locked_is_locked_until_exactly_that_lock_is_lifted() {
        let (a, b): (CallerName, CallerName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let one = Scope::Caller(a.clone());
        let locks = Locks::default().with(&one, lock("first"));
        assert!(locks.bar(&a) && !locks.bar(&b));
        let all = locks.clone().with(&Scope::Everyone, lock("all")).with(&one, lock("second"));
        assert_eq!(all.on(&a).unwrap().lock.reason.as_str(), "all");
        assert_eq!(all.of_scope(&one).unwrap().reason.as_str(), "first", "an earlier lock stays");
        assert!(all.clone().without(&one).bar(&a));
        assert_eq!(all.without(&Scope::Everyone), locks);
        assert!(locks.without(&one).is_empty());
    }

    #[test]
    fn who_is_locked_out_hears_since_when_why_and_what_to_do() {
        let locks = Locks::default().with(&Scope::Caller("a".parse().unwrap()), lock("stolen laptop"));
        assert_eq!(
            locks.on(&"a".parse().unwrap()).unwrap().to_string(),
            "tokens are locked for caller a since 1970-01-01T00:00:00Z, by ops: stolen laptop; ask an operator, who ends \
             it with `b2binpay-broker unlock --caller a`"
        );
    }
}
