//! What may be open, and what of it one caller may take, so that others get theirs: how often it calls, how many calls
//! and connections it has, and how much of large messages.
//!
//! It promises that no process which the policy doesn't know can keep a caller from being let in, since those have a few
//! places of their own; and that no caller takes more than its share of what all callers have. A call costs two additions
//! and a comparison here, no lock and no allocation.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use governor::{
    Quota, RateLimiter,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::{
    caller::CallerName,
    clock::Clock,
    policy::{Denial, Rate, Rule},
};

/// How much may be open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenLimits {
    /// Connections of callers. Beside them, strangers have a sixteenth of that, but at least 4, and operators have 16.
    pub connections: usize,
    /// Connections of one caller.
    pub connections_per_caller: usize,
    /// Calls of one caller that are not answered yet, streams included, over all its connections.
    pub calls_per_caller: usize,
    /// Bytes of the largest message of a request. One caller's large messages may take 32 times as much at once, those of
    /// all callers 128 times.
    pub largest_message: usize,
}

/// A message of so many bytes takes no room: who may have a call open may have one of these with it.
pub const SMALL_MESSAGE: usize = 8 * 1024;

/// How many of the largest messages one caller may have on their way at once.
const MESSAGES_OF_ONE: usize = 32;

/// And all callers together.
const MESSAGES_OF_ALL: usize = 128;

/// Connections beyond those of all callers, for callers with a permission of an operator's: who takes all the others must not
/// keep out those who would lock them out.
const OF_OPERATORS: usize = 16;

impl OpenLimits {
    /// Connections of peers that are no callers.
    fn of_strangers(self) -> usize {
        (self.connections / 16).max(4)
    }
}

/// Why a connection finds no place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoPlace {
    /// All that strangers have are taken.
    #[error("peers that are no callers have taken all connections that such peers get")]
    Strangers,
    /// This caller has as many as it may.
    #[error(
        "caller {name} has {most} connections open, which is all that one caller gets: share one in each process; or have \
         [limits] max_connections_per_caller raised"
    )]
    Caller {
        /// Which.
        name: CallerName,
        /// As many.
        most: usize,
    },
    /// All that callers have are taken.
    #[error(
        "all {most} connections of callers are taken: raise [limits] max_connections, or look for a caller that opens one for \
         each call"
    )]
    Callers {
        /// As many.
        most: usize,
    },
}

/// The place of a connection, until this is dropped.
#[derive(Debug)]
pub struct Place {
    /// Whether its peer is a caller.
    pub of_caller: bool,
    _open: [Open; 2],
}

/// The room of a request's message, until this is dropped.
#[must_use = "it is given back when this is dropped"]
#[derive(Debug)]
pub struct Room {
    _taken: [Open; 2],
}

/// Something that is open, until this is dropped.
#[must_use = "it is closed when this is dropped"]
#[derive(Debug)]
pub struct Open {
    /// `None`: it isn't counted.
    among: Option<Arc<AtomicUsize>>,
    amount: usize,
}

impl Open {
    const UNCOUNTED: Self = Self { among: None, amount: 0 };

    /// One more, unless there are as many.
    fn one_more(open: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        Self::more(open, 1, most)
    }

    /// So much more, unless that is too much.
    fn more(open: &Arc<AtomicUsize>, amount: usize, most: usize) -> Option<Self> {
        // Taken first and looked at then: of two that come at once at most one finds the last place.
        let taken = Self { among: Some(Arc::clone(open)), amount };
        let before = open.fetch_add(amount, Ordering::Relaxed);
        (before.saturating_add(amount) <= most).then_some(taken)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(open) = &self.among {
            open.fetch_sub(self.amount, Ordering::Relaxed);
        }
    }
}

/// The bounds of all callers.
pub(super) struct Bounds {
    callers: ArcSwap<HashMap<CallerName, Arc<CallerBounds>>>,
    limits: ArcSwap<OpenLimits>,
    of_callers: Arc<AtomicUsize>,
    /// Beyond those of callers.
    of_operators: Arc<AtomicUsize>,
    of_strangers: Arc<AtomicUsize>,
    /// Bytes of large messages on their way.
    messages: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
}

struct CallerBounds {
    rate: Option<(Rate, Limiter)>,
    calls: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    /// Bytes of large messages on their way.
    messages: Arc<AtomicUsize>,
}

impl CallerBounds {
    fn has_open(&self) -> bool {
        [&self.calls, &self.connections].iter().any(|open| open.load(Ordering::Relaxed) > 0)
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, BrokerClock, NoOpMiddleware<Duration>>;

/// The broker's clock in governor's words.
#[derive(Clone)]
struct BrokerClock(Arc<dyn Clock>);

impl governor::clock::Clock for BrokerClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.now().boot.as_duration()
    }
}

impl Bounds {
    pub(super) fn of(rules: &[Rule], limits: OpenLimits, clock: Arc<dyn Clock>) -> Self {
        let bounds = Self {
            callers: ArcSwap::default(),
            limits: ArcSwap::from_pointee(limits),
            of_callers: Arc::default(),
            of_operators: Arc::default(),
            of_strangers: Arc::default(),
            messages: Arc::default(),
            clock,
        };
        bounds.follow(rules);
        bounds
    }

    /// Takes other rules over. Who has the same rate as before goes on with what is left of it, and what is open stays
    /// counted: also while no rule names its caller, who may be named again.
    pub(super) fn follow(&self, rules: &[Rule]) {
        let before = self.callers.load();
        let bounds = |rule: &Rule| match before.get(&rule.name) {
            Some(same) if same.rate.as_ref().map(|(rate, _)| *rate) == rule.rate => Arc::clone(same),
            Some(known) => Arc::new(CallerBounds {
                rate: self.limiter(rule.rate),
                calls: Arc::clone(&known.calls),
                connections: Arc::clone(&known.connections),
                messages: Arc::clone(&known.messages),
            }),
            None => Arc::new(CallerBounds {
                rate: self.limiter(rule.rate),
                calls: Arc::default(),
                connections: Arc::default(),
                messages: Arc::default(),
            }),
        };
        let unnamed = before
            .iter()
            .filter(|(_, known)| known.has_open())
            .map(|(name, known)| (name, Arc::clone(known)));
        let mut callers: HashMap<_, _> = unnamed.map(|(name, known)| (name.clone(), known)).collect();
        callers.extend(rules.iter().map(|rule| (rule.name.clone(), bounds(rule))));
        self.callers.store(Arc::new(callers));
    }

    /// Takes other limits over. What is open beyond them stays, and nothing more is opened before there is room.
    pub(super) fn limit(&self, limits: OpenLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// A call of this caller, if it may make one more now.
    pub(super) fn call(&self, caller: &CallerName) -> Result<Open, Denial> {
        let callers = self.callers.load();
        // Who is forgotten was known a moment ago, and is judged again wherever that matters.
        let Some(bounds) = callers.get(caller) else { return Ok(Open::UNCOUNTED) };
        if let Some((rate, limiter)) = &bounds.rate
            && let Err(until) = limiter.check()
        {
            let retry_after = until.wait_time_from(self.clock.now().boot.as_duration());
            return Err(Denial::RateLimited { caller: caller.clone(), rate: *rate, retry_after });
        }
        let most = self.limits.load().calls_per_caller;
        Open::one_more(&bounds.calls, most)
            .ok_or_else(|| Denial::TooManyCalls { caller: caller.clone(), most })
    }

    /// The place of a connection of the caller of this rule, or of somebody who is none.
    pub(super) fn connection(&self, caller: Option<&Rule>) -> Result<Place, NoPlace> {
        let limits = **self.limits.load();
        let Some(Rule { name, allow, .. }) = caller else {
            let open = Open::one_more(&self.of_strangers, limits.of_strangers()).ok_or(NoPlace::Strangers)?;
            return Ok(Place { of_caller: false, _open: [open, Open::UNCOUNTED] });
        };
        let most = limits.connections_per_caller;
        let own = self
            .callers
            .load()
            .get(name)
            .map_or(Some(Open::UNCOUNTED), |bounds| Open::one_more(&bounds.connections, most));
        let own = own.ok_or_else(|| NoPlace::Caller { name: name.clone(), most })?;
        let most = limits.connections;
        let kept = || allow.of_operator().then(|| Open::one_more(&self.of_operators, OF_OPERATORS)).flatten();
        let open = Open::one_more(&self.of_callers, most).or_else(kept).ok_or(NoPlace::Callers { most })?;
        Ok(Place { of_caller: true, _open: [open, own] })
    }

    /// Room for a message of so many bytes that this caller is about to send. A small one needs none.
    pub(super) fn message(&self, caller: &CallerName, bytes: usize) -> Result<Room, Denial> {
        if bytes <= SMALL_MESSAGE {
            return Ok(Room { _taken: [Open::UNCOUNTED, Open::UNCOUNTED] });
        }
        let largest = self.limits.load().largest_message;
        let denied = |most| Denial::TooManyMessages { caller: caller.clone(), most };
        let most = largest.saturating_mul(MESSAGES_OF_ONE);
        let own = self
            .callers
            .load()
            .get(caller)
            .map_or(Some(Open::UNCOUNTED), |bounds| Open::more(&bounds.messages, bytes, most));
        let own = own.ok_or_else(|| denied(Some(most)))?;
        let most = largest.saturating_mul(MESSAGES_OF_ALL);
        let of_all = Open::more(&self.messages, bytes, most).ok_or_else(|| denied(None))?;
        Ok(Room { _taken: [own, of_all] })
    }

    fn limiter(&self, rate: Option<Rate>) -> Option<(Rate, Limiter)> {
        let rate = rate?;
        // A rate has no more calls than its span has nanoseconds, so that there is a quota.
        let quota = Quota::with_period(rate.per / rate.calls.get())?.allow_burst(rate.calls);
        Some((rate, RateLimiter::direct_with_clock(quota, BrokerClock(Arc::clone(&self.clock)))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        clock::{BootInstant, Now},
        policy::{Permission, Permissions, Selector},
    };

    #[derive(Default)]
    struct TestClock(AtomicU64);

    impl Clock for TestClock {
        fn now(&self) -> Now {
            let passed = Duration::from_millis(self.0.load(Ordering::Relaxed));
            Now { boot: BootInstant::since_boot(passed), wall: Timestamp::UNIX_EPOCH }
        }
    }

    fn rule(name: &str, rate: Option<&str>) -> Rule {
        let selector = Selector::UnixUser(1);
        let rate = rate.map(|rate| rate.parse().unwrap());
        Rule { rate, ..Rule::new(name.parse().unwrap(), selector, Permissions::default()) }
    }

    fn limits(calls_per_caller: usize) -> OpenLimits {
        OpenLimits { connections: 3, connections_per_caller: 2, calls_per_caller, largest_message: 10_000 }
    }

    fn bounds(rules: &[Rule], calls: usize) -> (Bounds, Arc<TestClock>) {
        let clock = Arc::new(TestClock::default());
        (Bounds::of(rules, limits(calls), clock.clone()), clock)
    }

    /// How many calls get through at once.
    fn burst(bounds: &Bounds, caller: &str) -> usize {
        (0..1000).filter(|_| bounds.call(&caller.parse().unwrap()).is_ok()).count()
    }

    fn connect(bounds: &Bounds, caller: &CallerName) -> Result<Place, NoPlace> {
        bounds.connection(Some(&rule(caller.as_str(), None)))
    }

    #[test]
    fn a_rate_may_be_spent_at_once_and_comes_back_bit_by_bit() {
        let (bounds, clock) = bounds(&[rule("a", Some("50/s")), rule("b", None)], 10);
        clock.0.fetch_add(1_000_000, Ordering::Relaxed);
        assert_eq!(burst(&bounds, "a"), 50);
        let Err(Denial::RateLimited { retry_after, rate, .. }) = bounds.call(&"a".parse().unwrap()) else {
            panic!("there was one more")
        };
        assert_eq!((retry_after, rate.to_string().as_str()), (Duration::from_millis(20), "50/s"));
        assert_eq!(burst(&bounds, "b"), 1000, "others have their own");
        clock.0.fetch_add(20, Ordering::Relaxed);
        assert_eq!(burst(&bounds, "a"), 1);
        clock.0.fetch_add(500, Ordering::Relaxed);
        assert_eq!(burst(&bounds, "a"), 25);
        clock.0.fetch_add(60_000, Ordering::Relaxed);
        assert_eq!(burst(&bounds, "a"), 50);
    }

    #[test]
    fn the_greatest_rate_and_the_smallest_are_rates() {
        let (bounds, clock) = bounds(&[rule("a", Some("1000000/s")), rule("b", Some("1/h"))], 10);
        assert_eq!((burst(&bounds, "a"), burst(&bounds, "b")), (1000, 1));
        clock.0.fetch_add(3_599_000, Ordering::Relaxed);
        assert_eq!(burst(&bounds, "b"), 0);
        clock.0.fetch_add(1_000, Ordering::Relaxed);
        assert_eq!(burst(&bounds, "b"), 1);
    }

    #[test]
    fn another_policy_gives_nobody_a_fresh_start() {
        let (bounds, _) = bounds(&[rule("a", Some("5/m")), rule("b", Some("5/m"))], 10);
        assert_eq!((burst(&bounds, "a"), burst(&bounds, "b")), (5, 5));
        bounds.follow(&[rule("a", Some("5/m")), rule("b", Some("7/m")), rule("c", Some("1/m"))]);
        assert_eq!(["a", "b", "c"].map(|caller| burst(&bounds, caller)), [0, 7, 1]);
    }

    #[test]
    fn a_call_is_open_until_it_is_dropped_whatever_the_policy_and_the_limit_become() {
        let (bounds, _) = bounds(&[rule("a", None), rule("b", None)], 3);
        let a = "a".parse().unwrap();
        let mut open: Vec<_> = (0..3).map(|_| bounds.call(&a).unwrap()).collect();
        assert!(matches!(bounds.call(&a), Err(Denial::TooManyCalls { most: 3, .. })));
        assert!(bounds.call(&"b".parse().unwrap()).is_ok());
        bounds.follow(&[rule("a", Some("100/s"))]);
        assert!(bounds.call(&a).is_err());
        bounds.limit(limits(4));
        open.push(bounds.call(&a).unwrap());
        assert!(bounds.call(&a).is_err());
        bounds.limit(limits(2));
        open.truncate(2);
        assert!(bounds.call(&a).is_err());
        open.clear();
        let _two = [bounds.call(&a).unwrap(), bounds.call(&a).unwrap()];
        assert!(bounds.call(&a).is_err());
    }

    #[test]
    fn who_is_named_again_has_what_it_has_open() {
        let (bounds, _) = bounds(&[rule("a", None)], 1);
        let a = "a".parse().unwrap();
        let open = (bounds.call(&a).unwrap(), [0; 2].map(|_| connect(&bounds, &a).unwrap()));
        bounds.follow(&[rule("b", None)]);
        bounds.follow(&[rule("a", None)]);
        assert!(bounds.call(&a).is_err() && connect(&bounds, &a).is_err());
        drop(open);
        assert!(bounds.call(&a).is_ok() && connect(&bounds, &a).is_ok());
        // And who has nothing open is forgotten.
        bounds.follow(&[]);
        assert!(bounds.callers.load().is_empty());
    }

    #[test]
    fn a_caller_takes_its_share_of_the_connections_and_strangers_take_none_of_them() {
        let (bounds, _) = bounds(&[rule("a", Some("1/h")), rule("b", None)], 1);
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let strangers: Vec<_> = (0..4).map(|_| bounds.connection(None).unwrap()).collect();
        assert_eq!(bounds.connection(None).unwrap_err(), NoPlace::Strangers);
        let of_a = [connect(&bounds, &a).unwrap(), connect(&bounds, &a).unwrap()];
        assert_eq!(connect(&bounds, &a).unwrap_err(), NoPlace::Caller { name: a.clone(), most: 2 });
        let of_b = connect(&bounds, &b).unwrap();
        assert!(of_b.of_caller && !strangers[0].of_caller);
        assert_eq!(connect(&bounds, &b).unwrap_err(), NoPlace::Callers { most: 3 });
        // Who was refused has taken nothing.
        drop(of_a);
        let of_b = [of_b, connect(&bounds, &b).unwrap()];
        assert!(connect(&bounds, &b).is_err());
        assert!(connect(&bounds, &a).is_ok());
        assert!(bounds.call(&a).is_ok(), "a connection is no call");
        bounds.limit(OpenLimits { connections: 2, ..limits(1) });
        assert_eq!(connect(&bounds, &a).unwrap_err(), NoPlace::Callers { most: 2 });
        drop((of_b, strangers));
        assert!(connect(&bounds, &a).is_ok());
    }

    #[test]
    fn who_takes_all_connections_of_callers_keeps_no_operator_out() {
        let admin = Rule { allow: [Permission::AdminLockdown].into_iter().collect(), ..rule("ops", None) };
        let (bounds, _) = bounds(&[rule("a", None), admin.clone()], 1);
        bounds.limit(OpenLimits { connections_per_caller: 100, ..limits(1) });
        let a = "a".parse().unwrap();
        let mut of_a: Vec<_> = (0..3).map(|_| connect(&bounds, &a).unwrap()).collect();
        assert_eq!(connect(&bounds, &a).unwrap_err(), NoPlace::Callers { most: 3 });
        let kept: Vec<_> = (0..16).map(|_| bounds.connection(Some(&admin)).unwrap()).collect();
        assert!(kept.iter().all(|place| place.of_caller));
        assert_eq!(bounds.connection(Some(&admin)).unwrap_err(), NoPlace::Callers { most: 3 });
        assert!(connect(&bounds, &a).is_err());
        of_a.pop();
        let _shared = bounds.connection(Some(&admin)).unwrap();
        drop(kept);
        assert!(connect(&bounds, &a).is_err(), "what is kept is for operators alone");
    }

    #[test]
    fn large_messages_take_room_of_their_callers_and_of_all_and_small_ones_take_none() {
        let names = ["a", "b", "c", "d", "e"];
        let (bounds, _) = bounds(&names.map(|name| rule(name, None)), 1);
        let large = |name: &str| bounds.message(&name.parse().unwrap(), 10_000);
        let mut rooms: Vec<Vec<_>> =
            names[..4].iter().map(|name| (0..32).map(|_| large(name).unwrap()).collect()).collect();
        let of_one = large("a").unwrap_err();
        assert!(matches!(of_one, Denial::TooManyMessages { most: Some(320_000), .. }), "{of_one}");
        let of_all = large("e").unwrap_err();
        assert!(matches!(of_all, Denial::TooManyMessages { most: None, .. }), "{of_all}");
        let small: Vec<_> =
            (0..1000).map(|_| bounds.message(&"e".parse().unwrap(), SMALL_MESSAGE).unwrap()).collect();
        // Who was refused has taken nothing, and what is given back is there for everybody.
        rooms[1].pop();
        assert!(large("a").is_err());
        let of_e = large("e").unwrap();
        assert!(large("b").is_err());
        drop((of_e, small));
        rooms[1].push(large("b").unwrap());
        assert!(large("e").is_err());
        rooms.clear();
        assert!(large("e").is_ok());
    }
}
